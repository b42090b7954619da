"""Augments on the device, inside the jitted step: ``train.augment`` for the JAX backend.

The same changes from the same settings, drawn by ``jax.random``, so not the same batches. Three
differences: nothing is rounded to whole gray levels on the way; each blurred face has a sigma of
its own; and talking mouths come from ``VARIANTS`` versions of each calm face, which
``train.mouths`` makes once before the run.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpy.typing import NDArray

from train.augment import Augmentation
from train.mouths import talk

Array = Any
"""A ``jax.Array``; JAX's own annotation does not pass strict type checks."""

VARIANTS = 4


def talking_variants(
    images: NDArray[np.uint8], calm: NDArray[np.bool_], seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Versions of the calm faces with moved mouths, and where to find them.

    images: uint8 (N, H, W). calm: bool (N,).
    Returns uint8 (``VARIANTS``, calm faces, H, W), and int32 (N,): the place of each row among the
    calm faces, -1 for the others.
    """
    rng = np.random.default_rng((seed, 0x7A1C))
    faces = images[calm]
    variants = np.stack([talk(faces, rng) for _ in range(VARIANTS)])
    place = np.where(calm, np.cumsum(calm) - 1, -1).astype(np.int32)
    return variants, place


def speaking(
    faces: Array, rows: Array, variants: Array, place: Array, share: float, key: Array
) -> Array:
    """Some of the calm faces (N, H, W) replaced by one of their variants."""
    chosen, which = random.split(key)
    at = place[rows]
    moved = random.bernoulli(chosen, share, rows.shape) & (at >= 0)
    number = random.randint(which, rows.shape, 0, variants.shape[0])
    return jnp.where(moved[:, None, None], variants[number, jnp.maximum(at, 0)], faces)


def augment(faces: Array, targets: Array, how: Augmentation, key: Array) -> tuple[Array, Array]:
    """A batch as the network sees it once: float32 (N, H, W, 1) in 0..255, and its targets.

    faces: (N, H, W), uint8 or float32 in 0..255. targets: float32 (N, heads * classes).
    how: settings, fixed when the step is compiled.
    """
    count = faces.shape[0]
    keys = iter(random.split(key, 24))
    faces = faces.astype(jnp.float32)

    def spread(limit: float) -> Array:
        return random.uniform(next(keys), (count,), minval=-limit, maxval=limit)

    if how.flip or how.rotation or how.zoom or how.stretch or how.shift:
        height, width = faces.shape[1:]
        zoom = jnp.exp(spread(float(np.log1p(how.zoom))))
        stretch = jnp.exp(spread(float(np.log1p(how.stretch)) / 2))
        mirror = jnp.where(random.bernoulli(next(keys), 0.5 if how.flip else 0.0, (count,)), -1, 1)
        angle = jnp.deg2rad(spread(how.rotation))
        faces = warp(
            faces,
            affine(
                angle=angle,
                scale_x=zoom * stretch * mirror,
                scale_y=zoom / stretch,
                shift_x=spread(how.shift) * width,
                shift_y=spread(how.shift) * height,
            ),
        )
    if how.contrast or how.brightness:
        mean = faces.mean(axis=(1, 2), keepdims=True)
        gain = jnp.exp(spread(float(np.log1p(how.contrast))))[:, None, None]
        offset = (spread(how.brightness) * 255)[:, None, None]
        faces = jnp.clip((faces - mean) * gain + mean + offset, 0, 255)
    if how.blur:
        chosen = random.bernoulli(next(keys), how.blur, (count,))
        sigma = random.uniform(next(keys), (count,), minval=0.3, maxval=how.blur_sigma)
        faces = jnp.where(chosen[:, None, None], blur(faces, sigma, how.blur_sigma), faces)
    if how.noise:
        chosen = random.bernoulli(next(keys), how.noise, (count,))
        sigma = random.uniform(next(keys), (count,), maxval=how.noise_sigma) * chosen
        grain = random.normal(next(keys), faces.shape)
        faces = jnp.clip(faces + sigma[:, None, None] * grain, 0, 255)
    if how.erase:
        chosen = random.bernoulli(next(keys), how.erase, (count,))
        low, high = how.erase_area
        area = random.uniform(next(keys), (count,), minval=low, maxval=high)
        hole = boxes(next(keys), area, faces.shape[1:]) & chosen[:, None, None]
        noise = random.randint(next(keys), faces.shape, 0, 256).astype(jnp.float32)
        faces = jnp.where(hole, noise, faces)
    if how.cutmix or how.mixup:
        faces, targets = _mixed(faces, targets, how, keys)
    return faces[..., None], targets


def _mixed(faces: Array, targets: Array, how: Augmentation, keys: Any) -> tuple[Array, Array]:
    """Cut and mixed with partners, or mixed, or as they are."""
    count = faces.shape[0]
    partner = random.permutation(next(keys), count)
    whole = jnp.ones((count,), jnp.float32)
    kept = whole
    blend = faces
    if how.mixup:
        drawn = random.beta(next(keys), how.mixup, how.mixup, (count,))
        kept = jnp.maximum(drawn, 1 - drawn)
        blend = kept[:, None, None] * faces + (1 - kept[:, None, None]) * faces[partner]
    if how.cutmix:
        area = random.uniform(next(keys), (count,), maxval=0.5)
        hole = boxes(next(keys), area, faces.shape[1:])
        cuts = random.bernoulli(next(keys), how.cutmix)  # of the whole batch
        blend = jnp.where(cuts, jnp.where(hole, faces[partner], faces), blend)
        kept = jnp.where(cuts, 1 - hole.mean(axis=(1, 2)), kept)
    share = kept[:, None]
    return blend, share * targets + (1 - share) * targets[partner]


def affine(
    *, angle: Array, scale_x: Array, scale_y: Array, shift_x: Array, shift_y: Array
) -> Array:
    """Matrices for :func:`warp`, float32 (N, 2, 3); ``train.augment.affine`` in JAX."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack(
        [
            jnp.stack([cos / scale_x, -sin / scale_y, -shift_x], axis=-1),
            jnp.stack([sin / scale_x, cos / scale_y, -shift_y], axis=-1),
        ],
        axis=1,
    )


