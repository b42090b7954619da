"""Finds near-duplicates: the same photograph with another crop, contrast or watermark.

Two faces are near-duplicates (twins, in names of fields) when the normalised correlation of their
48x48 pixels (mean removed, length one) is above :data:`THRESHOLD`. The rule is ours; by eye, nearly
all such pairs of FER2013 show one photograph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.90
"""Correlation above which two faces are the same photograph."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of twins of one set of images, ``first < second``, ordered by ``first``.

    ``first`` and ``second`` are positions in that set, int64 (P,); ``correlation`` is float32
    (P,); ``identical`` says whether the pixels are equal, bool (P,).
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    correlation: NDArray[np.float32]
    identical: NDArray[np.bool_]


def normalised(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Rows of mean 0 and length 1, float32 (N, pixels); a flat image becomes zeros."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(length, 1e-6), np.float32)


def _low_frequencies(side: int, count: int) -> NDArray[np.float32]:
    """The first ``count`` vectors of the cosine transform, orthonormal, float32 (side, count)."""
    angle = np.pi * (np.arange(side)[:, None] + 0.5) * np.arange(count)[None, :] / side
    basis = np.cos(angle)
    return np.asarray(basis / np.linalg.norm(basis, axis=0), np.float32)


def find_pairs(
    images: NDArray[np.uint8], threshold: float = THRESHOLD, *, frequencies: int = 14
) -> Pairs:
    """Every pair of twins among ``images`` (uint8 (N, 48, 48)).

    Exact, and seconds for 35,887 faces: each face is projected on its low frequencies, and what
    is left of it is kept as one number, its length. By Cauchy-Schwarz the product of two such
    short vectors is never below the correlation, so the long product is needed only for the few
    pairs whose short one passes the threshold.
    """
    faces = normalised(images)
    count, height, width = images.shape
    down, across = (_low_frequencies(side, min(side, frequencies)) for side in (height, width))
    square = faces.reshape(count, height, width)
    short = np.matmul(down.T, square @ across).reshape(count, -1)
    rest = np.sqrt(np.maximum(np.sum(faces**2, axis=1) - np.sum(short**2, axis=1), 0))
    short = np.concatenate([short, rest[:, None]], axis=1).astype(np.float32)

    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    block = 2048
    for start in range(0, count, block):
        # 1e-4 covers the rounding of float32 sums.
        near = short[start : start + block] @ short[start:].T > threshold - 1e-4
        i, j = np.nonzero(np.triu(near, k=1))
        i, j = i + start, j + start
        exact = np.concatenate(
            [
                np.einsum("ij,ij->i", faces[i[at : at + 65536]], faces[j[at : at + 65536]])
                for at in range(0, max(len(i), 1), 65536)
            ]
        )
        keep = exact > threshold
        found.append((i[keep], j[keep], exact[keep]))
    first, second, correlation = (np.concatenate(parts) for parts in zip(*found, strict=True))
    same = (images[first] == images[second]).all(axis=(1, 2))
    return Pairs(first.astype(np.int64), second.astype(np.int64), correlation, same)


def in_other(pairs: Pairs, here: NDArray[np.bool_], there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which images of ``here`` have a twin in ``there``; all bool (N,)."""
    hit = np.zeros(len(here), np.bool_)
    hit[pairs.first[there[pairs.second]]] = True
    hit[pairs.second[there[pairs.first]]] = True
    return hit & here
