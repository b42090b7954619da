"""Measures the labels of a neutral face that talks, and the delay of a real smile.

Neutral frontal faces of FER2013 (FER+'s majority) speak for 10 s: their mouths are warped open and
shut, wide and round, at the pace of syllables (``train.mouths``). The crop also shakes as in
``steady``. The network answers each frame, the tracker smooths, and the label shown should be
neutral or unsure. A synthetic mouth is not a real one: compare two models or settings by it, and
do not read the figures as those of a camera. A smile is a calm face's first 5 s followed by
another face's happy 5 s.

The last line of standard output is one JSON document.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.faces import add_data_arguments, load_faces
from benchmarks.steady import shake
from emotion_edge.bench.report import to_json
from emotion_edge.errors import UsageError
from emotion_edge.model import certainty
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.labels import UNSURE
from emotion_edge.model.preprocessing import resize_to_input
from emotion_edge.model.shipped import model_path
from emotion_edge.tracker import FaceTracker, TrackerSettings
from emotion_edge.values import Box, Emotion, Image
from train.mouths import is_frontal, mouth_rows, move_mouths
from train.targets import majority

HELP = "labels and label changes on a neutral face that talks"
FPS, SECONDS, SYLLABLES = 15, 10, 4.0
_BOX = Box(200, 150, 96, 96)
_NEUTRAL, _HAPPY = 6, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_arguments(parser)
    parser.set_defaults(count=3000)
    parser.add_argument("--faces", type=int, default=60, help="neutral faces (default 60)")
    parser.add_argument("--plain", action="store_true", help="no unsure, no longer evidence")


def run(options: argparse.Namespace) -> int:
    """Print the figures."""
    faces = load_faces(options, options.count)
    classifier = TFLiteClassifier.load(model_path(options.model))
    if faces.votes is None:
        raise UsageError("talking needs FER+'s votes: put fer2013new.csv next to the data")
    label, clear = majority(faces.votes)
    calm = np.flatnonzero(clear & (label == _NEUTRAL) & is_frontal(faces.images))[: options.faces]
    glad = np.flatnonzero(clear & (label == _HAPPY))[: options.faces]
    settings = TrackerSettings(unsure_below=certainty.unsure_below(classifier.manifest))
    if options.plain:
        settings = replace(settings, unsure_below=0.0, calm_factor=1.0)
    rng = np.random.default_rng(options.seed)
    talking = [speech(faces.images[at], rng) for at in calm]
    answers = [answers_to(classifier, clip) for clip in talking]
    shown = [labels_shown(clip, classifier.labels, settings) for clip in answers]
    flat = [label for clip in shown for label in clip]
    raw = [[classifier.labels[row.argmax()] for row in clip] for clip in answers]
    minutes = len(calm) * SECONDS / 60
    delays = [
        smile(faces.images[first], faces.images[second], classifier, settings, rng)
        for first, second in zip(calm, glad, strict=False)
    ]
    found = [delay for delay in delays if delay is not None]
    figures = {
        "neutral_or_unsure": sum(label in ("neutral", UNSURE) for label in flat) / len(flat),
        "neutral": flat.count("neutral") / len(flat),
        "changes_per_minute": sum(map(_changes, shown)) / minutes,
        "raw_changes_per_minute": sum(map(_changes, raw)) / minutes,
        "smile_median_s": float(np.median(found)) if found else None,
        "smiles_within_half_a_second": sum(delay <= 0.5 for delay in found) / max(len(found), 1),
        "smiles": len(found),
    }
    print(
        f"{len(calm)} neutral faces talk for {SECONDS} s: {figures['neutral_or_unsure']:.1%} of "
        f"the time neutral or unsure ({figures['neutral']:.1%} neutral), "
        f"{figures['changes_per_minute']:.1f} label changes per minute (raw "
        f"{figures['raw_changes_per_minute']:.1f}); {figures['smiles']} smiles shown after "
        f"{figures['smile_median_s']} s (median), "
        f"{figures['smiles_within_half_a_second']:.0%} within 0.5 s"
    )
    document = {
        "benchmark": "talking",
        "model": classifier.manifest.name,
        "model_sha256": classifier.manifest.model_sha256,
        "split": options.split,
        "faces": len(calm),
        "seed": options.seed,
        "settings": asdict(settings),
        **figures,
    }
    print(to_json(document))
    return 0


def speech(face: Image, rng: np.random.Generator) -> Image:
    """``FPS * SECONDS`` frames of a face that talks, uint8 ``(frames, 48, 48)``."""
    frames = FPS * SECONDS
    at = np.arange(frames) / FPS
    # Syllables of random strength, joined smoothly, with a pause now and then.
    count = round(SECONDS * SYLLABLES) + 2
    strength = rng.uniform(1.0, 5.0, count) * (rng.random(count) > 0.15)
    width = rng.uniform(0.85, 1.1, count)
    place = at * SYLLABLES
    index = place.astype(int)
    wave = np.sin(np.pi * (place - index)) ** 2
    opening = (strength[index] * wave).astype(np.float32)
    half = np.full(frames, rng.uniform(4.0, 6.0), np.float32)
    still = np.repeat(face[None], frames, axis=0)
    rows = np.repeat(mouth_rows(face[None]), frames)
    moved = move_mouths(still, opening, width[index].astype(np.float32), rows, half)
    return np.stack([shake(frame, rng, face.shape[0]) for frame in moved])


def answers_to(classifier: TFLiteClassifier, clip: Image) -> NDArray[np.float32]:
    """The network's probabilities ``(frames, labels)`` for a clip ``(frames, 48, 48)``."""
    spec = classifier.manifest.input
    return np.stack([classifier.probabilities(resize_to_input(frame, spec)) for frame in clip])


def labels_shown(
    answers: NDArray[np.float32], labels: tuple[str, ...], settings: TrackerSettings
) -> list[str]:
    """What the tracker shows in each frame from its first report on."""
    tracker, shown = FaceTracker(settings), []
    for index, row in enumerate(answers):
        emotion = Emotion(labels, tuple(row.tolist()))
        seen = tracker.update([(_BOX, emotion)], round(index / FPS * 1e9))
        shown += [face.label for face in seen]
    return shown


def smile(
    calm: Image,
    glad: Image,
    classifier: TFLiteClassifier,
    settings: TrackerSettings,
    rng: np.random.Generator,
) -> float | None:
    """Seconds from a smile to its label; None where the network does not see it in most frames."""
    half = FPS * SECONDS // 2
    clip = [shake(face, rng, face.shape[0]) for face in (calm, glad) for _ in range(half)]
    answers = answers_to(classifier, np.stack(clip))
    happy = classifier.labels.index("happy")
    if np.mean(answers[half:].argmax(axis=1) == happy) < 0.8:
        return None
    if np.mean(answers[:half].argmax(axis=1) == happy) > 0.2:
        return None
    shown = labels_shown(answers, classifier.labels, settings)
    late = shown[len(shown) - half :]
    return (late.index("happy") + 1) / FPS if "happy" in late else float(SECONDS)


def _changes(labels: list[str]) -> int:
    return sum(a != b for a, b in itertools.pairwise(labels))
