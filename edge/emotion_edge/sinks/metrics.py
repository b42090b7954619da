"""Prometheus metrics and health over HTTP (extra ``[metrics]``).

``/metrics``: the Prometheus text format. ``/healthz``: 200 while the run is healthy (a paused one
is), else 503, with
a JSON object that gives the status, its reason and the state of each output.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Self

from emotion_edge.errors import MissingExtra
from emotion_edge.model.labels import UNSURE
from emotion_edge.records import to_json
from emotion_edge.settings import key
from emotion_edge.sinks import Content, Kept, Run, Sink, SinkSettings
from emotion_edge.sinks.address import from_address
from emotion_edge.sinks.aggregate import AGGREGATE
from emotion_edge.sinks.camera_state import PAUSED
from emotion_edge.sinks.health import HEALTHY, STATUSES, Health
from emotion_edge.sinks.serving import Answer, Server
from emotion_edge.values import EVENT_KINDS, STAGES, VISIT, Event, Observation
from emotion_edge.version import __version__

if TYPE_CHECKING:
    from emotion_edge.sinks.fanout import SinkState

_DWELL_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_ABOUT = ("model", "model_sha256", "convention", "site")
_BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings(SinkSettings):
    """Prometheus metrics and health over HTTP (extra ``[metrics]``)."""

    help: ClassVar[str] = "health and metrics over HTTP; 127.0.0.1:9188"
    metavar: ClassVar[str] = "[HOST:]PORT"
    counts: ClassVar[bool] = True

    host: str = key("127.0.0.1", "address to listen on.", filled=True)
    port: int = key(9188, "TCP port; 0 lets the system choose.", ge=0, le=65535)
    stale_s: float = key(
        10.0, "seconds without a frame after which the run is reported as failing.", gt=0, le=1e6
    )

    @property
    def listens(self) -> tuple[str, int]:
        """Its host and port."""
        return self.host, self.port

    @classmethod
    def from_flag(cls, text: str) -> dict[str, str]:
        """Host, port, or both."""
        return from_address(text)

    def receipt(self, content: Content) -> list[Kept]:
        """Sums, for programs that read them."""
        server = Server(self.host, self.port, lambda path: None)
        return [
            Kept(
                "sums of frames, labels and visits, and the state of the run",
                f"programs that read {server.url}/metrics",
                "in memory until the run ends",
                leaves=server.public,
            )
        ]

    def open(self, run: Run) -> MetricsSink:
        """Nothing is opened yet."""
        return MetricsSink(
            self,
            run.labels,
            sinks=run.states,
            temperature=run.temperature,
            aggregate=run.aggregate,
            ignored_keys=run.ignored_keys,
            about=run.about,
            drift=run.drift,
        )


class MetricsSink(Sink):
    """Counts everything and shows no face, so it works in aggregate mode too.

    In aggregate mode, labels and visits are added at the end of each period, and those of a
    withheld period never.

    Every series exists from the start: an alert on a series that is absent never fires.
    """

    name = "metrics"

    def __init__(
        self,
        settings: MetricsSettings,
        labels: Sequence[str],
        *,
        sinks: Callable[[], Iterable[SinkState]] = tuple,
        temperature: Callable[[], float | None] | None = None,
        aggregate: bool = False,
        ignored_keys: int = 0,
        about: Mapping[str, str] | None = None,
        drift: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        """labels: the classifier's; each counts from zero, seen or not.

        sinks: the state of the run's sinks. temperature: of the board, in degrees Celsius.
        aggregate: whether nothing about a single person may be counted as it happens.
        ignored_keys: of the configuration. drift: the stability index of each quantity.
        about: what runs where, as ``Run.about``; the labels of ``emotion_edge_info``.
        """
        self._aggregate = aggregate
        self._ignored_keys = ignored_keys
        self._about = {name: (about or {}).get(name, "") for name in _ABOUT}
        self._drift = drift
        self._held_labels: Counter[str] = Counter()
        self._held_visits: list[Event] = []
        self._server = Server(settings.host, settings.port, self._answer)
        self._sinks = sinks
        self._temperature = temperature or (lambda: None)
        self._labels = tuple(dict.fromkeys((*labels, UNSURE)))
        self._health = Health(settings.stale_s, sinks=sinks)
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._frames = 0
        self._skipped = 0
        self._faces_now = 0
        self._series: _Series | None = None

    @property
    def url(self) -> str:
        """Where it answers; ``/metrics`` and ``/healthz`` below it."""
        return self._server.url

    def __enter__(self) -> Self:
        """Listen. Raises MissingExtra, or SinkError when the address cannot be used."""
        try:
            self._series = _Series(self)
        except ImportError as error:
            raise MissingExtra("the metrics output", "metrics", "prometheus_client") from error
        self._server.start()
        self.name = f"metrics {self.url}"
        return self

    def write(self, observation: Observation) -> None:
        """Count one observation."""
        self._health.write(observation)
        with self._lock:
            self._frames += 1
            self._skipped += observation.skipped
            self._faces_now = len(observation.faces)
        if self._series is not None:
            self._series.observe(observation)
            self._held_labels.update(face.label for face in observation.faces)
            if not self._aggregate:
                self._release()

    def event(self, event: Event) -> None:
        """Count one event, and note the camera's state."""
        self._health.event(event)
        if self._series is None:
            return
        self._series.events.labels(event.kind).inc()
        if event.kind == VISIT:
            self._held_visits.append(event)
            if not self._aggregate:
                self._release()
        elif event.kind == AGGREGATE:
            self._end_period(event)

    def _end_period(self, event: Event) -> None:
        """Count what the period held, as far as it is not withheld."""
        assert self._series is not None
        withheld = bool(event.details.get("withheld"))
        self._series.withheld.inc(withheld)
        if withheld:
            self._held_labels.clear()
        if withheld or event.details.get("visits", {}).get("withheld"):
            self._held_visits.clear()
        self._release()

    def _release(self) -> None:
        assert self._series is not None
        labels, self._held_labels = self._held_labels, Counter()
        for label, frames in labels.items():
            self._series.labels.labels(label).inc(frames)
        visits, self._held_visits = self._held_visits, []
        for visit in visits:
            self._series.visits.labels(visit.details["label"]).inc()
            self._series.dwell.observe(visit.details["dwell_s"])

    def __exit__(self, *error: object) -> None:
        """Stop listening."""
        self._server.stop()

    def _answer(self, path: str) -> Answer | None:
        if path == "/metrics" and self._series is not None:
            return Answer(*self._series.text())
        if path == "/healthz":
            health = self._report()
            healthy = health["status"] in HEALTHY
            status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
            return Answer(f"{to_json(health)}\n".encode(), "application/json", status)
        return None

    def _report(self) -> dict[str, Any]:
        """What ``/healthz`` returns."""
        verdict, age = self._health.verdict(), self._health.age_s
        with self._lock:
            return {
                "status": verdict.status,
                "reason": verdict.reason,
                "version": __version__,
                "uptime_s": round(time.monotonic() - self._started, 1),
                "seconds_since_frame": None if age is None else round(age, 3),
                "frames": self._frames,
                "skipped": self._skipped,
                "faces": self._faces_now if self._health.seeing else None,
                "camera": self._health.camera,
                "message": self._health.message,
                "temperature_c": self._temperature(),
                "sinks": [
                    {
                        "name": sink.name,
                        "written": sink.written,
                        "dropped": sink.dropped,
                        "failing": sink.failing,
                    }
                    for sink in self._sinks()
                ],
            }


