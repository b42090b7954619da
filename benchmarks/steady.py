"""Measures how often a label changes on a steady face, and how fast it follows a real change.

Each face is shown for 10 s at 15 frames per second with a shaky detector: in every frame its crop
is moved by up to 2 px each way, turned by up to 5 degrees and given sensor noise, independently of
the other frames. The network classifies each frame; the tracker smooths. A real camera's errors
last longer than one frame, and an average removes them less well: in a second row each error lasts
1 to 4 frames. A change of expression is one face's first 5 s followed by another's last 5 s, in the
same box, for pairs whose lasting answers (the label of the mean probabilities) differ.

The last line of standard output is one JSON document.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.faces import add_data_arguments, load_faces
from emotion_edge.bench.report import to_json
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.preprocessing import resize_to_input
from emotion_edge.model.shipped import model_path
from emotion_edge.tracker import FaceTracker, TrackerSettings
from emotion_edge.values import Box, Emotion, Image

HELP = "label changes per minute on a steady face, and the delay of a real change"
FPS = 15
SECONDS = 10
SHIFT, TURN, NOISE = 2.0, 5.0, 5.0  # pixels of 48, degrees, gray levels
CLEAR = 0.8  # share of a face's frames that give its lasting answer, from which it is clear
LESS, SOON = 10.0, 0.95  # the bars: times fewer changes; share of clear changes within 0.5 s
_BOX = Box(200, 150, 96, 96)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_arguments(parser)
    parser.set_defaults(count=200)
    parser.add_argument("--fps", type=float, default=FPS, help=f"default {FPS}")


def run(options: argparse.Namespace) -> int:
    """Print the figures; 1 when the tracker's limits are not met."""
    faces = load_faces(options, options.count)
    classifier = TFLiteClassifier.load(model_path(options.model))
    answers = shaken_answers(classifier, faces.images, options.fps, options.seed)
    settings = TrackerSettings()
    truth = faces.labels
    steady = {
        "each": steadiness(answers, truth, classifier.labels, options.fps, settings),
        "lasting": steadiness(
            lasting(answers, options.seed), truth, classifier.labels, options.fps, settings
        ),
    }
    change = changes(answers, classifier.labels, options.fps, settings)
    print(
        f"{len(faces)} faces of {options.split}, {SECONDS} s each at {options.fps:g} fps, moved by "
        f"{SHIFT:g} px, turned by {TURN:g} degrees, noise {NOISE:g}"
    )
    for name, row in steady.items():
        print(
            f"errors {name:8} label changes per minute: raw {row['raw']:.1f}, shown "
            f"{row['shown']:.2f}: {row['ratio']:.1f} times fewer; never changed: "
            f"{100 * row['raw_still']:.1f}% -> {100 * row['still']:.1f}% of the faces; right: "
            f"{100 * row['raw_accuracy']:.2f}% -> {100 * row['accuracy']:.2f}% of the frames"
        )
    for name, row in change.items():
        print(
            f"a real change, {name:5} ({row['pairs']} pairs): shown after {row['median_s']:.2f} s "
            f"(median), {row['p95_s']:.2f} s (p95); within 0.5 s: {100 * row['within_half']:.1f}%"
        )
    document = {
        "benchmark": "steady",
        "model": classifier.manifest.name,
        "model_sha256": classifier.manifest.model_sha256,
        "split": options.split,
        "faces": len(faces),
        "fps": options.fps,
        "seed": options.seed,
        "settings": asdict(settings),
        "steady": steady,
        "change": change,
    }
    met = steady["each"]["ratio"] >= LESS and change["clear"]["within_half"] >= SOON
    print(to_json({**document, "met": met}))
    return 0 if met else 1


def shaken_answers(
    classifier: TFLiteClassifier, faces: Image, fps: float, seed: int
) -> NDArray[np.float32]:
    """The network's probabilities ``(faces, frames, labels)`` for shaken faces ``(n, 48, 48)``."""
    rng = np.random.default_rng(seed)
    frames = round(SECONDS * fps)
    spec = classifier.manifest.input
    answers = np.zeros((len(faces), frames, len(classifier.labels)), np.float32)
    for row, face in enumerate(faces):
        for column in range(frames):
            shaken = resize_to_input(shake(face, rng, spec.width), spec)
            answers[row, column] = classifier.probabilities(shaken)
    return answers


