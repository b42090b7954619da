"""Runs the converter in a process of its own, so that a crash inside TensorFlow is reported.

TensorFlow's converter and LiteRT are native code. Some networks make them end the process with a
segmentation fault, which Python cannot catch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_STEP_FILE = "EMOTION_EDGE_CONVERT_STEP"


def isolated() -> bool:
    """Whether this process is the inner one."""
    return _STEP_FILE in os.environ


def entering(step: str) -> None:
    """Record the step about to run; it is named if the process crashes in it."""
    path = os.environ.get(_STEP_FILE)
    if path:
        Path(path).write_text(step)


def run(command: Sequence[str]) -> tuple[int, str]:
    """Run a command; returns its exit status and a line about a crash, empty if there was none."""
    with tempfile.TemporaryDirectory() as folder:
        step = Path(folder, "step")
        try:
            process = subprocess.Popen(command, env={**os.environ, _STEP_FILE: str(step)})
            # Without this the inner process would outlive this one.
            before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            try:
                while True:
                    try:
                        status = process.wait()
                        break
                    except KeyboardInterrupt:  # the terminal interrupts the inner process too
                        continue
            finally:
                signal.signal(signal.SIGTERM, before)
        except OSError as error:
            return 2, f"cannot start {command[0]}: {error.strerror}"
        if status >= 0:
            return status, ""
        where = step.read_text() if step.is_file() else "starting"
    number = -status
    if number in (signal.SIGINT, signal.SIGTERM):
        return 128 + number, ""
    name = signal.strsignal(number) or f"signal {number}"
    if number == signal.SIGKILL:
        return 2, f"the process was killed while {where}, probably for lack of memory: free some"
    return 2, (
        f"TensorFlow crashed ({name.lower()}) while {where}; nothing was written. Try another "
        "--variant, such as float16, and report it with the model"
    )


def command_line(words: Sequence[str]) -> list[str]:
    """The command that runs the converter with these arguments."""
    return [sys.executable, "-m", "convert", *words]
