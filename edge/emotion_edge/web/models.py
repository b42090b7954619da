"""Holds the models a visitor may choose from and runs images through them."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emotion_edge.detectors import FaceDetector, open_detector
from emotion_edge.errors import ModelError, UsageError
from emotion_edge.factory import load
from emotion_edge.model import certainty
from emotion_edge.model import manifest as manifests
from emotion_edge.model.backend import Backend
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.labels import UNSURE
from emotion_edge.model.manifest import Manifest
from emotion_edge.model.shipped import model_path, shipped_models
from emotion_edge.pipeline import Pipeline
from emotion_edge.tracker import TrackerSettings
from emotion_edge.values import Box, Emotion, Face, Frame, Image, Observation, reading_order


@dataclass(frozen=True, slots=True)
class Installed:
    """A model file on offer.

    name: unique, shown to visitors and used by the API: ``fast int8``. size: of the file, bytes.
    unsure_below: the confidence below which the label is ``unsure``; 0 for never.
    """

    name: str
    path: Path
    manifest: Manifest
    size: int
    unsure_below: float = 0.0

    def label(self, emotion: Emotion) -> str:
        """The label to show: ``unsure`` where the confidence is below the threshold."""
        return emotion.label if emotion.confidence >= self.unsure_below else UNSURE


class Models:
    """The models on offer, each opened when it is first used.

    Safe to call from several threads. Single images take turns, because the device has few cores;
    each ``stream`` belongs to one visitor.
    """

    def __init__(
        self,
        chosen: Iterable[str | Path] = (),
        *,
        detector: str = "auto",
        backend: Backend | None = None,
        precision: float | None = None,
    ) -> None:
        """Offer the chosen models first, then every other shipped one.

        chosen: shipped names or files; the first one is the default. Other variants in the folder
            of a shipped model are offered too if they carry a manifest.
        detector, backend, precision: as in ``emotion_edge.load``. A model that was not chosen and
            does not reach the precision is not offered.
        Raises ModelError or ManifestError for a chosen one that cannot be used, UsageError for one
        that does not reach the precision, ModelError when there is none at all, DetectorError when
        the detector is absent.
        """
        named = [model_path(name) for name in chosen]
        shipped = list(shipped_models().values())
        variants = [path for one in shipped for path in sorted(one.parent.glob("*.tflite"))]
        self._installed: dict[str, Installed] = {}
        wanted = {p.resolve() for p in (named or shipped[:1])}
        for path in dict.fromkeys(p.resolve() for p in (*named, *shipped, *variants)):
            try:
                _, manifest = manifests.load(path)
                threshold = certainty.unsure_below(manifest, precision=precision)
            except (ModelError, UsageError):
                if path in wanted:
                    raise
                continue  # a stray file in a model's folder, or a model below the precision
            name = f"{manifest.name} {manifest.variant}"
            if name in self._installed:
                name = f"{name} ({path.name})"
            self._installed[name] = Installed(name, path, manifest, path.stat().st_size, threshold)
        if not self._installed:
            raise ModelError("no model is installed: give one with --model FILE.tflite")
        self._detector_name = detector
        open_detector(detector)  # a detector that is absent is an error now, not at the first image
        self._backend = backend
        self._opened: dict[str, TFLiteClassifier] = {}
        self._turn = threading.Lock()

    def warm_up(self) -> None:
        """Search an empty image and classify it, so that the first visitor does not wait longer."""
        empty = np.zeros((1280, 1280, 3), np.uint8)
        self.look(empty)
        self.look(empty, whole=True)

    @property
    def installed(self) -> tuple[Installed, ...]:
        """The models on offer, the default first."""
        return tuple(self._installed.values())

    @property
    def default(self) -> str:
        """The first one's name."""
        return next(iter(self._installed))

    def find(self, name: str | None) -> Installed:
        """The model of that name, or the default for None.

        A name without a variant, ``fast``, is the first model of that name.
        Raises UsageError for an unknown name.
        """
        name = name or self.default
        if name in self._installed:
            return self._installed[name]
        for one in self.installed:
            if one.manifest.name == name:
                return one
        raise UsageError(f"no model named {name!r}; installed: {', '.join(self._installed)}")

    def look(self, image: Image, name: str | None = None, *, whole: bool = False) -> Observation:
        """What one image (gray or BGR, uint8) shows; faces are ordered from left to right.

        whole: treat the whole image as one face instead of searching for faces.
        Raises UsageError for an unknown name.
        """
        one = self.find(name)
        with self._turn:
            pipeline = Pipeline(self._finder(whole), self._classifier(one))
            observation = pipeline.image(image)
        faces = [replace(face, label=one.label(face.emotion)) for face in observation.faces]
        return replace(observation, faces=tuple(faces[i] for i in reading_order(faces)))

    def compare(
        self, image: Image, names: Iterable[str], *, repeats: int = 20, whole: bool = False
    ) -> list[Opinion]:
        """What several models make of the same faces, which are searched for once.

        repeats: how often each model reads the first face; the median is its latency.
        whole: as in ``look``.
        Raises UsageError for an unknown name.
        """
        chosen = [self.find(name) for name in names]
        with self._turn:
            boxes = self._finder(whole).detect(image)
            return [self._opinion(one, image, boxes, repeats) for one in chosen]

    def stream(self, name: str | None = None, other: str | None = None) -> Stream:
        """A pipeline with a tracker of its own, for one visitor's camera.

        other: a second model that reads the same faces; None for none.
        Raises UsageError for an unknown name.
        """
        chosen = [self.find(name), *([self.find(other)] if other else [])]
        finder = _Once(open_detector(self._detector_name, scheduled=True))
        pipelines = []
        for one in chosen:
            settings = TrackerSettings(unsure_below=one.unsure_below)
            pipelines.append(load(one.path, detector=finder, track=settings, backend=self._backend))
        return Stream(tuple(one.name for one in chosen), tuple(pipelines))

    def _finder(self, whole: bool) -> FaceDetector:
        """A detector for one image: OpenCV's keep what they searched until the next image."""
        return _WholeImage() if whole else open_detector(self._detector_name)

    def _opinion(self, one: Installed, image: Image, boxes: list[Box], repeats: int) -> Opinion:
        classifier = self._classifier(one)
        emotions = [classifier.classify(image, box) for box in boxes]
        times = []
        for _ in range(repeats if boxes else 0):
            start = time.perf_counter_ns()
            classifier.classify(image, boxes[0])
            times.append((time.perf_counter_ns() - start) / 1e6)
        faces = [
            Face(box, emotion, one.label(emotion))
            for box, emotion in zip(boxes, emotions, strict=True)
        ]
        ordered = tuple(faces[i] for i in reading_order(faces))
        return Opinion(one, ordered, statistics.median(times) if times else 0.0)

    def _classifier(self, one: Installed) -> TFLiteClassifier:
        if one.name not in self._opened:
            self._opened[one.name] = TFLiteClassifier.load(one.path, self._backend)
        return self._opened[one.name]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one model makes of an image's faces.

    milliseconds: median of cropping and classifying one face; 0 without a face.
    """

    model: Installed
    faces: tuple[Face, ...]
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Stream:
    """One or two models that read the same camera.

    names: of the models, as ``Installed.name``. pipelines: one for each.
    """

    names: tuple[str, ...]
    pipelines: tuple[Pipeline, ...]

    def process(self, frame: Frame) -> tuple[Observation, ...]:
        """An observation from each model; a face has the same track number in all of them."""
        return tuple(pipeline.process(frame) for pipeline in self.pipelines)


class _WholeImage:
    """A detector that takes the whole image as one face."""

    def detect(self, image: Image) -> list[Box]:
        height, width = image.shape[:2]
        return [Box(0, 0, width, height)]


class _Once:
    """A detector that searches each image once, however many pipelines ask."""

    def __init__(self, detector: FaceDetector) -> None:
        self._detector = detector
        self._image: Image | None = None
        self._boxes: list[Box] = []

    def detect(self, image: Image) -> list[Box]:
        if image is not self._image:
            self._boxes, self._image = self._detector.detect(image), image
        return list(self._boxes)
