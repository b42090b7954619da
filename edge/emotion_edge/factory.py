"""A ready pipeline in one call."""

from __future__ import annotations

from pathlib import Path

from emotion_edge.detectors import open_detector
from emotion_edge.model.backend import Backend
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.shipped import DEFAULT, model_path
from emotion_edge.pipeline import Pipeline
from emotion_edge.tracker import FaceTracker


def load(
    model: str | Path = DEFAULT,
    *,
    detector: str = "auto",
    track: bool = False,
    backend: Backend | None = None,
) -> Pipeline:
    """A pipeline over a shipped model or a ``.tflite`` file.

    detector: ``haar``, ``yunet``, or ``auto`` for YuNet where its weights are installed.
    track: False for single pictures; True for a stream, where faces keep their identity, labels
        are steadied, and detection is spared between frames.
    backend: what runs the network; None for LiteRT with XNNPACK and one thread.
    Raises ModelError, ManifestError or DetectorError.
    """
    return Pipeline(
        open_detector(detector, scheduled=track),
        TFLiteClassifier.load(model_path(model), backend),
        FaceTracker() if track else None,
    )
