from __future__ import annotations

import json
import math
import re
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from emotion_edge import values as values_module
from emotion_edge.errors import MissingExtra
from emotion_edge.kiosk.configuration import keys
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.pipeline import Pipeline
from emotion_edge.sinks.aggregate import AGGREGATE
from emotion_edge.sinks.fanout import SinkState
from emotion_edge.sinks.metrics import MetricsSettings, MetricsSink
from emotion_edge.values import EVENT_KINDS, STAGES, VISIT, Frame

pytest.importorskip("prometheus_client", reason="the [metrics] extra is not installed")

LINE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    r"(?:\{(?P<labels>[a-z_0-9]+=\"(?:[^\"\\\n]|\\[\\\"n])*\"(?:,[a-z_0-9]+=\"(?:[^\"\\\n]|\\[\\\"n])*\")*)\})?"
    r" (?P<value>NaN|-?[0-9.]+(?:e[+-]?[0-9]+)?)"
)


def get(sink: MetricsSink, path: str) -> tuple[int, str]:
    connection = HTTPConnection(urlsplit(sink.url).netloc, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def metrics(sink: MetricsSink) -> dict[str, float]:
    """Parse the text format strictly: each family has its HELP and TYPE, once, before its rows."""
    status, text = get(sink, "/metrics")
    assert status == 200 and text.endswith("\n")
    values: dict[str, float] = {}
    families: dict[str, str] = {}
    family = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in families
        elif line.startswith("# TYPE "):
            assert line.split()[2] == family
            families[family] = line.split()[3]
        else:
            match = LINE.fullmatch(line)
            assert match, line
            base = match["name"]
            if families[family] == "histogram":
                base = re.sub("_(bucket|sum|count)$", "", base)
            assert base == family
            assert families[family] != "counter" or base.endswith("_total")
            key = line.rpartition(" ")[0]
            assert key not in values
            values[key] = float(match["value"])
    return values


@pytest.fixture
def sink():
    with MetricsSink(MetricsSettings(port=0, stale_s=5), EMOTIONS) as sink:
        yield sink


def test_counts(sink, observation, face, event) -> None:
    sink.write(observation(0, (face("happy"), face("sad")), skipped=3))
    sink.write(observation(1, (face("happy"),), skipped=1))
    sink.event(event("sink.failed"))
    values = metrics(sink)
    prefix = "emotion_edge_"
    assert values[prefix + "frames_total"] == 2
    assert values[prefix + "frames_skipped_total"] == 4
    assert values[prefix + "faces_total"] == 3 and values[prefix + "faces_present"] == 1
    assert values[prefix + 'labels_total{label="happy"}'] == 2
    assert values[prefix + 'labels_total{label="angry"}'] == 0
    assert values[prefix + 'labels_total{label="unsure"}'] == 0
    assert values[prefix + 'events_total{kind="sink.failed"}'] == 1
    assert values[prefix + "camera_up"] == 1
    assert 0 <= time.time() - values[prefix + "last_frame_timestamp_seconds"] < 60
    assert values["process_resident_memory_bytes"] > 1e6
    assert 0 < time.time() - values["process_start_time_seconds"] < 1e6


def test_every_series_exists_from_the_start(sink, observation, face, event) -> None:
    before = metrics(sink)
    for kind in EVENT_KINDS:
        sink.event(event(kind, label="happy", dwell_s=1.0))  # of a visit
    sink.write(observation(0, tuple(face(label) for label in EMOTIONS)))
    assert set(before) == set(metrics(sink))
    assert before['emotion_edge_events_total{kind="camera.lost"}'] == 0
    assert before['emotion_edge_stage_seconds_count{stage="age"}'] == 0
    assert before["emotion_edge_last_frame_timestamp_seconds"] == 0


def test_event_kinds_and_stages_are_those_of_the_code() -> None:
    package = Path(values_module.__file__).parent
    used = set()
    for path in package.rglob("*.py"):
        used |= set(
            re.findall(r'"((?:camera|sink|thermal|power|config)\.[a-z_]+)"', path.read_text())
        )
    used -= set(keys())  # camera.fps and others are keys of the configuration
    assert used == set(EVENT_KINDS) - {AGGREGATE, VISIT}

    class Nothing:
        def detect(self, image):
            return []

    frame = Frame(np.zeros((8, 8), np.uint8), 0, 0)
    assert tuple(Pipeline(Nothing(), Nothing()).process(frame).timings) == STAGES


def test_a_missing_client_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    sink = MetricsSink(MetricsSettings(port=0), EMOTIONS)
    with pytest.raises(MissingExtra, match=r"emotion-edge\[metrics\]"), sink:
        pass


def test_stages_are_histograms(sink, observation) -> None:
    for _ in range(4):
        sink.write(observation(0))  # detect 6 ms, age 12 ms
    values = metrics(sink)

    def bucket(stage: str, le: str) -> float:
        return values[f'emotion_edge_stage_seconds_bucket{{le="{le}",stage="{stage}"}}']

    assert [bucket("detect", le) for le in ("0.005", "0.01", "+Inf")] == [0, 4, 4]
    assert [bucket("age", le) for le in ("0.01", "0.02", "2.0")] == [0, 4, 4]
    assert values['emotion_edge_stage_seconds_sum{stage="detect"}'] == pytest.approx(0.024)
    assert values['emotion_edge_stage_seconds_count{stage="detect"}'] == 4


def health_of(sink: MetricsSink) -> tuple[int, dict[str, Any]]:
    status, text = get(sink, "/healthz")
    return status, json.loads(text)


def test_health_follows_the_age_of_the_last_frame(sink, observation) -> None:
    status, health = health_of(sink)
    assert (status, health["status"]) == (503, "starting")
    sink.write(observation(0))
    status, health = health_of(sink)
    assert (status, health["status"], health["frames"], health["faces"]) == (200, "ok", 1, 1)
    sink.write(observation(1, at_s=time.monotonic() - 6))
    status, health = health_of(sink)
    assert (status, health["status"], health["faces"]) == (503, "failing", None)
    assert health["reason"] == "no frame for 6 s"
    assert health["seconds_since_frame"] >= 6
    values = metrics(sink)
    assert values["emotion_edge_faces_present"] == 0
    assert values['emotion_edge_health{status="failing"}'] == 1
    assert values['emotion_edge_health{status="ok"}'] == 0


def test_a_camera_that_never_delivers_is_a_failure(observation, monkeypatch) -> None:
    with MetricsSink(MetricsSettings(port=0, stale_s=1e-9), EMOTIONS) as sink:
        time.sleep(0.001)
        status, health = health_of(sink)
    assert (status, health["status"]) == (503, "failing")
    assert health["reason"].startswith("no frame within")


def test_health_names_the_cameras_trouble(sink, observation, event) -> None:
    def camera() -> str:
        return health_of(sink)[1]["camera"]

    sink.write(observation(0))
    sink.event(event("camera.lost", "no frame for 5 s"))
    status, health = health_of(sink)
    assert (status, health["status"]) == (503, "failing")
    assert health["reason"] == "camera lost: no frame for 5 s"
    assert (health["camera"], health["message"]) == ("lost", "no frame for 5 s")
    assert health["faces"] is None  # not the one of the last frame
    assert metrics(sink)["emotion_edge_camera_up"] == 0
    sink.event(event("camera.recovered", "back"))
    assert camera() == "ok"
    sink.event(event("camera.garbage", "a torn frame; dropped"))
    assert camera() == "ok"
    sink.event(event("camera.retry", "busy", reason="busy"))
    assert camera() == "busy"
    sink.write(observation(0))
    assert camera() == "ok"


def test_an_output_that_fails_or_drops_degrades(observation, event, monkeypatch) -> None:
    states = [SinkState("jsonl a", 10, 2, "cannot write a: No space left on device")]
    with MetricsSink(MetricsSettings(port=0), EMOTIONS, sinks=lambda: states) as sink:
        sink.write(observation(0))
        status, health = health_of(sink)
        assert (status, health["status"]) == (503, "degraded")
        assert health["reason"] == "cannot write a: No space left on device"
        states[:] = [SinkState("jsonl a", 10, 2, "")]
        assert health_of(sink)[0] == 200
        sink.event(event("sink.dropping", "jsonl a is too slow: 9 records dropped", sink="jsonl a"))
        status, health = health_of(sink)
        assert (status, health["status"]) == (503, "degraded")
        assert health["reason"] == "jsonl a is too slow: 9 records dropped"
        monkeypatch.setattr("emotion_edge.sinks.health._DROPPING_S", -1.0)
        assert health_of(sink)[0] == 200


def test_sinks_and_temperature(observation) -> None:
    states = [
        SinkState('jsonl "a\\b"\n.jsonl', 10, 2, "disk full"),
        SinkState("console", 12, 0, ""),
        SinkState("console", 12, 0, ""),
    ]
    degrees: list[float | None] = [61.5]
    with MetricsSink(
        MetricsSettings(port=0), EMOTIONS, sinks=lambda: states, temperature=lambda: degrees[0]
    ) as sink:
        values = metrics(sink)
        name = 'sink="1 jsonl \\"a\\\\b\\"\\n.jsonl"'
        assert values[f"emotion_edge_sink_dropped_total{{{name}}}"] == 2
        assert values[f"emotion_edge_sink_failing{{{name}}}"] == 1
        assert values['emotion_edge_sink_written_total{sink="3 console"}'] == 12
        assert values["emotion_edge_temperature_celsius"] == 61.5
        health = json.loads(get(sink, "/healthz")[1])
        assert health["temperature_c"] == 61.5
        assert health["sinks"][0]["failing"] == "disk full"
        degrees[0] = None
        assert math.isnan(metrics(sink)["emotion_edge_temperature_celsius"])


def test_visits_are_counted_with_their_length(sink, event) -> None:
    for dwell_s in (3.0, 40.0):
        sink.event(event("visit", label="happy", dwell_s=dwell_s))
    values = metrics(sink)
    assert values['emotion_edge_visits_total{label="happy"}'] == 2
    assert values['emotion_edge_visits_total{label="sad"}'] == 0
    assert values['emotion_edge_visit_seconds_bucket{le="5.0"}'] == 1
    assert values["emotion_edge_visit_seconds_sum"] == 43.0


def test_aggregate_mode_counts_no_one_before_the_period_ends(observation, face, event) -> None:
    labels, visits = 'emotion_edge_labels_total{label="happy"}', "emotion_edge_visit_seconds_count"
    visit = event("visit", label="happy", dwell_s=3.0)
    with MetricsSink(MetricsSettings(port=0), EMOTIONS, aggregate=True) as sink:
        sink.write(observation(0, (face("happy"),)))
        sink.event(visit)
        assert (metrics(sink)[labels], metrics(sink)[visits]) == (0, 0)
        sink.event(event(AGGREGATE, withheld=True))
        assert (metrics(sink)[labels], metrics(sink)[visits]) == (0, 0)
        assert metrics(sink)["emotion_edge_periods_withheld_total"] == 1
        sink.write(observation(0, (face("happy"),)))
        sink.event(visit)
        sink.event(event(AGGREGATE, people=5, visits={"withheld": True}))
        assert (metrics(sink)[labels], metrics(sink)[visits]) == (1, 0)
        sink.event(visit)
        sink.event(event(AGGREGATE, people=5, visits={"count": 1}))
        assert metrics(sink)[visits] == 1


def test_drift_is_shown_by_quantity() -> None:
    figures = {"labels": 0.3, "brightness": math.nan}
    with MetricsSink(MetricsSettings(port=0), EMOTIONS, drift=lambda: figures) as sink:
        values = metrics(sink)
    assert values['emotion_edge_drift_psi{feature="labels"}'] == 0.3
    assert math.isnan(values['emotion_edge_drift_psi{feature="brightness"}'])
