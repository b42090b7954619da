"""``python -m benchmarks``: one module for each command, one place for errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from emotion_edge.cli import add_commands, carry_out

COMMANDS = (
    "latency",
    "pipeline",
    "accuracy",
    "faces",
    "steady",
    "talking",
    "roofline",
    "estimate",
    "soak",
    "fleet",
    "web",
    "peers",
    "compare",
    "record",
    "board",
)
"""Each is a module of ``benchmarks`` with ``HELP``, ``add_arguments`` and ``run``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark and return its exit status.

    0: done. 1: a limit was passed or a figure changed. 2: bad input. 130: interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(words)
    options = parser.parse_args(words)
    return carry_out("benchmarks", lambda: options.run(options), debug=options.debug)


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add_commands(parser, "benchmarks", COMMANDS, words)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
