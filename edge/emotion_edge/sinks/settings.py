"""What each sink can be told: the configuration's ``[sinks.KIND]`` tables and ``run``'s flags.

Frozen dataclasses with defaults and units, free of the sinks' own imports, so that reading a
configuration loads no HTTP server and no MQTT client. A value that cannot be used raises
UsageError when the dataclass is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from emotion_edge.errors import UsageError

Existing = Literal["refuse", "overwrite", "append"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """What every sink has.

    required: whether its failure ends the run, with status 4. None: only when the source is a
        file, where a result with a hole is no result; a live camera goes on and retries.
    """

    kind: ClassVar[str]

    required: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSettings(SinkSettings):
    """Live lines on standard output.

    refresh_hz: redraws per second at most, on a terminal; elsewhere only changes are printed.
    """

    kind: ClassVar[str] = "console"

    refresh_hz: float = 10.0

    def __post_init__(self) -> None:
        _positive(self, "refresh_hz")


STANDARD_OUTPUT = Path("-")
"""The path of a record file that means standard output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFileSettings(SinkSettings):
    """A file of records that grows, and is rotated when it is full.

    path: the newest file; older ones are ``PATH.1`` (the youngest of them), ``PATH.2``, ...
        ``-`` is standard output.
    existing: what to do with a file of that name: ``refuse``, ``overwrite`` or ``append``.
    rotate_mb: megabytes (10**6 bytes) at which the file is rotated; 0 never does.
    keep: how many older files stay; the oldest is deleted.
    interval_s: seconds between two observations at least; 0 writes every one. Events are always
        written.
    """

    path: Path
    existing: Existing = "refuse"
    rotate_mb: float = 100.0
    keep: int = 5
    interval_s: float = 0.0

    def __post_init__(self) -> None:
        if self.existing not in ("refuse", "overwrite", "append"):
            raise UsageError(
                f"[sinks.{self.kind}] existing is {self.existing!r}: "
                "use refuse, overwrite or append"
            )
        _not_negative(self, "rotate_mb", "keep", "interval_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonlSettings(RecordFileSettings):
    """One JSON record a line (see ``emotion_edge.records``), observations and events."""

    kind: ClassVar[str] = "jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvSettings(RecordFileSettings):
    """One row a face, for a spreadsheet; events are not in it."""

    kind: ClassVar[str] = "csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSettings(SinkSettings):
    """A video with boxes and labels drawn in: camera frames are stored.

    path: ``.mp4`` (H.264 where ffmpeg is installed, else MPEG-4 Part 2) or ``.avi`` (Motion JPEG,
        larger). All of them play up to the cut after a power cut.
    overwrite: replace an existing file.
    fps: frames per second of the file; 0 takes the source's, or 15.
    reserve_mb: megabytes that stay free on the disk, at least 5; the recording ends before.
    """

    kind: ClassVar[str] = "video"

    path: Path
    overwrite: bool = False
    fps: float = 0.0
    reserve_mb: float = 100.0

    def __post_init__(self) -> None:
        if Path(self.path).suffix.lower() not in (".mp4", ".avi"):
            raise UsageError(f"cannot record to {self.path}: give a name that ends in .mp4 or .avi")
        _not_negative(self, "fps", "reserve_mb")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings(SinkSettings):
    """A window on this machine's display (extra ``[window]``).

    fullscreen: fill the display; Escape or ``q`` closes it.
    fps: pictures per second at most.
    """

    kind: ClassVar[str] = "window"

    fullscreen: bool = False
    fps: float = 20.0

    def __post_init__(self) -> None:
        _positive(self, "fps")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSettings(SinkSettings):
    """A live page over HTTP; pictures are encoded only while somebody watches.

    host: address to listen on; ``0.0.0.0`` shows the camera to the whole network.
    port: TCP port; 0 lets the system choose.
    fps: pictures per second at most.
    width: pixels across of the pictures sent, at most.
    quality: of the JPEG pictures, 1..100.
    viewers: how many may watch at once.
    """

    kind: ClassVar[str] = "page"

    host: str = "127.0.0.1"
    port: int = 8080
    fps: float = 10.0
    width: int = 640
    quality: int = 80
    viewers: int = 8

    def __post_init__(self) -> None:
        _positive(self, "fps", "width", "quality", "viewers")
        _port(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings(SinkSettings):
    """An MQTT broker, with Home Assistant discovery (extra ``[mqtt]``).

    host, port: the broker's; 8883 is usual with ``tls``.
    username, password: empty for none. Better than ``password`` in the configuration: systemd's
        credential ``emotion-edge.mqtt-password``, or ``password_file`` (its first line).
    tls: encrypt, and verify the broker against ``ca_file`` or the system's authorities.
    topic: base of all topics; empty for ``emotion-edge/HOSTNAME``. Unique per device.
    device: name shown in Home Assistant; empty for ``Emotion HOSTNAME``.
    discovery: Home Assistant's discovery prefix; empty switches discovery off.
    discovery_form: ``device`` (one description of everything; Home Assistant 2024.11 and later) or
        ``entities`` (one for each entity).
    configuration_url: address that Home Assistant links to from the device, such as the page's.
    interval_s: seconds between two states while nothing changes.
    change_interval_s: seconds between two states at least, however much changes.
    queue: messages kept while the broker is away; the newest above it are dropped and counted.
    keepalive_s: seconds after which a silent connection is probed.
    """

    kind: ClassVar[str] = "mqtt"

    host: str = "localhost"
    port: int = 1883
    username: str = ""
    password: str = field(default="", repr=False)
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    topic: str = ""
    device: str = ""
    discovery: str = "homeassistant"
    discovery_form: Literal["device", "entities"] = "device"
    configuration_url: str = ""
    interval_s: float = 5.0
    change_interval_s: float = 0.2
    queue: int = 1000
    keepalive_s: int = 30

    def __post_init__(self) -> None:
        _positive(self, "port", "interval_s", "queue", "keepalive_s")
        _not_negative(self, "change_interval_s")
        _port(self)
        if self.configuration_url and not self.configuration_url.startswith(
            ("http://", "https://")
        ):
            raise UsageError(
                f"[sinks.mqtt] configuration_url is {self.configuration_url!r}: "
                "use an address that starts with http:// or https://"
            )
        for key in ("topic", "discovery"):
            if any(sign in getattr(self, key) for sign in "+#\0"):
                raise UsageError(
                    f"[sinks.mqtt] {key} is {getattr(self, key)!r}: a topic holds no + and no #"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings(SinkSettings):
    """Prometheus metrics (``/metrics``) and health (``/healthz``) over HTTP.

    host, port: where to listen; port 0 lets the system choose.
    stale_s: seconds without a frame after which ``/healthz`` answers 503.
    """

    kind: ClassVar[str] = "metrics"

    host: str = "127.0.0.1"
    port: int = 9188
    stale_s: float = 10.0

    def __post_init__(self) -> None:
        _positive(self, "stale_s")
        _port(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateSettings:
    """Counts over a period in place of faces, for signage.

    period_s: seconds that one count covers.
    """

    period_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.period_s > 0:
            raise UsageError(f"[aggregate] period_s is {self.period_s!r}: use a number above 0")


SETTINGS: dict[str, type[SinkSettings]] = {
    settings.kind: settings
    for settings in (
        ConsoleSettings,
        JsonlSettings,
        CsvSettings,
        VideoSettings,
        WindowSettings,
        PageSettings,
        MqttSettings,
        MetricsSettings,
    )
}
"""The settings of each kind of sink, by its name in the configuration."""


def _positive(settings: SinkSettings, *keys: str) -> None:
    for key in keys:
        if not getattr(settings, key) > 0:
            raise UsageError(
                f"[sinks.{settings.kind}] {key} is {getattr(settings, key)!r}: use a number above 0"
            )


def _not_negative(settings: SinkSettings, *keys: str) -> None:
    for key in keys:
        if not getattr(settings, key) >= 0:
            raise UsageError(
                f"[sinks.{settings.kind}] {key} is {getattr(settings, key)!r}: use 0 or more"
            )


def _port(settings: PageSettings | MqttSettings | MetricsSettings) -> None:
    if not 0 <= settings.port <= 65535:
        raise UsageError(f"[sinks.{settings.kind}] port is {settings.port}: use 0 to 65535")
