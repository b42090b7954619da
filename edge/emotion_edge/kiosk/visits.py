"""Follows visits: how long each person stood in front of the camera, and with which labels.

A visit is one identity of the tracker, from the first frame that reports it to the last. If the
tracker loses a face and finds one in the same place soon after, the visit continues. Only position
and size decide that: a person who takes the place of another within that time continues the
visit, and one who walks out and comes back later begins a new one. No one is recognised.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from emotion_edge.head import is_facing
from emotion_edge.model.labels import UNSURE
from emotion_edge.records import wall_clock
from emotion_edge.settings import Settings, key
from emotion_edge.tracker import TrackerSettings, affinity
from emotion_edge.values import VISIT, Box, Event, Face, Observation

End = Literal["left", "paused", "stopped"]
"""Why a visit ended: the person left, the camera was closed, or the run ended."""

_LEAST_S = 1e-6  # what a visit's first frame counts for: more than nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitSettings(Settings):
    """One record for each person in front of the camera."""

    gap_s: float = key(
        2.0,
        "seconds after `tracker.forget_s` in which a face found in the same place continues the "
        "visit.",
        ge=0,
        le=3600,
    )
    min_s: float = key(0.5, "shorter visits are not recorded, in seconds.", ge=0, le=3600)


@dataclass(slots=True)
class _Visit:
    """A visit that has not ended; seconds by label, by zone and by whether the head faced us."""

    number: int
    track: int
    box: Box
    start_ns: int
    last_ns: int
    origin: Mapping[str, Any]  # of a file: its name and the time in it
    labels: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    zones: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    facing: dict[bool, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, face: Face, seconds: float) -> None:
        """What was seen for so long."""
        self.labels[face.label] += seconds
        self.zones[face.zone] += seconds
        if face.box.landmarks:
            self.facing[is_facing(face.box.landmarks)] += seconds


class Visits:
    """Turns observations into one event for each visit, when it has ended."""

    def __init__(self, settings: VisitSettings, tracker: TrackerSettings) -> None:
        """tracker: the settings of the tracker whose identities arrive."""
        self._settings = settings
        self._tracker = tracker
        self._limit_ns = round((tracker.forget_s + settings.gap_s) * 1e9)
        self._forget_ns = round(tracker.forget_s * 1e9)
        self._open: list[_Visit] = []
        self._count = 0
        self._last_ns = 0

    def update(self, observation: Observation) -> list[Event]:
        """Add a frame's faces; returns the visits that have ended since. Faces need a track."""
        now = observation.frame.captured_ns
        ended = self.expire(now)
        previous, self._last_ns = self._last_ns, now
        present = {visit.track: visit for visit in self._open}
        for face in observation.faces:
            if face.track_id is None:
                continue
            visit = present.get(face.track_id) or self._continued(face, observation, now)
            visit.track = face.track_id
            # A label covers the time since the previous frame, if the face was in that one too.
            seen = visit.last_ns == previous and now > previous
            visit.add(face, (now - previous) / 1e9 if seen else _LEAST_S)
            visit.box, visit.last_ns = face.box, max(now, visit.last_ns)
        return ended

    def expire(self, now_ns: int) -> list[Event]:
        """End the visits whose face has been away too long; to be called without a frame too."""
        gone = [visit for visit in self._open if now_ns - visit.last_ns > self._limit_ns]
        self._open = [visit for visit in self._open if visit not in gone]
        return list(self._ended(gone, "left"))

    def close(self, why: End) -> list[Event]:
        """End all visits."""
        gone, self._open = self._open, []
        return list(self._ended(gone, why))

    def _continued(self, face: Face, observation: Observation, now: int) -> _Visit:
        """The visit that a new identity continues, or a new one.

        While the tracker may still find the earlier face itself, that face is another person.
        """
        lost = [visit for visit in self._open if now - visit.last_ns > self._forget_ns]
        likely = max(lost, key=lambda visit: self._nearness(visit, face), default=None)
        if likely is not None and self._nearness(likely, face) > 0:
            return likely
        self._count += 1
        assert face.track_id is not None
        frame = observation.frame
        origin = {}
        if frame.media_time_s is not None:
            origin = {"source": frame.source, "media_time_s": round(frame.media_time_s, 3)}
        visit = _Visit(self._count, face.track_id, face.box, now, now, origin)
        self._open.append(visit)
        return visit

    def _nearness(self, visit: _Visit, face: Face) -> float:
        return affinity(visit.box, face.box, self._tracker)

    def _ended(self, visits: list[_Visit], why: End) -> Iterator[Event]:
        for visit in visits:
            if (visit.last_ns - visit.start_ns) / 1e9 >= self._settings.min_s:
                yield _event(visit, why)


def _event(visit: _Visit, why: End) -> Event:
    """The event of kind ``visit``; its details are the record's own keys."""
    total = sum(visit.labels.values())
    label = max(visit.labels, key=lambda name: visit.labels[name])
    dwell_s = (visit.last_ns - visit.start_ns) / 1e9
    shares = {name: round(seconds / total, 4) for name, seconds in sorted(visit.labels.items())}
    unsure = shares.pop(UNSURE, 0.0)
    details: dict[str, Any] = {
        "visit": visit.number,
        **(visit.origin or {"start": wall_clock(visit.start_ns), "end": wall_clock(visit.last_ns)}),
        "dwell_s": round(dwell_s, 3),
        "label": label,
        "shares": shares,
        "unsure_share": unsure,
        "ended": why,
    }
    if visit.facing:
        known = sum(visit.facing.values())
        details["facing_share"] = round(visit.facing[True] / known, 4)
    zone = max(visit.zones, key=lambda name: visit.zones[name])
    if zone:
        details["zone"] = zone
    message = f"visit {visit.number}: {dwell_s:.1f} s, mostly {label}"
    # The frames of a file carry the file's own time, which is not the clock's.
    at_ns = time.monotonic_ns() if visit.origin else visit.last_ns
    return Event(VISIT, message, at_ns, details)
