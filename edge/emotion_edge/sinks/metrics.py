"""Prometheus metrics and health over HTTP.

``/metrics``: the Prometheus text format 0.0.4. ``/healthz``: 200 while frames come, else 503, with
a JSON object that says how the run fares.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from emotion_edge.model.labels import UNSURE
from emotion_edge.records import to_json
from emotion_edge.settings import key
from emotion_edge.sinks import Run, Sink, SinkSettings
from emotion_edge.sinks.address import from_address
from emotion_edge.sinks.camera_state import camera_state
from emotion_edge.sinks.serving import Answer, Server
from emotion_edge.values import Event, Observation
from emotion_edge.version import __version__

if TYPE_CHECKING:
    from emotion_edge.sinks.fanout import SinkState

_BOUNDS_MS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
_Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings(SinkSettings):
    """Prometheus metrics (``/metrics``) and health (``/healthz``) over HTTP."""

    help: ClassVar[str] = "health and metrics over HTTP; 127.0.0.1:9188"
    metavar: ClassVar[str] = "[HOST:]PORT"
    counts: ClassVar[bool] = True

    host: str = key("127.0.0.1", "address to listen on.", filled=True)
    port: int = key(9188, "TCP port; 0 lets the system choose.", ge=0, le=65535)
    stale_s: float = key(
        10.0, "seconds without a frame after which `/healthz` answers 503.", gt=0, le=1e6
    )

    @classmethod
    def from_flag(cls, text: str) -> dict[str, str]:
        """Host, port, or both."""
        return from_address(text)

    def open(self, run: Run) -> MetricsSink:
        """Nothing is opened yet."""
        return MetricsSink(self, run.labels, sinks=run.states, temperature=run.temperature)


class MetricsSink(Sink):
    """Counts everything, shows no face: also in aggregate mode.

    Stages are histograms in seconds, ``age`` (from capture to label) among them.
    """

    name = "metrics"

    def __init__(
        self,
        settings: MetricsSettings,
        labels: Sequence[str],
        *,
        sinks: Callable[[], Iterable[SinkState]] = tuple,
        temperature: Callable[[], float | None] | None = None,
    ) -> None:
        """labels: the classifier's; each counts from zero, seen or not.

        sinks: how the run's sinks fare. temperature: of the board, in degrees Celsius.
        """
        self._stale_s = settings.stale_s
        self._server = Server(settings.host, settings.port, self._answer)
        self._sinks = sinks
        self._temperature = temperature
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._frames = 0
        self._skipped = 0
        self._faces = 0
        self._faces_now = 0
        self._labels = Counter(dict.fromkeys((*labels, UNSURE), 0))
        self._events: Counter[str] = Counter()
        self._stages: dict[str, _Histogram] = {}
        self._last_ns: int | None = None
        self._camera = "starting"
        self._camera_message = ""

    @property
    def url(self) -> str:
        """Where it answers; ``/metrics`` and ``/healthz`` below it."""
        return self._server.url

    def __enter__(self) -> Self:
        """Listen. Raises SinkError when the address cannot be had."""
        self._server.start()
        self.name = f"metrics {self.url}"
        return self

    def write(self, observation: Observation) -> None:
        """Count one observation."""
        with self._lock:
            self._frames += 1
            self._skipped += observation.skipped
            self._faces_now = len(observation.faces)
            self._faces += self._faces_now
            for face in observation.faces:
                self._labels[face.label] += 1
            for stage, ms in observation.timings.items():
                if stage not in self._stages:
                    self._stages[stage] = _Histogram()
                self._stages[stage].add(ms)
            # The frames of a file run ahead of the clock.
            self._last_ns = min(observation.frame.captured_ns, time.monotonic_ns())
            self._camera, self._camera_message = "ok", ""

    def event(self, event: Event) -> None:
        """Count one event, and mind the camera's state."""
        with self._lock:
            self._events[event.kind] += 1
            state = camera_state(event)
            if state is not None:
                self._camera = state
                self._camera_message = "" if state == "ok" else event.message

    def __exit__(self, *error: object) -> None:
        """Stop listening."""
        self._server.stop()

    def _answer(self, path: str) -> Answer | None:
        if path == "/metrics":
            return Answer(self._text().encode(), "text/plain; version=0.0.4; charset=utf-8")
        if path == "/healthz":
            health = self._health()
            well = health["status"] == "ok"
            status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
            return Answer(f"{to_json(health)}\n".encode(), "application/json", status)
        return None

    def _age_s(self) -> float | None:
        last = self._last_ns
        return None if last is None else (time.monotonic_ns() - last) / 1e9

    def _health(self) -> dict[str, Any]:
        """What ``/healthz`` says: ``status`` is ``ok``, ``starting`` or ``stale``."""
        with self._lock:
            age = self._age_s()
            health: dict[str, Any] = {
                "status": "starting" if age is None else "ok" if age <= self._stale_s else "stale",
                "version": __version__,
                "uptime_s": round(time.monotonic() - self._started, 1),
                "seconds_since_frame": None if age is None else round(age, 3),
                "frames": self._frames,
                "skipped": self._skipped,
                "faces": self._faces_now,
                "camera": self._camera,
                "message": self._camera_message,
            }
        health["temperature_c"] = self._temperature() if self._temperature else None
        health["sinks"] = [
            {
                "name": sink.name,
                "written": sink.written,
                "dropped": sink.dropped,
                "failing": sink.failing,
            }
            for sink in self._sinks()
        ]
        return health

    def _text(self) -> str:
        text = _Text()
        sinks = list(self._sinks())
        with self._lock:
            text.add("info", "gauge", "The version that runs.", {(("version", __version__),): 1})
            text.add("frames_total", "counter", "Frames looked at.", self._frames)
            text.add(
                "frames_skipped_total",
                "counter",
                "Frames that a newer one replaced before anybody looked.",
                self._skipped,
            )
            text.add("faces_total", "counter", "Faces, counted in each frame.", self._faces)
            text.add("faces", "gauge", "Faces in the last frame.", self._faces_now)
            text.add(
                "labels_total",
                "counter",
                "Labels shown, counted in each frame.",
                {(("label", label),): n for label, n in self._labels.items()},
            )
            text.histograms("stage_seconds", "Time of each stage for one frame.", self._stages)
            age = self._age_s()
            if age is not None:
                text.add("last_frame_age_seconds", "gauge", "Since the last frame's capture.", age)
            text.add(
                "camera_up", "gauge", "1 while the camera delivers.", int(self._camera == "ok")
            )
            text.add(
                "events_total",
                "counter",
                "Changes of state.",
                {(("kind", kind),): n for kind, n in self._events.items()},
            )
        for name, kind, help_text, values in (
            ("sink_written_total", "counter", "Records a sink took.", [s.written for s in sinks]),
            ("sink_dropped_total", "counter", "Records a sink lost.", [s.dropped for s in sinks]),
            ("sink_failing", "gauge", "1 while it fails.", [int(bool(s.failing)) for s in sinks]),
        ):
            rows: dict[_Labels, float] = {
                (("sink", f"{place} {sink.name}"),): value
                for place, (sink, value) in enumerate(zip(sinks, values, strict=True), start=1)
            }
            text.add(name, kind, help_text, rows)
        temperature = self._temperature() if self._temperature else None
        if temperature is not None:
            text.add("temperature_celsius", "gauge", "Of the board.", temperature)
        _process(text)
        return text.text()


