"""Assembles a pipeline: the only place that does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from emotion_edge.detectors import FaceDetector, open_detector
from emotion_edge.model import certainty
from emotion_edge.model.backend import Backend
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.shipped import DEFAULT, model_path
from emotion_edge.pipeline import Pipeline
from emotion_edge.tracker import FaceTracker, TrackerSettings
from emotion_edge.zones import Zones, ZoneSettings


def load(
    model: str | Path = DEFAULT,
    *,
    detector: str | FaceDetector = "auto",
    track: bool | TrackerSettings = False,
    backend: Backend | None = None,
    precision: float | None = None,
    unsure_below: float | None = None,
    zones: ZoneSettings | None = None,
) -> Pipeline:
    """A pipeline with a shipped model or a ``.tflite`` file.

    detector: ``haar``, ``yunet``, ``auto`` for YuNet if its weights are installed and otherwise
        Haar, or a detector of your own.
    track: False for images that have nothing to do with each other. True, or a tracker's
        settings, for the frames of a stream: faces keep their identity, labels are steadied, and
        detection is skipped on some frames.
    backend: what runs the network; None for LiteRT with XNNPACK and one thread.
    zones: parts of the image, and which faces count; None counts all.
    precision: share of the labels shown that should be right, 0..1; other faces are ``unsure``.
        None: the model's own default, 0.95 for the shipped models.
    unsure_below: a probability instead of a precision, and 0 to label every face. It takes
        precedence, as does the tracker's own setting.
    Raises ModelError, ManifestError, DetectorError, or UsageError for a precision that the model
    does not reach or state.
    """
    settings = TrackerSettings() if track is True else track or None
    classifier = TFLiteClassifier.load(model_path(model), backend)
    if settings is not None and settings.unsure_below is not None:
        unsure_below = settings.unsure_below
    threshold = certainty.unsure_below(classifier.manifest, unsure_below, precision)
    if settings is not None:
        settings = dataclasses.replace(settings, unsure_below=threshold)
    return Pipeline(
        open_detector(detector, scheduled=settings is not None)
        if isinstance(detector, str)
        else detector,
        classifier,
        FaceTracker(settings) if settings else None,
        unsure_below=threshold,
        zones=Zones(zones) if zones is not None and zones != ZoneSettings() else None,
    )
