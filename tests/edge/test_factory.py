"""The one place that assembles a pipeline."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from emotion_edge.factory import load
from emotion_edge.model import manifest as manifests
from emotion_edge.model.backend import Backend
from emotion_edge.model.labels import UNSURE
from emotion_edge.tracker import FaceTracker, TrackerSettings
from emotion_edge.values import Box, Image

TINY = Path(__file__).with_name("tiny.tflite")


class Detector:
    def detect(self, image: Image) -> list[Box]:
        return []


class Everywhere:
    def detect(self, image: Image) -> list[Box]:
        return [Box(0, 0, image.shape[1], image.shape[0])]


def test_stills_have_no_tracker_and_streams_have_one() -> None:
    assert load(TINY, detector="haar").tracker is None
    stream = load(TINY, detector="haar", track=True)
    assert stream.tracker is not None
    assert type(stream.detector).__name__ == "ScheduledDetector"


def test_settings_and_detectors_of_your_own_are_used() -> None:
    settings, detector = TrackerSettings(min_iou=0.5), Detector()
    pipeline = load(TINY, detector=detector, track=settings, backend=Backend(xnnpack=False))
    assert pipeline.detector is detector
    assert isinstance(pipeline.tracker, FaceTracker) and pipeline.tracker.settings == (
        TrackerSettings(min_iou=0.5, unsure_below=0.0)  # tiny.tflite states no threshold
    )


def test_unsure_comes_from_the_model_unless_it_is_set(tmp_path: Path) -> None:
    model, manifest = manifests.load(TINY)
    curve = [[0.0, 0.8, 1.0], [0.5, 0.9, 0.8], [0.7, 0.95, 0.5]]
    stated = dataclasses.replace(manifest, certainty={"curve": curve, "unsure_below": 0.7})
    path = tmp_path / "stated.tflite"
    path.write_bytes(manifests.attach(model, stated))

    def threshold(**how: float) -> float | None:
        tracker = load(path, detector=Detector(), track=True, **how).tracker
        assert isinstance(tracker, FaceTracker)
        return tracker.settings.unsure_below

    assert threshold() == 0.7
    assert threshold(precision=0.9) == 0.5
    assert threshold(precision=0.9, unsure_below=0.2) == 0.2
    pipeline = load(path, detector=Everywhere(), unsure_below=1.0)
    assert pipeline.image(np.zeros((60, 60), np.uint8)).faces[0].label == UNSURE
    pipeline = load(path, detector=Everywhere(), unsure_below=0.0)
    assert pipeline.image(np.zeros((60, 60), np.uint8)).faces[0].label in manifest.labels
