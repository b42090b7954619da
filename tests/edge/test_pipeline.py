"""The line from a frame to an observation, with simple parts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import PIL.Image
import pytest

from emotion_edge import Box, Emotion, Face, Frame, Pipeline, TFLiteClassifier
from emotion_edge.errors import ImageError
from emotion_edge.values import Image

TINY = Path(__file__).with_name("tiny.tflite")
HAPPY = Emotion(("happy", "sad"), (0.8, 0.2))


class Boxes:
    """A detector that returns the given boxes."""

    def __init__(self, *boxes: Box) -> None:
        self.boxes = list(boxes)

    def detect(self, image: Image) -> list[Box]:
        return self.boxes


class Happy:
    """A classifier that remembers what it was asked."""

    labels = HAPPY.labels

    def __init__(self) -> None:
        self.asked: list[Box] = []

    def classify(self, image: Image, box: Box) -> Emotion:
        self.asked.append(box)
        return HAPPY


class Numbered:
    """A tracker that numbers faces and remembers the time it was given."""

    def update(self, seen: list[tuple[Box, Emotion]], at_ns: int) -> tuple[Face, ...]:
        self.at_ns = at_ns
        return tuple(Face(b, e, e.label, track_id=i, smoothed=e) for i, (b, e) in enumerate(seen))


class Frames:
    """A camera over a list of frame numbers."""

    name, live = "frames", False

    def __init__(self, *indices: int) -> None:
        self.indices = list(indices)

    def __enter__(self) -> Self:
        return self

    def read(self, timeout: float) -> Frame | None:
        return frame(self.indices.pop(0)) if self.indices else None

    def __exit__(self, *error: object) -> None:
        self.indices.clear()


def frame(index: int = 0) -> Frame:
    return Frame(np.zeros((100, 100), np.uint8), time.monotonic_ns(), index)


def test_every_box_is_classified() -> None:
    boxes = (Box(0, 0, 50, 50), Box(40, 40, 20, 20))
    classifier = Happy()
    observation = Pipeline(Boxes(*boxes), classifier).process(frame())
    assert classifier.asked == list(boxes)
    assert [(f.box, f.label, f.track_id) for f in observation.faces] == [
        (box, "happy", None) for box in boxes
    ]


def test_boxes_outside_the_frame_never_reach_the_network() -> None:
    classifier = Happy()
    outside = [Box(100, 0, 9, 9), Box(0, 100, 9, 9), Box(-9, 0, 9, 9), Box(0, -9, 9, 9)]
    assert Pipeline(Boxes(*outside), classifier).process(frame()).faces == ()
    assert classifier.asked == []


def test_the_tracker_gets_the_time_of_capture() -> None:
    tracker, shot = Numbered(), frame()
    observation = Pipeline(Boxes(Box(0, 0, 9, 9)), Happy(), tracker).process(shot)
    assert tracker.at_ns == shot.captured_ns
    assert observation.faces[0].track_id == 0


def test_timings_name_every_stage_and_the_age() -> None:
    old = Frame(np.zeros((9, 9), np.uint8), time.monotonic_ns() - 2_000_000_000, 0)
    timings = Pipeline(Boxes(), Happy()).process(old).timings
    assert set(timings) == {"detect", "classify", "track", "age"}
    assert timings["age"] >= 2000


def test_a_file_has_no_age() -> None:
    ahead = Frame(np.zeros((9, 9), np.uint8), time.monotonic_ns() + 10**12, 0, "clip.mp4", 1000.0)
    assert set(Pipeline(Boxes(), Happy()).process(ahead).timings) == {"detect", "classify", "track"}


def test_skipped_frames_are_counted() -> None:
    pipeline = Pipeline(Boxes(), Happy())
    with Frames(0, 1, 5, 6, 9) as camera:
        skipped = [observation.skipped for observation in pipeline.stream(camera)]
    assert skipped == [0, 0, 3, 0, 2]


def test_images_do_not_count_as_skipped() -> None:
    pipeline = Pipeline(Boxes(), Happy())
    image = np.zeros((9, 9), np.uint8)
    assert [pipeline.image(image).skipped for _ in range(3)] == [0, 0, 0]


def test_image_takes_paths_pil_images_and_arrays(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), colour)
    pipeline = Pipeline(Boxes(), Happy())
    for image in (colour, path, str(path), PIL.Image.open(path)):
        assert np.array_equal(pipeline.image(image).frame.image, colour)
    assert pipeline.image(PIL.Image.new("LA", (4, 3))).frame.image.shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("wrong", "received"),
    [
        (None, "None of type NoneType"),
        (np.zeros((4, 5), np.float32), r"array of shape \(4, 5\) and type float32"),
        (np.zeros((4, 5, 3), np.uint16), r"array of shape \(4, 5, 3\) and type uint16"),
        (np.zeros((4, 5, 4), np.uint8), r"array of shape \(4, 5, 4\) and type uint8"),
        (np.zeros((0, 5), np.uint8), r"array of shape \(0, 5\)"),
        (np.zeros(7, np.uint8), r"array of shape \(7,\)"),
        ([[1, 2], [3, 4]], "of type list"),
    ],
)
def test_anything_else_is_one_error_with_its_shape_and_type(wrong: Any, received: str) -> None:
    pipeline = Pipeline(Boxes(Box(0, 0, 9, 9)), TFLiteClassifier.load(TINY))
    for call in (
        pipeline.image,
        lambda image: pipeline.process(Frame(image, 0, 0)),
        lambda image: pipeline.classifier.classify(image, Box(0, 0, 9, 9)),
    ):
        with pytest.raises(ImageError, match=rf"{received}.* is not an image: pass a path"):
            call(wrong)
