"""Encodes frames into a video file that still plays when the writing process is killed.

``.mp4``: H.264 by an ``ffmpeg`` with libx264, the system's or imageio-ffmpeg's, else MPEG-4 Part 2
by OpenCV, whose wheels contain no H.264 encoder. Both write fragments: each carries its own
index, so a file that ends in the middle plays up to there. ``.avi``: Motion JPEG by OpenCV.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import cv2

from emotion_edge.errors import SinkError
from emotion_edge.values import Image

_CLOSE_S = 1.2  # for ffmpeg to write what it holds; all outputs together have 1.5 s
_PROBE_S = 10.0


Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"]
"""How much work x264 spends on a smaller file."""


class Encoder(Protocol):
    """An open video file."""

    def write(self, image: Image) -> None:
        """Append one frame, uint8 BGR in the size given at the start. Raises SinkError."""

    def close(self) -> None:
        """Write what is held back, and close the file. Raises SinkError."""


def players(path: Path) -> str:
    """Which codec ``open_encoder`` will choose for a name, and what plays it."""
    if path.suffix.lower() == ".avi":
        return "Motion JPEG: VLC, mpv and ffplay play it, browsers do not"
    if ffmpeg() is not None:
        return "H.264: browsers, VLC and mpv play it"
    return (
        "MPEG-4 Part 2: VLC, mpv and ffplay play it, browsers do not; "
        "for H.264: sudo apt install ffmpeg"
    )


def open_encoder(
    path: Path, fps: float, size: tuple[int, int], preset: Preset = "veryfast"
) -> Encoder:
    """Start a video file, replacing ``path``.

    size: width and height in pixels, both even. preset: of H.264; the other codecs have none.
    Raises SinkError.
    """
    program = ffmpeg() if path.suffix.lower() != ".avi" else None
    return _Ffmpeg(program, path, fps, size, preset) if program else _OpenCV(path, fps, size)


@cache
def ffmpeg() -> str | None:
    """The path of an ffmpeg that can encode H.264, or None.

    The one on PATH comes first, then the one in the package imageio-ffmpeg, which extra [demo] has.
    """
    for program in (shutil.which("ffmpeg"), _bundled()):
        if program is not None and _encodes_h264(program):
            return program
    return None


def _bundled() -> str | None:
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return None
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except RuntimeError:  # a platform without a binary
        return None


def _encodes_h264(program: str) -> bool:
    try:
        listed = subprocess.run(
            [program, "-hide_banner", "-encoders"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_S,
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return b" libx264 " in listed


class _Ffmpeg:
    """Pipes raw frames into an ffmpeg process.

    When this process is killed, ffmpeg reaches the end of its input and completes the file.
    """

    def __init__(
        self, program: str, path: Path, fps: float, size: tuple[int, int], preset: Preset
    ) -> None:
        self._path = path
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        quiet = ["-hide_banner", "-loglevel", "error", "-y"]
        given = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{size[0]}x{size[1]}"]
        given += ["-r", f"{fps:g}", "-i", "-"]
        # A fragment per second of video, handed to the kernel when it is complete.
        fragments = ["-g", str(max(1, round(fps))), "-flush_packets", "1"]
        fragments += ["-movflags", "+frag_keyframe+empty_moov+default_base_moof", "-f", "mp4"]
        codec = ["-an", "-c:v", "libx264", "-preset", preset, "-pix_fmt", "yuv420p"]
        try:
            self._process = subprocess.Popen(
                [program, *quiet, *given, *codec, *fragments, str(path.absolute())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C on the terminal is for us: we close the file
            )
        except OSError as error:
            self._errors.close()
            raise SinkError(f"cannot start {program}: {error.strerror}: check it") from error

    def write(self, image: Image) -> None:
        """Hand one frame to ffmpeg. Raises SinkError when it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(image.tobytes())
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._problem() from error

    def close(self) -> None:
        """End ffmpeg's input and wait for it. Raises SinkError when the file is incomplete."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended: its status says why
            self._process.stdin.close()
        try:
            failed = self._process.wait(_CLOSE_S) != 0
        except subprocess.TimeoutExpired:
            failed = False  # slow; it completes the file after we have left
        if failed and not self._errors.closed:  # else write() has reported it
            raise self._problem()
        self._errors.close()

    def _problem(self) -> SinkError:
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        reason = lines[0] if lines else f"status {self._process.returncode}"
        self._errors.close()
        return SinkError(
            f"ffmpeg ended while recording to {self._path}: {reason}: "
            "check the disk, or record to a name in .avi"
        )


class _OpenCV:
    """OpenCV's own writer: Motion JPEG in .avi, MPEG-4 Part 2 in fragmented .mp4."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        avi = path.suffix.lower() == ".avi"
        # FFmpeg chooses the container by the name, and takes no options through OpenCV. Its
        # Smooth Streaming container (.ismv) is a fragmented MP4; the name matters only at the
        # start.
        opening = path if avi else opening_name(path)
        if not avi:
            _rename(path, opening)
        self._writer = cv2.VideoWriter(
            str(opening),
            cv2.CAP_OPENCV_MJPEG if avi else cv2.CAP_FFMPEG,
            cv2.VideoWriter.fourcc(*("MJPG" if avi else "mp4v")),
            fps,
            size,
        )
        if not avi:
            _rename(opening, path)
        if not self._writer.isOpened():
            raise SinkError(
                f"OpenCV cannot record {size[0]}x{size[1]} at {fps:g} frames per second to {path}: "
                "check the disk, or choose another size"
            )

    def write(self, image: Image) -> None:
        """Append one frame; OpenCV reports no error."""
        self._writer.write(image)

    def close(self) -> None:
        """Close the file; OpenCV reports no error."""
        self._writer.release()


def opening_name(path: Path) -> Path:
    """The name an .mp4 has for the moment in which OpenCV opens it."""
    return path.with_suffix(".ismv")


def _rename(path: Path, to: Path) -> None:
    try:
        if path.exists():
            path.rename(to)
    except OSError as error:
        raise SinkError(
            f"cannot rename {path} to {to}: {error.strerror}: check the folder's permissions"
        ) from error
