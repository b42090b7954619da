"""Opens OpenCV's captures, and keeps their libraries off standard error."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import cv2
import numpy as np

from emotion_edge.cameras.live import Grab
from emotion_edge.values import Image

_environment = threading.Lock()


class Capture(Protocol):
    """What this package uses of ``cv2.VideoCapture``."""

    def isOpened(self) -> bool: ...  # noqa: D102
    def read(self) -> tuple[bool, Any]: ...  # noqa: D102
    def get(self, property_id: int, /) -> float: ...  # noqa: D102
    def set(self, property_id: int, value: float, /) -> bool: ...  # noqa: D102
    def release(self) -> None: ...  # noqa: D102


OpenCapture = Callable[[str, int, Sequence[int]], Capture]
"""Source, OpenCV backend, flat list of property and value -> an opened (or not) capture."""


def quiet() -> None:
    """Keep OpenCV and FFmpeg off standard error: we report once what failed.

    FFmpeg's level is read when the process first opens a video, to read or to write: call this
    before.
    """
    # Newer releases moved the function; 0 is LOG_LEVEL_SILENT in both.
    place: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    place.setLogLevel(0)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def open_capture(source: str, backend: int, parameters: Sequence[int] = ()) -> Capture:
    """A ``cv2.VideoCapture`` whose libraries print nothing."""
    quiet()
    # A stalled V4L2 device would otherwise hold its reader for ten seconds.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "1")
    return cv2.VideoCapture(source, backend, list(parameters))


@contextmanager
def ffmpeg_options(options: str) -> Iterator[None]:
    """FFmpeg's options for the captures opened inside, ``name;value|name;value``.

    OpenCV reads them from the environment only; a value set by the user is kept.
    """
    name = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    with _environment:
        before = os.environ.get(name)
        os.environ.setdefault(name, options)
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(name, None)


def usable(image: object) -> bool:
    """Whether something a driver returned is an image: uint8, gray or BGR, not empty."""
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.size > 0
        and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3))
    )


def in_colours(image: Image, colour: bool) -> Image:
    """Gray ``(h, w)`` if ``colour`` is False; the image itself if nothing has to change."""
    if colour or image.ndim == 2:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


class CaptureDevice:
    """An open capture as a live camera's device."""

    def __init__(self, capture: Capture, colour: bool) -> None:
        """colour: False returns gray images."""
        self.capture = capture
        self._colour = colour

    def grab(self) -> Grab | None:
        """The next image, or None when a read failed."""
        came, image = self.capture.read()
        now = time.monotonic_ns()
        if not came or not usable(image):
            return None
        return Grab(in_colours(image, self._colour), self.captured_ns(now))

    def captured_ns(self, now: int) -> int:
        """When the image was captured, on the monotonic clock; now: when it arrived.

        The instant of arrival, unless the source has a better time.
        """
        return now

    def close(self) -> None:
        """Release the hardware."""
        self.capture.release()
