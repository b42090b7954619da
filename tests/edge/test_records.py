from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_edge.records import (
    event_record,
    face_record,
    observation_record,
    to_json,
    wall_clock,
)
from emotion_edge.values import Box, Emotion, Event, Face, Frame, Observation

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


def test_gray_pictures_have_a_size_too() -> None:
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
