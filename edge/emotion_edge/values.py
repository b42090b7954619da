"""The values that flow through the pipeline, small and frozen.

::

    Frame ──> Box ──> Emotion ──> Face ──> Observation
                                  Event
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROW = 3  # faces: rows are read one by one if each has as many

Image = NDArray[np.uint8]
"""uint8, gray ``(height, width)`` or BGR ``(height, width, 3)``, as OpenCV reads it."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image from a camera or a file.

    image: uint8, gray ``(height, width)`` or BGR ``(height, width, 3)``. Read-only by
        agreement: sinks and stages share it without a copy.
    captured_ns: instant of capture on the monotonic clock (``time.monotonic_ns``). Frames of a
        file advance by the file's own frame times, so they may be in the future.
    index: counts every frame the source produced from 0, including skipped ones.
    source: the file that the frame comes from; empty for a live camera.
    media_time_s: seconds from the start of that file, 0 for an image; None for a live camera,
        whose frames have a wall-clock time instead.
    """

    image: Image
    captured_ns: int
    index: int
    source: str = ""
    media_time_s: float | None = None


Point = tuple[float, float]
"""``(x, y)`` in pixels of the frame."""


@dataclass(frozen=True, slots=True)
class Box:
    """A face's rectangle, in pixels of the frame; it may extend beyond the frame's edge.

    score: the detector's confidence; Haar's is unbounded, YuNet's is in 0..1.
    landmarks: right eye, left eye, nose tip, right and left corner of the mouth, where right and
        left are the person's own; empty if the detector does not find them.
    """

    x: int
    y: int
    width: int
    height: int
    score: float = 1.0
    landmarks: tuple[Point, ...] = ()

    @property
    def area(self) -> int:
        """Square pixels."""
        return self.width * self.height

    def iou(self, other: Box) -> float:
        """Intersection over union, 0..1."""
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        if across <= 0 or down <= 0:
            return 0.0
        shared = across * down
        return shared / (self.area + other.area - shared)

    def placed(self, span: float | tuple[float, float], left: float = 0, top: float = 0) -> Box:
        """The box of a resized part of an image, in pixels of the whole image.

        span: how many pixels of the whole image one pixel of the part covers; two numbers if it
            differs between across and down. left, top: the part's corner in the whole image.
        """
        across, down = span if isinstance(span, tuple) else (span, span)
        return Box(
            round(left + self.x * across),
            round(top + self.y * down),
            round(self.width * across),
            round(self.height * down),
            self.score,
            tuple((left + x * across, top + y * down) for x, y in self.landmarks),
        )


@dataclass(frozen=True, slots=True)
class Emotion:
    """A probability for each label.

    probabilities: one float in 0..1 for each label, in the order of ``labels``.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def label(self) -> str:
        """The most probable label; of equals, the first."""
        return self.labels[self.probabilities.index(max(self.probabilities))]

    @property
    def confidence(self) -> float:
        """The probability of ``label``, 0..1."""
        return max(self.probabilities)


@dataclass(frozen=True, slots=True)
class Face:
    """A face in one frame.

    box: where, in pixels of the frame.
    emotion: the network's answer for this frame alone. Between two detections of the same
        track it may be the last answer.
    track_id: identity over time, from 1; None for a single image.
    smoothed: probabilities averaged over the track's recent past; None for a single image.
    label: what to show: the tracker's steady label (or ``unsure``); for a single image the
        most probable one.
    zone: name of the zone that holds the middle of the box; empty outside every zone.
    """

    box: Box
    emotion: Emotion
    label: str
    track_id: int | None = None
    smoothed: Emotion | None = None
    zone: str = ""

    @property
    def shown(self) -> Emotion:
        """The probabilities behind ``label``: smoothed if there is a track."""
        return self.smoothed or self.emotion


VISIT = "visit"
"""The kind of the events that report a visit which has ended."""

STAGES = ("detect", "classify", "track", "age")
"""The keys of ``Observation.timings``."""

EVENT_KINDS = (
    "camera.opened",
    "camera.lost",
    "camera.retry",
    "camera.recovered",
    "camera.gave_up",
    "camera.paused",
    "camera.resumed",
    "camera.stuck",
    "camera.garbage",
    "camera.skipped",
    "camera.damaged",
    "camera.truncated",
    "sink.opened",
    "sink.failed",
    "sink.recovered",
    "sink.dropping",
    "sink.closed",
    "thermal.slower",
    "thermal.faster",
    "power.weak",
    "power.recovered",
    "config.ignored",
    "aggregate",
    "visit",
)
"""Every ``Event.kind`` of this package; another package's camera or output may add its own."""


def reading_order(faces: Sequence[Face]) -> tuple[int, ...]:
    """Positions in ``faces``, from left to right in the image.

    Where several faces are in each of several rows, one row follows the other, the top one first.
    """
    if not faces:
        return ()
    middles = [
        (face.box.x + face.box.width / 2, face.box.y + face.box.height / 2) for face in faces
    ]
    gap = sorted(face.box.height for face in faces)[len(faces) // 2]
    rows: list[list[int]] = []
    previous = -math.inf
    for i in sorted(range(len(faces)), key=lambda i: middles[i][1]):
        if middles[i][1] - previous > gap:
            rows.append([])
        rows[-1].append(i)
        previous = middles[i][1]
    if min(len(row) for row in rows) < _ROW:
        rows = [list(range(len(faces)))]
    return tuple(i for row in rows for i in sorted(row, key=lambda i: middles[i]))


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """The faces found in one frame.

    timings: milliseconds by stage: ``detect``, ``classify``, ``track``, and for live cameras
        ``age`` (from capture to the moment the labels were ready).
    skipped: frames the source produced since the last observation that were not processed.
    places: every box in which a face may be, reported or not, for hiding faces.
    """

    frame: Frame
    faces: tuple[Face, ...]
    timings: Mapping[str, float] = field(default_factory=dict)
    skipped: int = 0
    places: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """A change of state worth recording: a camera lost, a sink that drops, a hot board.

    kind: dotted name, e.g. ``camera.lost``, ``camera.recovered``, ``thermal.slower``.
    message: one line for a person.
    at_ns: monotonic clock, as ``Frame.captured_ns``.
    details: values that JSON can hold.
    """

    kind: str
    message: str
    at_ns: int
    details: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
