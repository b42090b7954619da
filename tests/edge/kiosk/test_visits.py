"""Visits: one per person in front of the camera, bridging short losses of the track."""

from __future__ import annotations

import csv
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_edge.errors import UsageError
from emotion_edge.kiosk.configuration import build
from emotion_edge.kiosk.service import Service
from emotion_edge.kiosk.visits import Visits, VisitSettings
from emotion_edge.kiosk.watchdog import Watchdog
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.pipeline import Pipeline
from emotion_edge.records import event_record, to_json
from emotion_edge.sinks import open_sinks
from emotion_edge.tracker import FaceTracker, TrackerSettings
from emotion_edge.values import Box, Emotion, Event, Face, Frame, Observation
from tests.edge.parts import Classifier, Detector
from tests.schema import check_record

IMAGE = np.zeros((48, 64, 3), np.uint8)
AHEAD = ((20.0, 20.0), (30.0, 20.0), (25.0, 25.0), (20.0, 30.0), (30.0, 30.0))
ASIDE = ((20.0, 20.0), (30.0, 20.0), (33.0, 25.0), (20.0, 30.0), (30.0, 30.0))


def face(
    label: str = "happy",
    track: int = 1,
    x: int = 10,
    *,
    landmarks: tuple[tuple[float, float], ...] = (),
    zone: str = "",
) -> Face:
    emotion = Emotion(EMOTIONS, tuple(float(name == label) for name in EMOTIONS))
    return Face(Box(x, 10, 20, 20, 0.9, landmarks), emotion, label, track, emotion, zone)


def seen(at_s: float, *faces: Face, media: bool = False) -> Observation:
    source = {"source": "clip.mp4", "media_time_s": at_s} if media else {}
    return Observation(Frame(IMAGE, round(at_s * 1e9), 0, **source), faces)  # type: ignore[arg-type]


def visits(gap_s: float = 2.0, min_s: float = 0.0, forget_s: float = 1.0) -> Visits:
    settings = VisitSettings(gap_s=gap_s, min_s=min_s)
    return Visits(settings, TrackerSettings(forget_s=forget_s))


def record(event: Event) -> dict[str, Any]:
    made = event_record(event)
    check_record(made)
    return json.loads(to_json(made))


def test_a_visit_from_its_first_frame_to_its_last() -> None:
    followed = visits()
    for at in range(11):
        one = face("happy" if at <= 6 else "unsure", landmarks=AHEAD if at < 8 else ASIDE)
        assert followed.update(seen(100 + at, one)) == []
    assert followed.update(seen(112)) == []  # away for two seconds: it may come back
    (event,) = followed.update(seen(113.1))
    made = record(event)
    assert made["type"] == "visit" and made["ended"] == "left" and made["visit"] == 1
    assert (made["dwell_s"], made["label"]) == (10.0, "happy")
    assert made["shares"] == {"happy": 0.6} and made["unsure_share"] == 0.4
    assert made["facing_share"] == 0.7
    assert "zone" not in made and "source" not in made
    assert event.at_ns == 110_000_000_000


def test_the_main_label_counts_seconds_not_frames() -> None:
    followed = visits()
    for at in (0, 0.1, 0.2, 0.3, 0.4):
        followed.update(seen(at, face("sad")))
    followed.update(seen(3, face("happy")))
    (event,) = followed.close("stopped")
    assert event.details["label"] == "happy" and event.details["ended"] == "stopped"


def test_a_face_found_again_in_its_place_continues_the_visit() -> None:
    followed = visits(gap_s=2.0, forget_s=1.0)
    followed.update(seen(0, face(track=1)))
    followed.update(seen(1, face(track=1)))
    assert followed.update(seen(3.9, face(track=2, x=12))) == []
    assert followed.update(seen(4.9, face(track=2, x=12))) == []
    (event,) = followed.close("stopped")
    assert event.details["dwell_s"] == 4.9 and event.details["visit"] == 1
    assert event.details["shares"] == {"happy": 1.0}


@pytest.mark.parametrize(
    ("at_s", "x", "why"),
    [(4.1, 12, "too late"), (3.0, 300, "elsewhere"), (1.9, 12, "the tracker may still find it")],
)
def test_another_face_is_another_visit(at_s: float, x: int, why: str) -> None:
    followed = visits(gap_s=2.0, forget_s=1.0)
    followed.update(seen(0, face(track=1)))
    followed.update(seen(1, face(track=1)))
    ended = followed.update(seen(at_s, face(track=2, x=x)))
    ended += followed.close("stopped")
    assert [event.details["visit"] for event in ended] == [1, 2], why


def test_two_people_at_the_same_time_are_two_visits() -> None:
    followed = visits()
    for at in range(5):
        followed.update(seen(at, face("happy", 1), face("sad", 2, x=40)))
    assert [event.details["label"] for event in followed.close("stopped")] == ["happy", "sad"]