def shake(face: Image, rng: np.random.Generator, side: int) -> Image:
    """One frame of a face: moved, turned and grainy; uint8 ``(side, side)``."""
    height, width = face.shape
    move = cv2.getRotationMatrix2D(
        ((width - 1) / 2, (height - 1) / 2), float(rng.uniform(-TURN, TURN)), side / width
    )
    move[:, 2] += (side - width) / 2 + rng.uniform(-SHIFT, SHIFT, 2) * side / width
    moved = cv2.warpAffine(
        face, move, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    grain = rng.normal(0, NOISE, moved.shape)
    return np.asarray(np.clip(np.rint(moved + grain), 0, 255), dtype=np.uint8)


def shown_labels(
    answers: NDArray[np.float32], labels: tuple[str, ...], fps: float, settings: TrackerSettings
) -> list[str]:
    """The label the tracker shows in each frame of ``answers (frames, labels)``; "" before."""
    tracker = FaceTracker(settings)
    shown = []
    for index, row in enumerate(answers):
        reported = tracker.update([(_BOX, Emotion(labels, tuple(row.tolist())))], _ns(index, fps))
        shown.append(reported[0].label if reported else "")
    return shown


def lasting(answers: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """The same answers, each repeated for 1 to 4 frames."""
    rng = np.random.default_rng(seed)
    slow = answers.copy()
    for face in slow:
        start = 0
        while start < len(face):
            stop = start + int(rng.integers(1, 5))
            face[start:stop] = face[start]
            start = stop
    return slow


def steadiness(
    answers: NDArray[np.float32],
    truth: NDArray[np.int64],
    labels: tuple[str, ...],
    fps: float,
    settings: TrackerSettings,
) -> dict[str, float]:
    """Label changes per minute and accuracy on steady faces, raw and shown."""
    raw = [_changes([labels[i] for i in face.argmax(1)]) for face in answers]
    films = [shown_labels(face, labels, fps, settings) for face in answers]
    shown = [_changes(film) for film in films]
    right = [
        label == labels[true]
        for film, true in zip(films, truth, strict=True)
        for label in film
        if label
    ]
    minutes = len(answers) * answers.shape[1] / fps / 60
    return {
        "raw": sum(raw) / minutes,
        "shown": sum(shown) / minutes,
        "ratio": sum(raw) / sum(shown) if sum(shown) else math.inf,
        "still": float(np.mean([count == 0 for count in shown])),
        "raw_still": float(np.mean([count == 0 for count in raw])),
        "accuracy": float(np.mean(right)),
        "raw_accuracy": float(np.mean(answers.argmax(2) == truth[:, None])),
    }


def changes(
    answers: NDArray[np.float32], labels: tuple[str, ...], fps: float, settings: TrackerSettings
) -> dict[str, dict[str, float]]:
    """Seconds from a change of face to the new face's lasting label: all pairs, and clear ones."""
    final = answers.mean(1).argmax(1)
    share = (answers.argmax(2) == final[:, None]).mean(1)
    half = answers.shape[1] // 2
    delays: dict[str, list[float]] = {"all": [], "clear": []}
    for before in range(len(answers)):
        after = (before + 1) % len(answers)
        if final[before] == final[after]:
            continue
        film = np.concatenate([answers[before, :half], answers[after, half:]])
        shown = shown_labels(film, labels, fps, settings)[half:]
        target = labels[final[after]]
        # A label in the first frame of the change counts as no delay.
        delay = shown.index(target) / fps if target in shown else math.inf
        delays["all"].append(delay)
        if min(share[before], share[after]) >= CLEAR:
            delays["clear"].append(delay)
    return {name: _summary(values) for name, values in delays.items()}


def _summary(delays: Sequence[float]) -> dict[str, Any]:
    if not delays:
        return {"pairs": 0, "median_s": math.nan, "p95_s": math.nan, "within_half": math.nan}
    ordered = sorted(delays)
    return {
        "pairs": len(ordered),
        "median_s": ordered[len(ordered) // 2],
        "p95_s": ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)],
        "within_half": sum(delay <= 0.5 for delay in ordered) / len(ordered),
    }


def _changes(labels: Sequence[str]) -> int:
    seen = [label for label in labels if label]
    return sum(a != b for a, b in itertools.pairwise(seen))


def _ns(index: int, fps: float) -> int:
    return round(index * 1e9 / fps)
