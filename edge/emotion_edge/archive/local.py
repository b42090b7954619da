"""Processes chunks on the cores of this machine, one process with one interpreter per core."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Self

from emotion_edge.archive.recipe import Result, Work, label
from emotion_edge.archive.run import Chunk, WorkerDied

_AHEAD = 2  # chunks per worker that are handed out: the next one is there when one is finished


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


class Processes:
    """A pool of processes, as a context manager."""

    def __init__(self, work: Work, workers: int) -> None:
        """workers: number of processes."""
        self.workers = workers
        self._work = work
        self._pool = _pool(workers)

    def __enter__(self) -> Self:
        """Nothing more to open: processes start with the first chunks."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the processes, in the middle of a chunk if need be."""
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, list[Result] | None]]:
        """The results of chunks as they finish; None for those of a pool in which a process died.

        At most ``_AHEAD`` chunks per worker are in memory.
        """
        pending: dict[Future[list[Result]], Chunk] = {}
        more = True
        while True:
            while more and len(pending) < _AHEAD * self.workers:
                chunk = next(chunks, None)
                if chunk is None:
                    more = False
                    break
                try:
                    pending[self._pool.submit(label, self._work, chunk[1])] = chunk
                except BrokenProcessPool:
                    yield chunk, None
                    break
            if not pending and not more:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            broken = False
            for future in done:
                chunk = pending.pop(future)
                try:
                    yield chunk, future.result()
                except BrokenProcessPool:
                    broken = True
                    yield chunk, None
            if broken or not done:
                for future, chunk in pending.items():
                    finished = future.done() and future.exception() is None
                    yield chunk, future.result() if finished else None
                pending.clear()
                self._pool.shutdown(wait=True, cancel_futures=True)
                self._pool = _pool(self.workers)

    def alone(self, paths: Sequence[str]) -> list[Result]:
        """The results of images in a process of their own. Raises WorkerDied."""
        with _pool(1) as pool:
            try:
                return pool.submit(label, self._work, list(paths)).result()
            except BrokenProcessPool as error:
                raise WorkerDied from error


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawn: a fork would copy the threads' locks of OpenCV and of the runtime.
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
    )


def _begin() -> None:
    """In a new process: leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Decoders print a line for each odd file; errors come back through the pool.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    end_with_parent()


def end_with_parent() -> None:
    """In a process that ``multiprocessing`` started: end it when its parent ends, even by a kill.

    Without this, a process that waits for work would wait indefinitely.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="parent", daemon=True).start()
