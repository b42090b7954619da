"""Zones of the image, from the configuration to records and counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from emotion_edge import Box, Emotion, Face, Frame, Observation, Pipeline
from emotion_edge.commands.run import overrides
from emotion_edge.errors import UsageError
from emotion_edge.kiosk.configuration import build, load_config
from emotion_edge.records import observation_record
from emotion_edge.sinks.aggregate import Aggregate
from emotion_edge.values import Event, Image
from emotion_edge.zones import Zones, ZoneSettings, area, as_toml

DOOR, TILL = "door: 0,0 0.5,0 0.5,1 0,1", "till: 0.5,0.5 1,0.5 1,1"
HAPPY = Emotion(("happy", "sad"), (0.8, 0.2))


def face(x: int, y: int, side: int = 20, track: int | None = None, label: str = "happy") -> Face:
    """A face whose box has its middle at ``(x, y)`` in an image of 200x100 pixels."""
    return Face(Box(x - side // 2, y - side // 2, side, side), HAPPY, label, track)


def zones(*areas: str, **settings: object) -> Zones:
    return Zones(ZoneSettings(areas=areas, **settings))  # type: ignore[arg-type]


def test_a_face_is_in_the_zone_that_holds_its_middle() -> None:
    faces = [face(50, 50), face(180, 70), face(120, 90), face(100, 10)]
    found = zones(DOOR, TILL).apply(faces, (100, 200, 3))
    assert [each.zone for each in found] == ["door", "till", "", "door"]
    both = zones("all: 0,0 1,0 1,1 0,1", DOOR).apply(faces[:1], (100, 200))
    assert both[0].zone == "all"  # the first that holds it


def test_faces_that_do_not_count_are_dropped() -> None:
    faces = [face(50, 50), face(180, 20), face(60, 50, side=9)]
    assert len(zones(DOOR).apply(faces, (100, 200))) == 3
    assert [f.box.x for f in zones(DOOR, only=True).apply(faces, (100, 200))] == [40, 56]
    kept = zones(smallest_face=0.1).apply(faces, (100, 200))
    assert [each.box.width for each in kept] == [20, 20]


@pytest.mark.parametrize(
    "area",
    ["door", "door: 0,0 1,1", ": 0,0 1,0 1,1", "door: 0,0 1,0 1,1.5", "door: 0,0 1 1,1",
     "door: 0,0 1,0 a,b", "door: 0,0 1,0 nan,1", "do\nor: 0,0 1,0 1,1"],
)  # fmt: skip
def test_what_is_not_a_zone(area: str) -> None:
    with pytest.raises(UsageError, match="is not a zone: give NAME: x,y x,y x,y"):
        ZoneSettings(areas=(area,))


def test_a_zone_without_an_area_is_refused() -> None:
    with pytest.raises(UsageError, match="is a line: move a corner"):
        ZoneSettings(areas=("door: 0,0 0.5,0.5 1,1",))
    ZoneSettings(areas=("bow: 0,0 1,1 1,0 0,1",))  # crosses itself, and encloses something


def test_polygons_and_areas_are_the_same_zones(tmp_path: Path) -> None:
    polygons = ZoneSettings(areas=(DOOR, TILL)).polygons()
    assert polygons[1] == ("till", [[0.5, 0.5], [1.0, 0.5], [1.0, 1.0]])
    assert tuple(area(name, corners) for name, corners in polygons) == (DOOR, TILL)  # type: ignore[arg-type]
    path = tmp_path / "kiosk.toml"
    path.write_text(as_toml([DOOR, 'a "b" \\: 0,0 1,0 1,1']))
    assert load_config(path).zones.polygons()[1][0] == 'a "b" \\'


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="give each its own name"):
        ZoneSettings(areas=(DOOR, DOOR))
    with pytest.raises(UsageError, match="there are no areas"):
        ZoneSettings(only=True)


def test_by_file_and_by_flag(tmp_path: Path) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_text(f'[zones]\nareas = ["{DOOR}", "{TILL}"]\nsmallest_face = 0.05\n')
    assert load_config(path).zones == ZoneSettings(areas=(DOOR, TILL), smallest_face=0.05)
    with pytest.raises(UsageError, match=r"kiosk\.toml: .*'door' is not a zone"):
        path.write_text('[zones]\nareas = ["door"]\n')
        load_config(path)
    import argparse

    from emotion_edge.commands import run

    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    values = overrides(vars(parser.parse_args(["--zone", DOOR, "--zone", TILL])))
    assert build({"zones": {"areas": values["zones.areas"]}}).zones.areas == (DOOR, TILL)


def test_records_and_counts_name_the_zone() -> None:
    class Detector:
        def detect(self, image: Image) -> list[Box]:
            return [face(50, 50).box, face(120, 90).box]

    class Classifier:
        labels = HAPPY.labels

        def classify(self, image: Image, box: Box) -> Emotion:
            return HAPPY

    pipeline = Pipeline(Detector(), Classifier(), zones=zones(DOOR))  # type: ignore[arg-type]
    seen = pipeline.process(Frame(np.zeros((100, 200), np.uint8), 0, 0))
    record = observation_record(seen)
    assert [each.get("zone") for each in record["faces"]] == ["door", None]

    events: list[Event] = []

    class Notes:
        name, announcement, dropped, trouble, pixels = "notes", "", 0, "", False
        event = staticmethod(events.append)
        __enter__ = __exit__ = lambda *_: None

    with Aggregate(Notes(), 60) as sink:  # type: ignore[arg-type]
        for index, x in enumerate((50, 50, 150)):  # one walks from the door to the till
            walker = zones(DOOR, "till: 0.5,0 1,0 1,1 0.5,1").apply(
                [face(x, 50, track=1, label="sad"), face(20, 50, track=2)], (100, 200)
            )
            image = np.zeros((100, 200), np.uint8)
            sink.write(Observation(Frame(image, index * 10**8, index), walker))
    assert json.loads(json.dumps(events[0].details["zones"])) == {
        "door": {"people": 2, "labels": {"happy": 1, "sad": 1}},
        "till": {"people": 1, "labels": {"sad": 1}},
    }
    assert events[0].details["people"] == 2
