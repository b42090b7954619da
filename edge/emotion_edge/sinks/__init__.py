"""Where observations go.

To add a sink: write one file with a class that has ``Sink``'s members, its settings in
``settings.py``, and its line in ``_make``. Every sink runs in a thread of its own
(``isolated.py``), so it may block and it may fail: the camera does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from emotion_edge.errors import UsageError
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.sinks import settings as s
from emotion_edge.values import Event, Observation

if TYPE_CHECKING:
    from emotion_edge.sinks.fanout import Sinks


class Sink(Protocol):
    """An output, used as a context manager: entering opens it, leaving flushes and closes it.

    Opened, written and closed by one thread.
    """

    @property
    def name(self) -> str:
        """For reports: ``jsonl results.jsonl``, ``mqtt broker:1883``."""

    @property
    def pictures(self) -> bool:
        """Whether it looks at the pixels.

        One that does not is given a black picture of the same size, so that no picture can leave
        through it.
        """
        return False

    @property
    def announcement(self) -> str:
        """What the user must be told when it opens: that it records, that others can watch."""
        return ""

    @property
    def finished(self) -> bool:
        """Whether its user asked for the end of the run, by closing the window."""
        return False

    @property
    def dropped(self) -> int:
        """Records it gave up by itself."""
        return 0

    @property
    def trouble(self) -> str:
        """What is wrong while it still takes records (the broker is away); else empty."""
        return ""

    def __enter__(self) -> Self:
        """Open. Raises SinkError or OutputExists."""

    def write(self, observation: Observation) -> None:
        """Take one observation. Raises SinkError when it cannot be written."""

    def event(self, event: Event) -> None:
        """Take one change of state. Raises SinkError when it cannot be written."""

    def __exit__(self, kind: Any, error: Any, traceback: Any, /) -> None:
        """Flush and close; safe to call twice, and after a failed open."""


def open_sinks(
    settings: Sequence[s.SinkSettings],
    *,
    labels: Sequence[str] = EMOTIONS,
    live: bool = True,
    fps: float = 0.0,
    aggregate: s.AggregateSettings | None = None,
    on_event: Callable[[Event], None] | None = None,
    temperature: Callable[[], float | None] | None = None,
) -> Sinks:
    """All outputs of a run behind one, to be entered: ``with open_sinks(...) as sinks``.

    settings: one for each sink, any number, several of a kind too.
    labels: what the classifier can answer, in the order of its probabilities.
    live: whether frames come from a live camera. Then a slow sink drops, and a failing one is
        retried; from a file every frame waits for its turn, and a failing sink ends the run
        (unless its ``required`` says otherwise).
    fps: the source's frames per second, 0 where unknown; the video's speed.
    aggregate: counts over a period instead of faces.
    on_event: called, in the caller's thread, with what the sinks themselves report:
        announcements, failures, drops, recoveries. The console sink shows them as well.
    temperature: the board's degrees Celsius, for the metrics.

    Raises UsageError when sinks contradict each other; entering raises what the first sink that
    cannot be opened raises, with the others closed again.
    """
    from emotion_edge.sinks.fanout import Sinks
    from emotion_edge.sinks.isolated import Isolated

    members: list[Isolated] = []
    sinks = Sinks(members, on_event=on_event)
    for each in settings:
        sink = _make(each, labels, live, fps, aggregate, sinks, temperature)
        if aggregate is not None and sink.pictures:
            raise UsageError(
                f"{sink.name} shows single faces, which aggregate mode forbids: leave one out"
            )
        if aggregate is not None and not isinstance(each, s.MetricsSettings):
            from emotion_edge.sinks.aggregate import Aggregate

            sink = Aggregate(sink, aggregate.period_s)
        required = each.required if each.required is not None else not live
        members.append(Isolated(sink, required=required, wait=not live))
    return sinks


def _make(
    settings: s.SinkSettings,
    labels: Sequence[str],
    live: bool,
    fps: float,
    aggregate: s.AggregateSettings | None,
    sinks: Sinks,
    temperature: Callable[[], float | None] | None,
) -> Sink:
    """The sink for some settings. Imported here: a run loads only the sinks it uses."""
    if isinstance(settings, s.ConsoleSettings):
        from emotion_edge.sinks.console import ConsoleSink

        return ConsoleSink(settings)
    if isinstance(settings, s.JsonlSettings):
        from emotion_edge.sinks.jsonl import JsonlSink

        return JsonlSink(settings)
    if isinstance(settings, s.CsvSettings):
        from emotion_edge.sinks.csv import AggregateCsvSink, CsvSink

        return AggregateCsvSink(settings, labels) if aggregate else CsvSink(settings, labels)
    if isinstance(settings, s.VideoSettings):
        from emotion_edge.sinks.video import VideoSink

        return VideoSink(settings, fps=fps, paced=live)
    if isinstance(settings, s.WindowSettings):
        from emotion_edge.sinks.window import WindowSink

        return WindowSink(settings)
    if isinstance(settings, s.PageSettings):
        from emotion_edge.sinks.page import PageSink

        return PageSink(settings)
    if isinstance(settings, s.MqttSettings):
        from emotion_edge.sinks.mqtt import MqttSink

        return MqttSink(settings, labels, aggregate=aggregate is not None)
    if isinstance(settings, s.MetricsSettings):
        from emotion_edge.sinks.metrics import MetricsSink

        return MetricsSink(settings, labels, sinks=sinks.states, temperature=temperature)
    raise UsageError(f"no sink for {type(settings).__name__}: use one of {', '.join(s.SETTINGS)}")
