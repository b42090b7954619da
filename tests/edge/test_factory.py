"""The one place that assembles a pipeline."""

from __future__ import annotations

from pathlib import Path

from emotion_edge.factory import load
from emotion_edge.model.backend import Backend
from emotion_edge.tracker import FaceTracker, TrackerSettings
from emotion_edge.values import Box, Image

TINY = Path(__file__).with_name("tiny.tflite")


class Detector:
    def detect(self, image: Image) -> list[Box]:
        return []


def test_stills_have_no_tracker_and_streams_have_one() -> None:
    assert load(TINY, detector="haar").tracker is None
    stream = load(TINY, detector="haar", track=True)
    assert stream.tracker is not None
    assert type(stream.detector).__name__ == "ScheduledDetector"


def test_settings_and_detectors_of_your_own_are_used() -> None:
    settings, detector = TrackerSettings(min_iou=0.5), Detector()
    pipeline = load(TINY, detector=detector, track=settings, backend=Backend(xnnpack=False))
    assert pipeline.detector is detector
    assert isinstance(pipeline.tracker, FaceTracker) and pipeline.tracker.settings == settings
