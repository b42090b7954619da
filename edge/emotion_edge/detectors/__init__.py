"""Where the faces are.

To add a detector: write one file with a class that has ``detect``, and add its line to
``open_detector``.
"""

from __future__ import annotations

from typing import Protocol

from emotion_edge.values import Box, Image


class FaceDetector(Protocol):
    """Finds faces in one picture."""

    def detect(self, image: Image) -> list[Box]:
        """Boxes in pixels of ``image`` (gray or BGR, uint8), the largest first."""
