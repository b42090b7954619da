"""Computes metrics of predictions, without TensorFlow.

Probabilities are float ``(n, classes)``, truth and predictions int ``(n,)`` positions of classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_edge.shares import wilson_interval as wilson_interval

Counts = NDArray[np.int64]
Integers = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


def softmax(logits: Floats) -> NDArray[np.float32]:
    """Probabilities of logits over the last axis, float32 of the same shape."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float32)


def confusion_matrix(truth: Integers, predicted: Integers, classes: int) -> Counts:
    """How often each class (rows) was called each class (columns), ``(classes, classes)``."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def recall(confusion: Counts) -> NDArray[np.float64]:
    """Share of each class that was found, ``(classes,)``; 0 for a class without images."""
    return np.asarray(np.diag(confusion) / np.maximum(confusion.sum(axis=1), 1))


def precision(confusion: Counts) -> NDArray[np.float64]:
    """Share of each class's predictions that is right, ``(classes,)``; 0 where there are none."""
    return np.asarray(np.diag(confusion) / np.maximum(confusion.sum(axis=0), 1))


def macro_f1(confusion: Counts) -> float:
    """Mean of the harmonic means of precision and recall, over the classes that occur."""
    both = confusion.sum(axis=1) + confusion.sum(axis=0)
    return float((2 * np.diag(confusion)[both > 0] / both[both > 0]).mean())


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that two classifiers err alike (McNemar 1947).

    only_first, only_second: images that just the one, or just the other, gets right.
    """
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / 2**n))


def equal_mass_bins(
    probabilities: Floats, truth: Integers, bins: int = 15
) -> tuple[NDArray[np.float64], NDArray[np.float64], Counts]:
    """Mean confidence, accuracy and size of up to ``bins`` bins of equally many images.

    Images are ordered by the probability of their predicted class.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == truth
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return (
        np.array([confidence[part].mean() for part in parts]),
        np.array([right[part].mean() for part in parts]),
        np.array([len(part) for part in parts], np.int64),
    )


def calibration_error(probabilities: Floats, truth: Integers, bins: int = 15) -> float:
    """Expected calibration error over bins of equal mass (Nixon et al. 2019)."""
    confidence, accuracy, sizes = equal_mass_bins(probabilities, truth, bins)
    return float((np.abs(confidence - accuracy) * sizes).sum() / max(sizes.sum(), 1))


def kl_divergence(
    reference: Floats, other: Floats, smoothing: float = 1 / 512
) -> NDArray[np.float64]:
    """Kullback-Leibler divergence of ``other`` from ``reference`` in nats, ``(n,)``.

    ``smoothing`` is added to each probability before they are normalised again, since an int8
    softmax answers exact zeros.
    """
    first, second = (p.astype(np.float64) + smoothing for p in (reference, other))
    first /= first.sum(axis=1, keepdims=True)
    second /= second.sum(axis=1, keepdims=True)
    return np.asarray((first * np.log(first / second)).sum(axis=1))


def calibration_noise(
    probabilities: Floats, bins: int = 15, *, draws: int = 200, seed: int = 0
) -> float:
    """The calibration error that a perfectly calibrated model would show at this n.

    Labels are drawn from the model's own confidence, so what is left is sampling noise.
    """
    rng = np.random.default_rng(seed)
    confidence = np.sort(probabilities.max(axis=1).astype(np.float64))
    parts = np.array_split(np.arange(len(confidence)), bins)
    hits = rng.random((draws, len(confidence))) < confidence
    gaps = [
        np.abs(hits[:, part].mean(axis=1) - confidence[part].mean()) * len(part)
        for part in parts
        if len(part)
    ]
    return float(np.sum(gaps, axis=0).mean() / max(len(confidence), 1))


def fit_temperature(logits: Floats, truth: Integers) -> float:
    """The temperature that minimises the negative log-likelihood (Guo et al. 2017)."""
    rows = np.arange(len(truth))

    def loss(temperature: float) -> float:
        scaled = logits.astype(np.float64) / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[rows, truth]))

    # The loss has one minimum in log T: golden section needs no derivative and no SciPy.
    low, high = math.log(0.05), math.log(20.0)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(math.exp(left)) < loss(math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def mean_recall(truth: Integers, predicted: Integers, rare: int = 1) -> tuple[float, float]:
    """Mean recall over the seven emotions, and over the six without ``rare`` (disgust).

    A test split has so few faces that people call disgusted that one of them moves the first
    figure by a point. Classes without images count in neither.
    """
    each = recall(confusion_matrix(truth, predicted, 7))
    present = np.bincount(truth, minlength=7)[:7] > 0
    others = present & (np.arange(7) != rare)
    return float(each[present].mean()), float(each[others].mean())


def coverage_curve(
    probabilities: Floats, truth: Integers, step: float = 0.01
) -> list[tuple[float, float, float]]:
    """Threshold, precision of the labels shown, and share of images with a label.

    A label is shown where its probability reaches the threshold; thresholds rise from 0 by
    ``step`` while at least 20 labels are shown.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    points = []
    for threshold in np.arange(0, 1, step):
        shown = confidence >= threshold
        if shown.sum() < min(20, len(truth)):
            break
        points.append((float(threshold), float(right[shown].mean()), float(shown.mean())))
    return points
