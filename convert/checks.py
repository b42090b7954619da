"""Finds models that are fed or labelled wrongly: another label order, another scaling, no skill.

A model converts just as well with its labels in the wrong order: float and int8 agree, and both are
wrong. Only the labelled images show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from convert import gate, images
from convert.conversion import Job
from emotion_edge.model.labels import EMOTIONS
from train import metrics, targets
from train.readers import plain_label

SAMPLE = 350
"""Images on which other label orders and scalings are tried, stratified by class."""

LEAST_GAIN = 8.0
"""Points by which another choice has to be better to stop the conversion."""

LARGEST_P = 1e-3
"""And McNemar's p-value of that gain, which excludes chance."""

FERPLUS_ORDER = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear")


def problems(job: Job) -> Iterator[str]:
    """What is probably wrong with how the model is fed or labelled, one line each."""
    better = better_choice(job)
    if better is not None:
        yield better
    elif (unskilled := no_skill(job)) is not None:
        yield unskilled


def better_choice(job: Job) -> str | None:
    """A label order or scaling with which the float model is far better; None if there is none."""
    rows, truth = _judged(job)
    places = images.stratified(truth, SAMPLE, job.seed)
    chosen, truth = rows[places], truth[places]
    sample = job.judged.at(chosen)
    right_now = job.expected[chosen].argmax(axis=1) == truth
    # Only FER2013's own labels can be in another order: votes are in that of the emotions.
    orders = _orders(job.labels) if job.convention == "fer2013" else {"as given": job.labels}
    best: tuple[float, str, str, NDArray[np.bool_]] | None = None
    for scaling, (scale, offset) in _scalings(job).items():
        spec = replace(job.spec, scale=scale, offset=offset)
        answers = (
            job.expected[chosen]
            if (scale, offset) == (job.spec.scale, job.spec.offset)
            else gate.predict(job.reference, job.manifest("float32", spec), sample)
        ).argmax(axis=1)
        for order, labels in orders.items():
            position = np.array([job.labels.index(label) for label in labels])
            right = position[answers] == truth
            if best is None or right.mean() > best[0]:
                option = "" if labels == job.labels else f" --labels {','.join(labels)}"
                if (scale, offset) != (job.spec.scale, job.spec.offset):
                    option += f" --scale {scaling}" + (f" --offset {offset:g}" if offset else "")
                best = float(right.mean()), order, option, right
    assert best is not None
    gain = 100 * (best[0] - right_now.mean())
    lost, won = int((right_now & ~best[3]).sum()), int((best[3] & ~right_now).sum())
    if not best[2] or gain < LEAST_GAIN or metrics.mcnemar(lost, won) > LARGEST_P:
        return None
    return (
        f"{job.model.name} is right on {100 * right_now.mean():.1f}% of {len(sample)} images of "
        f"{sample.split} as it is fed now, and on {100 * best[0]:.1f}% with{best[2]} "
        f"({best[1]}): use that"
    )


def _orders(labels: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Orders in which models are trained, each a permutation of the labels."""
    found = {"the order given": labels, "alphabetical order": tuple(sorted(labels))}
    for name, order in (("FER2013's order", EMOTIONS), ("FER+'s order", FERPLUS_ORDER)):
        own = {plain_label(label): label for label in labels}
        rest = tuple(label for label in labels if plain_label(label) not in order)
        if len(own) == len(labels):
            found[name] = (*(own[label] for label in order if label in own), *rest)
    return found


def _scalings(job: Job) -> Mapping[str, tuple[float, float]]:
    found = {
        "1": (1.0, 0.0),
        "1/255": (1 / 255, 0.0),
        "1/127.5": (1 / 127.5, -1.0),
    }
    faces = job.calibration_images.faces
    mean, deviation = float(faces.mean()), float(faces.std()) or 1.0
    found[f"1/{deviation:.2f}"] = (1 / deviation, -mean / deviation)
    given = job.spec.scale, job.spec.offset
    if given not in found.values():
        found[f"{given[0]:g}"] = given
    return found


def _judged(job: Job) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return targets.judged(job.judged.as_split(), job.convention, len(job.labels))


def no_skill(job: Job) -> str | None:
    """Why the float model is no better than a constant answer; None if it is better."""
    rows, truth = _judged(job)
    answers = job.expected[rows].argmax(axis=1)
    if len(np.unique(answers)) == 1:
        return (
            f"{job.model.name} answers {job.labels[answers[0]]!r} for all {len(truth)} images of "
            f"{job.judged.split}: check --scale and the weights"
        )
    right = int((answers == truth).sum())
    counts = np.bincount(truth, minlength=len(job.labels))
    largest = int(counts.max())
    low, _ = metrics.wilson_interval(right, len(truth))
    if low > largest / len(truth):
        return None
    return (
        f"{job.model.name} is right on {100 * right / len(truth):.1f}% of {len(truth)} images of "
        f"{job.judged.split}, no better than always answering "
        f"{job.labels[int(counts.argmax())]!r} ({100 * largest / len(truth):.1f}%): check "
        "--labels, --scale and the weights"
    )
