"""Labels every image of a job that is still to do, whatever does the work."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from emotion_edge.archive.job import Job
from emotion_edge.archive.recipe import Result, unreadable
from emotion_edge.errors import EmotionEdgeError

Chunk = tuple[int, list[str]]
"""Its number, and the paths of its images."""

_DIED = (
    "the process that read it died, also when it was alone with this image: "
    "it needs too much memory, or a library crashes"
)
_HOPELESS = 16  # images alone that end their process, one after the other, before the run stops


class WorkerDied(Exception):
    """The process that labelled these images ended without an answer."""


class Workers(Protocol):
    """What processes chunks: this machine's cores, or a cluster."""

    workers: int

    def run(self, chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, list[Result] | None]]:
        """The results of chunks as they finish, None where a process died."""

    def alone(self, paths: Sequence[str]) -> list[Result]:
        """The results of images in a process of their own. Raises WorkerDied."""


def carry_out(job: Job, workers: Workers, progress: Progress) -> None:
    """Label what is to do. Raises SinkError, and what opening the pipeline raises."""
    finished = job.finished()
    progress.begin(sum(job.size(number) for number in finished), job.total)
    for (number, paths), results in workers.run(job.to_do(finished)):
        if results is None:
            progress.note("a process died; the images it had are repeated in one of their own")
            results = _split(paths, workers.alone, deque(maxlen=_HOPELESS))
        job.finish(number, results)
        progress.add(len(paths), sum("unreadable" in result for result in results))
    progress.end()


def _split(
    paths: Sequence[str], alone: Callable[[Sequence[str]], list[Result]], last: deque[bool]
) -> list[Result]:
    """Results of images among which may be one that ends its process, found by halving."""
    try:
        results = alone(paths)
        last.append(False)
        return results
    except WorkerDied:
        if len(paths) > 1:
            half = len(paths) // 2
            return [*_split(paths[:half], alone, last), *_split(paths[half:], alone, last)]
    last.append(True)
    if len(last) == _HOPELESS and all(last):
        raise EmotionEdgeError(
            f"{_HOPELESS} processes in a row died, the last one with {paths[0]}: try "
            "emotion-edge image with it, or fewer --workers if memory is short"
        )
    return [unreadable(paths[0], _DIED)]


class Progress:
    """Shows how many images are done, how fast, and how long the rest takes.

    On a terminal one line that is redrawn, else a line every minute.
    """

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        """quiet: show nothing but notes."""
        self._clock = clock
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._every = 0.2 if self._live else 60.0
        self.done = self.total = self.unreadable = self._before = 0
        self._started = self._shown = clock()
        self._recent: deque[tuple[float, int]] = deque()

    def begin(self, done: int, total: int) -> None:
        """done: images of an earlier run."""
        self.done = self._before = done
        self.total = total
        self._started = self._shown = self._clock()
        self._recent = deque([(self._started, done)])

    def add(self, images: int, unreadable: int) -> None:
        """Count the images of a chunk."""
        self.done += images
        self.unreadable += unreadable
        now = self._clock()
        self._recent.append((now, self.done))
        while len(self._recent) > 2 and now - self._recent[0][0] > 60:
            self._recent.popleft()
        if not self._quiet and now - self._shown >= self._every:
            self._shown = now
            self._show(self.line())

    def line(self) -> str:
        """The state in one line."""
        (start, before), (now, done) = self._recent[0], self._recent[-1]
        rate = (done - before) / max(now - start, 1e-9)
        share = self.done / max(1, self.total)
        left = f"{_span((self.total - self.done) / rate)} left" if rate > 0 else "starting"
        bad = f", {self.unreadable:,} unreadable" if self.unreadable else ""
        bar = "█" * int(20 * share)
        return (
            f"{bar:·<20} {share:4.0%}  {self.done:,} of {self.total:,} images{bad}  "
            f"{rate:,.1f} images/s  {left}"
        )

    def note(self, text: str) -> None:
        """Print a line that stays."""
        start = "\r\x1b[K" if self._live else ""
        print(f"{start}emotion-edge: {text}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line."""
        if self._live and not self._quiet:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """Since the start of this run."""
        return self._clock() - self._started

    @property
    def labelled(self) -> int:
        """Images of this run, without those of an earlier one."""
        return self.done - self._before

    def _show(self, text: str) -> None:
        start, end = ("\r\x1b[K", "") if self._live else ("", "\n")
        print(f"{start}{text}", end=end, file=sys.stderr, flush=True)


def _span(seconds: float) -> str:
    """A time in the unit that suits it: ``40 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
