from __future__ import annotations

import csv
from dataclasses import replace

from emotion_edge.model.labels import EMOTIONS
from emotion_edge.sinks.csv import AggregateCsvSink, CsvSettings, CsvSink
from emotion_edge.values import Event


def _read(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_row_a_face(tmp_path, observation, face, event) -> None:
    path = tmp_path / "r.csv"
    with CsvSink(CsvSettings(path=path), EMOTIONS) as sink:
        sink.write(observation(0, (face("happy", 0.9), face("sad", 0.5, track=None))))
        sink.write(observation(1, ()))
        sink.event(event())
        rows = _read(path)  # before the sink is closed
    assert [(row["frame"], row["track"], row["label"]) for row in rows] == [
        ("0", "1", "happy"),
        ("0", "", "sad"),
    ]
    assert [rows[0][key] for key in ("x", "y", "width", "height", "score")] == [
        "10",
        "12",
        "30",
        "30",
        "0.8",
    ]
    assert float(rows[0]["p_happy"]) == float(rows[0]["confidence"]) == 0.9
    assert abs(sum(float(rows[0][f"p_{label}"]) for label in EMOTIONS) - 1) < 1e-3


def test_labels_with_commas_and_quotes_survive(tmp_path, observation, face) -> None:
    path = tmp_path / "r.csv"
    with CsvSink(CsvSettings(path=path), EMOTIONS) as sink:
        sink.write(observation(0, (replace(face(), label='well, "happy"'),)))
    assert _read(path)[0]["label"] == 'well, "happy"'


def test_append_writes_no_second_header(tmp_path, observation) -> None:
    path = tmp_path / "r.csv"
    for _ in range(2):
        with CsvSink(CsvSettings(path=path, existing="append"), EMOTIONS) as sink:
            sink.write(observation(0))
    assert len(_read(path)) == 2


def test_each_rotated_file_has_its_header(tmp_path, observation) -> None:
    path = tmp_path / "r.csv"
    with CsvSink(CsvSettings(path=path, rotate_mb=0.0005, keep=2), EMOTIONS) as sink:
        for index in range(20):
            sink.write(observation(index))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["r.csv", "r.csv.1", "r.csv.2"]
    assert all(_read(file)[0]["label"] == "happy" for file in files)


def test_counts_have_a_column_for_each_label(tmp_path, event) -> None:
    path = tmp_path / "r.csv"
    count = {
        "seconds": 60.0,
        "frames": 900,
        "people": 3,
        "most_at_once": 2,
        "labels": {"happy": 2, "unsure": 1},
    }
    with AggregateCsvSink(CsvSettings(path=path), EMOTIONS) as sink:
        sink.event(event("camera.lost"))
        sink.event(Event("aggregate", "3 in 60 s", 0, count))
    (row,) = _read(path)
    assert (row["people"], row["happy"], row["unsure"], row["angry"]) == ("3", "2", "1", "0")


def test_a_file_name_that_is_not_utf8_is_escaped(tmp_path, observation) -> None:
    name = b"\xe9.jpg".decode(errors="surrogateescape")
    seen = observation(0)
    frame = replace(seen.frame, source=name, media_time_s=0.0)
    with CsvSink(CsvSettings(path=tmp_path / "r.csv"), EMOTIONS) as sink:
        sink.write(replace(seen, frame=frame))
    assert _read(tmp_path / "r.csv")[0]["source"] == "\\udce9.jpg"
