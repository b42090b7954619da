"""Augments whole batches: one warp, one look-up, no loop over images.

A batch is one tall image to OpenCV, so that one ``cv2.remap`` rotates, zooms, shifts and
flips every face of it. NumPy and OpenCV only: the same batches on every backend, drawn from a
``numpy.random.Generator`` that the caller seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from train.mouths import talk

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far an image may be moved; every draw is uniform between minus and plus.

    >>> Augmentation(flip=True, rotation=10, shift=0.1)
    """

    flip: bool = False
    rotation: float = 0.0
    """Degrees."""
    zoom: float = 0.0
    """0.1: from 1/1.1 to 1.1, equally likely in and out."""
    stretch: float = 0.0
    """Like zoom, for width against height."""
    shift: float = 0.0
    """Share of the side."""
    brightness: float = 0.0
    """Share of 255, added."""
    contrast: float = 0.0
    """0.2: the distance from the image's mean times 1/1.2 to 1.2."""
    erase: float = 0.0
    """Probability of a rectangle of noise (Zhong et al. 2020)."""
    erase_area: tuple[float, float] = (0.02, 0.15)
    blur: float = 0.0
    """Probability of a Gaussian blur, as a small face enlarged or a soft lens gives."""
    blur_sigma: float = 1.5
    """Its greatest sigma, pixels."""
    noise: float = 0.0
    """Probability of Gaussian noise, as a sensor gives in a dark room."""
    noise_sigma: float = 15.0
    """Its greatest sigma, of 255."""
    talk: float = 0.0
    """Probability that the mouth of a calm frontal face is moved as in speech."""
    mixup: float = 0.0
    """Alpha of the beta distribution (Zhang et al. 2018); 0 is off."""
    cutmix: float = 0.0
    """Probability that a batch is cut and mixed (Yun et al. 2019) in place of mixup."""


