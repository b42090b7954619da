"""The detector that comes with OpenCV: a cascade of Haar features (Viola and Jones, CVPR 2001)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from emotion_edge.detectors import DetectorSettings
from emotion_edge.detectors.geometry import Extent, distinct, inside, overlap, reduce
from emotion_edge.detectors.scheduled import ScheduledDetector
from emotion_edge.detectors.stills import StillDetector
from emotion_edge.errors import DetectorError
from emotion_edge.values import Box, Image

_CASCADE = "haarcascade_frontalface_alt2.xml"
_DEBIAN = Path("/usr/share/opencv4/haarcascades")  # package opencv-data; apt's cv2 has no cv2.data
_SECOND = "haarcascade_frontalface_default.xml"
_EYES = "haarcascade_eye.xml"
_EYES_WIDTH = 80  # pixels across the eyes' half of a face, when an eye is looked for
_SURE = 10  # hits that agree on a face whose eyes need not be found
_WINDOW = 72  # pixels across a face that a cascade looks at again
_AGREES = 10  # hits in that second look at a face that one hit or the second cascade found
_FURTHER_SIZE = 400  # pixels of the longer side of the image in which further faces are looked for,
_FURTHER_STEP = 1.15  # and from one size of face to the next
_LEANS_DEG = (20.0, -20.0)  # the cascades find faces that lean by up to about 10 degrees
_LEANING = 8  # hits that must agree on a leaning face, and
_SURE_LEANING = 14  # those on one whose eyes need not be found
_EXTENT = Extent(side=1.01)
_FINDS = 20  # pixels: the cascade's window


@dataclass(frozen=True, slots=True, kw_only=True)
class HaarSettings(DetectorSettings):
    """OpenCV's frontal face cascade."""

    help: ClassVar[str] = "upright frontal faces; comes with OpenCV"

    def open(self) -> StillDetector:
        """Searches the whole image, and its parts in detail if it is large."""
        return StillDetector(
            HaarDetector(size=480, smallest=0.08, scale_factor=1.1, min_neighbors=2, thorough=True),
            # Twelve megapixels are searched in large steps; what these hit is looked at again.
            HaarDetector(size=None, smallest=_FINDS, scale_factor=1.4, min_neighbors=1, again=True),
            size=480,
            whole_finds=38,
            tile_finds=_FINDS,
            min_face=self.min_face,
            max_seconds=self.max_seconds,
        )

    def open_stream(self) -> ScheduledDetector:
        """One detector each for whole frames, for windows around faces, and for parts in detail."""
        return ScheduledDetector(
            HaarDetector(min_neighbors=2),
            HaarDetector(smallest=0.4, scale_factor=1.1, min_neighbors=1, eyes=False),
            HaarDetector(smallest=0.1),
            window_size=112,
            reach=0.25,
        )


