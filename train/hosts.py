"""Joins the hosts of one training run (JAX): ``--host INDEX/COUNT@ADDRESS:PORT``.

Every host runs the same command with its own index. The address is that of host 0, which also
writes the run's folder; the others write nothing. Each host needs the data, not the folder.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import tempfile
from dataclasses import dataclass
from typing import IO, Any, NoReturn

from emotion_edge.errors import UsageError
from train.errors import TrainingError

_LOST_AFTER_S = 30  # without a sign of life; a lost connection is noticed immediately


_FATAL = (b"JAX distributed service", b"coordination service", b"stopped sending heartbeats")
"""What JAX logs before it aborts the process because a host is lost."""


@dataclass(frozen=True, slots=True)
class Host:
    """One of the hosts of a run. address: of host 0, with a free port."""

    index: int = 0
    count: int = 1
    address: str = ""

    @property
    def is_first(self) -> bool:
        """Whether this host writes the run's folder."""
        return self.index == 0


ALONE = Host()


def parse_host(text: str) -> Host:
    """``0/2@10.0.0.1:8476``: host 0 of 2, of which the first is at 10.0.0.1. Raises UsageError."""
    found = re.fullmatch(r"(\d+)/(\d+)@(\S+:\d+)", text)
    if not found or not int(found[1]) < int(found[2]):
        raise UsageError(
            f"--host {text!r}: give INDEX/COUNT@ADDRESS:PORT with an index from 0 to COUNT - 1, "
            "e.g. 0/2@10.0.0.1:8476 on the first of two hosts"
        )
    return Host(int(found[1]), int(found[2]), found[3])


class _Log:
    """The native messages of this process, from :meth:`start` to :meth:`stop`, in a file.

    JAX aborts the process from a thread of its own when a host is lost outside a step, and logs a
    dump before that. Python's own handlers never run then, so this one is called by the C library.
    It prints one line for a lost host, and for anything else what was logged.
    """

    def __init__(self) -> None:
        self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._aborted)
        self._file: IO[bytes] | None = None
        self._terminal: IO[str] | None = None
        self._before: IO[str] | None = None

    def start(self) -> None:
        """Separate Python's standard error from that of native code."""
        sys.stderr.flush()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open until the process ends
        self._terminal = os.fdopen(os.dup(2), "w", buffering=1)
        self._before, sys.stderr = sys.stderr, self._terminal
        os.dup2(self._file.fileno(), 2)
        self._signal(self._handler)

    def stop(self) -> None:
        """Join the two again."""
        if self._terminal is None or self._file is None or self._before is None:
            return
        self._signal(None)
        os.dup2(self._terminal.fileno(), 2)
        sys.stderr = self._before
        self._terminal.close()
        self._file.close()
        self._terminal = self._file = self._before = None

    @staticmethod
    def _signal(handler: Any) -> None:
        set_handler = ctypes.CDLL(None).signal
        set_handler.argtypes, set_handler.restype = [ctypes.c_int, ctypes.c_void_p], None
        set_handler(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))

    def _aborted(self, _: int) -> None:
        assert self._file is not None and self._terminal is not None
        logged = os.pread(self._file.fileno(), 1 << 20, 0)
        if any(text in logged for text in _FATAL):
            end(
                TrainingError(
                    "lost another host: start all hosts again to continue after the last finished "
                    "epoch"
                ),
                TrainingError.exit_code,
            )
        os.write(self._terminal.fileno(), logged)  # abort() now ends the process


_log = _Log()


def join(host: Host, *, debug: bool = False) -> None:
    """Connect to the other hosts; waits for them up to five minutes. Raises UsageError.

    Before any other use of JAX, which then sees the devices of all hosts. Until :func:`part`, the
    messages of native code are hidden, except with ``debug``.
    """
    if host.count == 1:
        return
    import keras

    if keras.backend.backend() != "jax":
        raise UsageError(
            f"--host needs the JAX backend, and this is {keras.backend.backend()}: "
            "set KERAS_BACKEND=jax"
        )
    import jax

    if not debug:
        _log.start()
    try:
        jax.distributed.initialize(
            host.address,
            num_processes=host.count,
            process_id=host.index,
            heartbeat_timeout_seconds=_LOST_AFTER_S,
        )
    except RuntimeError as error:
        _log.stop()
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"host {host.index} cannot join {host.address} ({reason}): start all {host.count} "
            "hosts, and check the address and the firewall"
        ) from error


def part(host: Host) -> None:
    """Leave the others once the training is done; what follows is local."""
    if host.count > 1:
        import jax

        jax.distributed.shutdown()
        _log.stop()


def end(error: Exception, status: int) -> NoReturn:
    """Print an error and end the process without waiting for hosts that are lost."""
    print(f"train: {error}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)
