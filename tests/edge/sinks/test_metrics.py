from __future__ import annotations

import json
import re
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from emotion_edge.model.labels import EMOTIONS
from emotion_edge.sinks.fanout import SinkState
from emotion_edge.sinks.metrics import MetricsSettings, MetricsSink

LINE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    r"(?:\{(?P<labels>[a-z_]+=\"(?:[^\"\\\n]|\\[\\\"n])*\"(?:,[a-z_]+=\"(?:[^\"\\\n]|\\[\\\"n])*\")*)\})?"
    r" (?P<value>-?[0-9.]+(?:e[+-]?[0-9]+)?)"
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
    assert values[prefix + "faces_total"] == 3 and values[prefix + "faces"] == 1
    assert values[prefix + 'labels_total{label="happy"}'] == 2
    assert values[prefix + 'labels_total{label="angry"}'] == 0
    assert values[prefix + 'labels_total{label="unsure"}'] == 0
    assert values[prefix + 'events_total{kind="sink.failed"}'] == 1
    assert values[prefix + "camera_up"] == 1
    assert 0 <= values[prefix + "last_frame_age_seconds"] < 60
    assert values["process_resident_memory_bytes"] > 1e6


def test_stages_are_histograms(sink, observation) -> None:
    for _ in range(4):
        sink.write(observation(0))  # detect 6 ms, age 12 ms
    values = metrics(sink)

    def bucket(stage: str, le: str) -> float:
        return values[f'emotion_edge_stage_seconds_bucket{{stage="{stage}",le="{le}"}}']

    assert [bucket("detect", le) for le in ("0.005", "0.01", "+Inf")] == [0, 4, 4]
    assert [bucket("age", le) for le in ("0.01", "0.02", "2")] == [0, 4, 4]
    assert values['emotion_edge_stage_seconds_sum{stage="detect"}'] == pytest.approx(0.024)
    assert values['emotion_edge_stage_seconds_count{stage="detect"}'] == 4


def test_health_follows_the_age_of_the_last_frame(sink, observation) -> None:
    status, text = get(sink, "/healthz")
    assert status == 503 and json.loads(text)["status"] == "starting"
    sink.write(observation(0))
    status, text = get(sink, "/healthz")
    health = json.loads(text)
    assert status == 200 and health["status"] == "ok" and health["frames"] == 1
    sink.write(observation(1, at_s=time.monotonic() - 6))
    status, text = get(sink, "/healthz")
    assert status == 503 and json.loads(text)["status"] == "stale"
    assert json.loads(text)["seconds_since_frame"] >= 6


def test_health_names_the_cameras_trouble(sink, observation, event) -> None:
    sink.event(event("camera.lost", "no frame for 5 s"))
    health = json.loads(get(sink, "/healthz")[1])
    assert (health["camera"], health["message"]) == ("lost", "no frame for 5 s")
    assert metrics(sink)["emotion_edge_camera_up"] == 0
    sink.event(event("camera.recovered", "back"))
    assert json.loads(get(sink, "/healthz")[1])["camera"] == "ok"
    sink.event(event("camera.garbage", "a torn picture; dropped"))
    assert json.loads(get(sink, "/healthz")[1])["camera"] == "ok"
    sink.event(event("camera.retry", "busy", reason="busy"))
    assert json.loads(get(sink, "/healthz")[1])["camera"] == "busy"
    sink.write(observation(0))
    assert json.loads(get(sink, "/healthz")[1])["camera"] == "ok"


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
        assert "emotion_edge_temperature_celsius" not in metrics(sink)
