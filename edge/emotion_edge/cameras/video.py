"""A video file: every frame, in order."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Self

import cv2

from emotion_edge.cameras.capture import Capture, OpenCapture, in_colours, open_capture, usable
from emotion_edge.cameras.events import Listener, report
from emotion_edge.errors import CameraError, CameraNotFound
from emotion_edge.values import Frame

FALLBACK_FPS = 25.0


class VideoFile:
    """Every frame of a file; never skips one.

    ``captured_ns`` advances by the file's own frame times from the instant of opening, whether
    paced or not, so that what depends on seconds (the tracker) sees the file's seconds.

    truncated: set once the file ended well before the number of frames it announced.
    """

    live = False

    def __init__(
        self,
        path: str | Path,
        *,
        colour: bool = True,
        paced: bool = False,
        on_event: Listener | None = None,
        stop: threading.Event | None = None,
        capture: OpenCapture = open_capture,
    ) -> None:
        """Nothing is opened yet.

        paced: give each frame no earlier than its time in the file.
        """
        self.name = str(path)
        self.fps = FALLBACK_FPS
        self.truncated = False
        self._colour = colour
        self._paced = paced
        self._on_event = on_event
        self._stop = stop or threading.Event()
        self._open = capture
        self._capture: Capture | None = None
        self._ended = False

    def __enter__(self) -> Self:
        """Open. Raises CameraNotFound or CameraError."""
        if not Path(self.name).is_file():
            raise CameraNotFound(f"there is no video {self.name}: check the path")
        capture = self._open(self.name, cv2.CAP_FFMPEG, ())
        if not capture.isOpened():
            capture.release()
            size = Path(self.name).stat().st_size
            raise CameraError(
                f"{self.name} is no video that FFmpeg can read ({size} bytes), or was cut off "
                "before its index: record or copy it again"
            )
        self._capture = capture
        self._ended = self.truncated = False
        self._index = 0
        self._announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else FALLBACK_FPS
        self._start_ns = self._due_ns = time.monotonic_ns()
        return self

    def read(self, timeout: float) -> Frame | None:
        """The next frame, or None at the end or once ``stop`` is set.

        A paced file waits for the frame's own time, whatever ``timeout`` is.
        Raises CameraError when not even the first frame can be decoded.
        """
        capture = self._capture
        if capture is None:
            raise CameraError(f"{self.name} is not open: use it in a with statement")
        if self._ended or self._stop.is_set():
            return None
        came, image = capture.read()
        if not came or not usable(image):
            self._ended = True
            self._check_end()
            return None
        self._due_ns = self._time_of_frame(capture)
        if self._paced and (wait := (self._due_ns - time.monotonic_ns()) / 1e9) > 0:
            self._stop.wait(wait)
        frame = Frame(in_colours(image, self._colour), self._due_ns, self._index)
        self._index += 1
        return frame

    def _time_of_frame(self, capture: Capture) -> int:
        position_ns = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        if self._index == 0:
            self._first_position_ns = position_ns
            return self._start_ns
        due = self._start_ns + position_ns - self._first_position_ns
        # A container without timestamps reports the same position again and again.
        return due if due > self._due_ns else self._due_ns + round(1e9 / self.fps)

    def _check_end(self) -> None:
        if self._index == 0:
            raise CameraError(
                f"{self.name} opens as a video and no frame of it can be decoded: "
                "it is damaged, or its codec is unknown to this OpenCV"
            )
        missing = self._announced - self._index
        # Containers that keep no count have it estimated from the duration: a few frames off.
        if missing > max(2.0, 0.02 * self._announced):
            self.truncated = True
            report(
                self._on_event,
                "camera.truncated",
                f"{self.name} is cut off: {self._index} of {self._announced:.0f} frames could "
                "be read and are kept",
                read=self._index,
                announced=int(self._announced),
            )

    def __exit__(self, *error: object) -> None:
        """Close; safe to call twice, and after a failed open."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
