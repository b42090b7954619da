"""Generates images from a seed, with faces at known positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_edge.values import Box, Image

WIDTH, HEIGHT = 640, 480
_PAD = 0.35  # share of a face's side over which it fades into the scene, outside its box


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """An image and the faces in it.

    image: uint8 BGR ``(480, 640, 3)``.
    boxes: where FER2013 would have cut each face.
    faces: which face each box holds: positions in the array that was pasted from.
    """

    image: Image
    boxes: tuple[Box, ...]
    faces: tuple[int, ...]


def scenes(
    faces: Image,
    *,
    seed: int,
    each: int = 2,
    sides: tuple[int, int] = (72, 220),
    noise: float = 3.0,
    tilt: float = 0.0,
) -> Iterator[Scene]:
    """Paste every face once, in order, ``each`` to a scene.

    faces: uint8 ``(n, 48, 48)``.
    sides: pixels of the smallest and the largest; between them the logarithm is uniform.
    noise: standard deviation of the sensor's noise, in gray levels.
    tilt: degrees by which every face leans, to either side in turn. It changes nothing else: the
        same seed gives the same places, sizes and backgrounds.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, len(faces), each):
        image = background(rng)
        boxes: list[Box] = []
        indices = range(start, min(start + each, len(faces)))
        for _ in indices:
            boxes.append(_place(rng, boxes, sides))
        for index, box in zip(indices, boxes, strict=True):
            paste(image, faces[index], box, tilt if index % 2 else -tilt)
        grain = rng.normal(0, noise, image.shape).astype(np.float32)
        yield Scene(shoot(image, grain), tuple(boxes), tuple(indices))


def background(rng: np.random.Generator) -> NDArray[np.float32]:
    """A room without people: light that falls off, coloured blocks, lines and texture.

    Returns float32 BGR ``(480, 640, 3)``, 0..255.
    """
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for cells, strength in ((2, 60), (6, 25), (24, 12), (96, 8)):
        coarse = rng.normal(0, strength, (cells, cells, 1)) + rng.normal(
            0, strength / 3, (cells, cells, 3)
        )
        image += cv2.resize(
            coarse.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
        )
    image += rng.uniform(70, 170)
    for _ in range(int(rng.integers(4, 14))):
        x, y = int(rng.integers(0, WIDTH)), int(rng.integers(0, HEIGHT))
        across, down = (int(side) for side in rng.integers(10, 200, 2))
        tone = rng.uniform(0, 255) + rng.normal(0, 20, 3)
        colour = (float(tone[0]), float(tone[1]), float(tone[2]))
        kind = rng.integers(0, 3)
        if kind == 0:
            cv2.rectangle(image, (x, y), (x + across, y + down), colour, cv2.FILLED)
        elif kind == 1:
            angle = float(rng.uniform(0, 180))
            cv2.ellipse(image, (x, y), (across // 2, down // 2), angle, 0, 360, colour, cv2.FILLED)
        else:
            cv2.line(image, (x, y), (x + across, y - down), colour, int(rng.integers(1, 8)))
    blurred = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.6, 2.5)))
    return np.clip(blurred, 0, 255).astype(np.float32)


def paste(image: NDArray[np.float32], face: Image, box: Box, tilt: float = 0.0) -> None:
    """Put a face into an image, whole within its box and fading out around it.

    image: float32 BGR, changed in place. face: uint8 gray, square.
    tilt: degrees by which it leans about its centre, clockwise.
    """
    side = box.width
    pad = round(side * _PAD)
    grown = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
    patch = cv2.copyMakeBorder(grown, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    patch = np.where(_inside(side, pad), patch, cv2.GaussianBlur(patch, (0, 0), 1 + pad / 6))
    ramp = np.clip(
        np.minimum(np.arange(side + 2 * pad), np.arange(side + 2 * pad)[::-1]) / pad, 0, 1
    )
    alpha = np.minimum(ramp[:, None], ramp[None, :])
    if tilt:
        middle = (len(ramp) - 1) / 2
        turn = cv2.getRotationMatrix2D((middle, middle), -tilt, 1.0)
        size = (len(ramp), len(ramp))
        patch = cv2.warpAffine(patch, turn, size, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(alpha, turn, size)
    alpha = alpha[..., None]
    y0, x0 = box.y - pad, box.x - pad
    y1, x1 = y0 + len(ramp), x0 + len(ramp)
    top, left, bottom, right = (
        max(y0, 0),
        max(x0, 0),
        min(y1, image.shape[0]),
        min(x1, image.shape[1]),
    )
    inner = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
    region = image[top:bottom, left:right]
    region += (alpha[inner] * (patch[inner][..., None] - region)).astype(np.float32)


def shoot(image: NDArray[np.float32], grain: NDArray[np.float32]) -> Image:
    """The image as a sensor records it: uint8, with noise (gray levels, in the image's shape)."""
    return np.asarray(np.clip(image + grain, 0, 255), dtype=np.uint8)


def is_centred(box: Box, face: Box) -> bool:
    """Whether the centre of ``box`` lies in ``face`` (right and bottom edges excluded)."""
    x, y = box.x + box.width / 2, box.y + box.height / 2
    return face.x <= x < face.x + face.width and face.y <= y < face.y + face.height


def _inside(side: int, pad: int) -> NDArray[np.bool_]:
    mask = np.zeros((side + 2 * pad, side + 2 * pad), bool)
    mask[pad : pad + side, pad : pad + side] = True
    return mask


def _place(rng: np.random.Generator, others: list[Box], sides: tuple[int, int]) -> Box:
    """A free square; faces keep their own half side of room from each other."""
    while True:
        side = round(float(np.exp(rng.uniform(*np.log(sides)))))
        x, y = int(rng.integers(0, WIDTH - side + 1)), int(rng.integers(0, HEIGHT - side + 1))
        room = round(side * _PAD)
        grown = Box(x - room, y - room, side + 2 * room, side + 2 * room)
        if all(
            grown.iou(Box(o.x - room, o.y - room, o.width + 2 * room, o.height + 2 * room)) == 0
            for o in others
        ):
            return Box(x, y, side, side)
