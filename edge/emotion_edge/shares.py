"""Estimates shares of emotions in a crowd, corrected for the network's known mistakes.

Counting labels gives biased shares: a network that takes one sad face in four for neutral reports
too few sad people everywhere. The probabilities hold what is needed to undo that. They were
learned under certain class shares (the prior); expectation maximisation finds the shares at this
site under which the probabilities are consistent (Saerens, Latinne and Decaestecker 2002, Neural
Computation 14).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_PEOPLE = 10
"""Fewer people than this get no corrected shares: the interval would span almost everything."""

_ROUNDS = 100
_DRAWS = 200


@dataclass(frozen=True, slots=True)
class Share:
    """The share of a label among the people counted, with its 95% interval, each 0..1."""

    share: float
    low: float
    high: float


def corrected(probabilities: Floats, prior: Floats, weights: Floats | None = None) -> Floats:
    """Class shares (C,) that the probabilities (N, C) are consistent with, or (K, C).

    prior: class shares (C,) under which the probabilities hold. weights: (K, N), how often each
    row counts in each of K samples; None for once each.
    """
    ratio = probabilities / np.maximum(prior, 1e-4)  # (N, C)
    counts = np.ones((1, len(ratio))) if weights is None else weights
    counts = counts / counts.sum(axis=1, keepdims=True)
    shares = np.tile(prior, (len(counts), 1))  # (K, C)
    for _ in range(_ROUNDS):
        # sum over rows of count * ratio * share / (row's total), without a (K, N, C) array
        total = shares @ ratio.T  # (K, N)
        updated = shares * ((counts / np.maximum(total, 1e-12)) @ ratio)
        done = np.abs(updated - shares).max() < 1e-6
        shares = updated
        if done:
            break
    return shares[0] if weights is None else shares


def estimate(
    labels: Sequence[str],
    people: Sequence[Sequence[float]],
    prior: Sequence[float],
    *,
    seed: int = 0,
) -> dict[str, Share]:
    """Corrected shares by label, with a 95% bootstrap interval over the people.

    people: one row of calibrated probabilities each, in the order of ``labels``.
    prior: from the model's manifest. Empty when there are fewer than ``LEAST_PEOPLE`` people or
    the model states no prior.
    """
    if len(people) < LEAST_PEOPLE or len(prior) != len(labels):
        return {}
    probabilities = np.asarray(people, np.float64)
    before = np.asarray(prior, np.float64)
    found = corrected(probabilities, before)
    draws = np.random.default_rng(seed).multinomial(
        len(people), np.full(len(people), 1 / len(people)), size=_DRAWS
    )
    low, high = np.percentile(
        corrected(probabilities, before, draws.astype(np.float64)), [2.5, 97.5], axis=0
    )
    return {
        label: Share(round(float(a), 4), round(float(b), 4), round(float(c), 4))
        for label, a, b, c in zip(labels, found, low, high, strict=True)
    }


def fit_prior(probabilities: Floats, truth: NDArray[np.int64]) -> Floats:
    """The prior (C,) under which the correction reproduces the known class shares of a sample.

    Starts from those shares and moves until the corrected shares equal them. Used by the
    converter; probabilities (N, C), truth (N,).
    """
    classes = probabilities.shape[1]
    actual = np.bincount(truth, minlength=classes) + 0.5
    actual = actual / actual.sum()
    prior = actual.copy()
    for _ in range(500):
        # At the fixed point, the mean posterior under the actual shares is the actual shares.
        joint = probabilities * (actual / prior)
        total = np.maximum(joint.sum(axis=1, keepdims=True), 1e-12)
        posterior = (joint / total).mean(axis=0)
        prior = prior * np.sqrt(posterior / actual)
        prior = np.maximum(prior / prior.sum(), 1e-4)
        if np.abs(posterior - actual).max() < 1e-7:
            break
    return np.asarray(prior, np.float64)


def wilson_interval(right: int, n: int, z: float = 1.959963985) -> tuple[float, float]:
    """95% interval of a share of ``right`` in ``n`` (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
