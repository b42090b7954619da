"""Faces found, missed and false, and what the detector's crops cost in accuracy.

FER2013 faces are pasted into seeded scenes, so that every box is known. Three questions:

1. Which faces does a detector find, how many does it invent, and do its boxes lie as FER2013's
   crops do (side 1, shifts 0: else ``Extent`` in the detector's file wants a new figure)?
2. How much accuracy is lost when the network sees the detector's crop instead of the data set's,
   for each margin? Undetected faces are counted apart.
3. On moving faces that come and go: what does the schedule cost in missed faces, and how much
   time does it save?

The last line of standard output is one JSON document.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes import HEIGHT, WIDTH, background, is_centred, paste, scenes, shoot
from emotion_edge.bench.report import to_json
from emotion_edge.detectors import DETECTORS, FaceDetector, open_detector
from emotion_edge.errors import DetectorError, UsageError
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.preprocessing import face_input, resize_to_input
from emotion_edge.model.shipped import model_path
from emotion_edge.values import Box, Image
from train.data import Split, load_fer2013
from train.metrics import wilson_interval

HELP = "faces found, missed and false; accuracy of detected crops by margin; the schedule's gain"
MARGINS = (-0.1, -0.05, 0.0, 0.05, 0.1, 0.15)
_SAME = 0.3  # IoU from which a box whose centre lies in a face has found it
_Z = 1.96


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_arguments(parser)
    parser.add_argument("--detector", action="append", choices=list(DETECTORS), help="default: all")
    parser.add_argument(
        "--margin", action="append", type=float, help=f"default: {' '.join(map(str, MARGINS))}"
    )
    parser.add_argument("--sequences", type=int, default=24, help="films of 90 frames (default 24)")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every measurement on FER2013 faces takes."""
    parser.add_argument("--model", default="fast", help="a shipped model's name or a .tflite file")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("EMOTION_EDGE_DATA"),
        help="FER2013, as train reads it (default: $EMOTION_EDGE_DATA)",
    )
    parser.add_argument("--split", default="PublicTest", choices=("PublicTest", "PrivateTest"))
    parser.add_argument("--count", type=int, help="faces, chosen by the seed (default: all)")
    parser.add_argument("--seed", type=int, default=2013)


def load_faces(options: argparse.Namespace, count: int | None) -> Split:
    """The faces asked for, in an order the seed gives.

    Raises UsageError without ``--data``.
    """
    if options.data is None:
        raise UsageError("no data: give --data FER2013.csv or set EMOTION_EDGE_DATA")
    split = load_fer2013(options.data).split(options.split)
    order = np.random.default_rng(options.seed).permutation(len(split))
    return split.select(order[: count or len(split)])


def run(options: argparse.Namespace) -> int:
    """Print three tables and a JSON line; 0."""
    cv2.setNumThreads(1)  # figures of one core, so that machines compare
    split = load_faces(options, options.count)
    classifier = TFLiteClassifier.load(model_path(options.model))
    names = available(options.detector or list(DETECTORS))
    found, crops = look_at_scenes(
        names, split.images, classifier, tuple(options.margin or MARGINS), options.seed
    )
    direct = classifier.predict(
        np.stack([resize_to_input(face, classifier.manifest.input) for face in split.images])
    ).argmax(1)
    answer: dict[str, Any] = {
        "benchmark": "faces",
        "model": classifier.manifest.name,
        "model_sha256": classifier.manifest.model_sha256,
        "split": options.split,
        "faces": len(split),
        "seed": options.seed,
        "opencv": cv2.__version__,
        "detection": [one.summary() for one in found],
        "dataset_accuracy": float(np.mean(direct == split.labels)),
        "crops": [row for one in crops for row in one.summary(direct, split.labels)],
        "streams": watch_films(names, split.images, options.sequences, options.seed),
    }
    print(f"{len(split)} faces of {options.split}, two in each 640x480 scene, one thread\n")
    show_detection(answer["detection"])
    print(f"dataset crops, all {len(split)} faces: {100 * answer['dataset_accuracy']:.2f}%\n")
    show_crops(answer["crops"])
    show_streams(answer["streams"])
    print(to_json(answer))
    return 0


