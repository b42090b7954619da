"""The base of sinks that stand between the run and another sink."""

from __future__ import annotations

from typing import Any, Self

from emotion_edge.sinks import Sink
from emotion_edge.values import Event, Observation


class Wrapper(Sink):
    """Passes everything on to the sink it wraps. A subclass overrides what it changes."""

    def __init__(self, sink: Sink) -> None:
        """Wrap ``sink``, which is entered and left with the wrapper."""
        self._sink = sink

    @property
    def name(self) -> str:
        """The wrapped sink's."""
        return self._sink.name

    @property
    def announcement(self) -> str:
        """The wrapped sink's."""
        return self._sink.announcement

    @property
    def finished(self) -> bool:
        """The wrapped sink's."""
        return self._sink.finished

    @property
    def dropped(self) -> int:
        """The wrapped sink's."""
        return self._sink.dropped

    @property
    def trouble(self) -> str:
        """The wrapped sink's."""
        return self._sink.trouble

    def __enter__(self) -> Self:
        """Open the wrapped sink. Raises what it raises."""
        self._sink.__enter__()
        return self

    def write(self, observation: Observation) -> None:
        """Hand the observation on. Raises SinkError."""
        self._sink.write(observation)

    def event(self, event: Event) -> None:
        """Hand the event on. Raises SinkError."""
        self._sink.event(event)

    def __exit__(self, kind: Any, error: Any, traceback: Any, /) -> None:
        """Close the wrapped sink."""
        self._sink.__exit__(kind, error, traceback)
