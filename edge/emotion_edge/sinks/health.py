"""Judges whether a run is healthy: frames arrive, and every output works.

``starting``: no frame yet, and not overdue. ``ok``. ``degraded``: frames arrive, but an output
fails or drops records. ``failing``: no frames. ``paused``: no frames, on request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from emotion_edge.sinks.camera_state import PAUSED, camera_state
from emotion_edge.sinks.fanout import SinkState
from emotion_edge.values import Event, Observation

_DROPPING_S = 90.0  # a sink that is too slow reports it once a minute

Status = Literal["starting", "ok", "paused", "degraded", "failing"]
STATUSES: tuple[Status, ...] = ("starting", "ok", "paused", "degraded", "failing")
HEALTHY: tuple[Status, ...] = ("ok", "paused")
"""Those that need no one's attention."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status, and the reason in one line for a person; empty when the status is ``ok``."""

    status: Status
    reason: str


_PAUSED = Verdict("paused", "the camera is closed")


class Health:
    """Takes what the outputs take, and judges on request; callable from any thread."""

    def __init__(self, stale_s: float, *, sinks: Callable[[], Iterable[SinkState]] = tuple) -> None:
        """stale_s: seconds without a frame that are too long. sinks: the state of each output."""
        self._stale_s = stale_s
        self._sinks = sinks
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._last_ns: int | None = None
        self._dropping: dict[str, tuple[float, str]] = {}  # by sink: when, what
        self._held = False  # whether a paused camera's device is still open
        self.camera = "starting"
        """``ok``, ``starting``, or why it is away (``camera_state``)."""
        self.message = ""
        """The camera's trouble, for a person."""

    def write(self, observation: Observation) -> None:
        """A frame came."""
        with self._lock:
            self._last_ns = observation.frame.captured_ns
            self.camera, self.message = "ok", ""

    def event(self, event: Event) -> None:
        """The camera went or came back, or an output drops records."""
        state = camera_state(event)
        with self._lock:
            if state is not None:
                self.camera = state
                self.message = "" if state == "ok" else event.message
            if event.kind == "camera.resumed":
                self._started, self._last_ns = time.monotonic(), None
            self._held = event.kind == "camera.paused" and bool(event.details.get("held"))
            if event.kind == "sink.dropping":
                self._dropping[str(event.details.get("sink"))] = (time.monotonic(), event.message)

    @property
    def age_s(self) -> float | None:
        """Seconds since the last frame was captured; None before the first."""
        last = self._last_ns
        return None if last is None else (time.monotonic_ns() - last) / 1e9

    @property
    def seeing(self) -> bool:
        """Whether the last frame is recent enough for what it showed to be true now."""
        age = self.age_s
        return age is not None and age <= self._stale_s and self.camera == "ok"

    def verdict(self) -> Verdict:
        """The state now."""
        now = time.monotonic()
        with self._lock:
            age = self.age_s
            reasons = [sink.failing for sink in self._sinks() if sink.failing]
            reasons += [what for at, what in self._dropping.values() if now - at <= _DROPPING_S]
            if self.camera == PAUSED:
                reasons = [self.message] * self._held + reasons
                return Verdict("degraded", "; ".join(reasons)) if reasons else _PAUSED
            if self.camera not in ("ok", "starting"):
                return Verdict("failing", f"camera {self.camera}: {self.message}")
            if age is None and now - self._started <= self._stale_s:
                return Verdict("starting", "waiting for the first frame")
            if age is None:
                return Verdict("failing", f"no frame within {now - self._started:.0f} s")
            if age > self._stale_s:
                return Verdict("failing", f"no frame for {age:.0f} s")
        return Verdict("degraded", "; ".join(reasons)) if reasons else Verdict("ok", "")
