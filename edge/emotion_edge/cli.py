"""``emotion-edge``: finds the command, and turns errors into one line and an exit status."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import importlib
import io
import os
import sys
import threading
from collections.abc import Callable, Sequence

from emotion_edge.errors import EmotionEdgeError, SinkError
from emotion_edge.files import printable
from emotion_edge.version import __version__

COMMANDS = (
    "demo",
    "run",
    "image",
    "label",
    "info",
    "doctor",
    "detectors",
    "bench",
    "status",
    "site-check",
    "config",
    "update",
    "receipt",
    "sign",
    "web",
)
"""Each is a module of ``emotion_edge.commands`` with ``HELP``, ``add_arguments`` and ``run``."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    arguments: None for this process's own; the process then ends with this status even if a
        thread is left.
    0: done. 1: a check failed. 2: bad input. 3: the camera. 4: an output. 130: interrupted.
    """
    statuses: list[int] = []
    if arguments is None:
        _open_closed_streams()
        atexit.register(_leave, statuses)  # registered first, called last
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A file name or label that the terminal's encoding lacks is not worth a traceback.
            sys.stdout.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(words)
    options = parser.parse_args(words)
    status = carry_out("emotion-edge", lambda: options.run(options), debug=options.debug)
    statuses.append(status)
    return status


def _open_closed_streams() -> None:
    """Point standard streams that are closed (``>&-``) at /dev/null.

    A file opened later would otherwise get their number, and receive what is printed.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _leave(statuses: list[int]) -> None:
    """End the process here if a thread is left in a driver that hangs or is slow.

    Before Python 3.14 a thread that returns from C++ while the interpreter shuts down is unwound,
    and C++ then aborts the process.
    """
    if statuses and any(thread.daemon for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(statuses[0])


def carry_out(program: str, command: Callable[[], int], *, debug: bool) -> int:
    """Run a command and return its exit status; an EmotionEdgeError becomes one line.

    program: what the line begins with. debug: raise the error, with its traceback.
    """
    try:
        status = command()
        sys.stdout.flush()
        return status
    except EmotionEdgeError as error:
        if debug:
            raise
        print(f"{program}: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (| head).
        _discard_output()
        return 0
    except OSError as error:
        # Files report their own errors; without a file name it is standard output.
        if debug or error.filename is not None or error.errno not in _NO_SPACE:
            raise
        _discard_output()
        print(
            f"{program}: cannot write to standard output: {error.strerror}: "
            "redirect it to another place",
            file=sys.stderr,
        )
        return SinkError.exit_code


def _discard_output() -> None:
    """Point standard output at /dev/null, so that flushing it at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    """Add a program's commands: modules with ``HELP``, ``add_arguments`` and ``run``.

    If one of them is among the words, only that one is imported, which saves time at the start.
    """
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    named = next((word for word in words if not word.startswith("-")), None)
    for name in [name for name in names if name == named] or names:
        command = importlib.import_module(f"{package}.{name.replace('-', '_')}")
        sub = commands.add_parser(name, help=command.HELP, description=command.HELP)
        sub.add_argument("--debug", action="store_true", help="show tracebacks")
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