def available(names: Sequence[str]) -> list[str]:
    """Those detectors whose files are installed; a line for each of the others."""
    usable = []
    for name in names:
        try:
            open_detector(name)
            usable.append(name)
        except DetectorError as error:
            print(f"skipped: {error}")
    return usable


def look_at_scenes(
    names: Sequence[str],
    images: Image,
    classifier: TFLiteClassifier,
    margins: tuple[float, ...],
    seed: int,
) -> tuple[list[Found], list[Crops]]:
    """Run each detector's still and stream settings over all scenes.

    images: uint8 faces ``(n, 48, 48)``. Returns one ``Found`` and one ``Crops`` per setting.
    """
    tests: list[tuple[Any, Found, Crops]] = []
    for name in names:
        for stream in (False, True):
            # The searcher of whole frames in a stream is coarser than the one for photographs.
            detector: Any = open_detector(name, scheduled=stream)
            label = f"{name}, {'stream' if stream else 'photo'}"
            tests.append(
                (
                    detector.full if stream else detector,
                    Found(label),
                    Crops(label, margins, len(images)),
                )
            )
    for scene in scenes(images, seed=seed):
        for detector, found, crops in tests:
            boxes = found.look(detector, scene.image, scene.boxes)
            for face, box in zip(scene.faces, boxes, strict=True):
                if box is not None:
                    crops.take(face, scene.image, box, classifier)
    return [found for _, found, _ in tests], [crops for _, _, crops in tests]


def watch_films(
    names: Sequence[str], images: Image, sequences: int, seed: int
) -> list[dict[str, Any]]:
    """Each detector on films, searching every frame and scheduled: one row of figures each."""
    watched = []
    for name in names:
        scheduled: Any = open_detector(name, scheduled=True)
        watched += [
            Watch(f"{name}, every frame", scheduled.full),
            Watch(f"{name}, scheduled", open_detector(name, scheduled=True)),
        ]
    rng = np.random.default_rng(seed)
    for _ in range(sequences):
        frames = list(film(images, rng))
        for one in watched:
            one.see(frames)
    return [one.summary() for one in watched if one.films]


