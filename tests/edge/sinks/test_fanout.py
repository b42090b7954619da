from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from emotion_edge.errors import PluginError, SinkError, UsageError
from emotion_edge.sinks import SinkSettings, open_sinks
from emotion_edge.sinks.aggregate import AggregateSettings
from emotion_edge.sinks.console import ConsoleSettings
from emotion_edge.sinks.csv import CsvSettings
from emotion_edge.sinks.fanout import Sinks
from emotion_edge.sinks.isolated import Isolated
from emotion_edge.sinks.jsonl import JsonlSettings
from emotion_edge.sinks.metrics import MetricsSettings
from emotion_edge.sinks.page import PageSettings
from emotion_edge.sinks.video import VideoSettings


def test_every_sink_gets_everything(notebook, observation, event) -> None:
    one, two = notebook(), notebook()
    with Sinks([Isolated(one), Isolated(two)]) as sinks:
        for index in range(5):
            sinks.write(observation(index))
        sinks.event(event())
    assert one.frames == two.frames == [0, 1, 2, 3, 4]
    assert one.kinds == two.kinds == ["camera.lost"]


def test_no_pixel_reaches_a_sink_that_did_not_ask(notebook, observation) -> None:
    blind, seeing = notebook(), notebook()
    shown = observation(3, size=(640, 480))
    with Sinks([Isolated(blind), Isolated(seeing, pixels=True)]) as sinks:
        sinks.write(shown)
    (told,), (seen,) = blind.taken, seeing.taken
    assert seen is shown
    assert told.frame.image.shape == (480, 640, 3) and not told.frame.image.any()
    assert told.frame.image.base.nbytes == 1  # a queue of them holds no memory
    assert not np.shares_memory(told.frame.image, shown.frame.image)
    assert (told.frame.index, told.frame.captured_ns) == (3, shown.frame.captured_ns)
    assert told.faces == shown.faces and told.timings == shown.timings


def test_a_failure_is_told_to_the_caller_and_to_the_other_sinks(
    notebook, observation, until
) -> None:
    bad, good, heard = notebook(name="bad"), notebook(name="good"), []

    def fail(item: object) -> None:
        raise SinkError("bad has no space")

    bad.before = fail
    members = [Isolated(bad, retry_s=(60.0, 60.0)), Isolated(good)]
    with Sinks(members, on_event=heard.append) as sinks:
        sinks.write(observation(0))
        until(lambda: members[0].failing)
        sinks.write(observation(1))
        until(lambda: good.kinds)
        assert [state.failing for state in sinks.states()] == ["bad has no space", ""]
    assert [(event.kind, event.message) for event in heard] == [("sink.failed", "bad has no space")]
    assert good.kinds == ["sink.failed"] and good.frames == [0, 1]


def test_a_required_sink_ends_the_run(notebook, observation, until) -> None:
    bad, good = notebook(), notebook()

    def fail(item: object) -> None:
        raise SinkError("the disk is full")

    bad.before = fail
    members = [Isolated(bad, required=True), Isolated(good)]
    with (
        pytest.raises(SinkError, match="the disk is full") as caught,
        Sinks(members) as sinks,
    ):
        sinks.write(observation(0))
        until(lambda: members[0].fatal)
        sinks.write(observation(1))
    assert caught.value.exit_code == 4
    assert good.frames == [0, 1] and good.calls[-1] == "close"


def test_a_required_sink_that_fails_while_closing_ends_the_run_too(notebook, observation) -> None:
    bad = notebook()

    def fail() -> None:
        raise SinkError("the last record is lost")

    bad.on_close = fail
    with (
        pytest.raises(SinkError, match="last record"),
        Sinks([Isolated(bad, required=True)]) as sinks,
    ):
        sinks.write(observation(0))


def test_all_close_together_within_the_limit(notebook, observation, until) -> None:
    go, heard = threading.Event(), []
    stuck = [notebook(name=f"stuck {n}") for n in range(3)]
    good = notebook(name="good")
    for sink in stuck:
        sink.before = lambda item: go.wait()
    members = [Isolated(sink) for sink in (*stuck, good)]
    with Sinks(members, on_event=heard.append, close_within_s=0.2) as sinks:
        sinks.write(observation(0))
        until(lambda: all("write" in sink.calls for sink in stuck))
        start = time.monotonic()
    # Three that hang cost the limit once, not three times (each join grants 0.1 s more at most).
    assert time.monotonic() - start < 2.0
    assert good.calls[-1] == "close"
    assert [event.kind for event in heard] == ["sink.failed"] * 3
    go.set()
    until(lambda: all(sink.calls[-1] == "close" for sink in stuck))


