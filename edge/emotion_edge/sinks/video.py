"""An annotated video: the one sink that stores what the camera saw."""

from __future__ import annotations

import shutil
import time
from typing import Self

import cv2

from emotion_edge.annotate import annotate
from emotion_edge.errors import OutputExists, SinkError
from emotion_edge.sinks import Sink
from emotion_edge.sinks.settings import VideoSettings
from emotion_edge.values import Event, Image, Observation

_FPS = 15.0  # where the source does not say
_GAP_NS = 2_000_000_000  # longer silences are cut, not filled with a still picture
_LOOK_S = 1.0  # between two looks at the free space


class VideoSink(Sink):
    """``.mp4`` (MPEG-4) or ``.avi`` (Motion JPEG) with boxes and labels.

    The file carries its name once it is complete; until then ``.NAME.recording.SUFFIX`` beside it
    grows. A Motion JPEG cut by a loss of power still plays; an MPEG-4 does not.
    """

    name = "video"
    pictures = True
    announcement = ""

    def __init__(self, settings: VideoSettings, *, fps: float = 0.0, paced: bool = True) -> None:
        """fps: the source's, 0 where unknown.

        paced: place pictures by their time of capture, so that the video runs at life's speed
        whatever the frame rate; else one after the other, for a source that is a file.
        """
        path = self._path = settings.path
        self.name = f"video {path}"
        self.announcement = f"RECORDING: the camera's picture is stored in {path}"
        self._part = path.with_name(f".{path.stem}.recording{path.suffix}")
        self._overwrite = settings.overwrite
        self._fps = settings.fps or fps or _FPS
        self._paced = paced
        self._reserve = settings.reserve_mb * 1e6
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._frames = 0  # in the file
        self._start_ns = 0
        self._last_ns = 0
        self._looked = float("-inf")  # monotonic seconds
        self._ended = ""

    def __enter__(self) -> Self:
        """Check the place; the file begins with the first picture.

        Raises OutputExists, or SinkError when the folder is absent or the disk full.
        """
        if self._path.exists() and not self._overwrite:
            raise OutputExists(self._path)
        self._check_space()
        return self

    def write(self, observation: Observation) -> None:
        """Add one picture, as often as its time asks for. Raises SinkError."""
        if self._ended:
            raise SinkError(self._ended)
        times = self._times(observation.frame.captured_ns)
        if times <= 0:
            return
        self._check_space()
        picture = annotate(observation.frame.image, observation.faces)
        if self._writer is None:
            self._writer = self._open(picture)
        picture = _fit(picture, self._size)
        for _ in range(times):
            self._writer.write(picture)
        self._frames += times
        self._last_ns = observation.frame.captured_ns

    def event(self, event: Event) -> None:
        """Nothing: events have no picture."""

    def __exit__(self, *error: object) -> None:
        """Complete the file and give it its name. Raises SinkError."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.release()
        try:
            self._part.replace(self._path)
        except OSError as problem:
            raise SinkError(
                f"cannot name the video {self._path}: {problem.strerror}: it lies in {self._part}"
            ) from problem

    def _times(self, now_ns: int) -> int:
        """How often this picture is written."""
        if not self._paced:
            return 1
        if not self._frames or not 0 <= now_ns - self._last_ns <= _GAP_NS:
            self._start_ns = now_ns - round(self._frames / self._fps * 1e9)
        due = int((now_ns - self._start_ns) / 1e9 * self._fps + 1e-6) + 1
        return due - self._frames

    def _open(self, picture: Image) -> cv2.VideoWriter:
        height, width = picture.shape[:2]
        self._size = (width + width % 2, height + height % 2)  # 4:2:0 colour wants even sides
        avi = self._path.suffix.lower() == ".avi"
        # OpenCV writes Motion JPEG itself, everything else through its FFmpeg.
        backend = cv2.CAP_OPENCV_MJPEG if avi else cv2.CAP_FFMPEG
        code = cv2.VideoWriter.fourcc(*("MJPG" if avi else "mp4v"))
        writer = cv2.VideoWriter(str(self._part), backend, code, self._fps, self._size)
        if not writer.isOpened():
            advice = "try a name in .avi" if not avi else "try a name in .mp4"
            raise SinkError(
                f"OpenCV cannot record {self._size[0]}x{self._size[1]} pictures to {self._part}: "
                f"check the folder, or {advice}"
            )
        return writer

    def _check_space(self) -> None:
        """OpenCV's writer tells nobody that the disk is full, so it must not get there."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        folder = self._path.parent
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise SinkError(
                f"cannot record to {self._path}: {error.strerror}: give a folder that exists"
            ) from error
        if free >= self._reserve:
            return
        self._ended = (
            f"the recording to {self._path} ended: {free / 1e6:.0f} MB are free in {folder}, "
            f"fewer than the {self._reserve / 1e6:.0f} MB kept: free some space"
        )
        self.__exit__(None, None, None)
        raise SinkError(self._ended)


def _fit(picture: Image, size: tuple[int, int]) -> Image:
    """To the video's size: an odd side gets its last pixel twice, another size is scaled."""
    height, width = picture.shape[:2]
    right, below = size[0] - width, size[1] - height
    if right == below == 0:
        return picture
    if right in (0, 1) and below in (0, 1):
        return cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE)  # type: ignore[return-value]
    return cv2.resize(picture, size)  # type: ignore[return-value]
