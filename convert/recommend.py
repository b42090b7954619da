"""Compares the converted variants by size, latency and accuracy, and recommends one."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from convert.conversion import Attempt, Job
from emotion_edge.model.backend import LITERT
from emotion_edge.model.classifier import TFLiteClassifier

ROUNDS = 60
"""Times each model is run; the models take turns, so that all see the same load."""

EQUAL = 1.1
"""Latencies up to this factor apart count as equal; then the smaller file wins."""


def table(job: Job, attempts: Sequence[Attempt]) -> str:
    """One line per variant, and the recommendation."""
    latency = latencies(job, attempts)
    lines = ["  variant    bytes        ms   accuracy     equal  gate"]
    for attempt, milliseconds in zip(attempts, latency, strict=True):
        converted = attempt.converted
        accuracy = 100 * converted.comparison.converted_figures["accuracy"]
        lines.append(
            f"  {converted.variant:<8} {len(converted.model):>8,} {milliseconds:>9.3f} "
            f"{accuracy:>9.2f}% {converted.comparison.agreement:>8.2f}%  "
            f"{'passes' if attempt.passed else 'fails'}"
        )
    best = choose(attempts, latency)
    lines.append(
        "  no variant passes: none is recommended"
        if best is None
        else f"  recommended: {best.converted.variant} (latency on this machine, 1 thread)"
    )
    return "\n".join(lines)


def choose(attempts: Sequence[Attempt], latency: Sequence[float]) -> Attempt | None:
    """The fastest variant that passes; of nearly equal ones the smallest. None if none passes."""
    pairs = zip(latency, attempts, strict=True)
    passing = [(ms, attempt) for ms, attempt in pairs if attempt.passed]
    if not passing:
        return None
    fastest = min(ms for ms, _ in passing)
    equal = [attempt for ms, attempt in passing if ms <= EQUAL * fastest]
    return min(equal, key=lambda attempt: len(attempt.converted.model))


def latencies(job: Job, attempts: Sequence[Attempt]) -> list[float]:
    """Median milliseconds of one image, one thread, LiteRT with XNNPACK."""
    classifiers = [
        TFLiteClassifier(
            attempt.converted.model,
            job.manifest(attempt.converted.variant, attempt.converted.spec),
            LITERT,
        )
        for attempt in attempts
    ]
    face = job.judged.faces[0]
    times: list[list[float]] = [[] for _ in classifiers]
    for _ in range(ROUNDS):
        for classifier, own in zip(classifiers, times, strict=True):
            start = time.perf_counter()
            classifier.probabilities(face)
            own.append(1e3 * (time.perf_counter() - start))
    return [float(np.median(own)) for own in times]
