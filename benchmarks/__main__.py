"""``python -m benchmarks``: one module for each command, one place for errors."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from emotion_edge.cli import carry_out

COMMANDS = (
    "latency",
    "pipeline",
    "accuracy",
    "faces",
    "steady",
    "roofline",
    "soak",
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
    commands = parser.add_subparsers(title="benchmarks", required=True, metavar="BENCHMARK")
    named = next((word for word in words if not word.startswith("-")), None)
    for name in COMMANDS:
        # Only the one that runs is imported: `latency` must not need the others' plots and data.
        if named in COMMANDS and name != named:
            continue
        command = importlib.import_module(f"benchmarks.{name}")
        sub = commands.add_parser(name, help=command.HELP, description=command.HELP)
        sub.add_argument("--debug", action="store_true", help="show tracebacks")
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
