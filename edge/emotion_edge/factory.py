"""Assembles a pipeline: the only place that does."""

from __future__ import annotations

from pathlib import Path

from emotion_edge.detectors import FaceDetector, open_detector
from emotion_edge.model.backend import Backend
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.shipped import DEFAULT, model_path
from emotion_edge.pipeline import Pipeline
from emotion_edge.tracker import FaceTracker, TrackerSettings


def load(
    model: str | Path = DEFAULT,
    *,
    detector: str | FaceDetector = "auto",
    track: bool | TrackerSettings = False,
    backend: Backend | None = None,
) -> Pipeline:
    """A pipeline with a shipped model or a ``.tflite`` file.

    detector: ``haar``, ``yunet``, ``auto`` for YuNet if its weights are installed and otherwise
        Haar, or a detector of your own.
    track: False for images that have nothing to do with each other. True, or a tracker's
        settings, for the frames of a stream: faces keep their identity, labels are steadied, and
        detection is skipped on some frames.
    backend: what runs the network; None for LiteRT with XNNPACK and one thread.
    Raises ModelError, ManifestError or DetectorError.
    """
    settings = TrackerSettings() if track is True else track or None
    return Pipeline(
        open_detector(detector, scheduled=settings is not None)
        if isinstance(detector, str)
        else detector,
        TFLiteClassifier.load(model_path(model), backend),
        FaceTracker(settings) if settings else None,
    )
