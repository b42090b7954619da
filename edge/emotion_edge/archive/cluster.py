"""Processes chunks on a Ray cluster (extra ``[ray]``).

Each chunk is a Ray task: Ray places it where a core is free, and repeats it elsewhere when its
process or its machine is lost. The images must have the same paths on every machine, and
emotion-edge the same version. The results come back to this machine, which alone writes.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

from emotion_edge.archive.recipe import Result, Work, label
from emotion_edge.archive.run import Chunk, WorkerDied
from emotion_edge.errors import EmotionEdgeError, MissingExtra, UsageError
from emotion_edge.version import __version__

AUTO = "auto"
_AHEAD = 2  # chunks per core that are handed out
_RETRIES = 3  # of a task whose process or machine died
_WAIT_S = 10.0
_ANSWER_S = 5.0  # Ray itself tries for minutes
_ALONE_S = 300.0  # without a single core in the cluster before the run stops


class Cluster:
    """A connection to a Ray cluster, as a context manager."""

    def __init__(self, work: Work, address: str = AUTO) -> None:
        """address: ``auto`` for the cluster that this machine is part of, or ``HOST:PORT``."""
        self._work = work
        self._address = address
        self._ray: Any = None
        self._label: Any = None

    def __enter__(self) -> Self:
        """Connect. Raises MissingExtra, or UsageError when there is no such cluster."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise MissingExtra("a Ray cluster", "ray", "ray") from error
        _require_answer(self._address)
        try:
            ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, OSError, ValueError, RuntimeError) as error:
            raise _unreachable(self._address, error) from error
        self._ray = ray
        self._label = ray.remote(num_cpus=1, max_retries=_RETRIES)(label)
        return self

    def __exit__(self, *error: object) -> None:
        """Disconnect; tasks of this run are cancelled by Ray."""
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None

    @property
    def workers(self) -> int:
        """Cores of the cluster at this moment, which machines may join and leave; 1 at least."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 0)))

    def run(self, chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, list[Result] | None]]:
        """The results of chunks as they finish; None where a task's process died repeatedly."""
        pending: dict[Any, Chunk] = {}
        more = True
        seen = time.monotonic()
        while more or pending:
            while more and len(pending) < _AHEAD * self.workers:
                chunk = next(chunks, None)
                if chunk is None:
                    more = False
                    break
                pending[self._label.remote(self._work, chunk[1])] = chunk
            done, _ = self._ray.wait(list(pending), timeout=_WAIT_S) if pending else ([], [])
            if done or self._ray.cluster_resources().get("CPU", 0):
                seen = time.monotonic()
            elif time.monotonic() - seen > _ALONE_S:
                raise EmotionEdgeError(
                    f"the Ray cluster has had no machine with a core for {_ALONE_S:.0f} s: "
                    "add one and repeat the command to continue"
                )
            for reference in done:
                chunk = pending.pop(reference)
                try:
                    results = self._get(reference)
                except WorkerDied:
                    yield chunk, None
                else:
                    yield chunk, results

    def alone(self, paths: Sequence[str]) -> list[Result]:
        """The results of images in a task of their own. Raises WorkerDied."""
        task = self._label.options(max_retries=0)
        return self._get(task.remote(self._work, list(paths)))

    def _get(self, reference: Any) -> list[Result]:
        errors = self._ray.exceptions
        try:
            results: list[Result] = self._ray.get(reference)
        except errors.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, EmotionEdgeError):
                raise cause from None
            if isinstance(cause, ImportError):
                raise EmotionEdgeError(
                    f"a machine of the cluster cannot label ({cause}): install emotion-edge "
                    f"{__version__} on each of them"
                ) from error
            raise
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        ) as error:
            raise WorkerDied from error
        return results


def _require_answer(address: str) -> None:
    """Raises UsageError when nothing listens at a ``HOST:PORT``."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> UsageError:
    reason = str(error).partition("\n")[0]
    return UsageError(
        f"cannot reach the Ray cluster {address!r} ({reason}): start one with "
        "`ray start --head`, or give its HOST:PORT"
    )
