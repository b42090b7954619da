"""An image, or a folder of images."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import cv2

from emotion_edge.cameras import CameraRequest, CameraSettings
from emotion_edge.cameras.capture import in_colours
from emotion_edge.cameras.events import Listener, report
from emotion_edge.errors import CameraError, CameraNotFound, ImageError
from emotion_edge.files import IMAGE_SUFFIXES, is_image_name
from emotion_edge.model.preprocessing import read_image
from emotion_edge.settings import REQUIRED, key
from emotion_edge.values import Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotosSettings(CameraSettings):
    """Which images."""

    usage: ClassVar[str] = "a photo or a folder of photos"
    help: ClassVar[str] = "every image once, in the order of their names"
    positional: ClassVar[str] = "path"
    stream: ClassVar[bool] = False

    path: Path = key(REQUIRED, "the file or the folder; `camera.source` sets it.")

    @classmethod
    def matches(cls, spec: str) -> bool:
        """A folder, or a file that is an image; an animated GIF is a video."""
        path = Path(spec)
        if path.suffix.lower() == ".gif" and frame_count(path) > 1:
            return False
        return path.is_dir() or (path.is_file() and is_photo(path))

    def open(self, request: CameraRequest) -> Photos:
        """Nothing is read yet."""
        return Photos(
            self.path,
            fps=request.fps,
            colour=request.colour,
            paced=request.paced is True,
            on_event=request.on_event,
            stop=request.stop,
        )


class Photos:
    """Every image once, by name, with ``photo-9`` before ``photo-10``.

    ``Frame.index`` counts the files, and ``Frame.source`` is the file.
    A damaged file of a folder is reported and left out.
    """

    live = False

    def __init__(
        self,
        path: str | Path,
        *,
        fps: float | None = None,
        colour: bool = True,
        paced: bool = False,
        on_event: Listener | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Nothing is read yet.

        fps: images per second, 1 unless given: how far ``captured_ns`` advances from one to
            the next.
        paced: return them at that rate rather than immediately.
        """
        self.name = str(path)
        self.paths: list[Path] = []
        self.fps = fps or 1.0
        self._colour = colour
        self._paced = paced
        self._on_event = on_event
        self._stop = stop or threading.Event()
        self._start_ns: int | None = None

    def __enter__(self) -> Self:
        """List the files. Raises CameraNotFound when there are none."""
        path = Path(self.name)
        if path.is_dir():
            self.paths = photos_in(path)
        elif path.is_file():
            self.paths = [path]
        else:
            raise CameraNotFound(f"there is no image or folder {path}: check the path")
        self._start_ns = time.monotonic_ns()
        self._next = self._readable = 0
        return self

    def read(self, timeout: float) -> Frame | None:
        """The next image, or None after the last or once ``stop`` is set.

        Raises ImageError when the only file given is not an image, or none of the folder's is.
        """
        if self._start_ns is None:
            raise CameraError(f"{self.name} is not open: use it in a with statement")
        while self._next < len(self.paths) and not self._stop.is_set():
            index = self._next
            self._next += 1
            try:
                image = in_colours(read_image(self.paths[index]), self._colour)
            except ImageError as error:
                if self._readable == 0 and self._next == len(self.paths):
                    raise
                report(self._on_event, "camera.skipped", str(error), path=str(self.paths[index]))
                continue
            self._readable += 1
            due = self._start_ns + round(index * 1e9 / self.fps)
            if self._paced and (wait := (due - time.monotonic_ns()) / 1e9) > 0:
                self._stop.wait(wait)
            return Frame(image, due, index, str(self.paths[index]), 0.0)
        return None

    def __exit__(self, *error: object) -> None:
        """Close."""
        self._start_ns = None


def photos_in(folder: Path) -> list[Path]:
    """The images of a folder by name, with ``photo-9`` before ``photo-10``.

    Raises CameraNotFound when it has none, CameraError when it cannot be read.
    """
    try:
        found = [p for p in folder.iterdir() if is_image_name(p) and p.is_file()]
    except OSError as error:
        raise CameraError(
            f"cannot read the folder {folder} ({error.strerror}): check its permissions"
        ) from error
    if not found:
        raise CameraNotFound(
            f"the folder {folder} has no images in it: put {', '.join(IMAGE_SUFFIXES)} files there"
        )
    return sorted(found, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key: digits by value, letters without case."""
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def frame_count(path: Path) -> int:
    """How many frames an image file has: more than one for an animated GIF or WebP."""
    if path.suffix.lower() not in (".gif", ".webp") or not path.is_file():
        return 1
    try:
        return int(cv2.imcount(str(path)))
    except cv2.error:  # damaged: reading it reports that
        return 1


def is_photo(path: Path) -> bool:
    """Whether a file is an image by its name, or by its first bytes."""
    return is_image_name(path) or bool(cv2.haveImageReader(str(path)))