def test_the_zone_is_where_most_of_the_time_was_spent() -> None:
    followed = visits()
    for at in range(10):
        followed.update(seen(at, face(zone="door" if at < 7 else "")))
    assert followed.close("stopped")[0].details["zone"] == "door"


def test_a_short_visit_is_not_recorded() -> None:
    followed = visits(min_s=0.5)
    followed.update(seen(0, face()))
    followed.update(seen(0.4, face()))
    assert followed.close("stopped") == []


def test_a_visit_ends_while_no_frames_come() -> None:
    followed = visits()
    followed.update(seen(0, face()))
    followed.update(seen(1, face()))
    assert followed.expire(3_900_000_000) == []
    assert len(followed.expire(4_100_000_000)) == 1


def test_a_visit_in_a_file_has_the_files_time() -> None:
    followed = visits()
    begun = time.monotonic_ns()
    followed.update(seen(1e6, face(), media=True))
    followed.update(seen(1e6 + 3, face(), media=True))
    (event,) = followed.close("stopped")
    made = record(event)
    assert (made["source"], made["media_time_s"]) == ("clip.mp4", 1e6)
    assert begun <= event.at_ns <= time.monotonic_ns()


class Clip:
    """Ten frames a second, of a file's time."""

    name, live, fps = "clip", False, 10.0

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.at = 0

    def __enter__(self) -> Clip:
        return self

    def read(self, timeout: float) -> Frame | None:
        if self.at == self.frames:
            return None
        self.at += 1
        image = np.random.default_rng(self.at).integers(0, 255, (16, 16), np.uint8)
        return Frame(image, self.at * 100_000_000, self.at, "clip.mp4", self.at / 10)

    def __exit__(self, *_: object) -> None:
        pass


def run(tables: dict[str, Any], present: list[bool]) -> None:
    config = build({"quiet": True, "visits": {}} | tables)
    pipeline = Pipeline(Detector(present=present), Classifier(), FaceTracker(config.tracker))
    Service(
        config,
        camera=lambda: Clip(len(present)),
        pipeline=pipeline,
        watchdog=Watchdog({}),
        tell=lambda line: None,
        stop=threading.Event(),
    ).run()


def test_a_run_records_visits_and_ends_the_last_one_at_its_end(tmp_path: Path) -> None:
    jsonl, rows = tmp_path / "out.jsonl", tmp_path / "out.csv"
    sinks = {
        "jsonl": {"path": str(jsonl), "observations": False},
        "csv": {"path": str(rows), "rows": "visits"},
    }
    run({"sinks": sinks}, [True] * 20 + [False] * 60 + [True] * 20)
    made = [json.loads(line) for line in jsonl.read_text().splitlines()]
    for one in made:
        check_record(one)
    assert [(one["type"], one["ended"]) for one in made] == [
        ("visit", "left"),
        ("visit", "stopped"),
    ]
    with rows.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [float(row["dwell_s"]) for row in read] == [one["dwell_s"] for one in made]
    assert read[0]["share_happy"] == "1.0" and read[0]["source"] == "clip.mp4"


def test_aggregate_mode_sums_visits_and_shows_none(tmp_path: Path) -> None:
    jsonl = tmp_path / "out.jsonl"
    tables = {"sinks": {"jsonl": {"path": str(jsonl)}}, "aggregate": {"period_s": 3600}}
    run(tables, [True] * 20 + [False] * 60 + [True] * 20)
    (only,) = [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert only["kind"] == "aggregate"
    counted = only["details"]["visits"]
    assert counted == {"count": 2, "dwell_s": counted["dwell_s"], "labels": {"happy": 2}}
    assert 3 < counted["dwell_s"] < 5


def test_no_label_of_a_visit_reaches_the_journal(tmp_path: Path) -> None:
    lines: list[str] = []
    config = build({"quiet": True, "visits": {}})
    pipeline = Pipeline(Detector(), Classifier(), FaceTracker())
    camera = Clip(20)
    Service(
        config, camera=lambda: camera, pipeline=pipeline, watchdog=Watchdog({}), tell=lines.append
    ).run()
    assert not [line for line in lines if "visit" in line or "happy" in line]


def test_visits_of_photographs_are_refused() -> None:
    config = build({"visits": {}})
    with pytest.raises(UsageError, match="visits need a camera or a video"):
        Service(config, pipeline=Pipeline(Detector(), Classifier()), watchdog=Watchdog({}))


@pytest.mark.parametrize(
    ("tables", "says"),
    [({"aggregate": {}, "visits": {}}, "aggregate mode counts"), ({}, "add \\[visits\\]")],
)
def test_rows_of_visits_need_visits(tmp_path: Path, tables: dict[str, Any], says: str) -> None:
    sinks = {"csv": {"path": str(tmp_path / "a.csv"), "rows": "visits"}}
    config = build(tables | {"sinks": sinks})
    with pytest.raises(UsageError, match=says):
        open_sinks(config.sinks, aggregate=config.aggregate, visits=config.visits is not None)
