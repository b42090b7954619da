"""Counts expressions over a period instead of recording faces, for example for signage."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from emotion_edge import shares
from emotion_edge.settings import Settings, key
from emotion_edge.sinks import Sink
from emotion_edge.sinks.wrapper import Wrapper
from emotion_edge.values import VISIT, Event, Frame, Observation

_NO_IMAGE = np.zeros((1, 1), np.uint8)

AGGREGATE = "aggregate"
"""The kind of the events that carry the counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateSettings(Settings):
    """Counts over a period in place of faces, for signage."""

    period_s: float = key(60.0, "seconds that one count covers.", gt=0, le=1e6)
    min_people: int = key(
        1,
        "fewest people that a count may cover; a period or the visits of a period with fewer are "
        "withheld, and all zones if one of them has fewer.",
        ge=1,
        le=10**6,
    )


class Aggregate(Wrapper):
    """Gives the sink that it wraps counts over a period in place of observations.

    At the end of each period in which the camera delivered frames it hands on an event of kind
    ``aggregate`` whose details are::

        {"seconds": 60.0, "frames": 893, "people": 3, "most_at_once": 2,
         "labels": {"happy": 2, "neutral": 1},
         "shares": {"happy": 0.6667, "neutral": 0.3333},
         "corrected": {"happy": {"share": 0.61, "low": 0.31, "high": 0.88}, ...},
         "zones": {"door": {"people": 1, "labels": {"happy": 1}}},
         "visits": {"count": 2, "dwell_s": 31.5, "labels": {"happy": 2}}}

    ``people`` counts identities seen (without a tracker: the most faces in one frame); each counts
    once in ``labels``, under the label shown in most frames, ``unsure`` included. ``shares`` are
    those counts as parts of one. ``corrected`` estimates the shares of the expressions themselves
    from every person's probabilities, without the mistakes the model is known to make, and with
    95% intervals (``emotion_edge.shares``); it takes ten people or more, and a model whose
    manifest states a prior. ``zones`` counts who was seen in each zone, if there are zones, and
    ``visits`` the visits that ended in the period, by the label shown longest, with the sum of
    their times. A period without an event is one in which no frame was processed.

    A period with fewer people than ``min_people`` is withheld: its event has ``seconds``,
    ``frames`` and ``"withheld": true`` only. Fewer visits have ``{"withheld": true}`` in place of
    their counts; so has every zone if one of them, or the rest of the image, has fewer people,
    because a difference would tell their counts. What is withheld is not counted later.

    Other events are passed on; a single visit is not.
    """

    def __init__(
        self,
        sink: Sink,
        period_s: float = 60.0,
        *,
        min_people: int = 1,
        prior: Sequence[float] = (),
        everything: bool = False,
    ) -> None:
        """period_s: seconds that one count covers. prior: of the model's manifest, if any.

        min_people: the fewest that a count may cover.
        everything: hand on observations and visits too, to a sink that shows sums only.
        """
        super().__init__(sink)
        self._min_people = min_people
        self._everything = everything
        self._visits: list[Event] = []
        self._period_ns = round(period_s * 1e9)
        self._start_ns: int | None = None
        self._first: Frame | None = None  # of the clip; its time in the file is the reference
        self._last_ns = 0
        self._frames = 0
        self._most = 0
        self._seen: dict[int, Counter[str]] = {}  # by identity: frames in which it wore a label
        self._prior = tuple(prior)
        self._labels: tuple[str, ...] = ()
        self._sums: dict[int, list[float]] = {}  # by identity: probabilities, summed over frames
        self._zones: dict[str, dict[int, Counter[str]]] = {}  # the same, by zone

    def write(self, observation: Observation) -> None:
        """Count. Raises SinkError when a count is due and the wrapped sink cannot take it."""
        now = observation.frame.captured_ns
        if self._start_ns is None:
            self._start_ns = now
            self._first = replace(observation.frame, image=_NO_IMAGE)
        if now >= self._start_ns + self._period_ns:
            # Before this frame is counted: after an error the same frame comes again.
            self._hand_on(self._start_ns + self._period_ns)
            self._start_ns += (now - self._start_ns) // self._period_ns * self._period_ns
        if self._everything:
            self._sink.write(observation)
        self._last_ns = now
        self._frames += 1
        self._most = max(self._most, len(observation.faces))
        for place, face in enumerate(observation.faces):
            who = face.track_id if face.track_id is not None else -1 - place
            self._seen.setdefault(who, Counter())[face.label] += 1
            self._labels = face.emotion.labels
            sums = self._sums.setdefault(who, [0.0] * len(self._labels))
            for at, probability in enumerate(face.emotion.probabilities):
                sums[at] += probability
            if face.zone:
                inside = self._zones.setdefault(face.zone, {})
                inside.setdefault(who, Counter())[face.label] += 1

    def event(self, event: Event) -> None:
        """Pass it on, or count a visit."""
        if event.kind != VISIT or self._everything:
            self._sink.event(event)
        if event.kind == VISIT:  # last: after an error the same event comes again
            self._visits.append(event)

    def __exit__(self, kind: Any, error: Any, traceback: Any, /) -> None:
        """Hand on the period begun, then close the wrapped sink."""
        try:
            if self._start_ns is not None:
                self._hand_on(self._last_ns)
                self._start_ns = None
        finally:
            super().__exit__(kind, error, traceback)

    def _hand_on(self, end_ns: int) -> None:
        assert self._start_ns is not None
        if not self._frames:
            return
        details: dict[str, Any] = {
            "seconds": round((end_ns - self._start_ns) / 1e9, 3),
            "frames": self._frames,
        }
        if self._withheld(len(self._seen)):
            details["withheld"] = True
            message = f"fewer than {self._min_people} people in {details['seconds']:g} s: withheld"
        else:
            labels = _worn(self._seen)
            self._count(details, labels)
            worn = ", ".join(f"{n} {label}" for label, n in labels.most_common())
            number = f"{len(self._seen)} {'person' if len(self._seen) == 1 else 'people'}"
            message = f"{number} in {details['seconds']:g} s" + (f": {worn}" if worn else "")
        at_ns = end_ns
        if self._first is not None and self._first.media_time_s is not None:
            # The frames of a file carry the file's own time, which is not the clock's.
            at_ns = time.monotonic_ns()
            elapsed = (end_ns - self._first.captured_ns) / 1e9
            details["media_time_s"] = round(self._first.media_time_s + elapsed, 3)
        self._sink.event(Event(AGGREGATE, message, at_ns, details))
        self._frames = self._most = 0
        self._seen, self._sums, self._zones, self._visits = {}, {}, {}, []

    def _withheld(self, people: int) -> bool:
        return people < self._min_people and self._min_people > 1

    def _count(self, details: dict[str, Any], labels: Counter[str]) -> None:
        """Add everything that is counted to the details."""
        details |= {
            "people": len(self._seen),
            "most_at_once": self._most,
            "labels": dict(sorted(labels.items())),
        }
        if labels:
            count = len(self._seen)
            details["shares"] = {k: round(n / count, 4) for k, n in sorted(labels.items())}
        people = [[p / sum(sums) for p in sums] for sums in self._sums.values() if sum(sums)]
        found = shares.estimate(self._labels, people, self._prior)
        if found:
            details["corrected"] = {label: asdict(each) for label, each in found.items()}
        if self._zones:
            # A group too small would be the difference between the whole and the other groups.
            outside = len(self._seen.keys() - set().union(*self._zones.values()))
            groups = [len(inside) for inside in self._zones.values()] + [outside] * (outside > 0)
            details["zones"] = {
                zone: {"withheld": True}
                if self._withheld(min(groups))
                else {"people": len(inside), "labels": dict(sorted(_worn(inside).items()))}
                for zone, inside in sorted(self._zones.items())
            }
        if self._visits:
            mainly = Counter(visit.details["label"] for visit in self._visits)
            dwell_s = sum(visit.details["dwell_s"] for visit in self._visits)
            details["visits"] = (
                {"withheld": True}
                if self._withheld(len(self._visits))
                else {
                    "count": len(self._visits),
                    "dwell_s": round(dwell_s, 3),
                    "labels": dict(sorted(mainly.items())),
                }
            )


def _worn(seen: dict[int, Counter[str]]) -> Counter[str]:
    """How many identities wore each label in most of their frames."""
    return Counter(worn.most_common(1)[0][0] for worn in seen.values())