class HaarDetector:
    """Upright frontal faces, on any board, without a file to fetch.

    It is not safe to call from two threads at a time.
    """

    name = "haar"

    def __init__(
        self,
        *,
        size: int | None = 320,
        smallest: float = 0.13,
        scale_factor: float = 1.2,
        min_neighbors: int = 3,
        eyes: bool = True,
        thorough: bool = False,
        again: bool = False,
        cascade: str | Path | None = None,
    ) -> None:
        """Load the cascades.

        size: pixels of the longer side that images are shrunk to; None searches them as they are.
        smallest: side of the smallest face looked for, as a share of the shorter side; from 1 on
            in pixels.
        scale_factor: from one size of face looked for to the next.
        min_neighbors: hits that must agree on a face.
        eyes: whether a face on which few hits agree must have an eye. Without that, one scene in
            ten has a false face.
        thorough: whether to search three times as long: for leaning faces, in the image turned to
            either side, and with another of OpenCV's cascades, whose faces count if the first one
            agrees on a second look. It finds a quarter of the faces missed otherwise.
        again: whether every face must show in a second look in finer steps: for searches in large
            steps.
        cascade: another OpenCV cascade file; its boxes are assumed to be like alt2's.
        Raises DetectorError when OpenCV has no cascades, or the file is not one.
        """
        self._cascade = _load(_find(_CASCADE) if cascade is None else Path(cascade))
        self._eyes = _load(_find(_EYES)) if eyes else None
        self._second = _load(_find(_SECOND)) if thorough else None
        self._again = again
        self._size = size
        self._smallest = smallest
        self._scale_factor = scale_factor
        self._min_neighbors = min_neighbors

    def detect(self, image: Image) -> list[Box]:
        """Boxes of FER2013's extent, in pixels of ``image`` (gray or BGR, uint8), largest first.

        A box's score is the number of hits that agree on it.
        """
        if image.ndim == 3:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
        small, span = (image, 1.0) if self._size is None else reduce(image, self._size)
        found = distinct(
            box
            for box in self._hits(self._cascade, small, span, self._scale_factor)
            if inside(box, image)
            and (not self._again or self._agrees(image, box))
            and (box.score >= _SURE or self._has_eye(image, box))
        )
        if self._second is None:
            return found
        small, span = reduce(image, _FURTHER_SIZE)
        for angle in _LEANS_DEG:
            found += _new(self._leaning(small, span, angle), found, image)
        second = self._hits(self._second, small, span, _FURTHER_STEP, 1)
        found += _new((box for box in second if self._agrees(image, box)), found, image)
        return sorted(found, key=lambda box: -box.area)

    def _leaning(self, small: Image, span: float, angle: float) -> Iterator[Box]:
        """Faces that are upright once the shrunk image is turned by an angle, in degrees."""
        height, width = small.shape
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        turned = np.asarray(
            cv2.warpAffine(small, turn, (width, height), borderMode=cv2.BORDER_REPLICATE),
            dtype=np.uint8,
        )
        back = cv2.invertAffineTransform(turn)
        for box in self._hits(self._cascade, turned, 1.0, _FURTHER_STEP):
            if box.score >= _SURE_LEANING or (box.score >= _LEANING and self._has_eye(turned, box)):
                x, y = back @ [box.x + box.width / 2, box.y + box.height / 2, 1.0]
                yield replace(box, x=round(x - box.width / 2), y=round(y - box.height / 2)).placed(
                    span
                )

    def _hits(
        self,
        cascade: cv2.CascadeClassifier,
        small: Image,
        span: float,
        step: float,
        min_neighbors: int | None = None,
    ) -> Iterator[Box]:
        """What a cascade finds in the shrunk image, in pixels of the whole one.

        step: from one size of face looked for to the next. min_neighbors: None for this
            detector's.
        """
        smallest = round(self._smallest * (min(small.shape) if self._smallest < 1 else 1))
        rectangles, hits = cascade.detectMultiScale2(
            small,
            step,
            self._min_neighbors if min_neighbors is None else min_neighbors,
            minSize=(smallest, smallest),
        )
        for (x, y, width, height), count in zip(rectangles, hits, strict=True):
            yield _EXTENT.box(x * span, y * span, width * span, height * span, float(count))

    def _agrees(self, gray: Image, box: Box) -> bool:
        """Whether the first cascade, in finer steps of size, finds a face at a box."""
        reach = box.width // 4
        top, left = max(0, box.y - reach), max(0, box.x - reach)
        part = gray[top : box.y + box.height + reach, left : box.x + box.width + reach]
        scale = _WINDOW / box.width
        size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        part = np.asarray(cv2.resize(part, size, interpolation=how), dtype=np.uint8)
        _, hits = self._cascade.detectMultiScale2(
            part, 1.06, 1, minSize=(46, 46), maxSize=(110, 110)
        )
        return int(np.sum(hits)) >= _AGREES

    def _has_eye(self, gray: Image, box: Box) -> bool:
        """Whether the upper half of a face shows an eye; true if eyes are not looked for."""
        if self._eyes is None:
            return True
        top, bottom = box.y + box.height // 10, box.y + 6 * box.height // 10
        part = gray[max(0, top) : max(0, bottom), max(0, box.x) : max(0, box.x + box.width)]
        if part.size == 0:
            return False
        scale = _EYES_WIDTH / part.shape[1]
        size = (_EYES_WIDTH, max(1, round(part.shape[0] * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        part = np.asarray(cv2.resize(part, size, interpolation=how), dtype=np.uint8)
        found = self._eyes.detectMultiScale(part, 1.1, 1, minSize=(14, 14))
        return len(found) > 0


def _new(boxes: Iterable[Box], found: list[Box], image: Image) -> list[Box]:
    """Those in the image that show another face than the ones found, each face once."""
    return distinct(
        box
        for box in boxes
        if inside(box, image) and not any(overlap(box, other) > 0.5 for other in found)
    )


def _load(path: Path) -> cv2.CascadeClassifier:
    if not hasattr(cv2, "CascadeClassifier"):
        raise DetectorError(
            f"OpenCV {cv2.__version__} has no Haar cascades: "
            "pip install 'opencv-python-headless<5', or use --detector yunet"
        )
    cascade = cv2.CascadeClassifier()
    if not path.is_file() or not cascade.load(str(path)):
        raise DetectorError(f"{path} is not a cascade file: give one of OpenCV's haarcascades")
    return cascade


def _find(cascade: str) -> Path:
    folders = [Path(cv2.data.haarcascades)] if hasattr(cv2, "data") else []
    for folder in (*folders, _DEBIAN):
        if (folder / cascade).is_file():
            return folder / cascade
    raise DetectorError(
        f"OpenCV {cv2.__version__} came without {cascade}: pip install "
        "'opencv-python-headless<5', apt install opencv-data, or use --detector yunet"
    )
