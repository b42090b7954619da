from __future__ import annotations

import json
from dataclasses import replace

from emotion_edge.sinks.jsonl import JsonlSettings, JsonlSink


def test_one_record_a_line(tmp_path, observation, event) -> None:
    path = tmp_path / "r.jsonl"
    with JsonlSink(JsonlSettings(path=path)) as sink:
        sink.write(observation(4, skipped=2))
        sink.event(event("camera.lost", "the camera is gone", seconds=3))
        lines = path.read_text().splitlines()  # before the sink is closed
    first, second = map(json.loads, lines)
    assert (first["type"], first["frame"], first["skipped"]) == ("observation", 4, 2)
    assert first["faces"][0]["label"] == "happy" and first["width"] == 64
    assert second["kind"] == "camera.lost" and second["details"] == {"seconds": 3}


def test_interval_thins_observations_and_no_event(tmp_path, observation, event) -> None:
    path = tmp_path / "r.jsonl"
    with JsonlSink(JsonlSettings(path=path, interval_s=1.0)) as sink:
        for tenth in range(31):
            sink.write(observation(tenth, at_s=100 + tenth / 10))
        sink.event(event())
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record.get("frame") for record in records] == [0, 10, 20, 30, None]


def test_append_after_half_a_line(tmp_path, observation) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"type":"event"}\n{"type":"obse')
    with JsonlSink(JsonlSettings(path=path, existing="append")) as sink:
        sink.write(observation(0))
    types = [json.loads(line)["type"] for line in path.read_text().splitlines()]
    assert types == ["event", "observation"]


def test_labels_of_any_alphabet(tmp_path, observation, face) -> None:
    path = tmp_path / "r.jsonl"
    with JsonlSink(JsonlSettings(path=path)) as sink:
        sink.write(observation(0, (replace(face(), label="радость"),)))
    assert "радость" in path.read_text(encoding="utf-8")
