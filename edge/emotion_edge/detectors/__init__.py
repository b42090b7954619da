"""Where the faces are.

To add a detector: write one file with a class that has ``detect``, and add its line to
``open_detector``.
"""

from __future__ import annotations

from typing import Protocol

from emotion_edge.errors import UsageError
from emotion_edge.values import Box, Image

DETECTORS = ("haar", "yunet")
"""By name, as ``open_detector`` takes them."""


class FaceDetector(Protocol):
    """Finds faces in one picture."""

    def detect(self, image: Image) -> list[Box]:
        """Boxes in pixels of ``image`` (gray or BGR, uint8), the largest first.

        A box is a square of the extent of FER2013's crops, whatever the detector draws.
        """


def open_detector(name: str = "auto", *, scheduled: bool = False) -> FaceDetector:
    """A detector by name.

    name: ``haar``, ``yunet``, or ``auto`` for YuNet once its weights are there and else Haar.
    scheduled: for a stream of frames: see ``scheduled.ScheduledDetector``. Otherwise each picture
        stands alone and is searched more finely.
    Raises UsageError for another name, DetectorError when the detector's file is absent or wrong.
    """
    # Imported here: the modules below import this one, and only one of them is needed.
    from emotion_edge.detectors.haar import HaarDetector
    from emotion_edge.detectors.scheduled import ScheduledDetector
    from emotion_edge.detectors.yunet import YuNetDetector, weights_path

    if name == "auto":
        name = "yunet" if weights_path().is_file() else "haar"
    if name == "haar":
        if not scheduled:
            return HaarDetector(size=480, smallest=0.1, scale_factor=1.1)
        return ScheduledDetector(HaarDetector(), HaarDetector(smallest=0.35))
    if name == "yunet":
        if not scheduled:
            return YuNetDetector(size=640)
        return ScheduledDetector(YuNetDetector(), YuNetDetector(size=96))
    raise UsageError(f"detector {name!r}; expected auto, {' or '.join(DETECTORS)}")
