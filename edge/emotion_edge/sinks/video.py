"""Records an annotated video: the only output that stores frames."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import ClassVar, Self

import cv2

from emotion_edge.annotate import annotate
from emotion_edge.errors import OutputExists, SinkError, UsageError
from emotion_edge.settings import REQUIRED, key
from emotion_edge.sinks import Content, Kept, Run, Sink, SinkSettings
from emotion_edge.sinks.encoding import Encoder, Preset, open_encoder, opening_name, players
from emotion_edge.values import Event, Image, Observation

_FPS = 15.0  # where the source does not say
_GAP_NS = 2_000_000_000  # longer silences are cut, not filled with a still frame
_SPACE_CHECK_S = 1.0  # between two checks of the free space
_LEAST_RESERVE_MB = 5.0  # more than a second of video, so that a full disk is noticed before


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSettings(SinkSettings):
    """A video with boxes and labels: camera frames are stored."""

    help: ClassVar[str] = "STORE the camera's frames, annotated, in an .mp4 or .avi file"
    metavar: ClassVar[str] = "FILE"
    positional: ClassVar[str] = "path"
    pixels: ClassVar[bool] = True

    path: Path = key(
        REQUIRED,
        "`.mp4` (H.264 where ffmpeg is installed, else MPEG-4 Part 2) or `.avi` (Motion JPEG, "
        "larger). After a power cut, all of them play up to the cut.",
    )
    overwrite: bool = key(False, "replace an existing file.")
    fps: float = key(
        0.0, "frames per second of the file; 0 takes the source's, or 15.", ge=0, le=1000
    )
    preset: Preset = key(
        "veryfast",
        "x264's effort for a smaller H.264 file; `ultrafast` takes less than half the processor "
        "time of `veryfast`, and three times the space.",
    )
    reserve_mb: float = key(
        100.0,
        "megabytes to keep free on the disk, at least 5; the recording ends when less is left.",
        ge=0,
        le=1e9,
    )

    def receipt(self, content: Content) -> list[Kept]:
        """Frames, for as long as the file exists."""
        what = f"{content.frames} and labels, as a video"
        where = str(self.path.absolute())
        return [Kept(what, where, "until someone deletes the file", images=True)]

    @property
    def file(self) -> Path | None:
        """The complete video."""
        return self.path

    def check(self) -> None:
        """The suffix chooses the format."""
        if self.path.suffix.lower() not in (".mp4", ".avi"):
            raise UsageError(f"cannot record to {self.path}: give a name that ends in .mp4 or .avi")

    def open(self, run: Run) -> VideoSink:
        """Nothing is opened yet."""
        return VideoSink(self, fps=run.fps, paced=run.live)


class VideoSink(Sink):
    """``.mp4`` or ``.avi`` with boxes and labels (``encoding.py`` describes the codecs).

    While it grows, the file is called ``NAME.recording.SUFFIX``; it gets its own name when it is
    complete. A recording cut off by ``kill -9`` or a power cut plays up to the cut. The next run
    renames it to ``NAME.interrupted-1.SUFFIX`` and reports it; it never replaces it.
    """

    name = "video"
    announcement = ""

    def __init__(self, settings: VideoSettings, *, fps: float = 0.0, paced: bool = True) -> None:
        """fps: the source's, 0 where unknown.

        paced: place frames by their time of capture, so that the video runs at real speed
        whatever the frame rate; otherwise write each frame once, for a source that is a file.
        """
        path = self._path = settings.path
        self.name = f"video {path}"
        self._part = path.with_name(f"{path.stem}.recording{path.suffix}")
        self._overwrite = settings.overwrite
        self._fps = settings.fps or fps or _FPS
        self._paced = paced
        self._preset = settings.preset
        self._reserve = max(settings.reserve_mb, _LEAST_RESERVE_MB) * 1e6
        self._lock = -1  # file descriptor of the part file
        self._encoder: Encoder | None = None
        self._size = (0, 0)
        self._frames = 0  # in the file
        self._start_ns = 0
        self._last_ns = 0
        self._checked = float("-inf")  # monotonic seconds
        self._ended = ""

    def __enter__(self) -> Self:
        """Create the file; its header comes with the first frame.

        Raises OutputExists, or SinkError when the folder is absent or not writable, the disk full,
        or another process records to the same file.
        """
        if self._path.exists() and not self._overwrite:
            raise OutputExists(self._path)
        self._check_space()
        try:
            kept = [self._keep(each) for each in (self._part, opening_name(self._part))]
            self._lock = _create(self._part)
        except OSError as error:
            raise SinkError(
                f"cannot record to {self._path}: {error.strerror}: "
                "check the folder and its permissions"
            ) from error
        self.announcement = " ".join(
            [f"RECORDING: camera frames are stored in {self._path} ({players(self._path)}).", *kept]
        ).strip()
        return self

    def write(self, observation: Observation) -> None:
        """Add one frame, as often as its capture time requires. Raises SinkError."""
        if self._ended:
            raise SinkError(self._ended)
        times = self._times(observation.frame.captured_ns)
        if times <= 0:
            return
        self._check_space()
        image = annotate(observation.frame.image, observation.faces)
        if self._encoder is None:
            self._encoder = self._open(image)
        image = _fit(image, self._size)
        try:
            for _ in range(times):
                self._encoder.write(image)
        except SinkError as error:
            # What is on the disk plays; the encoder cannot continue it.
            self._ended = str(error)
            self._finish()
            raise
        self._frames += times
        self._last_ns = observation.frame.captured_ns

    def event(self, event: Event) -> None:
        """Ignore it: an event has no frame."""

    def __exit__(self, *error: object) -> None:
        """Complete the file and give it its name. Raises SinkError."""
        self._finish()

    def _finish(self) -> None:
        encoder, self._encoder = self._encoder, None
        lock, self._lock = self._lock, -1
        if lock < 0:
            return
        try:
            if encoder is not None:
                encoder.close()
        finally:
            try:
                if os.fstat(lock).st_size:
                    self._part.replace(self._path)
                else:
                    self._part.unlink(missing_ok=True)
            except OSError as problem:
                raise SinkError(
                    f"cannot rename the recording to {self._path}: {problem.strerror}: "
                    f"it is in {self._part}"
                ) from problem
            finally:
                os.close(lock)

    def _keep(self, left: Path) -> str:
        """Give the recording that an earlier run left behind a lasting name, and describe it."""
        if not left.exists():
            return ""
        descriptor = os.open(left, os.O_RDWR | os.O_CLOEXEC)
        try:
            _lock(descriptor, self._path)
            size = os.fstat(descriptor).st_size
            if not size:
                left.unlink()
                return ""
            path = self._path
            names = (path.with_name(f"{path.stem}.interrupted-{n}{path.suffix}") for n in count(1))
            kept = next(name for name in names if not name.exists())
            left.rename(kept)
        finally:
            os.close(descriptor)
        return (
            f"An earlier recording was cut off: it is kept as {kept} "
            f"({_content(kept)}, {size / 1e6:.1f} MB)."
        )

    def _times(self, now_ns: int) -> int:
        """How often this frame is written."""
        if not self._paced:
            return 1
        if not self._frames or not 0 <= now_ns - self._last_ns <= _GAP_NS:
            self._start_ns = now_ns - round(self._frames / self._fps * 1e9)
        due = int((now_ns - self._start_ns) / 1e9 * self._fps + 1e-6) + 1
        return due - self._frames

    def _open(self, image: Image) -> Encoder:
        height, width = image.shape[:2]
        self._size = (width + width % 2, height + height % 2)  # 4:2:0 colour needs even sides
        return open_encoder(self._part, self._fps, self._size, self._preset)

    def _check_space(self) -> None:
        """End the recording before the disk is full: OpenCV reports no failed write."""
        now = time.monotonic()
        if now - self._checked < _SPACE_CHECK_S:
            return
        self._checked = now
        folder = self._path.parent
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise SinkError(
                f"cannot record to {self._path}: {error.strerror}: use a folder that exists"
            ) from error
        if free >= self._reserve:
            return
        self._ended = (
            f"the recording to {self._path} ended: {folder} has {free / 1e6:.0f} MB free, less "
            f"than the {self._reserve / 1e6:.0f} MB that stay free (reserve_mb): free some space"
        )
        self._finish()
        raise SinkError(self._ended)


def _create(path: Path) -> int:
    """Create an empty file and lock it; returns its descriptor. Raises OSError, SinkError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SinkError(
            f"another process is recording to {path}: stop it or choose another name"
        ) from None


