"""YuNet, a small network (Wu et al., Machine Intelligence Research 2023), by OpenCV.

It finds faces that are tilted, turned or half hidden, which a Haar cascade does not. Its weights
are a file of OpenCV's zoo: ``emotion-edge detectors get yunet``.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from emotion_edge.detectors import DetectorSettings, Weights
from emotion_edge.detectors.geometry import Extent, distinct, reduce
from emotion_edge.detectors.scheduled import ScheduledDetector
from emotion_edge.errors import DetectorError
from emotion_edge.values import Box, Image

FILE = "face_detection_yunet_2023mar.onnx"
URLS = (
    f"https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/{FILE}",
    f"https://huggingface.co/opencv/face_detection_yunet/resolve/main/{FILE}",
)
"""OpenCV's zoo, and its mirror for the days when GitHub's quota for large files is spent."""

SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
_SMALLEST = 64  # pixels of either side that the network is given
_EXTENT = Extent(side=1.07, right=-0.006, down=-0.014)


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

    def open(self) -> YuNetDetector:
        """Finer and slower than for a stream."""
        return YuNetDetector(size=640)

    def open_stream(self) -> ScheduledDetector:
        """One detector for whole frames, one for the windows around known faces."""
        return ScheduledDetector(YuNetDetector(), YuNetDetector(size=96))


class YuNetDetector:
    """Faces of any tilt, at a few milliseconds each picture.

    It is not safe to call from two threads at a time.
    """

    name = "yunet"

    def __init__(
        self, *, size: int = 320, min_score: float = 0.6, weights: str | Path | None = None
    ) -> None:
        """Load the network.

        size: pixels of the longer side that pictures are shrunk to.
        min_score: 0..1.
        weights: None for ``weights_path()``.
        Raises DetectorError when the file is absent, another one, or refused by OpenCV.
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
            self._network = cv2.FaceDetectorYN.create(str(path), "", (size, size), min_score)
        except cv2.error as error:
            raise DetectorError(
                f"OpenCV {cv2.__version__} refuses {path} ({error.err}): 4.8 or later reads it"
            ) from error
        self._size = size
        self._shape = (size, size)

    def detect(self, image: Image) -> list[Box]:
        """Boxes of FER2013's extent, in pixels of ``image`` (gray or BGR, uint8), largest first."""
        small, span = reduce(image, self._size)
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
        return distinct(
            _EXTENT.box(x * span, y * span, wide * span, high * span, score)
            for x, y, wide, high, score in rows[:, [0, 1, 2, 3, 14]].tolist()
        )
