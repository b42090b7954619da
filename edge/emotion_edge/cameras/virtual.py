"""A camera that draws its frames: no hardware, no thread, the same frames every time."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

from emotion_edge.errors import CameraError, FrameTimeout
from emotion_edge.values import Frame, Image


class VirtualCamera(ABC):
    """Frame ``i`` depends on ``i`` and the settings alone.

    Paced, it is a live camera: frame ``i`` is due ``i / fps`` seconds after opening, and one read
    late returns the newest, skipping the others. Unpaced, every frame is ready immediately, and
    ``captured_ns`` advances by ``1 / fps`` as if time had passed.
    """

    def __init__(
        self,
        name: str,
        *,
        fps: float,
        frames: int | None = None,
        paced: bool = True,
        stop: threading.Event | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """Nothing is opened yet.

        frames: where the source ends; None never ends.
        clock: nanoseconds; sleep: takes seconds. Tests replace both.
        """
        self.name = name
        self.live = paced
        self.fps = fps
        self._interval_ns = 1e9 / fps
        self._frames = frames
        self._stop = stop or threading.Event()
        self._clock = clock
        self._sleep = sleep or self._stop.wait
        self._start_ns: int | None = None
        self._next = 0

    @abstractmethod
    def _prepare(self) -> None:
        """Make what every frame needs."""

    @abstractmethod
    def image_at(self, index: int) -> Image:
        """Frame ``index``; entering the camera comes first."""

    def __enter__(self) -> Self:
        """Open."""
        self._prepare()
        self._start_ns = self._clock()
        self._next = 0
        return self

    def read(self, timeout: float) -> Frame | None:
        """The next frame (paced: the newest), or None at the end or once ``stop`` is set.

        Raises FrameTimeout when it is due in more than ``timeout`` seconds.
        """
        if self._start_ns is None:
            raise CameraError(f"{self.name} is not open: use it in a with statement")
        index = self._next
        if self.live:
            index = max(index, int((self._clock() - self._start_ns) / self._interval_ns))
            if self._frames is not None:
                index = min(index, max(self._next, self._frames - 1))
        if self._stop.is_set() or (self._frames is not None and index >= self._frames):
            return None
        due = self._start_ns + round(index * self._interval_ns)
        if self.live and (wait := (due - self._clock()) / 1e9) > 0:
            self._sleep(min(wait, timeout))
            if self._stop.is_set():
                return None
            if wait > timeout:
                raise FrameTimeout(f"{self.name} has no frame due within {timeout:g} s")
        self._next = index + 1
        if self.live:
            return Frame(self.image_at(index), due, index)
        return Frame(self.image_at(index), due, index, self.name, index / self.fps)

    def __exit__(self, *error: object) -> None:
        """Close."""
        self._start_ns = None
