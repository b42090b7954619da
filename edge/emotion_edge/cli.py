"""``emotion-edge``: one line for each command, one place for errors."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Callable, Sequence

from emotion_edge import __version__
from emotion_edge.errors import EmotionEdgeError

COMMANDS = ("run", "image", "info", "doctor", "detectors", "bench", "status", "web")
"""Each is a module of ``emotion_edge.commands`` with ``HELP``, ``add_arguments`` and ``run``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    arguments: None for this process's own, which then ends with this status whatever is left.
    0: done. 1: a check failed. 2: bad input. 3: the camera. 4: an output. 130: interrupted.
    """
    statuses: list[int] = []
    if arguments is None:
        atexit.register(_leave, statuses)  # the first to be registered is the last to be called
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(words)
    options = parser.parse_args(words)
    status = carry_out("emotion-edge", lambda: options.run(options), debug=options.debug)
    statuses.append(status)
    return status


def _leave(statuses: list[int]) -> None:
    """End the process here when a thread was left behind, in a driver that hangs or is slow.

    Before Python 3.14 a thread that comes back from C++ while the interpreter shuts down is
    unwound, and C++ answers by aborting the process.
    """
    if statuses and any(thread.daemon for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(statuses[0])


def carry_out(program: str, command: Callable[[], int], *, debug: bool) -> int:
    """Run a command and return its exit status; an error of ours becomes one line.

    program: what the line begins with. debug: let the error through, with its traceback.
    """
    try:
        status = command()
        sys.stdout.flush()
        return status
    except EmotionEdgeError as error:
        if debug:
            raise
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output left (| head): Python's own complaint at exit would be noise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emotion-edge", description="Facial expression recognition for small devices."
    )
    parser.add_argument("--version", action="version", version=f"emotion-edge {__version__}")
    add_commands(parser, "emotion_edge.commands", COMMANDS, words)
    return parser


def add_commands(
    parser: argparse.ArgumentParser, package: str, names: Sequence[str], words: Sequence[str]
) -> None:
    """Give a program its commands: modules with ``HELP``, ``add_arguments`` and ``run``.

    Only the one among the words is imported, where one is: it must not pay for the others.
    """
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    named = next((word for word in words if not word.startswith("-")), None)
    for name in [name for name in names if name == named] or names:
        command = importlib.import_module(f"{package}.{name}")
        sub = commands.add_parser(name, help=command.HELP, description=command.HELP)
        sub.add_argument("--debug", action="store_true", help="show tracebacks")
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
