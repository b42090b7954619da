"""``python -m train``: report on data, train, export, evaluate, compare.

Exit status: 0 done; 2 bad input or a run that cannot continue; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from emotion_edge.cli import add_commands, carry_out
from train.arguments import run_command

COMMANDS = ("fit", "sweep", "export", "soften", "evaluate", "compare", "data", "augment")
"""Each is a module of ``train.commands`` with ``HELP``, ``add_arguments`` and ``run``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser(words).parse_args(words)
    return carry_out("train", lambda: run_command("train", options), debug=options.debug)


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train", description="Look at data, train, export, evaluate, compare."
    )
    add_commands(parser, "train.commands", COMMANDS, words)
    return parser


if __name__ == "__main__":
    sys.exit(main())
