"""What every detector does to pictures and boxes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from emotion_edge.values import Box, Image

_SAME = 0.5  # share of the smaller box: above it two boxes show one face


@dataclass(frozen=True, slots=True)
class Extent:
    """How a detector's rectangles lie against FER2013's crops.

    Each detector draws its boxes otherwise; the network learned one way. The figures are medians
    over PublicTest faces pasted into scenes: ``python -m benchmarks faces``.

    side: FER2013's side over the detector's. right, down: FER2013's centre less the detector's,
        in the detector's sides.
    """

    side: float = 1.0
    right: float = 0.0
    down: float = 0.0

    def box(self, x: float, y: float, width: float, height: float, score: float) -> Box:
        """The square FER2013 would have cut, for a rectangle the detector drew."""
        drawn = (width * height) ** 0.5
        side = drawn * self.side
        left = x + width / 2 + self.right * drawn - side / 2
        top = y + height / 2 + self.down * drawn - side / 2
        return Box(round(left), round(top), round(side), round(side), score)


def reduce(image: Image, longest: int) -> tuple[Image, float]:
    """Shrink until the longer side has ``longest`` pixels; a smaller picture stays as it is.

    image: uint8 gray ``(h, w)`` or BGR ``(h, w, 3)``.
    Returns the picture and how many of the original's pixels one of its pixels spans.
    """
    height, width = image.shape[:2]
    span = max(height, width) / longest
    if span <= 1:
        return image, 1.0
    size = (max(1, round(width / span)), max(1, round(height / span)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8), span


def distinct(boxes: Iterable[Box]) -> list[Box]:
    """One box for each face, the largest first: of two that share most of the smaller one, the
    one with the higher score stays.
    """
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(_shared(box, other) <= _SAME * min(box.area, other.area) for other in kept):
            kept.append(box)
    return sorted(kept, key=lambda box: -box.area)


def _shared(a: Box, b: Box) -> int:
    across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    return max(0, across) * max(0, down)
