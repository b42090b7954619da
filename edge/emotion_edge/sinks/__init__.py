"""Where observations go.

To add a sink, write one file with a subclass of ``Sink`` and a ``SinkSettings`` that opens it, and
add one line to ``SINKS``. Another package registers its settings class as an entry point in the
group ``emotion_edge.sinks``. Every sink runs in a thread of its own (``isolated.py``), so it may
block and it may fail: the camera does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

from emotion_edge.errors import PluginError, UsageError
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.registry import Registry
from emotion_edge.settings import Settings, key
from emotion_edge.values import Event, Observation
from emotion_edge.zones import ZoneSettings

if TYPE_CHECKING:
    from emotion_edge.privacy import Hiding
    from emotion_edge.sinks.aggregate import AggregateSettings
    from emotion_edge.sinks.fanout import Sinks, SinkState


@runtime_checkable
class Sink(Protocol):
    """An output, used as a context manager: entering opens it, leaving flushes and closes it.

    Opened, written and closed by one thread.
    """

    @property
    def name(self) -> str:
        """For reports: ``jsonl results.jsonl``, ``mqtt broker:1883``."""

    @property
    def announcement(self) -> str:
        """What the user must know when it opens: that it records, that others can watch."""
        return ""

    @property
    def finished(self) -> bool:
        """Whether its user ended the run, by closing the window."""
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


class Commands(Protocol):
    """What a sink may do to the run; every method may be called from any thread."""

    @property
    def paused(self) -> bool:
        """Whether the camera is closed on request."""

    def obey(self, command: str) -> bool:
        """Carry out ``pause``, ``resume`` or ``reload``; False for another text. It may take long.

        What fails is reported to the user in one line.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a sink may need to know about the run that it serves.

    labels: what the classifier can answer, in the order of its probabilities.
    live: whether frames come from a live camera.
    fps: the source's frames per second, 0 where unknown.
    aggregate: whether it receives counts over a period in place of faces.
    visits: whether visits are followed, and arrive as events of kind ``visit``.
    states: the state of each sink of the run. temperature: the board's degrees Celsius.
    commands: None where the run takes none. ignored_keys: of the configuration.
    about: what runs where: ``model``, ``model_sha256``, ``convention``, ``site``.
    drift: the stability index of each quantity, None where it is not measured.
    zones: of the image. set_zones: as ``Control.set_zones``; None where the run takes none.
    """

    labels: Sequence[str]
    live: bool
    fps: float
    aggregate: bool
    visits: bool
    states: Callable[[], Sequence[SinkState]]
    temperature: Callable[[], float | None] | None
    commands: Commands | None
    ignored_keys: int
    about: Mapping[str, str] = field(default_factory=dict)
    drift: Callable[[], Mapping[str, float]] | None
    zones: ZoneSettings = field(default_factory=ZoneSettings)
    set_zones: Callable[[Sequence[str]], Path | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What the outputs of a run receive.

    aggregate_s: seconds of a period in aggregate mode, else None. min_people: of its counts.
    visits: whether visits are followed. faces: ``show``, ``emoji`` or ``blur``.
    """

    aggregate_s: float | None
    min_people: int
    visits: bool
    faces: str

    def __str__(self) -> str:
        """What records hold."""
        if self.aggregate_s is not None:
            least = f", of at least {self.min_people} people" if self.min_people > 1 else ""
            return f"counts of people by expression every {self.aggregate_s:g} s{least}, and events"
        visits = ", visits" * self.visits
        return f"label, probabilities and position of each face in each frame{visits}, and events"

    @property
    def frames(self) -> str:
        """What images show."""
        return "frames with faces" if self.faces == "show" else "frames with hidden faces"


@dataclass(frozen=True, slots=True)
class Kept:
    """One thing that is stored or sent.

    what: in words. where: file, address or device. until: how long it is kept.
    leaves: whether another machine can receive it. images: whether it holds images.
    """

    what: str
    where: str
    until: str
    leaves: bool = False
    images: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings(Settings):
    """A sink that can be opened: the base of every sink's settings.

    help: what it is, in one line. metavar: what its flag takes, empty for nothing.
    positional: the key that the flag's text sets.
    pixels: whether it looks at the pixels. A sink that does not receives a black image of the same
        size, so that no image can leave through it.
    counts: whether it shows sums only, so that aggregate mode gives it every observation and every
        visit too. It must not add what a period with the event ``aggregate`` withholds.
    prints: whether a person reads its lines on standard output.
    """

    help: ClassVar[str]
    metavar: ClassVar[str] = ""
    positional: ClassVar[str] = ""
    pixels: ClassVar[bool] = False
    counts: ClassVar[bool] = False
    prints: ClassVar[bool] = False

    required: bool | None = key(
        None,
        "whether a failure of this output ends the run, with status 4. Unset: only if the source "
        "is a file; with a live camera the run continues and retries.",
    )

    @property
    def listens(self) -> tuple[str, int] | None:
        """The host and TCP port that it listens on."""
        return None

    @property
    def file(self) -> Path | None:
        """The file that it writes, for reports."""
        return None

    @property
    def prints_records(self) -> bool:
        """Whether it writes records to standard output, where labels would mix with them."""
        return False

    @classmethod
    def from_flag(cls, text: str) -> dict[str, str]:
        """The keys that ``--NAME TEXT`` sets, as text. Raises UsageError."""
        if not text:
            return {}
        if not cls.positional:
            raise UsageError(f"it takes no value, got {text!r}")
        return {cls.positional: text}

    def receipt(self, content: Content) -> list[Kept] | None:
        """What this output stores and sends, for ``emotion-edge receipt``.

        Every output must declare it; None is shown as unknown.
        """
        return None

    def open(self, run: Run) -> Sink:
        """The sink, not yet entered."""
        raise NotImplementedError


