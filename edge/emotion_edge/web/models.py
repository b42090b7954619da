"""The models a visitor may choose from, and the one place where their pictures meet them."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from emotion_edge.detectors import FaceDetector, open_detector
from emotion_edge.errors import ModelError, UsageError
from emotion_edge.factory import load
from emotion_edge.model import manifest as manifests
from emotion_edge.model.backend import Backend
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.manifest import Manifest
from emotion_edge.model.shipped import model_path, shipped_models
from emotion_edge.pipeline import Pipeline
from emotion_edge.values import Box, Emotion, Image, Observation


@dataclass(frozen=True, slots=True)
class Installed:
    """A model file that is offered.

    name: unique, for people and for the API: ``fast int8``. size: of the file, bytes.
    """

    name: str
    path: Path
    manifest: Manifest
    size: int


class Models:
    """The offered models, each opened when it is first asked for.

    Safe to call from several threads: single pictures take turns, for the device has few cores;
    each ``stream`` is its owner's alone.
    """

    def __init__(
        self,
        chosen: Iterable[str | Path] = (),
        *,
        detector: str = "auto",
        backend: Backend | None = None,
    ) -> None:
        """Offer the chosen models first, then every other one that is shipped.

        chosen: shipped names or files; the first one is the default. Beside each shipped model
            lie its other variants: those with a manifest are offered too.
        detector, backend: as in ``emotion_edge.load``.
        Raises ModelError or ManifestError for a chosen one that cannot be used, ModelError when
        there is none at all, DetectorError when the detector is absent.
        """
        named = [model_path(name) for name in chosen]
        shipped = list(shipped_models().values())
        beside = [path for one in shipped for path in sorted(one.parent.glob("*.tflite"))]
        self._installed: dict[str, Installed] = {}
        for path in dict.fromkeys(p.resolve() for p in (*named, *shipped, *beside)):
            try:
                _, manifest = manifests.load(path)
            except ModelError:
                if path in {p.resolve() for p in named}:
                    raise
                continue  # a file that merely lies there
            name = f"{manifest.name} {manifest.variant}"
            if name in self._installed:
                name = f"{name} ({path.name})"
            self._installed[name] = Installed(name, path, manifest, path.stat().st_size)
        if not self._installed:
            raise ModelError("no model is installed: give one with --model FILE.tflite")
        self._detector_name = detector
        self._detector: FaceDetector = open_detector(detector)
        self._backend = backend
        self._opened: dict[str, TFLiteClassifier] = {}
        self._turn = threading.Lock()

    @property
    def installed(self) -> tuple[Installed, ...]:
        """Those on offer, the default first."""
        return tuple(self._installed.values())

    @property
    def default(self) -> str:
        """The first one's name."""
        return next(iter(self._installed))

    def find(self, name: str | None) -> Installed:
        """The one of that name, or the default for None. Raises UsageError for another name."""
        try:
            return self._installed[name or self.default]
        except KeyError:
            raise UsageError(
                f"no model named {name!r}; installed: {', '.join(self._installed)}"
            ) from None

    def look(self, image: Image, name: str | None = None) -> Observation:
        """What one picture (gray or BGR, uint8) shows. Raises UsageError for an unknown name."""
        with self._turn:
            return Pipeline(self._detector, self._classifier(name)).image(image)

    def compare(
        self, image: Image, names: Iterable[str], repeats: int = 20
    ) -> tuple[tuple[Box, ...], list[Opinion]]:
        """The same faces put to several models.

        repeats: how often each model looks at the first face; the median is its latency.
        Returns the boxes, found once, and an opinion for each name.
        Raises UsageError for an unknown name.
        """
        with self._turn:
            boxes = tuple(
                face.box
                for face in Pipeline(self._detector, self._classifier(None)).image(image).faces
            )
            return boxes, [self._opinion(name, image, boxes, repeats) for name in names]

    def stream(self, name: str | None = None) -> Pipeline:
        """A pipeline with a tracker of its own, for one visitor's camera.

        Raises UsageError for an unknown name.
        """
        path = self.find(name).path
        return load(path, detector=self._detector_name, track=True, backend=self._backend)

    def _opinion(self, name: str, image: Image, boxes: tuple[Box, ...], repeats: int) -> Opinion:
        classifier = self._classifier(name)
        emotions = tuple(classifier.classify(image, box) for box in boxes)
        times = []
        for _ in range(repeats if boxes else 0):
            start = time.perf_counter_ns()
            classifier.classify(image, boxes[0])
            times.append((time.perf_counter_ns() - start) / 1e6)
        return Opinion(self.find(name), emotions, statistics.median(times) if times else 0.0)

    def _classifier(self, name: str | None) -> TFLiteClassifier:
        one = self.find(name)
        if one.name not in self._opened:
            self._opened[one.name] = TFLiteClassifier.load(one.path, self._backend)
        return self._opened[one.name]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one model makes of a picture's faces.

    emotions: one for each face. milliseconds: median of cropping and classifying one face.
    """

    model: Installed
    emotions: tuple[Emotion, ...]
    milliseconds: float
