"""Runs work in a separate process and exchanges requests and answers with it: both ends.

A :class:`Process` starts Python, from another environment if necessary, on this file, which makes
the ``Session`` of a script and passes requests to it. Requests and answers are JSON, one per
line::

    {"do": "open", "model": PATH}      calls session.open({...}), which returns the answer
    {"do": "memory"}                   works for every session: memory_mb()

If a method raises, the answer is ``{"error": TEXT}``. Only the standard library is imported: the
other environment may have nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

_MEMORY = {"rss": "VmRSS", "peak": "VmHWM"}


class Process:
    """The near end, as a context manager; the process lives as long as the block."""

    def __init__(
        self,
        name: str,
        script: Path,
        *,
        failure: Callable[[str], Exception],
        python: str = sys.executable,
    ) -> None:
        """name: for messages. script: defines ``Session``. failure: makes the error to raise."""
        self._name = name
        self._script = script
        self._failure = failure
        self._python = python

    def __enter__(self) -> Self:
        """Start the process; it waits for requests."""
        self._files = ExitStack()
        self._errors = self._files.enter_context(tempfile.TemporaryFile("w+"))
        self._process = subprocess.Popen(
            # -P: the script's folder holds modules named like the standard library's may be.
            [self._python, "-P", str(Path(__file__)), str(self._script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        return self

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request. Raises the failure when it is an error or does not come."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
            raise self._failure(f"{self._name}: its process ended ({last})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise self._failure(f"{self._name}: {answer['error']}")
        return answer

    def __exit__(self, *error: object) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._files.close()


def memory_mb() -> dict[str, float]:
    """Resident memory of this process in MB (10^6 bytes): ``rss`` now and ``peak`` since exec.

    From ``/proc``: ``ru_maxrss`` would start from the parent's.
    """
    fields = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        fields[key] = value
    kilobytes = {name: int(fields[key].split()[0]) for name, key in _MEMORY.items()}
    return {name: round(value * 1024 / 1e6, 2) for name, value in kilobytes.items()}


def main(script: str) -> None:
    """The other end: answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime or a peer prints is not an answer
    spec = importlib.util.spec_from_file_location(Path(script).stem, script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    session = module.Session()
    answer: Any
    for line in sys.stdin:
        request = json.loads(line)
        try:
            memory = request["do"] == "memory"
            answer = memory_mb() if memory else getattr(session, request["do"])(request)
        except Exception as error:
            answer = {"error": str(error) or repr(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
