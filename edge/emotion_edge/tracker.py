"""Follows faces from frame to frame and keeps their labels steady.

A raw label changes many times a minute even if the face does not: the detector's box moves by a
few pixels, and the sensor's noise differs from frame to frame. The tracker averages a face's
probabilities over its recent past and changes the label only when the new one keeps leading.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from emotion_edge.model.labels import UNSURE
from emotion_edge.settings import Settings, key
from emotion_edge.values import Box, Emotion, Face

_FOLLOW = 0.5  # box sides: a face that moved this far is followed immediately, not smoothed
_FIRST_S = 1 / 15  # seconds that a track's first frame counts for: no frame came before it


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerSettings(Settings):
    """How faces are followed and labels change. The defaults were chosen by
    ``python -m benchmarks steady`` on PublicTest.
    """

    min_iou: float = key(
        0.2, "overlap, 0..1, from which boxes in consecutive frames are one face.", ge=0, le=1
    )
    reach: float = key(
        0.7,
        "boxes that overlap less are one face when their centres are nearer than this, in box "
        "sides: a fast move.",
        ge=0,
        le=10,
    )
    confirm_hits: int = key(3, "frames that must show a face before it is reported.", ge=1, le=1000)
    hold_s: float = key(
        0.3,
        "seconds for which a face that is no longer seen is still reported, at its last position.",
        ge=0,
        le=3600,
    )
    forget_s: float = key(
        1.0, "seconds after which a face that returns counts as a new one.", ge=0, le=3600
    )
    gap_s: float = key(
        5.0, "seconds without any frame after which all faces are forgotten.", ge=0, le=3600
    )
    box_half_life_s: float = key(
        0.08,
        "half-life of old positions in the box of a still face, in seconds.",
        gt=0,
        le=3600,
    )
    half_life_s: float = key(
        0.15,
        "half-life of old probabilities, in seconds, at any frame rate.",
        gt=0,
        le=3600,
    )
    lead: float = key(
        1.25,
        "how many times the shown label's probability another label must have to replace it; a "
        "ratio, so that it means the same to a hesitant network as to a confident one.",
        ge=1,
        le=1000,
    )
    switch_s: float = key(0.05, "seconds for which it must lead.", ge=0, le=3600)
    unsure_below: float | None = key(
        None,
        "probability below which `unsure` is shown, 0: never; unset: the model's own default. A "
        "label appears at this probability and disappears below it divided by `lead`.",
        ge=0,
        le=1,
    )
    calm_s: float = key(
        2.0,
        "seconds over which changes of a face's leading label are counted. If it keeps changing, "
        "the face is talking and its probabilities are averaged for longer.",
        gt=0,
        le=3600,
    )
    calm_factor: float = key(
        8.0,
        "the longest half-life of a talking face, as a multiple of `half_life_s`; 1: the same.",
        ge=1,
        le=1000,
    )


class FaceTracker:
    """Identities, steady boxes and steady labels for one stream of frames."""

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self._tracks: list[_Track] = []
        self._last_id = 0
        self._last_ns: int | None = None
        self._interval = _FIRST_S

    def update(self, seen: list[tuple[Box, Emotion]], at_ns: int) -> tuple[Face, ...]:
        """Add one frame's faces and return the faces to report, the oldest track first.

        seen: each box with the network's answer.
        at_ns: when the frame was captured, on the monotonic clock. A step backwards counts as one
            more frame at the previous interval.
        """
        elapsed = self._elapsed(at_ns)
        if elapsed > self.settings.gap_s:
            self._tracks.clear()
        for track in self._tracks:
            track.unseen_s += elapsed
            track.elapsed_s += elapsed
        pairs = self._match([box for box, _ in seen])
        for track, index in pairs:
            track.see(*seen[index], self.settings)
        matched = {index for _, index in pairs}
        self._tracks = [track for track in self._tracks if track.alive(self.settings)]
        self._tracks += [
            _Track(box, emotion, self.settings)
            for index, (box, emotion) in enumerate(seen)
            if index not in matched
        ]
        return self._reported()

    def _reported(self) -> tuple[Face, ...]:
        """The faces of confirmed tracks in view; a track is numbered when it is first reported."""
        shown = [track for track in self._tracks if track.shown(self.settings)]
        for track in shown:
            if track.id is None:
                self._last_id += 1
                track.id = self._last_id
        return tuple(track.face() for track in sorted(shown, key=lambda track: track.id or 0))

    def _elapsed(self, at_ns: int) -> float:
        """Seconds since the last frame."""
        if self._last_ns is None:
            self._last_ns = at_ns
            return 0.0
        elapsed = (at_ns - self._last_ns) / 1e9
        self._last_ns = at_ns
        if elapsed < 0:
            return self._interval
        if elapsed <= self.settings.gap_s:
            self._interval = elapsed
        return elapsed

    def _match(self, boxes: list[Box]) -> list[tuple[_Track, int]]:
        """Pairs of track and box, the best match first; greedy, because a frame has few faces."""
        options = []
        for track in self._tracks:
            for index, box in enumerate(boxes):
                likely = affinity(track.seen_box, box, self.settings)
                if likely > 0:
                    options.append((likely, track.hits, track, index))
        options.sort(key=lambda option: option[:2], reverse=True)
        pairs: list[tuple[_Track, int]] = []
        taken: set[int] = set()
        for _, _, track, index in options:
            if index not in taken and all(track is not other for other, _ in pairs):
                pairs.append((track, index))
                taken.add(index)
        return pairs


class _Track:
    """The history of one face."""

    def __init__(self, box: Box, emotion: Emotion, settings: TrackerSettings) -> None:
        self.id: int | None = None
        self.hits = 1
        self.unseen_s = 0.0
        self.elapsed_s = 0.0  # since it was last seen: the weight of the next answer
        self.seen_box = box
        self._emotion = emotion
        self._place = [box.x + box.width / 2, box.y + box.height / 2, box.width, box.height]
        self._weight = 1 - 0.5 ** (_FIRST_S / settings.half_life_s)
        self._sums = [self._weight * p for p in emotion.probabilities]
        self._smoothed = emotion
        self._quick = list(emotion.probabilities)  # averaged over the base half-life
        self._leading = emotion.label  # of the quick average
        self._changes = 0.0  # of it lately; older ones count less
        self._label = ""
        self._rival = ""
        self._rival_s = 0.0
        self._decide(settings, 0.0)

    def see(self, box: Box, emotion: Emotion, settings: TrackerSettings) -> None:
        """Add what a frame showed of this face."""
        elapsed = self.elapsed_s
        self._move(box, elapsed, settings)
        # An average that weights each answer by the time it covers, and recent answers more.
        # Dividing by the weights so far makes the first frames a plain average.
        keep = 0.5 ** (elapsed / self._half_life(emotion, elapsed, settings))
        self._weight = keep * self._weight + 1 - keep
        self._sums = [
            keep * total + (1 - keep) * p
            for total, p in zip(self._sums, emotion.probabilities, strict=True)
        ]
        self._smoothed = Emotion(
            emotion.labels, tuple(min(1.0, total / self._weight) for total in self._sums)
        )
        self.hits += 1
        self.unseen_s = self.elapsed_s = 0.0
        self.seen_box = box
        self._emotion = emotion
        self._decide(settings, elapsed)

    def _half_life(self, emotion: Emotion, elapsed: float, settings: TrackerSettings) -> float:
        """Seconds: longer while the label keeps changing, as it does in speech.

        Changes are those of a short average, so that single odd frames do not count. One change
        is a new expression and costs nothing; from the third within ``calm_s`` on, each one
        doubles the half-life.
        """
        keep = 0.5 ** (elapsed / settings.half_life_s)
        self._quick = [
            keep * old + (1 - keep) * p
            for old, p in zip(self._quick, emotion.probabilities, strict=True)
        ]
        leading = emotion.labels[self._quick.index(max(self._quick))]
        self._changes *= 0.5 ** (elapsed / settings.calm_s)
        self._changes += leading != self._leading
        self._leading = leading
        factor = math.pow(2.0, max(0.0, self._changes - 2.0))
        return settings.half_life_s * min(settings.calm_factor, factor)

    def alive(self, settings: TrackerSettings) -> bool:
        """Whether it may still be found again; a track never reported is dropped sooner."""
        confirmed = self.hits >= settings.confirm_hits
        return self.unseen_s <= (settings.forget_s if confirmed else settings.hold_s)

    def shown(self, settings: TrackerSettings) -> bool:
        """Whether it is reported: confirmed, and seen recently enough."""
        return self.hits >= settings.confirm_hits and self.unseen_s <= settings.hold_s

    def face(self) -> Face:
        """What to report."""
        x, y, width, height = self._place
        box = Box(
            round(x - width / 2),
            round(y - height / 2),
            round(width),
            round(height),
            self.seen_box.score,
            self.seen_box.landmarks,
        )
        return Face(box, self._emotion, self._label, self.id, self._smoothed)

    def _move(self, box: Box, elapsed: float, settings: TrackerSettings) -> None:
        x, y, width, _ = self._place
        target = (box.x + box.width / 2, box.y + box.height / 2, box.width, box.height)
        moved = max(abs(target[0] - x), abs(target[1] - y), abs(box.width - width))
        share = max(
            1 - 0.5 ** (elapsed / settings.box_half_life_s),
            min(1.0, moved / (_FOLLOW * max(1.0, width))),
        )
        self._place = [
            old + share * (new - old) for old, new in zip(self._place, target, strict=True)
        ]

    def _decide(self, settings: TrackerSettings, elapsed: float) -> None:
        """Keep the shown label, or replace it by one that has led clearly for long enough."""
        rival = self._challenger(settings)
        if not self._label or self.hits < settings.confirm_hits:
            self._label, self._rival = rival or self._label, ""
        elif rival == "":
            self._rival = ""
        else:
            self._rival_s = self._rival_s + elapsed if rival == self._rival else 0.0
            self._rival = rival
            if self._rival_s >= settings.switch_s:
                self._label, self._rival = rival, ""

    def _challenger(self, settings: TrackerSettings) -> str:
        """The label that clearly leads the shown one now; empty if none does."""
        smoothed, shown = self._smoothed, self._label
        best, confidence = smoothed.label, smoothed.confidence
        if settings.unsure_below:
            if shown == UNSURE:
                return best if confidence >= settings.unsure_below else ""
            least = settings.unsure_below / (settings.lead if shown else 1.0)
            if confidence < least:
                return UNSURE
        if shown not in smoothed.labels:
            return best
        current = smoothed.probabilities[smoothed.labels.index(shown)]
        leads = best != shown and confidence >= current * settings.lead
        return best if leads else ""


def affinity(old: Box, new: Box, settings: TrackerSettings) -> float:
    """How likely two boxes are one face: by overlap, or else by distance; 0 if they are not."""
    overlap = old.iou(new)
    if overlap >= settings.min_iou and overlap > 0:
        return 1 + overlap
    side = max(old.width, new.width, 1)
    if min(old.width, new.width) < side / 2:
        return 0.0
    across = old.x + old.width / 2 - new.x - new.width / 2
    down = old.y + old.height / 2 - new.y - new.height / 2
    distance = (across**2 + down**2) ** 0.5 / side
    return max(0.0, 1 - distance / settings.reach) if settings.reach else 0.0
