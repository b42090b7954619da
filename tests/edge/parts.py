"""A detector and a classifier that need no model, for tests of what surrounds them."""

from __future__ import annotations

from collections.abc import Iterable

from emotion_edge.values import Box, Emotion, Image


class Detector:
    """Finds the same boxes in every frame; by default one, which fits 16 x 16 pixels."""

    def __init__(self, *boxes: Box, present: Iterable[bool] | None = None) -> None:
        """present: for each frame, whether the boxes are in it; None for all frames."""
        self.boxes = list(boxes or (Box(2, 2, 8, 8),))
        self.present = None if present is None else iter(present)

    def detect(self, image: Image) -> list[Box]:
        return self.boxes if self.present is None or next(self.present) else []


class Classifier:
    """Calls every face happy, with a probability of 0.75."""

    labels = ("happy", "sad")

    def __init__(self, *, colour: bool = False) -> None:
        self.colour = colour

    def classify(self, image: Image, box: Box) -> Emotion:
        return Emotion(self.labels, (0.75, 0.25))
