"""Measures detectors end to end: faces found, missed and false, and labels that are right.

FER2013 faces are pasted into seeded scenes, so that every box is known. The questions:

1. Which faces does a detector find, how many does it invent, and do its boxes lie as FER2013's
   crops do (side 1, shifts 0; otherwise the figures in the detector's file need an update)? *Photo*
   is the detector for single images, *stream* what a camera that does not move shows after 24
   frames.
2. How much accuracy is lost when the network sees the detector's crop instead of the data set's,
   for each margin? Undetected faces are counted apart.
3. How many faces are both found and labelled as most people would (FER+'s majority)?
4. What does a tilt of 20 degrees cost?
5. How many false faces do scenes without any face have?
6. How exact is the yaw on faces turned by a model of a head?
7. On moving faces that come and go: what does the schedule for streams miss, compared with the
   detector for single images, and what does it cost per frame?

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
from emotion_edge.bench.measure import document
from emotion_edge.bench.report import add_output_arguments, check_outputs, emit
from emotion_edge.detectors import DETECTORS, FaceDetector, open_detector
from emotion_edge.errors import DetectorError, UsageError
from emotion_edge.head import yaw
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.preprocessing import face_input, resize_to_input
from emotion_edge.model.shipped import model_path
from emotion_edge.values import Box, Image
from train.data import Split, load_fer2013
from train.metrics import wilson_interval
from train.targets import majority

HELP = "faces found, missed, false and labelled right; tilt, turns, margins; streams"
MARGINS = (-0.05, 0.0, 0.05)
_SAME = 0.3  # IoU from which a box whose centre lies in a face has found it
_Z = 1.96


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_arguments(parser)
    parser.add_argument("--detector", action="append", choices=list(DETECTORS), help="default: all")
    parser.add_argument(
        "--margin", action="append", type=float, help=f"default: {' '.join(map(str, MARGINS))}"
    )
    parser.add_argument("--sequences", type=int, default=12, help="clips of 90 frames (default 12)")
    parser.add_argument(
        "--empty", type=int, default=200, help="scenes without a face (default 200)"
    )
    parser.add_argument("--tilt", type=float, default=20.0, help="degrees (default 20; 0: none)")
    parser.add_argument("--turned", type=int, default=60, help="faces that are turned (default 60)")
    add_output_arguments(parser)


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
    """Print a table for each question and a document; 0."""
    check_outputs(options)
    cv2.setNumThreads(1)  # figures of one core, so that machines compare
    split = load_faces(options, options.count)
    classifier = TFLiteClassifier.load(model_path(options.model))
    names = available(options.detector or list(DETECTORS))
    margins = tuple(options.margin or MARGINS)
    settings = {
        "model": classifier.manifest.name,
        "model_sha256": classifier.manifest.model_sha256,
        "detectors": names,
        "split": options.split,
        "faces": len(split),
        "seed": options.seed,
        "margins": margins,
        "opencv": cv2.__version__,
    }
    with document("faces", settings) as answer:
        found, crops = look_at_scenes(names, split.images, classifier, margins, options.seed)
        direct = classifier.predict(
            np.stack([resize_to_input(face, classifier.manifest.input) for face in split.images])
        ).argmax(1)
        answer |= {
            "detection": [one.summary() for one in found],
            "dataset_accuracy": float(np.mean(direct == split.labels)),
            "crops": [row for one in crops for row in one.summary(direct, split.labels)],
            "end_to_end": [] if split.votes is None else end_to_end(crops, split.votes),
            "tilt": tilted(
                names, split, classifier, options.tilt, options.seed, margins[_nearest_0(margins)]
            ),
            "empty": look_at_empty(names, options.empty, options.seed),
            "turns": turns(names, split.images[: options.turned], options.seed),
            "streams": watch_films(names, split.images, options.sequences, options.seed),
        }
        answer["rows"] = table_rows(answer)
    if not options.json:
        print(f"{len(split)} faces of {options.split}, two in each 640x480 scene, one thread\n")
        show_detection(answer["detection"])
        print(f"dataset crops, all {len(split)} faces: {100 * answer['dataset_accuracy']:.2f}%\n")
        show_crops(answer["crops"])
        show_the_rest(answer)
        show_streams(answer["streams"])
    emit(options, answer, answer["rows"])
    return 0


def table_rows(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The row of each detector's two modes for the table of results, in percent and ms."""
    both = {row["detector"]: row for row in answer["end_to_end"]}
    films = {row["detector"]: row for row in answer["streams"]}
    tilts = {row["detector"]: row for row in answer["tilt"]}
    empty = {row["detector"]: row for row in answer["empty"]}
    rows = []
    for row in answer["detection"]:
        name = row["detector"]
        plain = name.partition(",")[0]
        one, clip, photo = both.get(name), films.get(name), name.endswith("photo")
        tilt, none = (tilts.get(plain), empty.get(plain)) if photo else (None, None)
        rows.append(
            {
                "model": answer["settings"]["model"],
                "detector": name,
                "split": answer["settings"]["split"],
                "FER+ faces": one and one["faces"],
                "found %": one and _percent(one["found"]),
                "of them correct %": one and _percent(one["correct_of_found"]),
                "both %": one and _percent(one["found_and_correct"]),
                "95%": one and _interval(one["ci95"]),
                "false/100 scenes": round(row["false_per_100_scenes"], 2),
                "false/100 empty": none and round(none["false_per_100_scenes"], 2),
                "loss by tilt": tilt
                and f"{100 * tilt['loss']:.1f} ± {100 * tilt['loss_ci95']:.1f}",
                "films: missed %": clip and _percent(clip["missed"]),
                "false/100 frames": clip and round(clip["false_per_100_frames"], 2),
                "ms/frame": clip and round(clip["ms"], 2),
            }
        )
    return rows


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
            detector: Any = open_detector(name, scheduled=stream)
            label = f"{name}, {'stream' if stream else 'photo'}"
            tests.append(
                (
                    Settled(detector) if stream else detector,
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
    """A row per detector on clips, for streams and for single images, on every third frame."""
    watched = []
    for name in names:
        watched += [
            # Its frames are independent: a third of them tell as much.
            Watch(f"{name}, photo", open_detector(name), every=3),
            Watch(f"{name}, stream", open_detector(name, scheduled=True)),
        ]
    rng = np.random.default_rng(seed)
    for _ in range(sequences):
        frames = list(film(images, rng))
        for one in watched:
            one.see(frames)
    return [one.summary() for one in watched if one.films]


class Settled:
    """What a stream's detector reports once a camera has shown the same scene for a while."""

    def __init__(self, detector: Any, frames: int = 24) -> None:
        self.detector = detector
        self.frames = frames

    def detect(self, image: Image) -> list[Box]:
        """The boxes of the last frame."""
        self.detector.reset()
        boxes: list[Box] = []
        for _ in range(self.frames):
            boxes = self.detector.detect(image)
        return boxes


def end_to_end(crops: Sequence[Crops], votes: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Faces found, and of those labelled as FER+'s majority labels them, at the margin nearest 0.

    ``ci95`` is the interval of the share that is both.

    votes: uint8 ``(n, 10)``. Only faces on whose emotion more than half of all voters agree count.
    """
    wanted, clear = majority(votes)
    rows = []
    for one in crops:
        answers = (
            np.full(one.count, -1) if one.answers is None else one.answers[_nearest_0(one.margins)]
        )
        found, correct = (answers >= 0) & clear, (answers == wanted) & clear
        rows.append(
            {
                "detector": one.detector,
                "faces": int(clear.sum()),
                "found": float(found.sum() / clear.sum()),
                "correct_of_found": float(correct.sum() / max(1, found.sum())),
                "found_and_correct": float(correct.sum() / clear.sum()),
                "ci95": wilson_interval(int(correct.sum()), int(clear.sum())),
            }
        )
    return rows


def tilted(
    names: Sequence[str],
    split: Split,
    classifier: TFLiteClassifier,
    angle: float,
    seed: int,
    margin: float,
) -> list[dict[str, Any]]:
    """What a tilt costs on the faces that a detector finds both upright and tilted."""
    if not angle:
        return []
    rows = []
    for name in names:
        detector = open_detector(name)
        answers = []
        for tilt in (0.0, angle):
            crops = Crops(name, (margin,), len(split))
            found = Found(name)
            for scene in scenes(split.images, seed=seed, tilt=tilt):
                boxes = found.look(detector, scene.image, scene.boxes)
                for face, box in zip(scene.faces, boxes, strict=True):
                    if box is not None:
                        crops.take(face, scene.image, box, classifier)
            answers.append(np.full(len(split), -1) if crops.answers is None else crops.answers[0])
        both = (answers[0] >= 0) & (answers[1] >= 0)
        right = [answer[both] == split.labels[both] for answer in answers]
        change = right[0].astype(float) - right[1]
        count = max(1, int(both.sum()))
        rows.append(
            {
                "detector": name,
                "degrees": angle,
                "faces": int(both.sum()),
                "found": float((answers[1] >= 0).mean()),
                "upright": float(right[0].sum() / count),
                "tilted": float(right[1].sum() / count),
                "loss": float(change.sum() / count),
                "loss_ci95": float(_Z * change.std() / math.sqrt(count)) if both.any() else 0.0,
            }
        )
    return rows


def look_at_empty(names: Sequence[str], count: int, seed: int) -> list[dict[str, Any]]:
    """False faces in scenes without a face, for single images."""
    detectors = {name: open_detector(name) for name in names}
    false = dict.fromkeys(names, 0)
    rng = np.random.default_rng(seed)
    for _ in range(count):
        room = background(rng)
        image = shoot(room, rng.normal(0, 3, room.shape).astype(np.float32))
        for name, detector in detectors.items():
            false[name] += len(detector.detect(image))
    return [
        {"detector": name, "scenes": count, "false_per_100_scenes": 100 * found / count}
        for name, found in false.items()
        if count
    ]


def turns(names: Sequence[str], images: Image, seed: int) -> list[dict[str, Any]]:
    """The estimated yaw of turned faces, less the estimate for the same faces before the turn."""
    rows: list[dict[str, Any]] = []
    for name in names:
        detector = open_detector(name)
        own: dict[int, float] = {}
        for angle in (0, -40, -20, 20, 40):
            faces = np.stack([turn(face, angle) for face in images]) if len(images) else images
            estimates = {}
            for scene in scenes(faces, seed=seed):
                matched, _ = match(detector.detect(scene.image), scene.boxes)
                for face, box in zip(scene.faces, matched, strict=True):
                    if box is not None and box.landmarks:
                        estimates[face] = yaw(box.landmarks)
            if angle == 0:
                own = estimates
                continue
            seen = [estimates[face] - own[face] for face in estimates if face in own]
            if seen:
                errors = np.abs(np.array(seen) - angle)
                rows.append(
                    {
                        "detector": name,
                        "turned": angle,
                        "faces": len(seen),
                        "estimate": float(np.median(seen)),
                        "median_error": float(np.median(errors)),
                        "p90_error": float(np.percentile(errors, 90)),
                    }
                )
    return rows


def turn(face: Image, degrees: float) -> Image:
    """A face turned about the vertical axis, as a simple head would be: an ellipsoid with a nose.

    face: uint8 gray, square. degrees: positive to the image's right.
    """
    side = face.shape[0]
    across = (np.arange(side) + 0.5) / side * 2 - 1
    u, v = np.meshgrid(across, across)
    angle = math.radians(degrees)

    def depth(x: NDArray[np.float64]) -> NDArray[np.float64]:
        head = np.sqrt(np.maximum(0.02, 1.1 - x**2 - 0.35 * v**2))
        nose = 0.28 * np.exp(-((x / 0.16) ** 2) - ((v - 0.12) / 0.22) ** 2)
        return np.asarray(head + nose - 0.75)

    x = u.astype(np.float64)
    for _ in range(20):  # the point of the head that is seen at u
        x += 0.5 * ((u - depth(x) * math.sin(angle)) / math.cos(angle) - x)
    columns = ((x + 1) / 2 * side - 0.5).astype(np.float32)
    rows = ((v + 1) / 2 * side - 0.5).astype(np.float32)
    mapped = cv2.remap(face, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(mapped, dtype=np.uint8)


def show_the_rest(answer: Mapping[str, Any]) -> None:
    """Print the found and correct, tilted, empty and turned."""
    _table(
        f"{'FER+ majority':15} {'faces':>6} {'found':>7} {'of them correct':>16} {'both':>19}",
        (
            f"{r['detector']:15} {r['faces']:6d} {100 * r['found']:6.1f}% "
            f"{100 * r['correct_of_found']:15.1f}% {_share(r['found_and_correct'], r['ci95']):>19}"
            for r in answer["end_to_end"]
        ),
    )
    _table(
        f"{'tilt':15} {'degrees':>7} {'found':>7} {'in both':>7} {'upright':>8} {'tilted':>8} "
        f"{'loss, points':>13}",
        (
            f"{r['detector']:15} {r['degrees']:7.0f} {100 * r['found']:6.1f}% {r['faces']:7d} "
            f"{100 * r['upright']:7.1f}% {100 * r['tilted']:7.1f}% "
            f"{100 * r['loss']:+6.2f} ± {100 * r['loss_ci95']:4.2f}"
            for r in answer["tilt"]
        ),
    )
    _table(
        f"{'empty scenes':15} {'scenes':>7} {'false/100':>10}",
        (
            f"{r['detector']:15} {r['scenes']:7d} {r['false_per_100_scenes']:10.2f}"
            for r in answer["empty"]
        ),
    )
    _table(
        f"{'turned by':15} {'degrees':>7} {'faces':>6} {'estimate':>9} {'error, median':>14} "
        f"{'90%':>6}",
        (
            f"{r['detector']:15} {r['turned']:+7d} {r['faces']:6d} {r['estimate']:+9.1f} "
            f"{r['median_error']:14.1f} {r['p90_error']:6.1f}"
            for r in answer["turns"]
        ),
    )


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
        self.seconds += (time.thread_time() - start) / getattr(detector, "frames", 1)
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
    """Frames of one face that appears after a second, drifts and nods, and leaves a second early.

    Yields the image and the face's box; the box is None while the face is away.
    """
    room = background(rng)
    face = faces[rng.integers(len(faces))]
    side = round(float(np.exp(rng.uniform(np.log(90), np.log(220)))))
    grain = rng.normal(0, 4, (HEIGHT, WIDTH, 3)).astype(np.float32)
    # A smooth path across the image: at most about 4% of the face's side per frame.
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

    def __init__(self, name: str, detector: Any, *, every: int = 1) -> None:
        """every: sees only each so many-th frame, which suits a detector for single images."""
        self.name = name
        self.detector = detector
        self.every = every
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
        frames = frames[:: self.every]
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
            "noticed_frames": self.every * float(np.mean(self.noticed))
            if self.noticed
            else math.nan,
            "stale_frames": self.every * float(np.mean(self.stale)) if self.stale else math.nan,
        }


def _nearest_0(margins: Sequence[float]) -> int:
    return int(np.argmin(np.abs(margins)))


def _percent(share: float) -> float:
    return round(100 * share, 1)


def _interval(ends: Sequence[float]) -> str:
    return f"{100 * ends[0]:.1f}-{100 * ends[1]:.1f}"


def _share(share: float, interval: tuple[float, float]) -> str:
    return f"{100 * share:.1f}% ({100 * interval[0]:.1f}-{100 * interval[1]:.1f})"


def _table(head: str, rows: Iterator[str]) -> None:
    print(head, *rows, "", sep="\n", flush=True)
