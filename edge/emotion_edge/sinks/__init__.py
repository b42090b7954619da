"""Where observations go.

To add a sink: write one file with a class that has ``Sink``'s members, and add its line to
``open_sinks``.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from emotion_edge.values import Event, Observation


class Sink(Protocol):
    """An output, used as a context manager: entering opens it, leaving flushes and closes it."""

    @property
    def name(self) -> str:
        """For reports: ``jsonl results.jsonl``, ``mqtt broker:1883``."""

    def __enter__(self) -> Self:
        """Open. Raises SinkError or OutputExists."""

    def write(self, observation: Observation) -> None:
        """Take one observation. Raises SinkError when it cannot be written."""

    def event(self, event: Event) -> None:
        """Take one change of state. Raises SinkError when it cannot be written."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Flush and close; safe to call twice, and after a failed open."""
