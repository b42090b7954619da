from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Self

import cv2
import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_edge.cameras import open_camera
from emotion_edge.cli import main
from emotion_edge.records import (
    event_record,
    face_record,
    observation_record,
    to_json,
    wall_clock,
)
from emotion_edge.sinks import mqtt
from emotion_edge.sinks.aggregate import Aggregate
from emotion_edge.values import Box, Emotion, Event, Face, Frame, Observation
from tests.schema import SCHEMA, check_record

TINY = Path(__file__).with_name("tiny.tflite")
LABELS = ("happy", "sad")
FRAME = Frame(np.zeros((480, 640, 3), np.uint8), 0, 17)


def test_an_observation() -> None:
    raw, smoothed = Emotion(LABELS, (0.3, 0.7)), Emotion(LABELS, (0.91234, 0.08766))
    face = Face(Box(10, 20, 30, 40, 0.97), raw, "happy", 3, smoothed)
    record = observation_record(Observation(FRAME, (face,), {"detect": 6.12345}, 2))
    assert json.loads(to_json(record)) == {
        "schema": 1,
        "type": "observation",
        "time": record["time"],
        "frame": 17,
        "skipped": 2,
        "width": 640,
        "height": 480,
        "timings_ms": {"detect": 6.123},
        "faces": [
            {
                "box": [10, 20, 30, 40],
                "score": 0.97,
                "label": "happy",
                "confidence": 0.9123,
                "probabilities": {"happy": 0.9123, "sad": 0.0877},
                "track": 3,
                "raw": {"label": "sad", "confidence": 0.7},
            }
        ],
    }


def test_a_frame_of_a_file_names_it_and_has_no_wall_clock_time() -> None:
    frame = Frame(FRAME.image, 0, 17, "clips/party.mp4", 0.68)
    record = observation_record(Observation(frame, ()))
    assert (record["source"], record["media_time_s"]) == ("clips/party.mp4", 0.68)
    assert "time" not in record and "source" not in observation_record(Observation(FRAME, ()))


def test_a_photograph_has_no_track_and_no_raw() -> None:
    record = face_record(Face(Box(0, 0, 1, 1), Emotion(LABELS, (1.0, 0.0)), "happy"))
    assert "track" not in record and "raw" not in record


def test_gray_images_have_a_size_too() -> None:
    gray = Observation(Frame(np.zeros((240, 320), np.uint8), 0, 0), ())
    record = observation_record(gray)
    assert (record["width"], record["height"]) == (320, 240)


def test_no_pixel_and_no_embedding_is_in_a_record() -> None:
    face = Face(Box(0, 0, 1, 1), Emotion(LABELS, (1.0, 0.0)), "happy", 1)
    record = observation_record(Observation(FRAME, (face,)))
    assert set(record) == {
        "schema",
        "type",
        "time",
        "frame",
        "skipped",
        "width",
        "height",
        "timings_ms",
        "faces",
    }
    assert len(to_json(record)) < 500


def test_an_event_with_what_others_put_into_it() -> None:
    details = MappingProxyType(
        {"n": np.int64(3), "t": np.float32(0.5), "path": Path("/dev/video0")}
    )
    record = json.loads(to_json(event_record(Event("camera.lost", "gone", 0, details))))
    assert record["type"] == "event" and record["kind"] == "camera.lost"
    assert record["details"] == {"n": 3, "t": 0.5, "path": "/dev/video0"}


def test_what_json_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"confidence": float("nan")})


@given(
    labels=st.lists(st.text(max_size=10), min_size=1, max_size=8, unique=True),
    data=st.data(),
    message=st.text(max_size=50),
)
def test_a_record_is_one_line_and_comes_back_as_it_was(labels, data, message) -> None:
    numbers = st.floats(0, 1)
    p = data.draw(st.lists(numbers, min_size=len(labels), max_size=len(labels)))
    face = Face(Box(1, 2, 3, 4), Emotion(tuple(labels), tuple(p)), labels[0])
    for record in (
        observation_record(Observation(FRAME, (face,))),
        event_record(Event("a.b", message, 0)),
    ):
        line = to_json(record)
        assert "\n" not in line and "\r" not in line
        assert json.loads(line.encode().decode()) == record


def test_time_is_the_wall_clock_of_the_capture() -> None:
    for seconds_ago in (0, 90, 86400):
        text = wall_clock(time.monotonic_ns() - seconds_ago * 10**9)
        assert text.endswith("+00:00") and len(text) == len("2026-11-20T12:00:00.123+00:00")
        said = datetime.fromisoformat(text).timestamp()
        assert abs(datetime.now(UTC).timestamp() - seconds_ago - said) < 60


