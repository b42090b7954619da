"""Searches one image for faces of every size: the whole image shrunk, then its parts in detail."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from emotion_edge.detectors import FaceDetector
from emotion_edge.detectors.geometry import distinct, overlap
from emotion_edge.errors import UsageError
from emotion_edge.values import Box, Image

_TILE = 1280  # pixels of a tile's side after resizing: bounds the memory that a detector takes
_LARGEST = 1.5  # tiles overlap by this many times the largest face that only tiles show
_LEAST = 0.8  # times ``min_face``: boxes smaller than this are dropped; their size is not exact
_TOUCH = 2  # pixels: a box nearer than this to a cut shows a face that was cut


class StillDetector:
    """Faces from ``min_face`` pixels up to the whole image.

    A detector finds faces that are at least so many pixels large in what it is given. The image is
    first searched whole, shrunk. If that is too coarse for the smallest faces asked for, it is
    searched again at the scale that they need, in overlapping tiles, the middle of the image first.

    It is not safe to call from two threads at a time.
    """

    def __init__(
        self,
        whole: FaceDetector,
        tile: FaceDetector,
        *,
        size: int,
        whole_finds: int,
        tile_finds: int,
        min_face: int = 24,
        max_seconds: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Combine two detectors.

        whole: searches the whole image and shrinks it itself, to ``size`` pixels of its longer
            side. tile: searches one tile as it is.
        whole_finds, tile_finds: the smallest face each finds, in pixels of what it searches.
        min_face: side of the smallest face to find, in pixels of the image.
        max_seconds: after which no further tile is searched; the whole image always is.
        Raises UsageError for a limit out of range.
        """
        if min_face < 1:
            raise UsageError(f"min_face is {min_face}: use 1 pixel or more")
        if not max_seconds > 0:
            raise UsageError(f"max_seconds is {max_seconds}: use more than 0 seconds")
        self.whole = whole
        self.tile = tile
        self._size = size
        self._whole_finds = whole_finds
        self._tile_finds = tile_finds
        self._min_face = min_face
        self._max_seconds = max_seconds
        self._clock = clock
        self.unsearched = 0.0
        """Share of the last image in which small faces were not looked for, for want of time."""

    def detect(self, image: Image) -> list[Box]:
        """Boxes of FER2013's extent, in pixels of ``image`` (gray or BGR, uint8), largest first."""
        start = self._clock()
        self.unsearched = 0.0
        least = _LEAST * self._min_face
        found = [box for box in self.whole.detect(image) if box.width >= least]
        span = max(1.0, max(image.shape[:2]) / self._size)
        coarsest = self._whole_finds * span  # the smallest face found so far
        if coarsest <= self._min_face:
            return found
        scale = self._tile_finds / self._min_face
        tiles = list(_tiles(image.shape[0], image.shape[1], scale, coarsest))
        small: list[Box] = []
        for number, tile in enumerate(tiles):
            if self._clock() - start > self._max_seconds:
                self.unsearched = 1 - number / len(tiles)
                break
            small += self._search(image, tile, scale)
        # The whole image shows a face in its surroundings, so its boxes are kept over the tiles'.
        return sorted(
            found
            + [
                box
                for box in distinct(small)
                if box.width >= least and not any(overlap(box, other) > 0.5 for other in found)
            ],
            key=lambda box: -box.area,
        )

    def _search(self, image: Image, tile: tuple[int, int, int, int], scale: float) -> list[Box]:
        """The faces of one tile that no cut passes through."""
        left, top, right, bottom = tile
        height, width = image.shape[:2]
        part = image[top:bottom, left:right]
        size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
        if size != (right - left, bottom - top):
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            part = np.asarray(cv2.resize(part, size, interpolation=how), dtype=np.uint8)
        span = ((right - left) / size[0], (bottom - top) / size[1])
        boxes = [box.placed(span, left, top) for box in self.tile.detect(part)]
        return [
            box
            for box in boxes
            if (left == 0 or box.x >= left + _TOUCH)
            and (top == 0 or box.y >= top + _TOUCH)
            and (right == width or box.x + box.width <= right - _TOUCH)
            and (bottom == height or box.y + box.height <= bottom - _TOUCH)
        ]


def unsearched(detector: FaceDetector) -> float:
    """Share of the last image in which small faces were not looked for, 0 where none was left."""
    return detector.unsearched if isinstance(detector, StillDetector) else 0.0


def _tiles(
    height: int, width: int, scale: float, largest: float
) -> Iterator[tuple[int, int, int, int]]:
    """Overlapping tiles of one size as left, top, right, bottom, the nearest to the middle first.

    scale: of the resizing to come. largest: side of a face that must be whole in one tile.
    """
    shared = math.ceil(largest * _LARGEST)
    side = max(_TILE / scale, 3 * shared)
    columns = list(_cuts(width, side, shared))
    rows = list(_cuts(height, side, shared))
    tiles = [(left, top, right, bottom) for top, bottom in rows for left, right in columns]

    def distance(tile: tuple[int, int, int, int]) -> float:
        return math.hypot(tile[0] + tile[2] - width, tile[1] + tile[3] - height)

    yield from sorted(tiles, key=distance)


def _cuts(length: int, side: float, shared: int) -> Iterator[tuple[int, int]]:
    """Start and end of equal, overlapping parts of a line."""
    count = 1 if length <= side else math.ceil((length - shared) / (side - shared))
    part = math.ceil((length + (count - 1) * shared) / count)
    for index in range(count):
        start = round(index * (length - part) / max(1, count - 1))
        yield start, start + part
