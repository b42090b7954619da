from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest

from emotion_edge.errors import OutputExists, SinkError
from emotion_edge.sinks.isolated import Isolated
from emotion_edge.values import Observation

FAST = (0.001, 0.002)


def test_hands_on_everything_in_order_and_in_one_thread(notebook, observation, event) -> None:
    inner = notebook()
    with Isolated(inner) as sink:
        for index in range(20):
            sink.write(observation(index))
        sink.event(event())
    assert inner.frames == list(range(20))
    assert inner.kinds == ["camera.lost"]
    assert inner.calls[0] == "open" and inner.calls[-1] == "close"
    assert inner.threads == {"sink notebook"}
    assert sink.written == 21 and sink.dropped == 0


def test_a_slow_sink_delays_nobody_drops_the_oldest_and_says_so(
    notebook, observation, event, until
) -> None:
    inner, go = notebook(), threading.Event()
    inner.before = lambda item: go.wait()
    with Isolated(inner, depth=4) as sink:
        sink.write(observation(0))
        until(lambda: "write" in inner.calls)  # frame 0 hangs inside the sink
        sink.event(event())
        for index in range(1, 101):
            sink.write(observation(index))
        assert sink.dropped == 96
        (report,) = sink.take_reports()
        assert report.kind == "sink.dropping" and "notebook is too slow" in report.message
        go.set()
    assert inner.frames == [0, 97, 98, 99, 100]
    assert inner.kinds == ["camera.lost"]  # no observation displaced it


def test_a_sink_of_pixels_shows_the_newest_and_calls_that_no_failure(
    notebook, observation, until
) -> None:
    inner, go = notebook(), threading.Event()
    inner.before = lambda item: go.wait()
    with Isolated(inner, pixels=True) as sink:
        sink.write(observation(0))
        until(lambda: "write" in inner.calls)
        for index in range(1, 10):
            sink.write(observation(index))
        go.set()
    assert inner.frames == [0, 9]
    assert sink.dropped == 8 and sink.take_reports() == []


def test_from_a_file_every_frame_waits_for_its_turn(notebook, observation) -> None:
    inner = notebook()
    inner.before = lambda item: time.sleep(0.001)
    with Isolated(inner, depth=2, wait=True) as sink:
        for index in range(100):
            sink.write(observation(index))
    assert inner.frames == list(range(100)) and sink.dropped == 0


def test_an_error_is_reported_once_and_the_same_record_tried_again(
    notebook, observation, until
) -> None:
    inner, failures = notebook(), iter(range(5))

    def fail(item: object) -> None:
        if next(failures, None) is not None:
            raise SinkError("disk full: free some space")

    inner.before = fail
    with Isolated(inner, retry_s=FAST) as sink:
        sink.write(observation(0))
        sink.write(observation(1))
        until(lambda: sink.written == 2)
        assert sink.failing == "" and sink.fatal is None
        kinds = [(report.kind, report.message) for report in sink.take_reports()]
    assert kinds == [
        ("sink.failed", "disk full: free some space"),
        ("sink.recovered", "notebook works again"),
    ]
    assert inner.frames == [0, 1] and sink.dropped == 0


def test_a_fault_in_a_sink_costs_that_record_only(notebook, observation, until) -> None:
    inner = notebook()

    def fail(item) -> None:
        if item.frame.index == 0:
            raise ZeroDivisionError("oops")

    inner.before = fail
    with Isolated(inner, retry_s=FAST) as sink:
        sink.write(observation(0))
        sink.write(observation(1))
        until(lambda: sink.written == 1)
    assert inner.frames == [1] and sink.dropped == 1
    assert sink.take_reports()[0].message == "notebook: ZeroDivisionError: oops"


def test_pauses_grow_to_the_limit(notebook, observation, until) -> None:
    inner, tries = notebook(), []

    def fail(item: object) -> None:
        tries.append(time.monotonic())
        raise SinkError("no")

    inner.before = fail
    with Isolated(inner, retry_s=(0.01, 0.04)) as sink:
        sink.write(observation(0))
        until(lambda: len(tries) >= 5)
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    for pause, least in zip(pauses[:4], (0.01, 0.02, 0.04, 0.04), strict=False):
        assert pause >= least