def test_a_clock_that_jumps_moves_the_stamps_and_nothing_else(monkeypatch) -> None:
    now_ns, wall = time.monotonic_ns(), time.time()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    monkeypatch.setattr(time, "time", lambda: wall)
    before = datetime.fromisoformat(wall_clock(now_ns - 5 * 10**9))
    monkeypatch.setattr(time, "time", lambda: wall + 3600)
    after = datetime.fromisoformat(wall_clock(now_ns - 5 * 10**9))
    assert (after - before).total_seconds() == pytest.approx(3600, abs=0.002)


# --- the published schema ----------------------------------------------------------------------


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_an_undocumented_key_and_a_missing_one_are_noticed() -> None:
    record = observation_record(Observation(FRAME, ()))
    check_record(record)
    for wrong in (record | {"new": 1}, {k: v for k, v in record.items() if k != "frame"}):
        with pytest.raises(jsonschema.ValidationError, match=r"new|frame"):
            check_record(wrong)
    # Readers of the open schema accept keys of a later version.
    jsonschema.validate(record | {"new": 1}, SCHEMA)


def test_records_of_earlier_versions_stay_valid() -> None:
    for line in (
        '{"schema":1,"type":"observation","time":"2026-11-20T12:00:00.123+00:00","frame":17,'
        '"skipped":0,"width":640,"height":480,"timings_ms":{"detect":6.1,"age":9.9},"faces":[{'
        '"track":1,"box":[-3,2,40,40],"score":0.97,"label":"happy","confidence":0.91,'
        '"probabilities":{"angry":0.09,"happy":0.91},"raw":{"label":"happy","confidence":0.88}}]}',
        '{"schema":1,"type":"event","time":"2026-11-20T12:00:00.123+00:00","kind":"camera.lost",'
        '"message":"gone","details":{}}',
    ):
        jsonschema.validate(json.loads(line), SCHEMA)


def test_what_run_and_image_write_is_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(TINY), "--detector", "haar"]
    stream = tmp_path / "stream.jsonl"
    source = ["--camera", "demo:faces=1", "--width", "320", "--height", "240", "--frames", "8"]
    assert main(["run", *words, *source, "--quiet", "--jsonl", str(stream)]) == 0
    with open_camera("demo:faces=1", paced=False) as camera:
        frame = camera.read(5)
    assert frame is not None
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), frame.image)
    stills = tmp_path / "stills.jsonl"
    words_of_folder = ["--camera", str(photos), "--quiet", "--jsonl", str(stills)]
    assert main(["run", *words, *words_of_folder]) == 0
    capsys.readouterr()
    assert main(["image", *words, "--json", str(photos / "a.png")]) == 0
    image = json.loads(capsys.readouterr().out)
    records = [json.loads(line) for f in (stream, stills) for line in f.read_text().splitlines()]
    for record in (*records, image):
        check_record(record)
    (still,) = [record for record in records if "source" in record]
    assert [record["track"] for r in records for record in r["faces"] if "track" in record]
    # One answer for one image: `run` reads the file in gray, `image` in colour.
    assert image["faces"] and still["faces"] == image["faces"]


def test_what_mqtt_publishes_is_valid() -> None:
    raw = Emotion(LABELS, (0.3, 0.7))
    face = Face(Box(10, 20, 30, 40, 0.97), raw, "happy", 3, raw)
    payloads = mqtt._state(Observation(FRAME, (face,), {"detect": 6.1}))
    check_record(json.loads(payloads["state"]))

    class Last:
        name, dropped, trouble = "last", 0, ""
        events: ClassVar[list[Event]] = []

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *error: object) -> None: ...

        def write(self, observation: Observation) -> None: ...

        def event(self, event: Event) -> None:
            self.events.append(event)

    with Aggregate(Last(), period_s=1) as aggregate:  # type: ignore[arg-type]
        aggregate.write(Observation(FRAME, (face,)))
    for event in (*Last.events, Event("camera.lost", "gone", 0, {"source": "a"})):
        check_record(event_record(event))


def test_landmarks_and_the_heads_direction_are_recorded_where_they_are_known() -> None:
    points = ((70.0, 70.0), (110.0, 70.0), (90.04, 95.0), (75.0, 115.0), (105.0, 115.0))
    emotion = Emotion(LABELS, (1.0, 0.0))
    record = face_record(Face(Box(50, 50, 80, 80, 0.9, points), emotion, "happy"))
    assert record["landmarks"] == [[70, 70], [110, 70], [90, 95], [75, 115], [105, 115]]
    assert (record["tilt"], record["yaw"], record["facing"]) == (0, 0, True)
    assert json.loads(to_json(record)) == record
    assert "landmarks" not in face_record(Face(Box(50, 50, 80, 80, 9), emotion, "happy"))


def test_a_file_name_that_is_not_utf8_can_be_encoded() -> None:
    name = b"photos/\xe9.jpg".decode(errors="surrogateescape")
    line = to_json({"source": name}).encode()
    assert json.loads(line) == {"source": name}
