"""Changes a portrait's expression by moving the mouth, brows and eyes of the photo.

The pixels near a point move with it, less the farther away they are. So one neutral portrait
smiles, wonders, frowns and sulks, without a second photo and without a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_edge.values import Image

_MOUTH = (60, 40, 105), (18, 10, 30)  # BGR at the bottom and at the top of an open mouth


@dataclass(frozen=True, slots=True)
class Move:
    """The pixels around ``(x, y)`` move by ``(right, down)``; all in pixels of the portrait.

    wide, tall: how far from the point the move has fallen to 37%.
    """

    x: float
    y: float
    right: float
    down: float
    wide: float
    tall: float


@dataclass(frozen=True, slots=True)
class OpenMouth:
    """A mouth that opens at ``(x, y)``, the middle of the line between the lips.

    half: half its width. gap: how far it opens. reach: how far below it the chin moves along.
    """

    x: float
    y: float
    half: float
    gap: float
    reach: float


@dataclass(frozen=True, slots=True)
class Expression:
    """What changes in a neutral face."""

    moves: Sequence[Move]
    mouth: OpenMouth | None = None


def warp(face: Image, expression: Expression, strength: float) -> Image:
    """A copy of a face with an expression; strength: 0 leaves it neutral, 1 is the whole of it.

    face: uint8 BGR ``(height, width, 3)``.
    """
    height, width = face.shape[:2]
    y, x = np.ogrid[:height, :width]
    across, down = np.mgrid[:height, :width][::-1].astype(np.float32)
    for move in expression.moves:
        right, below = strength * move.right, strength * move.down
        # A product of one row and one column: no exponential for each pixel.
        near = np.exp(-(((y - move.y - below) / move.tall) ** 2)).astype(np.float32) * np.exp(
            -(((x - move.x - right) / move.wide) ** 2)
        ).astype(np.float32)
        across -= right * near
        down -= below * near
    moved = cv2.remap(face, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    warped = np.asarray(moved, dtype=np.uint8)
    if expression.mouth is None or strength <= 0.05:
        return warped
    return _open(warped, expression.mouth, expression.mouth.gap * strength)


def _open(face: Image, mouth: OpenMouth, gap: float) -> Image:
    """The face with the chin moved down by ``gap`` pixels, and a dark mouth in between."""
    height, width = face.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    below = y - mouth.y
    aside = np.abs(x - mouth.x)
    depth = gap * np.sqrt(np.clip(1 - (aside / mouth.half) ** 2, 0, 1))  # of the mouth, by column
    fall = _smooth(1 - (below - gap) / mouth.reach)
    cheeks = gap * np.exp(-((np.maximum(aside - mouth.half / 2, 0) / (0.9 * mouth.half)) ** 2))
    shift = np.maximum(depth, cheeks * np.clip(below / (0.8 * gap), 0, 1)) * fall
    source = np.where(below >= depth, y - shift, np.minimum(y, mouth.y)).astype(np.float32)
    moved = cv2.remap(face, x, source, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inside = ((below > 0) & (below < depth)).astype(np.float32)
    weight = np.asarray(cv2.GaussianBlur(inside, (0, 0), 1.5))[..., None]
    level = np.clip(below / gap, 0, 1)[..., None]
    dark = level * np.array(_MOUTH[0], np.float32) + (1 - level) * np.array(_MOUTH[1], np.float32)
    mixed = np.clip(moved * (1 - weight) + dark * weight, 0, 255)
    return np.asarray(mixed, dtype=np.uint8)


def _smooth(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """0 to 1 with a soft beginning and a soft end."""
    share = np.clip(share, 0, 1)
    return np.asarray(share * share * (3 - 2 * share), dtype=np.float32)


def _about(face: tuple[int, int], moves: Sequence[tuple[float, ...]]) -> tuple[Move, ...]:
    left, top = face
    return tuple(Move(x - left, y - top, *rest) for x, y, *rest in moves)


HOPPER = (140, 110, 250, 290)
"""Left, top, width and height of the part of portraits/hopper.jpg that expressions change."""

_AT = HOPPER[:2]
# The frame of her glasses does what brows do; her own are hardly seen.
EXPRESSIONS = {
    "happy": Expression(
        _about(
            _AT,
            (
                (228, 278, -9.5, -15, 20, 16),
                (302, 276, 9.5, -15, 20, 16),
                (265, 292, 0, 7, 25, 12),
                (215, 240, -1.3, -8, 25, 20),
                (318, 240, 1.3, -8, 25, 20),
            ),
        )
    ),
    "surprise": Expression(
        _about(
            _AT,
            (
                (212, 178, 0, -9, 34, 16),
                (320, 172, 0, -9, 34, 16),
                (212, 190, 0, 2.7, 20, 8),
                (310, 188, 0, 2.7, 20, 8),
                (230, 279, 6, 0, 14, 10),
                (300, 277, -6, 0, 14, 10),
            ),
        ),
        OpenMouth(265 - _AT[0], 280 - _AT[1], half=21, gap=27, reach=62),
    ),
    "angry": Expression(
        _about(
            _AT,
            (
                (245, 180, 7, 12.5, 22, 14),
                (288, 178, -7, 12.5, 22, 14),
                (205, 176, 0, -5.5, 20, 14),
                (330, 172, 0, -5.5, 20, 14),
                (228, 278, 4, 5.5, 18, 14),
                (302, 276, -4, 5.5, 18, 14),
                (265, 279, 0, -3, 30, 12),
            ),
        )
    ),
    "sad": Expression(
        _about(
            _AT,
            (
                (245, 178, 0, -10, 22, 14),
                (288, 176, 0, -10, 22, 14),
                (200, 180, 0, 6, 22, 14),
                (335, 178, 0, 6, 22, 14),
                (226, 279, -2.5, 11, 18, 16),
                (304, 277, 2.5, 11, 18, 16),
                (265, 285, 0, -6, 26, 14),
            ),
        )
    ),
}
"""What Grace Hopper's portrait can do; the shipped models read each by its name."""
