"""Cameras that fail on command."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from typing import Any, Self

import cv2
import numpy as np

from emotion_edge.cameras.live import Device, Grab, LiveCamera
from emotion_edge.errors import CameraError, FrameTimeout
from emotion_edge.values import Event, Frame, Image


def random_image(seed: int = 0, shape: tuple[int, ...] = (24, 32, 3)) -> Image:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class Events(list[Event]):
    """A listener that remembers."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self]


class FakeCapture:
    """A ``cv2.VideoCapture`` that reads from a list; then every read fails."""

    def __init__(self, reads: Iterable[Any] = (), *, opens: bool = True) -> None:
        self.reads = list(reads)
        self.opens = opens
        self.properties: dict[int, float] = {}
        self.released = False

    def isOpened(self) -> bool:
        return self.opens

    def read(self) -> tuple[bool, Any]:
        if not self.reads:
            return False, None
        item = self.reads.pop(0)
        if isinstance(item, BaseException):
            raise item
        return item if isinstance(item, tuple) else (True, item)

    def get(self, property_id: int, /) -> float:
        return self.properties.get(property_id, 0.0)

    def set(self, property_id: int, value: float, /) -> bool:
        self.properties.setdefault(property_id, value)
        return True

    def release(self) -> None:
        self.released = True


class HandFed(LiveCamera):
    """A live camera whose device gives what ``feed`` puts in.

    ``feed`` returns once the camera's thread has taken everything, so a test needs no sleep.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__("hand-fed", **settings)
        self._queue: queue.Queue[Any] = queue.Queue()
        self.opening = threading.Event()
        self.opening.set()
        self.closing = threading.Event()
        self.closing.set()
        self.refusal: Exception | None = None
        self.closed = threading.Event()
        self._pending = False

    def feed(self, *items: Any) -> None:
        for item in items:
            self._queue.put(item)
        self._queue.join()

    def _open(self) -> Device:
        self.opening.wait()
        if self.refusal is not None:
            raise self.refusal
        return self

    def grab(self) -> Grab | None:
        self._taken()
        while (slot := self._slot) is not None and not slot.closing.is_set():
            try:
                item = self._queue.get(timeout=0.02)
            except queue.Empty:
                continue
            self._pending = True
            if isinstance(item, BaseException):
                raise item
            return item if item is None or isinstance(item, Grab) else Grab(item, 0)
        return None

    def _taken(self) -> None:
        """The item before this moment is in the slot, or was acted upon."""
        if self._pending:
            self._queue.task_done()
            self._pending = False

    def close(self) -> None:
        self._taken()
        self.closing.wait()
        self.closed.set()


class Clock:
    """Time that passes only in ``sleep`` and by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def ns(self) -> int:
        return round(self.now * 1e9)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


class Scripted:
    """A camera that plays a list; a frame takes 0.1 s of the clock.

    Items: an image, None (the end), a CameraError to raise, or ``"silence"``, which never ends.
    ``opening``: an error to raise on entering.
    """

    name = "scripted"

    def __init__(
        self,
        clock: Clock,
        items: Iterable[Any] = (),
        *,
        opening: CameraError | None = None,
        live: bool = True,
    ) -> None:
        self.clock = clock
        self.items = list(items)
        self.opening = opening
        self.live = live
        self.index = 0
        self.closed = 0

    def __enter__(self) -> Self:
        if self.opening is not None:
            raise self.opening
        return self

    def read(self, timeout: float) -> Frame | None:
        item = self.items[0] if self.items else "silence"
        if isinstance(item, str):
            self.clock.now += timeout
            raise FrameTimeout("silence")
        self.clock.now += 0.1
        self.items.pop(0)
        if item is None:
            return None
        if isinstance(item, CameraError):
            raise item
        if isinstance(item, Frame):
            return item
        self.index += 1
        return Frame(item, self.clock.ns(), self.index - 1)

    def __exit__(self, *error: object) -> None:
        self.closed += 1


def damage(path: Any, source: Any, *places: float, length: int = 1500) -> None:
    """A copy of a file with random bytes at some places, each a share of its length."""
    data = bytearray(source.read_bytes())
    rng = np.random.default_rng(0)
    for place in places:
        at = round(place * len(data))
        data[at : at + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    path.write_bytes(data)


def truncate_jpegs(path: Any, source: Any, *, every: int) -> int:
    """A copy of a Motion JPEG AVI in which every n-th frame lost its second half.

    Returns the number of frames damaged. The lengths in the file stay as they were.
    """
    data = bytearray(source.read_bytes())
    start, count, damaged = 0, 0, 0
    while (start := data.find(b"\xff\xd8\xff", start)) >= 0:
        end = data.find(b"\xff\xd9", start) + 2
        count += 1
        if count % every == 0:
            half = (start + end) // 2
            data[half:end] = bytes(end - half)
            damaged += 1
        start = end
    path.write_bytes(data)
    return damaged


def write_video(path: Any, frames: int = 40, fps: float = 20.0, codec: str = "MJPG") -> None:
    """A video whose frames differ and do not compress to nothing."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (96, 64))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(random_image(index, (64, 96, 3)))
    writer.release()
