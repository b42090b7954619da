from __future__ import annotations

import time
from dataclasses import replace

import pytest

from emotion_edge.errors import SinkError
from emotion_edge.sinks.aggregate import Aggregate


def test_counts_people_once_under_the_label_they_wore_most(notebook, observation, face) -> None:
    inner = notebook()
    with Aggregate(inner, 60) as sink:
        for second in range(60):
            first = face("happy" if second < 40 else "sad", track=1)
            faces = (first, face("neutral", track=2)) if second < 10 else (first,)
            sink.write(observation(second, faces, at_s=1000 + second))
        assert inner.taken == []
        sink.write(observation(60, (), at_s=1060))
    whole, rest = inner.taken
    assert whole.kind == "aggregate" and whole.at_ns == 1_060_000_000_000
    assert whole.details == {
        "seconds": 60.0,
        "frames": 60,
        "people": 2,
        "most_at_once": 2,
        "labels": {"happy": 1, "neutral": 1},
        "shares": {"happy": 0.5, "neutral": 0.5},
    }
    assert whole.message == "2 people in 60 s: 1 happy, 1 neutral"
    assert rest.details["frames"] == 1 and rest.details["people"] == 0
    assert inner.frames == []


def test_the_counts_of_a_clip_have_the_clips_time(notebook, observation) -> None:
    inner = notebook()
    begun = time.monotonic_ns()
    with Aggregate(inner, 60) as sink:
        for second in (0, 59, 61):
            live = observation(second, at_s=begun / 1e9 + 3600 + second)
            frame = replace(live.frame, source="clip.mp4", media_time_s=2.0 + second)
            sink.write(replace(live, frame=frame))
    first, last = inner.taken
    assert (first.details["media_time_s"], last.details["media_time_s"]) == (62.0, 63.0)
    assert begun <= first.at_ns <= time.monotonic_ns()  # not an hour from now


def test_what_was_begun_is_handed_on_at_the_end(notebook, observation) -> None:
    inner = notebook()
    with Aggregate(inner, 60) as sink:
        sink.write(observation(0, at_s=5))
        sink.write(observation(1, at_s=17.5))
    assert inner.taken[0].details["seconds"] == 12.5
    assert inner.calls == ["open", "event", "close"]


def test_a_period_without_frames_is_no_count(notebook, observation) -> None:
    inner = notebook()
    with Aggregate(inner, 60) as sink:
        sink.write(observation(0, at_s=0))
        sink.write(observation(1, at_s=600))  # the camera was away for ten periods
        sink.write(observation(2, at_s=659.9))
        assert [event.at_ns for event in inner.taken] == [60_000_000_000]
        sink.write(observation(3, at_s=660))
    assert [event.details["frames"] for event in inner.taken] == [1, 2, 1]


def test_without_a_tracker_the_most_at_once_are_the_people(notebook, observation, face) -> None:
    inner = notebook()
    with Aggregate(inner, 60) as sink:
        sink.write(observation(0, (face(track=None), face("sad", track=None)), at_s=0))
        sink.write(observation(1, (face(track=None),), at_s=1))
    assert inner.taken[0].details["people"] == 2


def test_a_count_that_cannot_be_written_is_not_lost(notebook, observation) -> None:
    inner, fails = notebook(), [True]

    def before(item: object) -> None:
        if fails:
            raise SinkError("disk full")

    inner.before = before
    with Aggregate(inner, 60) as sink:
        sink.write(observation(0, at_s=0))
        late = observation(1, at_s=61)
        for _ in range(3):
            with pytest.raises(SinkError):
                sink.write(late)
        fails.clear()
        sink.write(late)
    assert [event.details["frames"] for event in inner.taken] == [1, 1]


def test_events_pass(notebook, event) -> None:
    inner = notebook()
    with Aggregate(inner) as sink:
        sink.event(event("camera.lost"))
    assert inner.kinds == ["camera.lost"]


def test_with_a_prior_and_enough_people_shares_are_corrected(notebook, observation, face) -> None:
    inner = notebook()
    count = len(face("happy").emotion.labels)
    with Aggregate(inner, 60, prior=[1 / count] * count) as sink:
        sink.write(observation(0, tuple(face("happy", track=at) for at in range(1, 13)), at_s=1000))
    details = inner.taken[-1].details
    assert details["shares"] == {"happy": 1.0}
    happy = details["corrected"]["happy"]
    assert 0.8 < happy["share"] <= 1 and happy["low"] <= happy["share"] <= happy["high"]
    assert set(details["corrected"]) == set(face("happy").emotion.labels)


def test_a_period_with_too_few_people_is_withheld(notebook, observation, face, event) -> None:
    inner = notebook()
    visit = event("visit", label="happy", dwell_s=3.0)
    with Aggregate(inner, 60, min_people=3) as sink:
        sink.write(observation(0, (face(track=1), face(track=2)), at_s=1000))
        sink.event(visit)
        sink.write(observation(1, tuple(face(track=at) for at in range(3)), at_s=1060))
        sink.event(visit)
    few, enough = (taken.details for taken in inner.taken)
    assert few == {"seconds": 60.0, "frames": 1, "withheld": True}
    assert enough["people"] == 3 and "withheld" not in enough
    assert enough["visits"] == {"withheld": True}  # one visit alone, and the other is not carried


@pytest.mark.parametrize(
    ("till", "elsewhere", "withheld"), [(2, 0, False), (2, 2, False), (1, 0, True), (2, 1, True)]
)
def test_zones_are_withheld_if_a_difference_would_tell_of_too_few(
    till: int, elsewhere: int, withheld: bool, notebook, observation, face
) -> None:
    inner = notebook()
    zones = ["door"] * 3 + ["till"] * till + [None] * elsewhere
    faces = [replace(face(track=at), zone=zone) for at, zone in enumerate(zones)]
    with Aggregate(inner, 60, min_people=2) as sink:
        sink.write(observation(0, tuple(faces), at_s=1000))
    details = inner.taken[0].details
    assert details["people"] == len(faces)
    assert details["zones"] == (
        {"door": {"withheld": True}, "till": {"withheld": True}}
        if withheld
        else {
            "door": {"people": 3, "labels": {"happy": 3}},
            "till": {"people": 2, "labels": {"happy": 2}},
        }
    )


def test_an_empty_period_is_withheld_too(notebook, observation) -> None:
    inner = notebook()
    with Aggregate(inner, 60, min_people=2) as sink:
        sink.write(observation(0, (), at_s=1000))
    assert inner.taken[0].details["withheld"] is True


def test_everything_reaches_a_sink_of_sums(notebook, observation, event) -> None:
    inner = notebook()
    with Aggregate(inner, 60, everything=True) as sink:
        sink.write(observation(0, at_s=1000))
        sink.event(event("visit", label="happy", dwell_s=3.0))
    assert inner.frames == [0] and inner.kinds == ["visit", "aggregate"]


def test_what_the_wrapped_sink_says_is_passed_on(notebook) -> None:
    class Closed(notebook):
        finished = True  # its user closed the window

    inner = Closed()
    inner.trouble_now = "the broker is away"
    sink = Aggregate(inner, 60)
    assert (sink.name, sink.trouble, sink.finished) == ("notebook", "the broker is away", True)