def warp(faces: Array, matrices: Array) -> Array:
    """Each face through its own affine map, bilinear, edges repeated.

    faces: float32 (N, H, W). matrices: float32 (N, 2, 3), as ``train.augment.warp`` takes them.
    """
    height, width = faces.shape[1:]
    cx, cy = (width - 1) / 2, (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32) - cx
    y = jnp.arange(height, dtype=jnp.float32) - cy
    m = matrices[:, :, :, None, None]
    grid = m[:, :, 0] * x[None, None, None, :] + m[:, :, 1] * y[None, None, :, None] + m[:, :, 2]
    at_x = jnp.clip(grid[:, 0] + cx, 0, width - 1)
    at_y = jnp.clip(grid[:, 1] + cy, 0, height - 1)
    left = jnp.clip(jnp.floor(at_x), 0, width - 2).astype(jnp.int32)
    top = jnp.clip(jnp.floor(at_y), 0, height - 2).astype(jnp.int32)
    right_share, lower_share = at_x - left, at_y - top
    flat = faces.reshape(faces.shape[0], -1)

    def corner(row: Array, column: Array) -> Array:
        index = (row * width + column).reshape(faces.shape[0], -1)
        return jnp.take_along_axis(flat, index, axis=1).reshape(faces.shape)

    upper = corner(top, left) * (1 - right_share) + corner(top, left + 1) * right_share
    lower = corner(top + 1, left) * (1 - right_share) + corner(top + 1, left + 1) * right_share
    return upper * (1 - lower_share) + lower * lower_share


def blur(faces: Array, sigma: Array, largest: float) -> Array:
    """Each face (N, H, W) through a Gaussian of its own sigma (N,), edges repeated.

    largest: of the sigmas, fixed when the step is compiled.
    """
    reach = max(1, int(np.ceil(3 * largest)))
    offsets = jnp.arange(-reach, reach + 1, dtype=jnp.float32)
    weights = jnp.exp(-0.5 * (offsets[None, :] / sigma[:, None]) ** 2)
    weights = weights / weights.sum(axis=1, keepdims=True)
    for axis in (1, 2):
        pad = [(0, 0), (0, 0), (0, 0)]
        pad[axis] = (reach, reach)
        padded = jnp.pad(faces, pad, mode="edge")
        length = faces.shape[axis]
        faces = sum(
            weights[:, k, None, None] * jax.lax.slice_in_dim(padded, k, k + length, axis=axis)
            for k in range(2 * reach + 1)
        )
    return faces


def boxes(key: Array, area: Array, shape: tuple[int, int]) -> Array:
    """Random rectangles of these shares of the area (N,), bool (N, H, W)."""
    height, width = shape
    form, down, across = random.split(key, 3)
    ratio = jnp.exp(
        random.uniform(form, area.shape, minval=float(np.log(0.4)), maxval=float(np.log(2.5)))
    )
    h = jnp.clip(jnp.sqrt(area * ratio) * height, 1, height)
    w = jnp.clip(jnp.sqrt(area / ratio) * width, 1, width)
    top = random.uniform(down, area.shape) * (height - h)
    left = random.uniform(across, area.shape) * (width - w)
    y, x = jnp.arange(height)[None, :], jnp.arange(width)[None, :]
    in_y = (y >= top[:, None]) & (y < (top + h)[:, None])
    in_x = (x >= left[:, None]) & (x < (left + w)[:, None])
    return in_y[:, :, None] & in_x[:, None, :]