def test_a_required_sink_is_not_retried(notebook, observation, until) -> None:
    inner = notebook()

    def fail(item: object) -> None:
        raise SinkError("disk full: free some space")

    inner.before = fail
    with Isolated(inner, required=True) as sink:
        sink.write(observation(0))
        until(lambda: sink.fatal is not None)
        sink.write(observation(1))
    assert str(sink.fatal) == "disk full: free some space"
    assert inner.calls == ["open", "write", "close"]
    assert sink.dropped == 2


def test_trouble_that_loses_nothing_is_reported_too(notebook, observation, until) -> None:
    inner = notebook()
    inner.trouble_now = "the broker is away"
    with Isolated(inner) as sink:
        sink.write(observation(0))
        until(lambda: sink.failing)
        inner.trouble_now = ""
        sink.write(observation(1))
        until(lambda: sink.written == 2 and not sink.failing)
        assert [report.kind for report in sink.take_reports()] == ["sink.failed", "sink.recovered"]
    assert inner.frames == [0, 1] and sink.dropped == 0


def test_opening_raises_in_the_caller(notebook) -> None:
    inner = notebook()

    def refuse() -> None:
        raise OutputExists("results.jsonl")

    inner.on_open = refuse
    before = threading.active_count()
    with pytest.raises(OutputExists, match=r"results\.jsonl exists already"), Isolated(inner):
        pass
    assert threading.active_count() == before


def test_a_sink_that_hangs_is_left_behind_in_time(notebook, observation, until) -> None:
    inner, go = notebook(), threading.Event()
    inner.before = lambda item: go.wait()
    sink = Isolated(inner)
    sink.__enter__()
    sink.write(observation(0))
    until(lambda: "write" in inner.calls)
    sink.stop(time.monotonic() + 0.05)
    sink.__exit__(None, None, None)
    (report,) = sink.take_reports()
    assert report.kind == "sink.failed" and "did not close in time" in report.message
    go.set()
    until(lambda: "close" in inner.calls)


def test_while_it_fails_closing_does_not_wait_for_the_pause(notebook, observation, until) -> None:
    inner = notebook()

    def fail(item: object) -> None:
        raise SinkError("disk full")

    inner.before = fail
    with Isolated(inner, retry_s=(3600.0, 3600.0)) as sink:
        sink.write(observation(0))
        sink.write(observation(1))
        until(lambda: sink.failing)
    assert inner.calls.count("write") == 3  # 0, then once more each
    assert inner.calls[-1] == "close" and sink.dropped == 2


def test_a_console_without_a_reader_ends_and_is_no_failure(notebook, observation, until) -> None:
    inner = notebook(name="console")

    def fail(item: object) -> None:
        raise BrokenPipeError

    inner.before = fail
    with Isolated(inner, required=True) as sink:
        sink.write(observation(0))
        until(lambda: sink.ended)
        sink.write(observation(1))
    assert (sink.fatal, sink.failing, sink.dropped) == (None, "", 0)
    (report,) = sink.take_reports()
    assert report.kind == "sink.closed" and "nothing reads console any more" in report.message


def test_an_ignored_event_is_no_recovery(notebook, observation, event, until) -> None:
    inner = notebook()

    def full(item: object) -> None:
        if isinstance(item, Observation):
            raise SinkError("the disk is full")

    inner.before = full
    with Isolated(inner, retry_s=(3600.0, 3600.0)) as sink:
        sink.write(observation(0))
        until(lambda: sink.failing)
        sink.event(event())
    assert "event" in inner.calls
    assert sink.failing == "the disk is full"
    assert [report.kind for report in sink.take_reports()] == ["sink.failed"]


def test_closing_twice_and_writing_afterwards_are_harmless(notebook, observation) -> None:
    sink = Isolated(notebook())
    with sink:
        pass
    sink.__exit__(None, None, None)
    sink.write(observation(0))
    assert sink.dropped == 1
