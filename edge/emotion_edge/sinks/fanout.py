"""Passes observations on to any number of sinks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from emotion_edge.privacy import FaceHider, Hiding
from emotion_edge.sinks import Sink
from emotion_edge.sinks.isolated import Isolated
from emotion_edge.values import Event, Observation

CLOSE_WITHIN_S = 1.5
"""Seconds all sinks have together to flush and close: SIGTERM promises an end within 2."""

_BLACK = np.zeros((), np.uint8)


@dataclass(frozen=True, slots=True)
class SinkState:
    """The state of a sink.

    written: observations and events it took.
    dropped: those it never will.
    failing: the last error while it lasts, else an empty string.
    """

    name: str
    written: int
    dropped: int
    failing: str


class Sinks(Sink):
    """A sink that hands on to others, each isolated in its own thread; ``open_sinks`` makes it.

    ``write`` and ``event`` only queue, so they take microseconds; they raise SinkError when a
    required sink has failed.
    """

    name = "sinks"

    def __init__(
        self,
        members: Sequence[Isolated],
        *,
        on_event: Callable[[Event], None] | None = None,
        close_within_s: float = CLOSE_WITHIN_S,
        faces: Hiding = "show",
    ) -> None:
        """faces: what sinks that look at the pixels see of faces."""
        self._hider = FaceHider(faces)
        self._members = members
        self._on_event = on_event
        self._close_within_s = close_within_s
        self._raised = False

    @property
    def finished(self) -> bool:
        """Whether a user asked for the end of the run, by closing the window."""
        return any(member.finished for member in self._members)

    @property
    def dropped(self) -> int:
        """Records dropped by all of them together."""
        return sum(member.dropped for member in self._members)

    def states(self) -> list[SinkState]:
        """The state of each; callable from any thread."""
        return [
            SinkState(member.name, member.written, member.dropped, member.failing)
            for member in self._members
        ]

    def __enter__(self) -> Self:
        """Open all, or none: the first error closes those already open."""
        with ExitStack() as opened:
            for member in self._members:
                opened.enter_context(member)
            opened.pop_all()
        for member in self._members:
            if member.announcement:
                self.event(
                    Event(
                        "sink.opened",
                        member.announcement,
                        time.monotonic_ns(),
                        {"sink": member.name},
                    ),
                    own=True,
                )
        return self

    def write(self, observation: Observation) -> None:
        """Hand on one observation.

        Raises SinkError when a required sink has failed, BrokenPipeError when the only output was
        standard output and its reader has gone.
        """
        blind: Observation | None = None
        seen: Observation | None = None
        for member in self._members:
            if member.pixels:
                # Here, before any sink has it: a new sink cannot forget it.
                seen = seen or self._hider.hide(observation)
                member.write(seen)
            else:
                blind = blind or _without_pixels(observation)
                member.write(blind)
        self._check()

    def event(self, event: Event, *, own: bool = False) -> None:
        """Hand on one change of state. Raises SinkError when a required sink has failed.

        own: the sinks report it themselves, so ``on_event`` receives it too.
        """
        if own and self._on_event is not None:
            self._on_event(event)
        for member in self._members:
            member.event(event)
        self._check()

    def _check(self) -> None:
        """Pass on what the sinks report; end the run for a required one, or when all have ended."""
        for member in self._members:
            for report in member.take_reports():
                if self._on_event is not None:
                    self._on_event(report)
                for other in self._members:
                    other.event(report)
        for member in self._members:
            if member.fatal is not None:
                self._raised = True
                raise member.fatal
        if self._members and all(member.ended for member in self._members):
            self._raised = True
            raise BrokenPipeError

    def __exit__(self, *error: object) -> None:
        """Flush and close all, at the same time, within the limit.

        Raises SinkError when a required sink failed and no error has told so yet.
        """
        deadline = time.monotonic() + self._close_within_s
        for member in self._members:
            member.stop(deadline)
        for member in self._members:
            member.__exit__(*error)
        for member in self._members:
            for report in member.take_reports():
                if self._on_event is not None:
                    self._on_event(report)
        if not any(error) and not self._raised:
            self._raised = True
            for member in self._members:
                if member.fatal is not None:
                    raise member.fatal


def _without_pixels(observation: Observation) -> Observation:
    """The same with a black image that takes one byte whatever its size."""
    frame = observation.frame
    black = np.broadcast_to(_BLACK, frame.image.shape)
    return replace(observation, frame=replace(frame, image=black))