def warp(images: NDArray[np.uint8], matrices: Floats) -> NDArray[np.uint8]:
    """Each image of a batch through its own affine map, edges repeated.

    ``images`` is uint8 (N, H, W); ``matrices`` float32 (N, 2, 3) takes output coordinates
    (x, y, 1), measured from the centre in pixels, to input coordinates.
    """
    count, height, width = images.shape
    cx, cy = (width - 1) / 2, (height - 1) / 2
    x = np.arange(width, dtype=np.float32) - np.float32(cx)
    y = np.arange(height, dtype=np.float32) - np.float32(cy)
    m = matrices.astype(np.float32)[:, :, :, None, None]  # (N, 2, 3, 1, 1)
    grid = m[:, :, 0] * x[None, None, None, :] + m[:, :, 1] * y[None, None, :, None] + m[:, :, 2]
    map_x = np.clip(grid[:, 0] + np.float32(cx), 0, width - 1)
    map_y = np.clip(grid[:, 1] + np.float32(cy), 0, height - 1)
    map_y += (np.arange(count, dtype=np.float32) * height)[:, None, None]
    # OpenCV's remap counts in int16: a tall image has at most 32,767 rows.
    most = 32_000 // height
    out = np.empty_like(images)
    for at in range(0, count, most):
        part = slice(at, at + most)
        tall = np.ascontiguousarray(images[part]).reshape(-1, width)
        rows = map_y[part].reshape(-1, width) - np.float32(at * height)
        done = cv2.remap(
            tall,
            map_x[part].reshape(-1, width),
            rows,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        out[part] = done.reshape(-1, height, width)
    return out


def affine(
    *, angle: Floats, scale_x: Floats, scale_y: Floats, shift_x: Floats, shift_y: Floats
) -> Floats:
    """Matrices for :func:`warp` from angles (radians), scales and shifts (pixels), each (N,)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack(
        [
            np.stack([cos / scale_x, -sin / scale_y, -shift_x], axis=-1),
            np.stack([sin / scale_x, cos / scale_y, -shift_y], axis=-1),
        ],
        axis=1,
    ).astype(np.float32)


def _box(
    rng: np.random.Generator, count: int, area: NDArray[np.float64], height: int, width: int
) -> NDArray[np.bool_]:
    """Random rectangles of the given share of the area, bool (N, H, W)."""
    ratio = np.exp(rng.uniform(np.log(0.4), np.log(2.5), count))
    h = np.clip(np.sqrt(area * ratio) * height, 1, height)
    w = np.clip(np.sqrt(area / ratio) * width, 1, width)
    top, left = rng.uniform(0, height - h), rng.uniform(0, width - w)
    y, x = np.arange(height)[None, :], np.arange(width)[None, :]
    in_y = (y >= top[:, None]) & (y < (top + h)[:, None])
    in_x = (x >= left[:, None]) & (x < (left + w)[:, None])
    return np.asarray(in_y[:, :, None] & in_x[:, None, :])


def _blur(faces: Floats, sigma: float) -> Floats:
    """Faces (N, H, W) through one Gaussian; they are the channels of one image to OpenCV."""
    out = np.empty_like(faces)
    most = 512  # channels of an OpenCV image
    for at in range(0, len(faces), most):
        channels = np.ascontiguousarray(faces[at : at + most].transpose(1, 2, 0))
        done = cv2.GaussianBlur(channels, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        out[at : at + most] = done.reshape(channels.shape).transpose(2, 0, 1)
    return out


def augment(
    images: NDArray[np.uint8],
    targets: Floats,
    how: Augmentation,
    rng: np.random.Generator,
    calm: NDArray[np.bool_] | None = None,
) -> tuple[Floats, Floats]:
    """A batch as the network sees it once: float32 (N, H, W, 1) in 0..255, and its targets.

    ``calm`` bool (N,) marks the faces whose label does not change when the mouth moves.
    """
    count, height, width = images.shape
    if how.talk and calm is not None:
        speaking = calm & (rng.random(count) < how.talk)
        if speaking.any():
            images = images.copy()
            images[speaking] = talk(images[speaking], rng)

    def spread(limit: float) -> Floats:
        return np.asarray(rng.uniform(-limit, limit, count), np.float32)

    zoom: Floats = np.exp(spread(np.log1p(how.zoom)))
    stretch: Floats = np.exp(spread(np.log1p(how.stretch) / 2))
    mirror: Floats = np.where(rng.random(count) < 0.5, np.float32(-1), np.float32(1))
    if not how.flip:
        mirror = np.ones(count, np.float32)
    if how.flip or how.rotation or how.zoom or how.stretch or how.shift:
        images = warp(
            images,
            affine(
                angle=np.deg2rad(spread(how.rotation)),
                scale_x=zoom * stretch * mirror,
                scale_y=zoom / stretch,
                shift_x=spread(how.shift) * width,
                shift_y=spread(how.shift) * height,
            ),
        )
    faces = images.astype(np.float32)
    if how.contrast or how.brightness:
        mean = faces.mean(axis=(1, 2), keepdims=True)
        gain = np.exp(spread(np.log1p(how.contrast)))[:, None, None]
        offset = (spread(how.brightness) * 255)[:, None, None]
        faces = np.clip((faces - mean) * gain + mean + offset, 0, 255)
    if how.blur:
        chosen = np.asarray(rng.random(count) < how.blur)
        faces[chosen] = _blur(faces[chosen], float(rng.uniform(0.3, how.blur_sigma)))
    if how.noise:
        chosen = np.asarray(rng.random(count) < how.noise)
        sigma = rng.uniform(0, how.noise_sigma, (int(chosen.sum()), 1, 1)).astype(np.float32)
        grain = rng.standard_normal((len(sigma), height, width), np.float32)
        faces[chosen] = np.clip(faces[chosen] + sigma * grain, 0, 255)
    if how.erase:
        size = np.asarray(rng.uniform(*how.erase_area, count))
        chosen = np.asarray(rng.random(count) < how.erase)
        hole = _box(rng, count, np.where(chosen, size, 1e-9), height, width)
        hole &= chosen[:, None, None]
        noise = rng.integers(0, 256, faces.shape, np.uint8).astype(np.float32)
        faces = np.where(hole, noise, faces)
    if how.cutmix and rng.random() < how.cutmix:
        partner = rng.permutation(count)
        hole = _box(rng, count, np.asarray(rng.uniform(0, 0.5, count)), height, width)
        faces = np.where(hole, faces[partner], faces)
        kept = np.asarray(1 - hole.mean(axis=(1, 2)), np.float32)[:, None]  # (N, 1)
        targets = kept * targets + (1 - kept) * targets[partner]
    elif how.mixup:
        partner = rng.permutation(count)
        drawn = np.asarray(rng.beta(how.mixup, how.mixup, count), np.float32)
        kept = np.maximum(drawn, 1 - drawn)[:, None]  # (N, 1)
        faces = kept[:, :, None] * faces + (1 - kept[:, :, None]) * faces[partner]
        targets = kept * targets + (1 - kept) * targets[partner]
    return faces[..., None].astype(np.float32), targets.astype(np.float32)
