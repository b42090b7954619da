"""Moves the mouths of neutral faces as talking does, for augmentation and measurement.

A mouth that opens to speak is the most common reason for a wrong label on a real clip, and
FER2013 has few neutral faces caught in the middle of a word. The warp keeps the label: lips
part, the jaw drops, the mouth narrows or widens; eyes and brows stay as they are.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def mouth_rows(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The row between the lips of each roughly frontal face, int64 (N,).

    The darkest row of the lower face against the rows four pixels (of 48) above and below it.
    ``images`` is uint8 (N, H, W).
    """
    _, height, width = images.shape
    unit = height / 48
    columns = slice(round(17 * width / 48), round(31 * width / 48))
    rows = images[:, :, columns].astype(np.float32).mean(axis=2)  # (N, H)
    rows = (rows + np.roll(rows, 1, axis=1) + np.roll(rows, -1, axis=1)) / 3
    step = max(1, round(4 * unit))
    contrast = rows - (np.roll(rows, step, axis=1) + np.roll(rows, -step, axis=1)) / 2
    first, last = round(35 * unit), round(42 * unit)
    return np.asarray(first + contrast[:, first:last].argmin(axis=1), np.int64)


def is_frontal(images: NDArray[np.uint8], least: float = 0.5) -> NDArray[np.bool_]:
    """Faces whose lower half looks like its mirror image, bool (N,): the mouth is in the middle.

    ``least`` is the correlation of the central columns with their mirror image.
    """
    height, width = images.shape[1:]
    part = images[:, round(height * 0.55) : round(height * 0.95), width // 6 : width - width // 6]
    part = part.astype(np.float32)
    part = part - part.mean(axis=(1, 2), keepdims=True)
    same = (part * part[:, :, ::-1]).sum(axis=(1, 2))
    return np.asarray(same > least * np.maximum((part**2).sum(axis=(1, 2)), 1e-6))


def talk(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Each face caught at a random moment of speech, uint8 (N, H, W)."""
    count = len(images)
    opening = rng.uniform(0.0, 5.0, count).astype(np.float32)
    width = rng.uniform(0.8, 1.15, count).astype(np.float32)
    half = rng.uniform(3.5, 6.5, count).astype(np.float32)
    return move_mouths(images, opening, width, rounding=half)


def move_mouths(
    images: NDArray[np.uint8],
    opening: Floats,
    width: Floats,
    rows: NDArray[np.int64] | None = None,
    rounding: Floats | None = None,
) -> NDArray[np.uint8]:
    """Faces with their mouths opened and widened, uint8 (N, H, W).

    ``opening`` (N,) is the distance between the lips in pixels of a 48-pixel face, 0 for a closed
    mouth, up to about 6; ``width`` (N,) stretches the mouth across, 1 leaves it, 0.8 rounds it as
    in "oo", 1.1 widens it as in "ee". ``rows`` are those of :func:`mouth_rows`, so that the frames
    of a clip share them. ``rounding`` (N,) is the half width of the opening in pixels of a
    48-pixel face, 6 where it is not given.
    """
    count, height, across = images.shape
    unit = np.float32(height / 48)
    rows = mouth_rows(images) if rows is None else rows
    half = np.full(count, 6, np.float32) if rounding is None else rounding
    line = rows.astype(np.float32)[:, None, None]
    y = np.arange(height, dtype=np.float32)[None, :, None]
    x = np.arange(across, dtype=np.float32)[None, None, :] - np.float32((across - 1) / 2)
    gap = (opening * unit)[:, None, None]
    lips = (half * unit)[:, None, None]
    # The opening is an ellipse; the jaw moves as one, so its displacement fades out more slowly.
    ellipse = np.sqrt(np.clip(1 - (x / lips) ** 2, 0, 1))
    jaw = np.clip(1 - (np.abs(x) / (16 * unit)) ** 3, 0, 1)
    below = 0.8 * gap * ellipse
    above = 0.2 * gap * ellipse
    # Rows under the mouth come from higher up, less so the nearer they are to the lower edge.
    bottom = np.float32(height - 1)
    drop = np.maximum(below, 0.55 * gap * jaw)
    share = np.clip((bottom - y) / np.maximum(bottom - line - drop, 1), 0, 1)
    lower = bottom - (bottom - line) * share
    rise = np.clip(1 - (line - above - y) / (5 * unit), 0, 1)
    upper = y + above * rise
    source_y = np.where(y > line + below, np.maximum(lower, line), np.minimum(upper, line))
    source_y = np.where(y <= line - above, np.minimum(upper, line), source_y)
    near = np.exp(-(((y - line) / (7 * unit)) ** 2)) * np.clip(1 - (x / (14 * unit)) ** 2, 0, 1)
    source_x = x / (1 + (width[:, None, None] - 1) * near) + np.float32((across - 1) / 2)
    moved = np.empty_like(images)
    source_x = np.broadcast_to(source_x, source_y.shape)
    for index in range(count):
        moved[index] = cv2.remap(
            images[index],
            np.ascontiguousarray(source_x[index]),
            np.ascontiguousarray(source_y[index], np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    # Inside the mouth it is dark; soft at the lips.
    centre = line + 0.3 * gap
    reach = np.maximum(0.5 * gap * ellipse, 1e-3)
    inside = np.clip((1.15 - np.abs(y - centre) / reach) * 2, 0, 1) * (gap > 0.5) * (ellipse > 0)
    dark = np.percentile(images, 3, axis=(1, 2)).astype(np.float32)[:, None, None] + 8
    shade = moved + inside * np.minimum(dark - moved, 0) * 0.8
    return np.asarray(np.clip(shade, 0, 255), np.uint8)
