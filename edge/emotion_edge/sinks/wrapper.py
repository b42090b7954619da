"""The base of sinks that stand between the run and another sink."""

from __future__ import annotations

from typing import Any, Self

from emotion_edge.sinks import Sink


class Wrapper(Sink):
    """Opens and closes the sink it wraps and reports for it. A subclass defines what is written."""

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

    def __exit__(self, kind: Any, error: Any, traceback: Any, /) -> None:
        """Close the wrapped sink."""
        self._sink.__exit__(kind, error, traceback)
