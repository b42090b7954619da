from __future__ import annotations

import threading

import numpy as np
import pytest

from emotion_edge.cameras.live import FAILED_READS, Grab, LiveCamera
from emotion_edge.cameras.stream import StreamCamera
from emotion_edge.errors import (
    CameraBusy,
    CameraError,
    CameraLost,
    CameraNotFound,
    FrameTimeout,
)
from tests.edge.cameras.fakes import Events, FakeCapture, HandFed, random_image


def test_a_slow_reader_gets_the_newest_frame_and_can_count_the_skipped() -> None:
    with HandFed() as camera:
        seen = []
        for turn in range(3):  # the camera is ten times faster than its reader
            camera.feed(*(random_image(10 * turn + i) for i in range(10)))
            frame = camera.read(5)
            assert frame is not None
            seen.append(frame.index)
            np.testing.assert_array_equal(frame.image, random_image(10 * turn + 9))
    assert seen == [9, 19, 29]


def test_frames_the_driver_dropped_count_too() -> None:
    with HandFed() as camera:
        indices = []
        for step in (7, 1, 4):  # whatever happened before the first frame does not count
            camera.feed(Grab(random_image(), 5, step))
            frame = camera.read(5)
            assert frame is not None and frame.captured_ns == 5
            indices.append(frame.index)
    assert indices == [0, 1, 5]


def test_no_frame_twice() -> None:
    with HandFed() as camera:
        camera.feed(random_image())
        assert camera.read(5) is not None
        with pytest.raises(FrameTimeout, match="hand-fed gave no frame for 0 s"):
            camera.read(0)


@pytest.mark.parametrize("refusal", [CameraNotFound("absent"), CameraBusy("busy")])
def test_what_opening_raised_reaches_the_caller(refusal: CameraError) -> None:
    camera = HandFed()
    camera.refusal = refusal
    with pytest.raises(type(refusal)) as caught, camera:
        pass
    assert caught.value is refusal


def test_an_unknown_error_of_a_driver_becomes_one_line() -> None:
    camera = HandFed()
    camera.refusal = OSError("no such thing")
    with pytest.raises(CameraError, match="hand-fed cannot be opened: OSError: no such thing"):
        camera.__enter__()


def test_a_driver_that_never_opens_is_left_behind() -> None:
    events = Events()
    camera = HandFed(open_timeout=0.05, close_timeout=0.05, on_event=events)
    camera.opening.clear()
    with pytest.raises(CameraError, match=r"did not open within 0\.05 s"):
        camera.__enter__()
    assert events.kinds == ["camera.stuck"]
    camera.opening.set()
    assert camera.closed.wait(10)  # opened too late, so closed immediately


def test_a_few_failed_reads_are_forgiven() -> None:
    with HandFed() as camera:
        camera.feed(*[None] * (FAILED_READS - 1), random_image(1))
        frame = camera.read(5)
        assert frame is not None
        camera.feed(*[None] * (FAILED_READS - 1), random_image(2))
        assert camera.read(5) is not None


def test_many_failed_reads_are_a_loss() -> None:
    with HandFed() as camera:
        camera.feed(*[None] * FAILED_READS)
        with pytest.raises(CameraLost, match="10 reads in a row failed"):
            camera.read(5)
        with pytest.raises(CameraLost):  # and stay one
            camera.read(5)
    assert camera.closed.is_set()


def test_the_last_frame_comes_before_the_loss() -> None:
    with HandFed() as camera:
        camera.feed(random_image(), RuntimeError("unplugged"))
        assert camera.read(5) is not None
        with pytest.raises(CameraLost, match="stopped: RuntimeError: unplugged"):
            camera.read(5)


def test_stop_ends_a_wait() -> None:
    stop = threading.Event()
    with HandFed(stop=stop) as camera:
        timer = threading.Timer(0.05, stop.set)
        timer.start()
        assert camera.read(200) is None  # else the test's own time limit is reached
        timer.join()


def test_stop_ends_opening() -> None:
    stop = threading.Event()
    stop.set()
    camera = HandFed(stop=stop, close_timeout=0.05, on_event=Events())
    camera.opening.clear()
    with camera:
        assert camera.read(200) is None
    camera.opening.set()


def test_a_driver_that_does_not_close_is_reported() -> None:
    events = Events()
    with HandFed(close_timeout=0.05, on_event=events) as camera:
        camera.closing.clear()
    assert events.kinds == ["camera.stuck"]
    assert "did not close within 0.05 s" in events[0].message
    camera.closing.set()
    assert camera.closed.wait(10)


def test_without_a_listener_trouble_is_a_warning() -> None:
    with HandFed(close_timeout=0.05) as camera:
        camera.closing.clear()
        with pytest.warns(RuntimeWarning, match="did not close"):
            camera.__exit__(None, None, None)
    camera.closing.set()


def test_closing_twice_and_reading_closed() -> None:
    camera = HandFed()
    with camera:
        camera.feed(random_image())
    camera.__exit__(None, None, None)
    with pytest.raises(CameraError, match="is not open"):
        camera.read(1)
    assert not [t for t in threading.enumerate() if t.name == "camera hand-fed"]


def test_it_opens_again() -> None:
    camera = HandFed()
    for _ in range(3):
        with camera:
            camera.feed(random_image())
            frame = camera.read(5)
            assert frame is not None and frame.index == 0


def test_advice_fits_the_kind_of_camera() -> None:
    stream = StreamCamera("http://camera/video", capture=lambda *_: FakeCapture())
    assert "cable" in LiveCamera.remedy and "cable" not in stream.remedy
    reads = [random_image(), *[(False, None)] * 10]
    with (
        StreamCamera("http://camera/video", capture=lambda *_: FakeCapture(reads)) as camera,
        pytest.raises(CameraLost, match="check the camera's power and the network"),
    ):
        while True:
            camera.read(5.0)