class _Series:
    """The Prometheus client's objects, in a registry of their own."""

    def __init__(self, sink: MetricsSink) -> None:
        # Imported here: the module is read by commands that serve no metrics.
        import prometheus_client as prometheus

        # One more series for each counter, without a use.
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._prometheus = prometheus
        self._sink = sink
        registry = self._registry = prometheus.CollectorRegistry()
        prefix = "emotion_edge_"

        def counter(name: str, text: str, *labels: str) -> Any:
            return prometheus.Counter(prefix + name, text, labels, registry=registry)

        def gauge(name: str, text: str, value: Callable[[], float]) -> None:
            prometheus.Gauge(prefix + name, text, registry=registry).set_function(value)

        prometheus.Info(prefix.rstrip("_"), "What runs where.", registry=registry).info(
            {"version": __version__, **sink._about}
        )
        self.frames = counter("frames", "Frames processed.")
        self.skipped = counter("frames_skipped", "Frames replaced by a newer one unprocessed.")
        self.faces = counter("faces", "Faces, counted in each frame.")
        self.labels = counter("labels", "Labels shown, counted in each frame.", "label")
        self.events = counter("events", "Changes of state.", "kind")
        self.visits = counter("visits", "Visits that have ended, by the main label.", "label")
        self.dwell = prometheus.Histogram(
            f"{prefix}visit_seconds",
            "Length of the visits that have ended.",
            buckets=_DWELL_S,
            registry=registry,
        )
        self.withheld = counter(
            "periods_withheld", "Periods with fewer people than aggregate.min_people."
        )
        self.stages = prometheus.Histogram(
            f"{prefix}stage_seconds",
            "Time of each stage for one frame; age is from capture to label.",
            ("stage",),
            buckets=_BOUNDS_S,
            registry=registry,
        )
        self.last_frame = prometheus.Gauge(
            f"{prefix}last_frame_timestamp_seconds",
            "When the last frame was captured, Unix time; 0 before the first.",
            registry=registry,
        )
        health = sink._health
        gauge(
            "faces_present",
            "Faces in the last frame; 0 while no frames come.",
            lambda: sink._faces_now if health.seeing else 0,
        )
        gauge("paused", "1 while the camera is closed on request.", lambda: health.camera == PAUSED)
        gauge(
            "config_ignored_keys",
            "Keys of the configuration that this version does not have.",
            lambda: sink._ignored_keys,
        )
        gauge("camera_up", "1 while the camera delivers.", lambda: int(health.camera == "ok"))
        gauge(
            "temperature_celsius",
            "Of the board; NaN where it cannot be read.",
            lambda: math.nan if (degrees := sink._temperature()) is None else degrees,
        )
        prometheus.Gauge("process_threads", "Python threads.", registry=registry).set_function(
            threading.active_count
        )
        for label in sink._labels:
            self.labels.labels(label)
            self.visits.labels(label)
        for kind in EVENT_KINDS:
            self.events.labels(kind)
        for stage in STAGES:
            self.stages.labels(stage)
        registry.register(self)
        prometheus.ProcessCollector(registry=registry)

    def observe(self, observation: Observation) -> None:
        """Count one observation."""
        self.frames.inc()
        self.skipped.inc(observation.skipped)
        self.faces.inc(len(observation.faces))
        for stage, ms in observation.timings.items():
            self.stages.labels(stage).observe(ms / 1000)
        ago_s = (time.monotonic_ns() - observation.frame.captured_ns) / 1e9
        self.last_frame.set(time.time() - ago_s)

    def text(self) -> tuple[bytes, str]:
        """All series, and their content type."""
        from prometheus_client import exposition

        return exposition.generate_latest(self._registry), exposition.CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> Iterator[Any]:
        """What is asked of the run at each scrape: health, and the state of each output."""
        from prometheus_client import core

        status = self._sink._health.verdict().status
        health = core.GaugeMetricFamily(
            "emotion_edge_health", "1 for the present status.", labels=["status"]
        )
        for each in STATUSES:
            health.add_metric([each], int(each == status))
        yield health
        written = core.CounterMetricFamily(
            "emotion_edge_sink_written", "Records an output took.", labels=["sink"]
        )
        dropped = core.CounterMetricFamily(
            "emotion_edge_sink_dropped", "Records an output lost.", labels=["sink"]
        )
        failing = core.GaugeMetricFamily(
            "emotion_edge_sink_failing", "1 while an output fails.", labels=["sink"]
        )
        for place, sink in enumerate(self._sink._sinks(), start=1):
            name = [f"{place} {sink.name}"]  # two outputs may have the same name
            written.add_metric(name, sink.written)
            dropped.add_metric(name, sink.dropped)
            failing.add_metric(name, int(bool(sink.failing)))
        yield from (written, dropped, failing)
        if self._sink._drift is not None:
            drift = core.GaugeMetricFamily(
                "emotion_edge_drift_psi",
                "Population stability index against the first days; NaN before there is one.",
                labels=["feature"],
            )
            for feature, index in self._sink._drift().items():
                drift.add_metric([feature], index)
            yield drift
