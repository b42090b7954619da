"""YuNet, a small network (Wu et al., Machine Intelligence Research 2023), through OpenCV.

It finds faces that are tilted, turned or half hidden, which a Haar cascade does not. Its weights
are a file of OpenCV's zoo: ``emotion-edge detectors get yunet``.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_edge.detectors import DetectorSettings, Weights
from emotion_edge.detectors.geometry import Landmarks, distinct, inside, reduce
from emotion_edge.detectors.scheduled import ScheduledDetector
from emotion_edge.detectors.stills import StillDetector
from emotion_edge.errors import DetectorError
from emotion_edge.head import tilt
from emotion_edge.values import Box, Image, Point

FILE = "face_detection_yunet_2023mar.onnx"
URLS = (
    f"https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/{FILE}",
    f"https://huggingface.co/opencv/face_detection_yunet/resolve/main/{FILE}",
)
"""OpenCV's zoo, and its mirror for the days when GitHub's quota for large files is spent."""

SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
_MIN_SCORE = 0.55  # at most 0.5 false faces per 100 scenes: python -m benchmarks faces
_MIN_SCORE_TILE = 0.7  # in detail an image has many more places for a false face
_FINDS = 16  # pixels: side of the smallest face that is found well
_MISSING_DEG = 10.0
_SMALLEST = 64  # pixels of either side that the network is given
_EXTENT = Landmarks(side=1.437, down=-0.075, aside=0.1)


def weights_path() -> Path:
    """Where the weights are looked for: ``$XDG_DATA_HOME/emotion-edge``, as a rule under ~."""
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    try:
        folder = Path(data).expanduser()
    except RuntimeError:  # a user without a home, as some services and containers have
        folder = Path("/usr/local/share")
    return folder / "emotion-edge" / FILE


def verify(data: bytes, name: object) -> None:
    """Raise DetectorError unless these are the very bytes of OpenCV's zoo."""
    actual = hashlib.sha256(data).hexdigest()
    if actual != SHA256:
        raise DetectorError(
            f"{name} is not {FILE}: {len(data)} bytes with SHA-256 {actual[:12]}…, expected "
            f"{SHA256[:12]}…; give OpenCV's file, or emotion-edge detectors get yunet --overwrite"
        )


class _YuNetWeights:
    """OpenCV's file, as ``emotion-edge detectors get`` fetches it."""

    urls = URLS

    def path(self) -> Path:
        """See ``weights_path``."""
        return weights_path()

    def verify(self, data: bytes, name: object) -> None:
        """See ``verify``."""
        verify(data, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class YuNetSettings(DetectorSettings):
    """YuNet with OpenCV's weights."""

    help: ClassVar[str] = "turned and half-hidden faces too, and quicker; its weights are fetched"
    weights: ClassVar[Weights | None] = _YuNetWeights()

    def open(self) -> StillDetector:
        """Searches the whole image, and its parts in detail if it is large."""
        return StillDetector(
            YuNetDetector(size=640),
            YuNetDetector(size=None, min_score=_MIN_SCORE_TILE),
            size=640,
            whole_finds=_FINDS,
            tile_finds=_FINDS,
            min_face=self.min_face,
            max_seconds=self.max_seconds,
        )

    def open_stream(self) -> ScheduledDetector:
        """One detector each for whole frames, for windows around faces, and for parts in detail."""
        return ScheduledDetector(
            YuNetDetector(size=320, min_score=0.3),
            YuNetDetector(size=128, min_score=0.3),
            YuNetDetector(size=256, min_score=0.45),
            # The whole frame takes parts of a background for faces, at up to 0.73; most windows do
            # not, and show nine faces in ten at 0.75 or more.
            sure=0.75,
            likely=0.6,
            window_size=128,
            reach=0.25,
        )


class YuNetDetector:
    """Faces of any tilt, with landmarks, in a few milliseconds per image.

    It is not safe to call from two threads at a time.
    """

    name = "yunet"

    def __init__(
        self,
        *,
        size: int | None = 320,
        min_score: float = _MIN_SCORE,
        weights: str | Path | None = None,
    ) -> None:
        """Load the network.

        size: pixels of the longer side that images are shrunk to; None searches them as they are.
        min_score: 0..1.
        weights: None for ``weights_path()``.
        Raises DetectorError when the file is absent, another one, or refused through OpenCV.
        """
        path = weights_path() if weights is None else Path(weights)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DetectorError(
                f"cannot read YuNet's weights {path} ({error.strerror or error}): "
                "emotion-edge detectors get yunet"
            ) from error
        verify(data, path)
        if not hasattr(cv2, "FaceDetectorYN"):
            raise DetectorError(f"OpenCV {cv2.__version__} has no FaceDetectorYN; 4.8 or later has")
        try:
            self._network = cv2.FaceDetectorYN.create(str(path), "", (320, 320), min_score)
        except cv2.error as error:
            raise DetectorError(
                f"OpenCV {cv2.__version__} refuses {path} ({error.err}): 4.8 or later reads it"
            ) from error
        self._size = size
        self._shape = (320, 320)

    def detect(self, image: Image) -> list[Box]:
        """Boxes of FER2013's extent, in pixels of ``image`` (gray or BGR, uint8), largest first."""
        small, span = (image, 1.0) if self._size is None else reduce(image, self._size)
        if small.ndim == 2:
            small = np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
        # Below 33 pixels OpenCV's network now and then answers from memory it never wrote.
        lacking = [max(0, _SMALLEST - side) for side in small.shape[:2]]
        if any(lacking):
            small = np.asarray(
                cv2.copyMakeBorder(small, 0, lacking[0], 0, lacking[1], cv2.BORDER_CONSTANT),
                dtype=np.uint8,
            )
        height, width = small.shape[:2]
        if self._shape != (width, height):
            self._network.setInputSize((width, height))
            self._shape = (width, height)
        _, rows = self._network.detect(small)  # (faces, 15): x, y, w, h, five landmarks, score
        if rows is None:
            return []
        boxes = []
        for _, _, wide, high, *points, score in (rows * _spans(span)).tolist():
            landmarks = _straightened(tuple(zip(points[::2], points[1::2], strict=True)))
            boxes.append(_EXTENT.box(wide, high, landmarks, score))
        return distinct(box for box in boxes if inside(box, image))


def _spans(span: float) -> NDArray[np.float32]:
    """Factors that bring a row back to the image's pixels: all but the score, which is last."""
    return np.array([span] * 14 + [1], np.float32)


def _straightened(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """The landmarks, turned about their middle by what the network leaves out of a tilt.

    It places them as if a head leaned less than it does: by 4 degrees on a face that leans by 10,
    by 10 on one that leans by 20, by 20 on one that leans by 30.
    """
    seen = tilt(points)
    missing = math.radians(max(-_MISSING_DEG, min(_MISSING_DEG, seen)))
    cosine, sine = math.cos(missing), math.sin(missing)
    x = sum(point[0] for point in points) / len(points)
    y = sum(point[1] for point in points) / len(points)
    return tuple(
        (x + (px - x) * cosine - (py - y) * sine, y + (px - x) * sine + (py - y) * cosine)
        for px, py in points
    )
