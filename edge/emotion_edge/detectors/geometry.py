"""Image and box operations that every detector shares."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from emotion_edge.head import tilt, yaw
from emotion_edge.values import Box, Image, Point

_SAME = 0.5  # share of the smaller box: above it two boxes show one face
_INSIDE = 0.6  # share of a box that must lie inside the image


@dataclass(frozen=True, slots=True)
class Extent:
    """How to get from a detector's rectangles to FER2013's crops.

    Each detector draws its boxes differently, and the network learned FER2013's. The figures are
    medians over PublicTest faces pasted into scenes: ``python -m benchmarks faces``.

    side: FER2013's side over the detector's. right, down: FER2013's centre less the detector's,
        in the detector's sides.
    """

    side: float = 1.0
    right: float = 0.0
    down: float = 0.0

    def box(self, x: float, y: float, width: float, height: float, score: float) -> Box:
        """The square FER2013 would have cut, for a rectangle from the detector."""
        drawn = (width * height) ** 0.5
        side = drawn * self.side
        left = x + width / 2 + self.right * drawn - side / 2
        top = y + height / 2 + self.down * drawn - side / 2
        return Box(round(left), round(top), round(side), round(side), score)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """How to get from five landmarks, and the rectangle around them, to FER2013's crops.

    Landmarks are placed more exactly than a rectangle's edges and turn with the face. The figures
    are medians over PublicTest faces pasted into scenes.

    side: FER2013's side over the geometric mean of the rectangle's side and the landmarks' spread
        (the root of their summed squared distances from their mean). down: FER2013's centre less
        the landmarks' mean, in FER2013's sides, along the face's own downward direction.
    aside: by how many sides the square moves towards the back of the head on a face turned by 90
        degrees; in proportion to the sine of smaller turns. FER2013 shows the whole head, and the
        landmarks of a turned face are at its front.
    """

    side: float
    down: float
    aside: float = 0.0

    def box(self, width: float, height: float, points: tuple[Point, ...], score: float) -> Box:
        """The square FER2013 would have cut, for a rectangle's size and the landmarks in it."""
        x = sum(point[0] for point in points) / len(points)
        y = sum(point[1] for point in points) / len(points)
        spread = sum((px - x) ** 2 + (py - y) ** 2 for px, py in points) ** 0.5
        side = self.side * ((width * height) ** 0.5 * spread) ** 0.5
        angle = math.radians(tilt(points))
        # In the face's own directions, then turned by its tilt.
        across = -math.sin(math.radians(yaw(points))) * self.aside * side
        down = self.down * side
        left = x + math.cos(angle) * across - math.sin(angle) * down - side / 2
        top = y + math.sin(angle) * across + math.cos(angle) * down - side / 2
        return Box(round(left), round(top), round(side), round(side), score, points)


def reduce(image: Image, longest: int) -> tuple[Image, float]:
    """Shrink until the longer side has ``longest`` pixels; a smaller image stays as it is.

    image: uint8 gray ``(h, w)`` or BGR ``(h, w, 3)``.
    Returns the image and how many pixels of the original one of its pixels covers.
    """
    height, width = image.shape[:2]
    span = max(height, width) / longest
    if span <= 1:
        return image, 1.0
    size = (max(1, round(width / span)), max(1, round(height / span)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8), span


def distinct(boxes: Iterable[Box]) -> list[Box]:
    """One box for each face, the largest first. Of two boxes that share most of the smaller one,
    the one with the higher score stays.
    """
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(overlap(box, other) <= _SAME for other in kept):
            kept.append(box)
    return sorted(kept, key=lambda box: -box.area)


def inside(box: Box, image: Image) -> bool:
    """Whether most of a box lies inside the image, its eyes included if they are known.

    What hangs over the edge is seldom a face, and half a face is labelled badly.
    """
    height, width = image.shape[:2]
    if overlap(box, Box(0, 0, width, height)) < _INSIDE:
        return False
    return all(0 <= x < width and 0 <= y < height for x, y in box.landmarks[:2])


def overlap(a: Box, b: Box) -> float:
    """The area two boxes share, as a share of the smaller one, 0..1."""
    across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    return max(0, across) * max(0, down) / max(1, min(a.area, b.area))