def show_detection(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what each detector found in scenes."""
    _table(
        f"{'detector':15} {'missed':>17} {'false/100 scenes':>16} {'ms':>6} {'IoU':>6} "
        f"{'side (IQR)':>13} {'right':>7} {'down':>7}",
        (
            f"{r['detector']:15} {_share(r['missed'], r['missed_ci95']):>17} "
            f"{r['false_per_100_scenes']:16.1f} {r['ms']:6.1f} {r['iou']:6.2f} "
            f"{r['side']:5.3f} ({r['side_iqr']:.3f}) {r['right']:+7.3f} {r['down']:+7.3f}"
            for r in rows
        ),
    )


def show_crops(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what the detectors' crops cost in accuracy, by margin."""
    _table(
        f"{'detector':15} {'margin':>6} {'found':>6} {'dataset crop':>13} {'its crop':>9} "
        f"{'loss, points':>13} {'missed wrong':>13}",
        (
            f"{r['detector']:15} {r['margin']:+6.2f} {r['detected']:6d} "
            f"{100 * r['dataset_accuracy']:12.2f}% {100 * r['accuracy']:8.2f}% "
            f"{100 * r['loss']:+6.2f} ± {100 * r['loss_ci95']:4.2f} "
            f"{100 * r['accuracy_undetected_wrong']:12.2f}%"
            for r in rows
        ),
    )


def show_streams(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what each detector found in films."""
    _table(
        f"{'film':20} {'missed':>7} {'false/100 frames':>16} {'IoU':>5} {'ms/frame':>8} "
        f"{'noticed after':>15} {'still there for':>15}",
        (
            f"{r['detector']:20} {100 * r['missed']:6.1f}% {r['false_per_100_frames']:16.2f} "
            f"{r['iou']:5.2f} {r['ms']:8.2f} {r['noticed_frames']:8.1f} frames "
            f"{r['stale_frames']:8.1f} frames"
            for r in rows
        ),
    )


class Found:
    """What one detector found in scenes with known boxes."""

    def __init__(self, detector: str) -> None:
        self.detector = detector
        self.scenes = self.faces = self.false = 0
        self.seconds = 0.0
        self.offsets: list[tuple[float, float, float, float]] = []  # IoU, side, right, down

    def look(self, detector: FaceDetector, image: Image, truth: Sequence[Box]) -> list[Box | None]:
        """Detect and count; the box found for each true one, or None."""
        start = time.thread_time()
        boxes = detector.detect(image)
        self.seconds += time.thread_time() - start
        matched, false = match(boxes, truth)
        self.scenes += 1
        self.faces += len(truth)
        self.false += false
        for true, box in zip(truth, matched, strict=True):
            if box is not None:
                self.offsets.append(
                    (
                        true.iou(box),
                        true.width / box.width,
                        (true.x + true.width / 2 - box.x - box.width / 2) / box.width,
                        (true.y + true.height / 2 - box.y - box.height / 2) / box.width,
                    )
                )
        return matched

    def summary(self) -> dict[str, Any]:
        """One row of the table."""
        missed = self.faces - len(self.offsets)
        low, mid, high = (
            np.percentile(self.offsets, [25, 50, 75], axis=0)
            if self.offsets
            else np.full((3, 4), math.nan)
        )
        return {
            "detector": self.detector,
            "faces": self.faces,
            "missed": missed / self.faces,
            "missed_ci95": wilson_interval(missed, self.faces),
            "false_per_100_scenes": 100 * self.false / self.scenes,
            "ms": 1000 * self.seconds / self.scenes,
            "iou": float(mid[0]),
            "side": float(mid[1]),
            "side_iqr": float(high[1] - low[1]),
            "right": float(mid[2]),
            "down": float(mid[3]),
        }


@dataclass(slots=True)
class Crops:
    """What the network answered to one detector's crops: -1 where the face was not found."""

    detector: str
    margins: tuple[float, ...]
    count: int
    answers: NDArray[np.int64] | None = None

    def take(self, face: int, image: Image, box: Box, classifier: TFLiteClassifier) -> None:
        """Classify one face at every margin."""
        if self.answers is None:
            self.answers = np.full((len(self.margins), self.count), -1, np.int64)
        for row, margin in enumerate(self.margins):
            spec = replace(classifier.manifest.input, margin=margin)
            answer = classifier.probabilities(face_input(image, box, spec))
            self.answers[row, face] = answer.argmax()

    def summary(
        self, direct: NDArray[np.int64], truth: NDArray[np.int64]
    ) -> Iterator[dict[str, Any]]:
        """A row for each margin."""
        if self.answers is None:
            return
        found = self.answers[0] >= 0
        right = direct[found] == truth[found]
        for margin, answers in zip(self.margins, self.answers, strict=True):
            detected = answers[found] == truth[found]
            change = right.astype(float) - detected  # paired: +1 lost, -1 gained
            yield {
                "detector": self.detector,
                "margin": margin,
                "detected": int(found.sum()),
                "dataset_accuracy": float(right.mean()),
                "accuracy": float(detected.mean()),
                "loss": float(change.mean()),
                "loss_ci95": float(_Z * change.std() / math.sqrt(len(change))),
                "accuracy_undetected_wrong": float((answers == truth).mean()),
            }


def match(boxes: Sequence[Box], truth: Sequence[Box]) -> tuple[list[Box | None], int]:
    """Each true box's best detection, and how many detections lie on no face.

    A second box on a face is neither a hit nor false.
    """
    matched: list[Box | None] = []
    for true in truth:
        hits = [box for box in boxes if is_centred(box, true) and true.iou(box) >= _SAME]
        matched.append(max(hits, key=true.iou, default=None))
    false = sum(not any(is_centred(box, true) for true in truth) for box in boxes)
    return matched, false


def film(
    faces: Image, rng: np.random.Generator, frames: int = 90
) -> Iterator[tuple[Image, Box | None]]:
    """Frames of one face that comes after a second, drifts and nods, and is gone for the last one.

    Yields the picture and the face's box, None while it is away.
    """
    room = background(rng)
    face = faces[rng.integers(len(faces))]
    side = round(float(np.exp(rng.uniform(np.log(90), np.log(220)))))
    grain = rng.normal(0, 4, (HEIGHT, WIDTH, 3)).astype(np.float32)
    # A smooth way across the picture, at most about four hundredths of a side in a frame.
    phase = rng.uniform(0, 2 * math.pi, 2)
    pace = rng.uniform(0.02, 0.06, 2)
    swing = np.minimum(0.04 * side / pace, (np.array([WIDTH, HEIGHT]) - side) / 2)
    middle = np.array(
        [
            rng.uniform(s, extent - side - s)
            for s, extent in zip(swing, (WIDTH, HEIGHT), strict=True)
        ]
    )
    for index in range(frames):
        image, box = room, None
        if 15 <= index < frames - 15:
            x, y = middle + swing * np.sin(phase + pace * index) + rng.normal(0, 0.005 * side, 2)
            box = Box(round(float(x)), round(float(y)), side, side)
            image = room.copy()
            paste(image, face, box)
        shift = tuple(int(n) for n in rng.integers(0, (HEIGHT, WIDTH)))
        yield shoot(image, np.roll(grain, shift, (0, 1))), box


class Watch:
    """One detector over films, counted by frame."""

    def __init__(self, name: str, detector: Any) -> None:
        self.name = name
        self.detector = detector
        self.films = self.frames = self.present = self.false = 0
        self.seconds = 0.0
        self.overlaps: list[float] = []  # with the face, where it was found
        self.noticed: list[int] = []  # frames until it was first found, a film each
        self.stale: list[int] = []  # frames for which a box outlived it

    def see(self, frames: Sequence[tuple[Image, Box | None]]) -> None:
        """One film."""
        if hasattr(self.detector, "reset"):
            self.detector.reset()
        came = gone = first = held = 0
        place: Box | None = None  # where the face was last
        for image, true in frames:
            start = time.thread_time()
            boxes = self.detector.detect(image)
            self.seconds += time.thread_time() - start
            if true is not None:
                place = true
                came += 1
                (hit,), lost = match(boxes, [true])
                if hit is not None:
                    self.overlaps.append(true.iou(hit))
                    first = first or came
            else:
                on_place = sum(is_centred(box, place) for box in boxes) if place else 0
                lost = len(boxes) - on_place
                gone += place is not None
                held = gone if on_place else held
            self.false += lost
        self.films += 1
        self.frames += len(frames)
        self.present += came
        if first:
            self.noticed.append(first - 1)
            self.stale.append(held)

    def summary(self) -> dict[str, Any]:
        """One row of the table."""
        return {
            "detector": self.name,
            "films": self.films,
            "missed": 1 - len(self.overlaps) / self.present,
            "false_per_100_frames": 100 * self.false / self.frames,
            "iou": float(np.median(self.overlaps)) if self.overlaps else math.nan,
            "ms": 1000 * self.seconds / self.frames,
            "never_noticed": self.films - len(self.noticed),
            "noticed_frames": float(np.mean(self.noticed)) if self.noticed else math.nan,
            "stale_frames": float(np.mean(self.stale)) if self.stale else math.nan,
        }


def _share(share: float, interval: tuple[float, float]) -> str:
    return f"{100 * share:.1f}% ({100 * interval[0]:.1f}-{100 * interval[1]:.1f})"


def _table(head: str, rows: Iterator[str]) -> None:
    print(head, *rows, "", sep="\n", flush=True)
