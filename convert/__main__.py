"""``python -m convert``: convert and check a model, explain a loss, inspect a file.

Exit status: 0 done; 2 bad input; 5 the gate failed; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from convert import isolation
from emotion_edge.cli import add_commands, carry_out
from train.arguments import run_command

COMMANDS = ("run", "explain", "inspect", "attach", "cards")
"""Each is a module of ``convert.commands`` with ``HELP``, ``add_arguments`` and ``run``."""

CRASHING = ("run", "explain")
"""Commands that run TensorFlow's converter, which may crash the process."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] not in COMMANDS and not words[0].startswith("-"):
        words.insert(0, "run")
    options = _parser(words).parse_args(words)
    if arguments is None and words[:1] and words[0] in CRASHING and not isolation.isolated():
        status, crash = isolation.run(isolation.command_line(words))
        if crash:
            print(f"convert: {crash}", file=sys.stderr)
        return status
    return carry_out("convert", lambda: run_command("convert", options), debug=options.debug)


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description="Converts a float Keras classifier to a .tflite file and checks what was lost. "
        "`python -m convert MODEL` means `python -m convert run MODEL`.",
    )
    add_commands(parser, "convert.commands", COMMANDS, words)
    return parser


if __name__ == "__main__":
    sys.exit(main())