class _Histogram:
    """Counts of durations by upper bound."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_MS) + 1)
        self.sum_ms = 0.0

    def add(self, ms: float) -> None:
        self.counts[bisect_left(_BOUNDS_MS, ms)] += 1
        self.sum_ms += ms


class _Text:
    """Lines of the Prometheus text format."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(
        self,
        name: str,
        kind: str,
        help_text: str,
        values: float | Mapping[_Labels, float],
        *,
        prefix: str = "emotion_edge_",
    ) -> None:
        """One family: a number, or numbers by their labels."""
        self._head(prefix + name, kind, help_text)
        rows = values if isinstance(values, Mapping) else {(): values}
        for labels, value in rows.items():
            self._row(prefix + name, labels, value)

    def histograms(self, name: str, help_text: str, stages: Mapping[str, _Histogram]) -> None:
        """One family, a histogram for each stage."""
        name = f"emotion_edge_{name}"
        self._head(name, "histogram", help_text)
        for stage, histogram in stages.items():
            total = 0
            for bound, count in zip((*_BOUNDS_MS, None), histogram.counts, strict=True):
                total += count
                le = "+Inf" if bound is None else f"{bound / 1000:g}"
                self._row(f"{name}_bucket", (("stage", stage), ("le", le)), total)
            self._row(f"{name}_sum", (("stage", stage),), histogram.sum_ms / 1000)
            self._row(f"{name}_count", (("stage", stage),), total)

    def text(self) -> str:
        """All lines."""
        return "".join(f"{line}\n" for line in self._lines)

    def _head(self, name: str, kind: str, help_text: str) -> None:
        self._lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]

    def _row(self, name: str, labels: _Labels, value: float) -> None:
        inside = ",".join(f'{key}="{_escape(word)}"' for key, word in labels)
        self._lines.append(f"{name}{{{inside}}} {value:.10g}" if inside else f"{name} {value:.10g}")


def _escape(word: str) -> str:
    return word.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _process(text: _Text) -> None:
    """The process itself, by the names every Prometheus client uses."""
    times = os.times()
    text.add(
        "process_cpu_seconds_total",
        "counter",
        "CPU time, user and system.",
        times.user + times.system,
        prefix="",
    )
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - iterdir is slower for a count
    except (OSError, ValueError, IndexError):  # not Linux
        return
    memory = pages * os.sysconf("SC_PAGE_SIZE")
    text.add("process_resident_memory_bytes", "gauge", "Memory in use.", memory, prefix="")
    text.add("process_open_fds", "gauge", "Open file descriptors.", files, prefix="")
    text.add("process_threads", "gauge", "Python threads.", threading.active_count(), prefix="")
