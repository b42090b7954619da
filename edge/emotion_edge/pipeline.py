"""The whole pipeline, in one short file.

::

    Camera ──Frame──> FaceDetector ──Box──> EmotionClassifier ──Emotion──> Tracker
                                                                              │
                                              Sinks <──Observation────────────┘
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from emotion_edge.cameras import Camera
from emotion_edge.detectors import FaceDetector
from emotion_edge.model.classifier import EmotionClassifier
from emotion_edge.model.labels import UNSURE
from emotion_edge.model.preprocessing import as_image
from emotion_edge.values import Box, Emotion, Face, Frame, Image, Observation, reading_order
from emotion_edge.zones import Zones

if TYPE_CHECKING:
    import PIL.Image


class Tracker(Protocol):
    """Gives faces an identity and a steady label over time."""

    def update(self, seen: list[tuple[Box, Emotion]], at_ns: int) -> tuple[Face, ...]:
        """The faces to report for a frame captured at ``at_ns`` (monotonic clock)."""


class Pipeline:
    """Turns frames into observations.

    ``process`` has no side effect beyond the tracker's and the detector's own memory; tests and
    benchmarks call it. ``stream`` is the loop around it.
    """

    def __init__(
        self,
        detector: FaceDetector,
        classifier: EmotionClassifier,
        tracker: Tracker | None = None,
        *,
        unsure_below: float = 0.0,
        zones: Zones | None = None,
    ) -> None:
        """tracker: None for frames that have nothing to do with each other, such as photos.

        unsure_below: probability below which such a frame's label is ``unsure``; a tracker has
            its own threshold.
        zones: parts of the image, and which faces count; None counts all.
        """
        self.detector = detector
        self.classifier = classifier
        self.tracker = tracker
        self._unsure_below = unsure_below
        self.zones = zones
        self._next_index = 0

    def process(self, frame: Frame) -> Observation:
        """Detect, classify, track. Raises ImageError when the frame holds no image."""
        start = time.perf_counter_ns()
        image = as_image(frame.image)
        boxes = [box for box in self.detector.detect(image) if _touches(box, image)]
        detected = time.perf_counter_ns()
        seen = [(box, self.classifier.classify(image, box)) for box in boxes]
        classified = time.perf_counter_ns()
        if self.tracker is None:
            found = [Face(box, emotion, self._label(emotion)) for box, emotion in seen]
            faces = tuple(found[i] for i in reading_order(found))
        else:
            faces = self.tracker.update(seen, frame.captured_ns)
        # A face that is not reported, as yet or because of its zone, is in the image all the same.
        places = (*boxes, *getattr(self.detector, "candidates", ()), *(face.box for face in faces))
        if self.zones is not None:
            faces = self.zones.apply(faces, image.shape)
        tracked = time.perf_counter_ns()
        skipped = max(0, frame.index - self._next_index)
        self._next_index = frame.index + 1
        timings = {
            "detect": (detected - start) / 1e6,
            "classify": (classified - detected) / 1e6,
            "track": (tracked - classified) / 1e6,
        }
        if frame.media_time_s is None:  # a file was captured long ago, at a time unknown here
            timings["age"] = (time.monotonic_ns() - frame.captured_ns) / 1e6
        return Observation(frame, faces, timings, skipped, places)

    def _label(self, emotion: Emotion) -> str:
        return emotion.label if emotion.confidence >= self._unsure_below else UNSURE

    def image(self, image: Image | str | Path | PIL.Image.Image) -> Observation:
        """The faces in one image; meant for a pipeline without a tracker.

        image: a path, a PIL image, or a uint8 array, gray ``(height, width)`` or BGR
            ``(height, width, 3)``.
        Raises ImageError for anything else, and when a file cannot be read.
        """
        return self.process(Frame(as_image(image), time.monotonic_ns(), self._next_index))

    def stream(self, camera: Camera, *, timeout: float = 5.0) -> Iterator[Observation]:
        """Observations of an opened camera until its source ends.

        timeout: seconds to wait for one frame.
        Raises CameraLost if none arrived in that time.
        """
        while (frame := camera.read(timeout)) is not None:
            yield self.process(frame)


def _touches(box: Box, image: Image) -> bool:
    """Whether any pixel of the box is inside the frame."""
    height, width = image.shape[:2]
    return box.x < width and box.y < height and box.x + box.width > 0 and box.y + box.height > 0
