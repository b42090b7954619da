"""The detector that comes with OpenCV: a cascade of Haar features (Viola and Jones, CVPR 2001)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from emotion_edge.detectors import DetectorSettings
from emotion_edge.detectors.geometry import Extent, distinct, reduce
from emotion_edge.detectors.scheduled import ScheduledDetector
from emotion_edge.errors import DetectorError
from emotion_edge.values import Box, Image

_CASCADE = "haarcascade_frontalface_alt2.xml"
_DEBIAN = Path("/usr/share/opencv4/haarcascades")  # package opencv-data; apt's cv2 has no cv2.data
_EXTENT = Extent(side=1.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class HaarSettings(DetectorSettings):
    """OpenCV's frontal face cascade."""

    help: ClassVar[str] = "upright frontal faces; comes with OpenCV"

    def open(self) -> HaarDetector:
        """Finer and slower than for a stream."""
        return HaarDetector(size=480, smallest=0.1, scale_factor=1.1)

    def open_stream(self) -> ScheduledDetector:
        """One detector for whole frames, one for the windows around known faces."""
        return ScheduledDetector(HaarDetector(), HaarDetector(smallest=0.35))


class HaarDetector:
    """Upright frontal faces, on any board, without a file to fetch.

    It is not safe to call from two threads at a time.
    """

    name = "haar"

    def __init__(
        self,
        *,
        size: int = 320,
        smallest: float = 0.13,
        scale_factor: float = 1.2,
        min_neighbors: int = 3,
        cascade: str | Path | None = None,
    ) -> None:
        """Load the cascade.

        size: pixels of the longer side that pictures are shrunk to.
        smallest: side of the smallest face looked for, as a share of the shorter side.
        scale_factor: from one size of face looked for to the next.
        min_neighbors: hits that must agree on a face.
        cascade: another OpenCV cascade file; its boxes are taken to lie as alt2's do.
        Raises DetectorError when OpenCV has no cascades, or the file is none.
        """
        path = _find() if cascade is None else Path(cascade)
        if not hasattr(cv2, "CascadeClassifier"):
            raise DetectorError(
                f"OpenCV {cv2.__version__} has no Haar cascades: "
                "pip install 'opencv-python-headless<5', or use --detector yunet"
            )
        self._cascade = cv2.CascadeClassifier()
        if not path.is_file() or not self._cascade.load(str(path)):
            raise DetectorError(f"{path} is no cascade file: give one of OpenCV's haarcascades")
        self._size = size
        self._smallest = smallest
        self._scale_factor = scale_factor
        self._min_neighbors = min_neighbors

    def detect(self, image: Image) -> list[Box]:
        """Boxes of FER2013's extent, in pixels of ``image`` (gray or BGR, uint8), largest first."""
        if image.ndim == 3:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
        small, span = reduce(image, self._size)
        smallest = round(min(small.shape) * self._smallest)
        rectangles, _, scores = self._cascade.detectMultiScale3(
            small,
            self._scale_factor,
            self._min_neighbors,
            minSize=(smallest, smallest),
            outputRejectLevels=True,
        )
        return distinct(
            _EXTENT.box(x * span, y * span, width * span, height * span, float(score))
            for (x, y, width, height), score in zip(rectangles, scores, strict=True)
        )


def _find() -> Path:
    folders = [Path(cv2.data.haarcascades)] if hasattr(cv2, "data") else []
    for folder in (*folders, _DEBIAN):
        if (folder / _CASCADE).is_file():
            return folder / _CASCADE
    raise DetectorError(
        f"OpenCV {cv2.__version__} came without {_CASCADE}: pip install "
        "'opencv-python-headless<5', apt install opencv-data, or use --detector yunet"
    )
