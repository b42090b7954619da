"""A video file: every frame, in order."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import cv2

from emotion_edge.cameras import CameraRequest, CameraSettings
from emotion_edge.cameras.capture import Capture, OpenCapture, in_colours, open_capture, usable
from emotion_edge.cameras.damage import DamagedFrames, ReadPackets, read_packets
from emotion_edge.cameras.events import Listener, report
from emotion_edge.errors import CameraError, CameraNotFound
from emotion_edge.settings import REQUIRED, key
from emotion_edge.values import Frame, Image

FALLBACK_FPS = 25.0
_MORE_READS = 100
"""Failed reads in a row after which a file that has announced no further frame is at its end."""
_MOST_READS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFileSettings(CameraSettings):
    """Which video."""

    usage: ClassVar[str] = "a video"
    help: ClassVar[str] = "every frame of a video file"
    positional: ClassVar[str] = "path"

    path: Path = key(REQUIRED, "the file; `camera.source` sets it.")

    @classmethod
    def matches(cls, spec: str) -> bool:
        """Anything that exists and is not an image."""
        return Path(spec).exists()

    def open(self, request: CameraRequest) -> VideoFile:
        """Nothing is opened yet."""
        return VideoFile(
            self.path,
            colour=request.colour,
            paced=request.paced is True,
            on_event=request.on_event,
            stop=request.stop,
        )


class VideoFile:
    """Every frame of a file, in order.

    ``captured_ns`` advances by the file's own frame times from the instant of opening, whether
    paced or not, so that what depends on seconds (the tracker) uses the file's seconds.

    Damaged frames are left out, and reading continues after them: each run of them is an event
    ``camera.damaged`` and leaves a gap in ``Frame.index``. Motion JPEG frames are checked byte by
    byte (``damage.py``); with other codecs a frame is damaged when FFmpeg refuses it.

    damaged: frames left out so far. truncated: whether the file ended well before the number of
    frames it announced; the event is ``camera.truncated``.
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
        packets: ReadPackets = read_packets,
    ) -> None:
        """Nothing is opened yet.

        paced: return each frame no earlier than its time in the file.
        """
        self.name = str(path)
        self.fps = FALLBACK_FPS
        self.damaged = 0
        self.truncated = False
        self._colour = colour
        self._paced = paced
        self._on_event = on_event
        self._stop = stop or threading.Event()
        self._open = capture
        self._packets = packets
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
                f"{self.name} is not a video that FFmpeg can read ({size:,} bytes), or it was cut "
                "off before its index: record or copy it again"
            )
        self._capture = capture
        self._faults = DamagedFrames(self._packets(self.name))
        self._ended = self.truncated = False
        self._index = self.damaged = self._run = self._gaps = 0
        self._announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else FALLBACK_FPS
        self._start_ns = self._due_ns = time.monotonic_ns()
        self._position_ms: float | None = None
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
        image = self._next_good(capture)
        if image is None:
            if not self._stop.is_set():
                self._ended = True
                self._check_end()
            return None
        if self._paced and (wait := (self._due_ns - time.monotonic_ns()) / 1e9) > 0:
            self._stop.wait(wait)
        seconds = (self._due_ns - self._start_ns) / 1e9
        frame = Frame(
            in_colours(image, self._colour), self._due_ns, self._index, self.name, seconds
        )
        self._index += 1
        return frame

    def _next_good(self, capture: Capture) -> Image | None:
        """The next undamaged image; None at the end or once ``stop`` is set."""
        failed, why = 0, ""
        # FFmpeg refuses one damaged frame per read, and reports the end in the same way.
        left = self._announced - self._index
        limit = min(_MOST_READS, max(0.0, left) + _MORE_READS)
        while failed <= limit and not self._stop.is_set():
            came, image = capture.read()
            if not came or not usable(image):
                failed += 1
                continue
            self._advance(capture, failed)
            # Failed reads count once a frame follows them: the end of the file fails as well.
            self._index += failed
            self._run += failed
            failed = 0
            wrong = self._faults.at(self._position_ms or 0.0)
            if not wrong:
                self._report_run(why)
                found: Image = image
                return found
            why = wrong
            self._index += 1
            self._run += 1
        self._report_run(why)
        return None

    def _advance(self, capture: Capture, failed: int) -> None:
        """Take the time of the frame just read; failed: frames lost before it."""
        position_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
        if self._position_ms is None:
            self._first_ms = position_ms
            due = self._start_ns
        else:
            due = self._start_ns + round((position_ms - self._first_ms) * 1e6)
            if due <= self._due_ns:
                # A container without timestamps reports the same position again and again.
                due = self._due_ns + round((1 + failed) * 1e9 / self.fps)
        steps = round((due - self._due_ns) * self.fps / 1e9)
        self._gaps += max(0, steps - 1 - failed)
        self._position_ms = position_ms
        self._due_ns = due

    def _report_run(self, why: str) -> None:
        """Report the run of damaged frames that ends before frame ``_index``."""
        count, self._run = self._run, 0
        if not count:
            return
        self.damaged += count
        first, last = self._index - count, self._index - 1
        which = f"frame {first} is" if count == 1 else f"frames {first} to {last} are"
        report(
            self._on_event,
            "camera.damaged",
            f"{self.name}: {which} {why or 'damaged'} and left out",
            first=first,
            frames=count,
            reason=why or "undecodable",
        )

    def _check_end(self) -> None:
        if self._position_ms is None or self._index == self.damaged:
            raise CameraError(
                f"{self.name} opens as a video and no frame of it can be decoded: "
                "it is damaged, or this OpenCV does not have its codec"
            )
        missing = round(self._announced - self._index)
        # Containers without a count have it estimated from the duration: a few frames off.
        tolerance = max(2.0, 0.02 * self._announced)
        seconds = (self._due_ns - self._start_ns) / 1e9
        to_the_end = seconds >= (self._announced - 1 - tolerance) / self.fps
        if missing > 0 and to_the_end and (missing == self._gaps or missing > tolerance):
            # The last frame is there: the missing ones were lost before it.
            self.damaged += missing
            report(
                self._on_event,
                "camera.damaged",
                f"{self.name}: {missing} of {self._announced:.0f} frames are damaged and left out",
                frames=missing,
                reason="lost",
            )
        if missing <= tolerance or to_the_end:
            return
        self.truncated = True
        report(
            self._on_event,
            "camera.truncated",
            f"{self.name} is cut off: {self._index - self.damaged} of {self._announced:.0f} "
            "frames could be read; copy or record it again",
            read=self._index - self.damaged,
            announced=int(self._announced),
        )

    def __exit__(self, *error: object) -> None:
        """Close; safe to call twice, and after a failed open."""
        if self._capture is not None:
            self._capture.release()
            self._faults.close()
            self._capture = None
