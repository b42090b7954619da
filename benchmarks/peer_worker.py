"""Runs one system of the comparison in its own process and environment, for ``peers``.

Requests (``emotion_edge.bench.process``); a frame travels as the path of an ``.npy``, uint8 BGR::

    {"do": "open", "system": "fer" | "fer-keras" | "haar" | "yunet", "model": "fast"}
    {"do": "label", "frame": PATH}             camera to label: nanoseconds and boxes
    {"do": "emotion", "frame": PATH, "box": [x, y, width, height]}     the emotion stage alone
    {"do": "predict", "faces": PATH}           labels of uint8 (n, 48, 48)

It imports nothing of this project except, for our own systems, the installed package.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np


class Fer:
    """The pip package ``fer``: its own TFLite network, or mini-XCEPTION in Keras."""

    def __init__(self, keras: bool) -> None:
        from fer.fer import FER  # type: ignore[import-not-found]

        self._fer = FER(use_tflite=not keras)

    def label(self, frame: Any) -> list[list[int]]:
        """Boxes of the faces whose emotions were named."""
        return [[int(n) for n in face["box"]] for face in self._fer.detect_emotions(frame)]

    def emotion(self, frame: Any, box: list[int]) -> None:
        """Name the emotion of the face at a box."""
        self._fer.detect_emotions(frame, face_rectangles=[box])

    def predict(self, faces: Any) -> list[int]:
        """Labels, as FER2013 numbers them, of uint8 faces (n, 48, 48)."""
        import cv2

        # What its detect_emotions does to a crop; in batches, since accuracy is not timed.
        small = np.stack([cv2.resize(face, (64, 64)) for face in faces]).astype("float32")
        small = (small / 255 - 0.5) * 2
        answers: list[int] = []
        for start in range(0, len(small), 128):
            scores = np.asarray(self._fer._classify_emotions(small[start : start + 128]))
            answers += scores.argmax(axis=1).tolist()
        return answers


class Ours:
    """``emotion_edge`` as ``emotion-edge run`` sets it up."""

    def __init__(self, detector: str, model: str) -> None:
        from emotion_edge.factory import load
        from emotion_edge.values import Box, Frame

        self._box, self._frame = Box, Frame
        self._pipeline = load(model, detector=detector, track=True)
        self._index = 0

    def label(self, frame: Any) -> list[list[int]]:
        """Boxes of the faces whose emotions were named."""
        # Frames come as from a camera of 30 per second: the tracker's memory goes by the clock.
        self._index += 1
        captured = self._index * 33_333_333
        faces = self._pipeline.process(self._frame(frame, captured, self._index)).faces
        return [[f.box.x, f.box.y, f.box.width, f.box.height] for f in faces]

    def emotion(self, frame: Any, box: list[int]) -> None:
        """Name the emotion of the face at a box."""
        x, y, width, height = box
        self._pipeline.classifier.classify(frame, self._box(x, y, width, height))

    def predict(self, faces: Any) -> list[int]:
        """Labels, as FER2013 numbers them, of uint8 faces (n, 48, 48)."""
        classifier: Any = self._pipeline.classifier
        return [int(p.argmax()) for p in classifier.predict(faces)]


class Session:
    """Answers in the name of one system."""

    def __init__(self) -> None:
        self.system: Any = None

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Import and load a system."""
        name = request["system"]
        if name.startswith("fer"):
            self.system = Fer(keras=name == "fer-keras")
        else:
            self.system = Ours(name, request["model"])
        return {"python": sys.version.split()[0]}

    def label(self, request: dict[str, Any]) -> dict[str, Any]:
        """Camera to label: nanoseconds and boxes."""
        frame = np.load(request["frame"])
        start = time.perf_counter_ns()
        boxes = self.system.label(frame)
        return {"ns": time.perf_counter_ns() - start, "boxes": boxes}

    def emotion(self, request: dict[str, Any]) -> dict[str, Any]:
        """The emotion stage alone: nanoseconds."""
        frame = np.load(request["frame"])
        start = time.perf_counter_ns()
        self.system.emotion(frame, request["box"])
        return {"ns": time.perf_counter_ns() - start}

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        """Labels of faces."""
        return {"labels": self.system.predict(np.load(request["faces"]))}
