"""Hides faces in frames that leave the pipeline, for the live page and recordings.

A weak blur can be undone. Here nothing of the face is left to undo: ``emoji`` fills its place with
one colour and draws a face of its own on it; ``blur`` leaves four by four cells of one colour each,
in eight steps per channel.

A face that the detector does not find is not hidden. So that a found one stays hidden when the
detector misses it for a moment, its last place stays covered for a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np

from emotion_edge.annotate import colour_of
from emotion_edge.model.labels import UNSURE
from emotion_edge.tracker import TrackerSettings, affinity
from emotion_edge.values import Box, Face, Image, Observation

Hiding = Literal["show", "emoji", "blur"]

_MARGIN = 0.35  # box sides covered beyond the box: hair, ears and chin
_HOLD_NS = 1_000_000_000
_CELLS = 4
_STEP = 32  # gray levels
_GRAY = 128
_SMILE = {"happy": 1.0, "surprise": 0.0, "sad": -1.0, "angry": -0.8, "fear": -0.5, "disgust": -0.7}


class FaceHider:
    """Hides the faces of one stream."""

    def __init__(self, how: Hiding) -> None:
        self._how = how
        # Where faces were, and when the detector first missed each; None while it is found.
        self._past: list[tuple[Box, int | None]] = []
        self._source = ""
        self._tracker = TrackerSettings()

    def hide(self, observation: Observation) -> Observation:
        """The same with hidden faces; the frame's own image is not changed."""
        if self._how == "show":
            return observation
        frame = observation.frame
        now = frame.captured_ns
        present = [*observation.places, *(face.box for face in observation.faces)]
        if frame.source != self._source:  # the next image of a folder
            self._source, self._past = frame.source, []
        # The time counts from the first frame without it: a slow camera's may come a second later.
        missed = [(box, now if at is None else at) for box, at in self._past]
        # Found again: its old place need not stay covered.
        lost = [
            (box, at)
            for box, at in missed
            if 0 <= now - at <= _HOLD_NS
            and not any(affinity(box, new, self._tracker) > 0 for new in present)
        ]
        self._past = [*lost, *((box, None) for box in present)]
        image = hidden(
            frame.image, observation.faces, [*(box for box, _ in lost), *present], self._how
        )
        return replace(observation, frame=replace(frame, image=image))


def hidden(
    image: Image, faces: Sequence[Face], places: Iterable[Box] = (), how: Hiding = "emoji"
) -> Image:
    """A copy of an image without its faces.

    image: uint8 gray ``(height, width)`` or BGR ``(height, width, 3)``.
    places: further boxes in which a face may be.
    """
    if how == "show":
        return image
    copy = image.copy()
    for box in [*places, *(face.box for face in faces)]:
        left, top, right, bottom = _covered(box, image)
        if left < right and top < bottom:
            _cover(copy[top:bottom, left:right], how)
    if how == "emoji":
        for face in faces:
            _draw(copy, face)
    return copy


def _covered(box: Box, image: Image) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is hidden, inside the image."""
    height, width = image.shape[:2]
    across, down = round(_MARGIN * box.width), round(_MARGIN * box.height)
    return (
        min(width, max(0, box.x - across)),
        min(height, max(0, box.y - down)),
        max(0, min(width, box.x + box.width + across)),
        max(0, min(height, box.y + box.height + down)),
    )


def _cover(part: Image, how: Hiding) -> None:
    if how == "emoji":
        part[:] = _GRAY
        return
    cells = cv2.resize(part, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    cells = np.asarray(cells, np.uint8) // _STEP * _STEP + _STEP // 2
    height, width = part.shape[:2]
    part[:] = cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST)


def _draw(image: Image, face: Face) -> None:
    """A simple face with the label's expression; OpenCV has no emoji."""
    box = face.box
    x, y = box.x + box.width // 2, box.y + box.height // 2
    radius = max(3, min(box.width, box.height) // 2)
    colour = colour_of(face.label) if image.ndim == 3 else (220,)
    dark = (24, 20, 16) if image.ndim == 3 else (20,)
    line = max(1, radius // 12)
    cv2.circle(image, (x, y), radius, colour, cv2.FILLED, cv2.LINE_AA)
    for side in (-1, 1):
        eye = (x + side * radius * 2 // 5, y - radius // 4)
        cv2.circle(image, eye, max(1, radius // 8), dark, cv2.FILLED, cv2.LINE_AA)
    mouth = (x, y + radius * 2 // 5)
    if face.label == "surprise":
        cv2.circle(image, mouth, max(1, radius // 5), dark, line, cv2.LINE_AA)
        return
    bend = _SMILE.get(face.label, 0.0)
    if face.label == UNSURE or not bend:
        half = radius * 2 // 5
        cv2.line(image, (x - half, mouth[1]), (x + half, mouth[1]), dark, line, cv2.LINE_AA)
        return
    axes = (radius * 2 // 5, max(1, round(abs(bend) * radius * 0.35)))
    start, end = (20, 160) if bend > 0 else (200, 340)
    centre = (x, mouth[1] - axes[1] // 2 if bend > 0 else mouth[1] + axes[1] // 2)
    cv2.ellipse(image, centre, axes, 0, start, end, dark, line, cv2.LINE_AA)
