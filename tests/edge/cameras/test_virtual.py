"""The cameras that draw: demo and test pattern."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from emotion_edge.cameras import open_camera
from emotion_edge.cameras.demo import PORTRAIT_FACE, DemoCamera
from emotion_edge.cameras.pattern import PatternCamera
from emotion_edge.errors import CameraError, FrameTimeout, UsageError
from emotion_edge.values import Box, Frame
from tests.edge.cameras.fakes import Clock


def frames_of(camera: Any) -> Iterator[Frame]:
    with camera:
        while (frame := camera.read(1.0)) is not None:
            yield frame


def test_demo_is_the_same_twice_and_other_with_another_seed() -> None:
    settings = {"frames": 3, "paced": False, "width": 160, "height": 120}
    first, again = (list(frames_of(DemoCamera(seed=5, **settings))) for _ in range(2))
    other = list(frames_of(DemoCamera(seed=6, **settings)))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        assert (a.image != c.image).any()
    assert (first[0].image != first[1].image).any()


@pytest.mark.parametrize("colour", [True, False])
def test_demo_frames_have_the_size_and_colours_asked_for(colour: bool) -> None:
    (frame,) = frames_of(
        DemoCamera(frames=1, paced=False, width=320, height=200, colour=colour, faces=3)
    )
    assert frame.image.shape == ((200, 320, 3) if colour else (200, 320))
    assert frame.image.dtype == np.uint8


@pytest.mark.parametrize("faces", [0, 1, 5])
def test_demo_knows_where_its_faces_are(faces: int) -> None:
    haar = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    camera = DemoCamera(faces=faces, seed=2, frames=60, paced=False, colour=False)
    with camera:
        for index in (0, 50):
            truth = camera.boxes(index)
            assert len(truth) == faces
            for box in truth:
                assert box.x >= 0 and box.x + box.width <= 640
                assert box.y >= 0 and box.y + box.height <= 480
            image = camera.image_at(index)
            found = [
                Box(int(x), int(y), int(w), int(h))
                for x, y, w, h in haar.detectMultiScale(image, 1.2, 4, minSize=(60, 60))
            ]
            assert faces or not found
            assert all(max(box.iou(face) for face in found) > 0.5 for box in truth)


def test_the_portraits_box_is_the_face() -> None:
    assert Box(183, 120, 170, 212).iou(PORTRAIT_FACE) > 0.8  # what YuNet finds


def test_settings_in_the_name() -> None:
    camera = open_camera("demo:faces=2,frames=3,seed=4,noise=0", paced=False, width=80, height=60)
    assert isinstance(camera, DemoCamera)
    assert [frame.index for frame in frames_of(camera)] == [0, 1, 2]
    assert len(list(frames_of(open_camera("pattern:frames=7", paced=False)))) == 7
    for wrong in (
        "demo:face=1",
        "demo:faces=many",
        "demo:faces",
        "demo:noise=-1",
        "pattern:faces=1",
    ):
        with pytest.raises(UsageError, match=r"is not a setting|is .many.; expected|use 0 to 64"):
            open_camera(wrong)


@pytest.mark.parametrize("faces", [100, 101])
def test_how_many_faces_fit(faces: int) -> None:
    if faces > 100:
        with pytest.raises(UsageError, match="faces is 101: use 0 to 100"):
            open_camera(f"demo:faces={faces}")
    else:
        with open_camera(f"demo:faces={faces}") as camera:
            assert isinstance(camera, DemoCamera) and len(camera.boxes(0)) == faces


def test_unpaced_frames_advance_by_the_frame_time() -> None:
    found = list(frames_of(PatternCamera(fps=20, frames=50, paced=False)))
    steps = np.diff([frame.captured_ns for frame in found])
    assert set(steps) == {50_000_000}
    assert [frame.index for frame in found] == list(range(50))


def test_paced_frames_come_when_due_and_a_late_reader_gets_the_newest() -> None:
    clock = Clock()
    camera = PatternCamera(fps=10, clock=clock.ns, sleep=clock.sleep)
    with camera:
        first = camera.read(1)
        assert first is not None and first.index == 0 and clock.now == 0
        second = camera.read(1)
        assert second is not None and second.index == 1
        assert clock.now == pytest.approx(0.1)
        indices = []
        for _ in range(5):  # a reader ten times too slow
            clock.now += 1.0
            frame = camera.read(1)
            assert frame is not None
            indices.append(frame.index)
            assert clock.ns() - frame.captured_ns < 100_000_000  # younger than a frame interval
        assert indices == [11, 21, 31, 41, 51]
        with pytest.raises(FrameTimeout):
            camera.read(0.01)


def test_a_paced_source_ends_even_for_a_late_reader() -> None:
    clock = Clock()
    with PatternCamera(fps=10, frames=5, clock=clock.ns, sleep=clock.sleep) as camera:
        clock.now = 100.0
        last = camera.read(1)
        assert last is not None and last.index == 4
        assert camera.read(1) is None


def test_stop_and_misuse() -> None:
    stop = threading.Event()
    camera = PatternCamera(fps=0.001, stop=stop)
    with pytest.raises(CameraError, match="is not open"):
        camera.read(1)
    with camera:
        assert camera.read(1) is not None
        timer = threading.Timer(0.05, stop.set)
        timer.start()
        assert camera.read(200) is None
        timer.join()


def test_the_pattern_costs_no_memory_and_moves() -> None:
    with PatternCamera(paced=False, colour=False) as camera:
        first, second = camera.image_at(0), camera.image_at(1)
        assert np.shares_memory(first, second) and not first.flags.writeable
        np.testing.assert_array_equal(first[:, 1:], second[:, :-1])
        np.testing.assert_array_equal(camera.image_at(64), first)
        assert camera.read(1) is not None
    assert camera.live is False and PatternCamera().live is True


def test_the_clock_is_the_monotonic_one() -> None:
    before = time.monotonic_ns()
    (frame,) = frames_of(PatternCamera(frames=1))
    assert before <= frame.captured_ns <= time.monotonic_ns()