def test_when_one_cannot_open_the_others_are_closed(notebook) -> None:
    first, second = notebook(), notebook()

    def refuse() -> None:
        raise SinkError("no")

    second.on_open = refuse
    before = threading.active_count()
    with pytest.raises(SinkError, match="no"), Sinks([Isolated(first), Isolated(second)]):
        pass
    assert first.calls == ["open", "close"]
    assert threading.active_count() == before


def test_open_sinks_writes_all_kinds_of_files(tmp_path, observation) -> None:
    settings = [
        JsonlSettings(path=tmp_path / "a.jsonl"),
        JsonlSettings(path=tmp_path / "b.jsonl"),
        CsvSettings(path=tmp_path / "a.csv"),
        VideoSettings(path=tmp_path / "a.avi", reserve_mb=0),
    ]
    heard = []
    before = threading.active_count()
    with open_sinks(settings, live=False, on_event=heard.append) as sinks:
        for index in range(100):
            sinks.write(observation(index))
    assert sinks.dropped == 0
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 101  # one says RECORDING
    assert len((tmp_path / "b.jsonl").read_text().splitlines()) == 101
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 101
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.avi",
        "a.csv",
        "a.jsonl",
        "b.jsonl",
    ]
    (opened,) = heard
    assert opened.message.startswith(f"RECORDING: camera frames are stored in {tmp_path}/a.avi (")
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("live", "required", "fails"),
    [(True, None, False), (False, None, True), (True, True, True), (False, False, False)],
)
def test_required_by_default_where_a_hole_would_spoil_the_result(
    live, required, fails, observation, until
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with open_sinks([JsonlSettings(path=full, required=required)], live=live) as sinks:
        sinks.write(observation(0))
        (state,) = until(lambda: [state for state in sinks.states() if state.failing])
        assert "No space left on device" in state.failing
        if fails:
            with pytest.raises(SinkError, match="cannot write /dev/full"):
                sinks.write(observation(1))
        else:
            sinks.write(observation(1))


def test_aggregate_mode_shows_no_single_face(tmp_path, observation, face) -> None:
    settings = [
        JsonlSettings(path=tmp_path / "a.jsonl"),
        CsvSettings(path=tmp_path / "a.csv"),
        MetricsSettings(port=0),
    ]
    with open_sinks(settings, aggregate=AggregateSettings(period_s=10)) as sinks:
        for index in range(50):
            sinks.write(observation(index, (face("sad", track=7),), at_s=index))
    text = (tmp_path / "a.jsonl").read_text()
    assert len(text.splitlines()) == 5 and '"kind":"aggregate"' in text
    for private in ("box", "track", "probabilities", '"type":"observation"'):
        assert private not in text
    rows = (tmp_path / "a.csv").read_text().splitlines()
    assert rows[0].startswith("time,seconds,frames,people,most_at_once,angry,")
    assert [row.split(",")[1:5] for row in rows[1:5]] == [["10.0", "10", "1", "1"]] * 4


def test_aggregate_mode_refuses_images(tmp_path) -> None:
    for settings in (PageSettings(port=0), VideoSettings(path=tmp_path / "a.avi")):
        with pytest.raises(UsageError, match="shows single faces"):
            open_sinks([settings], aggregate=AggregateSettings())
    open_sinks([ConsoleSettings()], aggregate=AggregateSettings())


def test_without_a_reader_only_a_lone_console_ends_the_run(notebook, observation, until) -> None:
    def closed(item: object) -> None:
        raise BrokenPipeError

    console, file = notebook(name="console"), notebook(name="file")
    console.before = closed
    heard = []
    with Sinks([Isolated(console), Isolated(file)], on_event=heard.append) as sinks:
        for index in range(5):
            sinks.write(observation(index))
            time.sleep(0.01)
    assert file.frames == [0, 1, 2, 3, 4]
    assert [each.kind for each in heard] == ["sink.closed"]
    with pytest.raises(BrokenPipeError), Sinks([Isolated(console)]) as sinks:
        until(lambda: sinks.write(observation(0)))


def test_settings_that_open_something_else_are_one_line() -> None:
    class Lamp(SinkSettings):
        def open(self, run):
            return object()

    with pytest.raises(PluginError, match=r"Lamp\.open returned object, which is not a sink"):
        open_sinks([Lamp()])