def _content(path: Path) -> str:
    """What an interrupted recording holds, and what plays it."""
    with path.open("rb") as file:
        head = file.read(1_000_000)
    if b"moof" not in head and b"00dc" not in head:  # an MP4's fragment, an AVI's frame
        return "cut before the first frames reached the disk"
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        frames, fps = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
    finally:
        video.release()
    if frames <= 0:
        frames = _avi_frames(path)
    played = "VLC, mpv and ffplay play it up to the cut"
    if not (frames > 0 and fps > 0):
        return played
    minutes, seconds = divmod(round(frames / fps), 60)
    return f"about {minutes}:{seconds:02}, {played}"


def _avi_frames(path: Path) -> int:
    """How many whole frames an AVI has; its header states that only when it is complete."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        place = file.read(1_000_000).find(b"movi") + 4
        frames = 0
        while True:
            file.seek(place)
            name, length = file.read(4), int.from_bytes(file.read(4), "little")
            place += 8 + length + length % 2  # chunks begin at even places
            if name != b"00dc" or place > size:
                return frames
            frames += 1


def _fit(image: Image, size: tuple[int, int]) -> Image:
    """To the video's size: an odd side gets its last pixel twice, another size is scaled."""
    height, width = image.shape[:2]
    right, below = size[0] - width, size[1] - height
    if right == below == 0:
        return image
    if right in (0, 1) and below in (0, 1):
        return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)  # type: ignore[return-value]
    return cv2.resize(image, size)  # type: ignore[return-value]