SINKS: Registry[SinkSettings] = Registry(
    "sink",
    "emotion_edge.sinks",
    SinkSettings,
    {
        "console": "emotion_edge.sinks.console:ConsoleSettings",
        "jsonl": "emotion_edge.sinks.jsonl:JsonlSettings",
        "csv": "emotion_edge.sinks.csv:CsvSettings",
        "record": "emotion_edge.sinks.video:VideoSettings",
        "window": "emotion_edge.sinks.window:WindowSettings",
        "page": "emotion_edge.sinks.page:PageSettings",
        "mqtt": "emotion_edge.sinks.mqtt:MqttSettings",
        "metrics": "emotion_edge.sinks.metrics:MetricsSettings",
    },
)
"""By name: that of the flag, and of the table ``[sinks.NAME]``."""


def open_sinks(
    settings: Sequence[SinkSettings],
    *,
    labels: Sequence[str] = EMOTIONS,
    live: bool = True,
    fps: float = 0.0,
    aggregate: AggregateSettings | None = None,
    visits: bool = False,
    on_event: Callable[[Event], None] | None = None,
    temperature: Callable[[], float | None] | None = None,
    prior: Sequence[float] = (),
    commands: Commands | None = None,
    ignored_keys: int = 0,
    about: Mapping[str, str] | None = None,
    drift: Callable[[], Mapping[str, float]] | None = None,
    faces: Hiding = "show",
    zones: ZoneSettings | None = None,
    set_zones: Callable[[Sequence[str]], Path | None] | None = None,
) -> Sinks:
    """All outputs of a run behind one, to be entered: ``with open_sinks(...) as sinks``.

    settings: one for each sink, any number, several of a kind too.
    labels: what the classifier can answer, in the order of its probabilities.
    live: whether frames come from a live camera. Then a slow sink drops, and a failing one is
        retried; from a file every frame waits for its turn, and a failing sink ends the run
        (unless its ``required`` says otherwise).
    fps: the source's frames per second, 0 where unknown; the video's speed.
    aggregate: counts over a period instead of faces.
    visits: whether visits are followed.
    on_event: called, in the caller's thread, with what the sinks themselves report:
        announcements, failures, drops, recoveries. The console sink shows them as well.
    temperature: the board's degrees Celsius, for the metrics.
    prior: of the model's manifest, for corrected shares in aggregate mode.
    commands: pauses, resumes and reloads the run. ignored_keys: of the configuration.
    about: what runs where, as ``Run.about``.
    drift: the stability index of each quantity.
    faces: what sinks that look at the pixels see of faces.
    zones, set_zones: as in ``Run``.

    Raises UsageError when sinks contradict each other, PluginError when one of another package is
    not a sink; entering raises what the first sink that cannot be opened raises, with the others
    closed again.
    """
    from emotion_edge.sinks.aggregate import Aggregate
    from emotion_edge.sinks.fanout import Sinks
    from emotion_edge.sinks.isolated import Isolated

    members: list[Isolated] = []
    sinks = Sinks(members, on_event=on_event, faces=faces)
    run = Run(
        labels=labels,
        live=live,
        fps=fps,
        aggregate=aggregate is not None,
        visits=visits,
        states=sinks.states,
        temperature=temperature,
        commands=commands,
        ignored_keys=ignored_keys,
        about=about or {},
        drift=drift,
        zones=zones or ZoneSettings(),
        set_zones=set_zones,
    )
    for each in settings:
        sink = each.open(run)
        if not isinstance(sink, Sink):
            raise PluginError(
                f"{type(each).__name__}.open returned {type(sink).__name__}, which is not a "
                "sink: make it a subclass of emotion_edge.Sink"
            )
        if aggregate is not None and each.pixels:
            raise UsageError(
                f"{sink.name} shows single faces, which aggregate mode forbids: omit one of them"
            )
        if aggregate is not None:
            sink = Aggregate(
                sink,
                aggregate.period_s,
                min_people=aggregate.min_people,
                prior=prior,
                everything=each.counts,
            )
        required = each.required if each.required is not None else not live
        members.append(Isolated(sink, pixels=each.pixels, required=required, wait=not live))
    return sinks
