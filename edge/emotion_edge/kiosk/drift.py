"""Measures how far a site has moved from its first week, and keeps the counts over restarts.

A label cannot be checked without an observer, but what goes in and out of the network can be
compared with the time in which the site was set up: a lamp that failed, a camera that was pushed
aside, a crowd of another age. For each quantity the faces are counted in fixed bins; two sets of
counts are compared by the population stability index::

    PSI = sum over bins of (now - then) * ln(now / then)

where *now* and *then* are shares. By convention, below 0.1 means no change, up to 0.25 a moderate
one and above it a large one (https://www.hackingnote.com/en/machine-learning/psi). Only counts are
kept: no image, no time of day, no identity.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Self

from emotion_edge.errors import SinkError
from emotion_edge.files import replacing
from emotion_edge.model.labels import UNSURE
from emotion_edge.settings import Settings, key
from emotion_edge.values import Face, Image, Observation

FILE = "drift.json"
"""In the state folder."""

OLD = "drift.old-{}.json"
"""There too, numbered from 1: files of another model or other labels, and damaged ones."""

_SCHEMA = 1
_DAY_S = 86400
_EDGES = {
    # Fixed, so that counts can be added up; a value on an edge is in the bin above it.
    "confidence": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    "brightness": (32.0, 64.0, 96.0, 128.0, 160.0, 192.0, 224.0),  # gray levels of the face
    "face_size": (0.05, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5),  # of the image's shorter side
}
FEATURES = ("labels", "unsure", *_EDGES)
"""What is compared."""

Counts = dict[str, list[int]]

_UNUSABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading another file's content raises; the last two for Infinity and deep nesting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSettings(Settings):
    """Comparison of the site with its first days."""

    baseline_days: int = key(
        7, "days with faces that make up the baseline; they need not be consecutive.", ge=1, le=366
    )
    window_days: int = key(7, "the latest days, which are compared with it.", ge=1, le=366)
    min_faces: int = key(
        500, "fewest faces in each of the two; with fewer there is no figure.", ge=1, le=10**9
    )
    interval_s: float = key(1.0, "seconds between two frames that count.", ge=0, le=3600)
    save_s: float = key(600.0, "seconds between two writes of the counts.", ge=1, le=86400)


def psi(then: Sequence[int], now: Sequence[int]) -> float:
    """The population stability index of two sets of counts of the same bins, 0 or more.

    Half a face is added to each bin, so that an empty one is not infinite.
    """
    total_then, total_now = sum(then) + len(then) / 2, sum(now) + len(now) / 2
    pairs = (
        ((a + 0.5) / total_then, (b + 0.5) / total_now) for a, b in zip(then, now, strict=True)
    )
    return sum((b - a) * math.log(b / a) for a, b in pairs)


class Drift:
    """Counts faces by day, as a context manager; ``figures`` may be called by any thread."""

    def __init__(
        self,
        settings: DriftSettings,
        folder: Path,
        labels: Sequence[str],
        model: str,
        *,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """folder: of the state. labels: the network's. model: with another, the baseline is new.

        tell: takes a line for a person. clock: Unix seconds.
        """
        self._settings = settings
        self._path = folder / FILE
        self._labels = tuple(dict.fromkeys((*labels, UNSURE)))
        self._about = {"schema": _SCHEMA, "labels": list(self._labels), "model": model}
        self._tell = tell
        self._clock = clock
        self._lock = -1  # file descriptor
        self._baseline: Counts = self._none()
        self._baseline_days: list[int] = []  # since 1970
        self._days: dict[int, Counts] = {}
        self._due_ns = 0.0
        self._saved = 0.0  # monotonic seconds
        self._changed = self._failing = False

    def __enter__(self) -> Self:
        """Continue what an earlier run counted; what cannot be read is kept under another name."""
        self._saved = time.monotonic()
        if self._locked():
            try:
                self._read(json.loads(self._path.read_text(encoding="utf-8")))
            except FileNotFoundError:
                pass
            except (OSError, *_UNUSABLE) as error:
                self._start_over(error)
        return self

    def _locked(self) -> bool:
        """Whether the file is ours; otherwise counts are kept in memory only."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._path.with_suffix(".lock")
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._tell(
                f"drift: another run keeps its counts in {self._path}: this one's are lost at its "
                "end; give it a state_dir of its own"
            )
        except OSError as error:
            self._tell(
                f"drift: cannot keep counts in {self._path.parent}: {error.strerror}: they are "
                "lost at the end; set state_dir"
            )
        else:
            return True
        self._unlock()
        return False

    def add(self, observation: Observation) -> None:
        """Count the faces of a frame, if it is time."""
        now_ns = observation.frame.captured_ns
        if observation.faces and now_ns >= self._due_ns:
            self._due_ns = now_ns + self._settings.interval_s * 1e9
            day = int(self._clock() // _DAY_S)
            for face in observation.faces:
                self._count(self._bins(face, observation.frame.image), day)
        if self._changed and time.monotonic() - self._saved >= self._settings.save_s:
            self.save()

    def figures(self) -> dict[str, float]:
        """The index of each quantity; NaN while there is no baseline or too little to compare."""
        least = self._settings.min_faces
        days = list(self._days.values())
        now = {
            name: [sum(c) for c in zip(*(d[name] for d in days), strict=True)] for name in FEATURES
        }
        then = {name: list(counts) for name, counts in self._baseline.items()}
        ready = (
            len(self._baseline_days) >= self._settings.baseline_days
            and sum(then["labels"]) >= least
            and sum(now["labels"]) >= least
        )
        return {name: psi(then[name], now[name]) if ready else math.nan for name in FEATURES}

    @property
    def baseline_days(self) -> int:
        """Days that the baseline has so far."""
        return len(self._baseline_days)

    def save(self) -> None:
        """Replace the file; one that cannot be written is reported once and tried again later."""
        self._saved = time.monotonic()
        if self._lock < 0:
            return
        content = {
            **self._about,
            "baseline_days": self._baseline_days,
            "baseline": self._baseline,
            "days": {str(day): counts for day, counts in self._days.items()},
        }
        try:
            with replacing(self._path) as part, part.open("w", encoding="utf-8") as file:
                json.dump(content, file, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())  # a power cut leaves the old file or the new one
        except SinkError as error:
            if not self._failing:
                self._tell(f"drift: {error}: it is tried again")
            self._failing = True
            return
        self._changed = self._failing = False

    def __exit__(self, *error: object) -> None:
        """Save what has changed."""
        if self._changed:
            self.save()
        self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _none(self) -> Counts:
        return {
            "labels": [0] * len(self._labels),
            "unsure": [0, 0],
            **{name: [0] * (len(edges) + 1) for name, edges in _EDGES.items()},
        }

    def _bins(self, face: Face, image: Image) -> dict[str, int]:
        """The bin of each quantity."""
        box = face.box
        inside = image[
            max(0, box.y) : max(0, box.y + box.height), max(0, box.x) : max(0, box.x + box.width)
        ]
        values = {
            "confidence": face.shown.confidence,
            "brightness": float(inside.mean()) if inside.size else 0.0,
            "face_size": max(box.width, box.height) / min(image.shape[:2]),
        }
        label = self._labels.index(face.label) if face.label in self._labels else -1
        bins = {name: bisect_right(_EDGES[name], value) for name, value in values.items()}
        return {"labels": label, "unsure": int(face.label == UNSURE), **bins}

    def _count(self, bins: Mapping[str, int], day: int) -> None:
        if day not in self._days:
            kept = sorted([*self._days, day])[-self._settings.window_days :]
            # A new dictionary: another thread may be reading the old one.
            self._days = {each: self._days.get(each, self._none()) for each in kept}
        days = self._baseline_days
        if day not in days and len(days) < self._settings.baseline_days:
            days.append(day)
        into = [self._days[day]] if day in self._days else []
        if day in days:
            into.append(self._baseline)
        for counts in into:
            for name, place in bins.items():
                counts[name][place] += 1
        self._changed = True

    def _read(self, content: dict[str, Any]) -> None:
        """Take over a file's counts. Raises ValueError, KeyError or TypeError for another one."""
        about = {name: content[name] for name in self._about}
        if about != self._about:
            raise ValueError(f"it was made with the model {content['model']} or other labels")
        days = {int(day): self._checked(counts) for day, counts in content["days"].items()}
        baseline = self._checked(content["baseline"])
        baseline_days = [int(day) for day in content["baseline_days"]]
        self._days = dict(sorted(days.items())[-self._settings.window_days :])
        self._baseline, self._baseline_days = baseline, baseline_days

    def _checked(self, counts: Mapping[str, Any]) -> Counts:
        expected = self._none()
        found = {name: [int(number) for number in counts[name]] for name in expected}
        if any(len(found[name]) != len(expected[name]) for name in expected):
            raise ValueError("it has other bins")
        if min(min(numbers) for numbers in found.values()) < 0:
            raise ValueError("it has negative counts")
        return found

    def _start_over(self, error: Exception) -> None:
        """Keep a file that cannot be used under a name of its own."""
        reason = "it is damaged"
        if isinstance(error, KeyError):
            reason = f"it lacks {error}"
        elif isinstance(error, ValueError | OSError) and not isinstance(
            error, json.JSONDecodeError | UnicodeDecodeError
        ):
            reason = str(error)
        names = (self._path.with_name(OLD.format(n)) for n in count(1))
        kept = next(name for name in names if not name.exists())
        try:
            self._path.rename(kept)
        except OSError:
            self._tell(f"drift: cannot use {self._path}: {reason}; the baseline starts over")
            return
        self._tell(
            f"drift: cannot use {self._path}: {reason}; it is kept as {kept}, and the baseline "
            "starts over"
        )
