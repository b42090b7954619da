from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_edge.cameras.supervised import SupervisedCamera
from emotion_edge.errors import (
    CameraBusy,
    CameraError,
    CameraLost,
    CameraNotFound,
    FrameTimeout,
)
from emotion_edge.values import Frame
from tests.edge.cameras.fakes import Clock, Events, HandFed, Scripted, random_image


class Rig:
    """A supervised camera that opens one scripted camera after another; the last one never ends."""

    def __init__(self, *scripts: Any, **settings: Any) -> None:
        self.clock = Clock()
        self.events = Events()
        self.opened: list[Scripted] = []
        self._scripts = list(scripts)
        self.camera = SupervisedCamera(
            self._make, self.events, clock=self.clock, sleep=self.clock.sleep, **settings
        )

    def _make(self) -> Scripted:
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        camera = (
            Scripted(self.clock, opening=script)
            if isinstance(script, CameraError)
            else Scripted(self.clock, script)
        )
        self.opened.append(camera)
        return camera

    def frames(self, count: int) -> list[Frame]:
        found = []
        for _ in range(count):
            frame = self.camera.read(math.inf)
            assert frame is not None
            found.append(frame)
        return found


def some(count: int, start: int = 0) -> list[Any]:
    return [random_image(start + i) for i in range(count)]


def test_a_healthy_camera_passes_through() -> None:
    rig = Rig(some(5))
    with rig.camera as camera:
        assert (camera.name, camera.live) == ("scripted", True)
        assert [frame.index for frame in rig.frames(5)] == [0, 1, 2, 3, 4]
    assert rig.events == [] and rig.opened[0].closed == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [(CameraNotFound("gone"), "absent"), (CameraBusy("taken"), "busy"), (CameraError("?"), "lost")],
)
def test_absent_or_busy_at_the_start_raises_or_waits(error: CameraError, reason: str) -> None:
    with pytest.raises(type(error)), Rig(error).camera:
        pass
    rig = Rig(error, error, some(3), wait_at_start=True)
    with rig.camera:
        rig.frames(3)
    assert rig.events.kinds == ["camera.lost", "camera.retry", "camera.recovered"]
    assert rig.events[0].details["reason"] == reason


def test_unplugged_and_back() -> None:
    rig = Rig([*some(3), CameraLost("unplugged")], CameraNotFound("absent"), some(3, 10))
    with rig.camera:
        indices = [frame.index for frame in rig.frames(6)]
    assert indices == [0, 1, 2, 3, 4, 5]
    assert rig.events.kinds == ["camera.lost", "camera.retry", "camera.recovered"]
    assert "unplugged" in rig.events[0].message
    assert rig.events[1].details["reason"] == "absent"
    assert rig.events[2].details["attempts"] == 2
    assert rig.opened[0].closed == 1


def test_backoff_doubles_up_to_its_limit() -> None:
    rig = Rig(
        [*some(1), CameraLost("unplugged")],
        *[CameraNotFound("absent")] * 6,
        some(1, 5),
        backoff_first_s=0.5,
        backoff_limit_s=4.0,
    )
    with rig.camera:
        rig.frames(2)
    waits = [event.details["wait_s"] for event in rig.events[:-1]]
    assert waits == [0.5, 1, 2, 4, 4, 4, 4]
    assert rig.clock.sleeps == pytest.approx(waits)


def test_a_flapping_camera_does_not_restart_the_backoff() -> None:
    flap = [random_image(1), CameraLost("loose contact")]
    other = [random_image(2), CameraLost("loose contact")]
    rig = Rig(flap, other, flap, other, some(1, 9), backoff_limit_s=4.0)
    with rig.camera:
        rig.frames(5)
    waits = [event.details["wait_s"] for event in rig.events if event.kind == "camera.lost"]
    assert waits == [0.5, 1, 2, 4]


def test_a_long_healthy_time_restarts_the_backoff() -> None:
    rig = Rig(
        [random_image(1), CameraLost("a")],
        [*some(60, 100), CameraLost("b")],
        some(1, 9),
        backoff_limit_s=4.0,
    )
    with rig.camera:
        rig.frames(62)
    waits = [event.details["wait_s"] for event in rig.events if event.kind == "camera.lost"]
    assert waits == [0.5, 0.5]


def test_silence_is_frozen() -> None:
    rig = Rig([*some(2), "silence"], some(2, 5), frozen_after_s=3)
    with rig.camera:
        assert [frame.index for frame in rig.frames(4)] == [0, 1, 2, 3]
    assert rig.events[0].details["reason"] == "frozen"
    assert "gave no frame for 3.0 s" in rig.events[0].message


def test_a_camera_that_repeats_one_image_is_frozen() -> None:
    rig = Rig([*some(1), *[random_image(3)] * 200], [*[random_image(3)] * 500], some(1, 8))
    with rig.camera:
        found = rig.frames(90)
        assert rig.events == []
        while not np.array_equal(found[-1].image, random_image(8)):
            found += rig.frames(1)
    # One second of them proves nothing; after ten the camera is reopened, and the old image
    # does not count as a recovery.
    assert rig.events.kinds == ["camera.lost", "camera.retry", "camera.recovered"]
    assert {event.details["reason"] for event in rig.events[:2]} == {"frozen"}
    assert "shows the same image for 10" in rig.events[0].message
    assert 101 <= len(found) <= 103


def test_darkness_can_be_allowed() -> None:
    black = np.zeros((24, 32), np.uint8)
    rig = Rig([black] * 500, identical_after_s=math.inf)
    with rig.camera:
        rig.frames(500)
    assert rig.events == []


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((24, 32, 4), np.uint8),
        np.zeros((24, 32, 3), np.float32),
        np.zeros(100, np.uint8),
        random_image(1, (12, 16, 3)),
        np.zeros((24, 32, 3), np.uint8),
        np.full((24, 32, 3), (0, 255, 0), np.uint8),
    ],
    ids=["none", "empty", "alpha", "float", "flat", "reshaped", "black", "green"],
)
def test_garbage_is_dropped_and_too_much_of_it_is_a_loss(garbage: Any) -> None:
    def bad(index: int) -> Frame:
        return Frame(garbage, 0, index)

    good = [Frame(random_image(i), 0, i) for i in range(5)]
    few = [good[0], bad(1), bad(2), Frame(random_image(9), 0, 3)]
    rig = Rig([*few, *[bad(4)] * 100], some(2, 20), frozen_after_s=2)
    with rig.camera:
        found = rig.frames(4)
    assert [frame.index for frame in found] == [0, 3, 5, 6]
    assert rig.events.kinds == ["camera.garbage"] * 2 + ["camera.lost", "camera.recovered"]
    assert rig.events[2].details["reason"] == "garbage"


def test_a_stream_may_change_its_size_for_good() -> None:
    rig = Rig([*some(2), *(random_image(i, (48, 64, 3)) for i in range(100))], frozen_after_s=2)
    rig._scripts.append([random_image(i, (48, 64, 3)) for i in range(100)])
    with rig.camera:
        assert rig.frames(3)[-1].image.shape == (48, 64, 3)


@pytest.mark.parametrize(
    "trouble",
    [
        lambda: CameraNotFound("absent"),
        lambda: ["silence"],
        lambda: [random_image(1)] * 10_000,
        lambda: [np.zeros((24, 32), np.uint8)] * 10_000,
    ],
    ids=["absent", "silent", "frozen", "black"],
)
def test_it_gives_up_in_the_end(trouble: Callable[[], Any]) -> None:
    rig = Rig([random_image(1), CameraLost("unplugged")], trouble(), give_up_after_s=60)
    with rig.camera as camera:
        rig.frames(1)
        with pytest.raises(CameraLost, match="gave no good frame for 60 s") as caught:
            camera.read(math.inf)
        assert not isinstance(caught.value, FrameTimeout)
        assert caught.value.exit_code == 3
    assert rig.events.kinds[0] == "camera.lost" and rig.events.kinds[-1] == "camera.gave_up"
    assert rig.clock.now == pytest.approx(60.1, abs=0.3)
    assert all(camera.closed for camera in rig.opened)


def test_a_camera_that_opens_and_never_gives_a_frame_is_given_up() -> None:
    rig = Rig(["silence"], give_up_after_s=20)
    with rig.camera as camera, pytest.raises(CameraLost, match="gave no good frame for 20 s"):
        camera.read(math.inf)


def test_read_keeps_its_time_limit_while_the_camera_is_away() -> None:
    rig = Rig([*some(1), CameraLost("unplugged")], CameraNotFound("absent"))
    with rig.camera as camera:
        rig.frames(1)
        for _ in range(20):
            before = rig.clock.now
            with pytest.raises(FrameTimeout):
                camera.read(1.0)
            assert rig.clock.now - before == pytest.approx(1.0, abs=0.11)


def test_stop_ends_the_wait_for_a_lost_camera() -> None:
    stop = threading.Event()
    camera = SupervisedCamera(
        lambda: Scripted(Clock(), opening=CameraNotFound("absent")),
        Events(),
        stop=stop,
        wait_at_start=True,
        backoff_first_s=1000,
        give_up_after_s=2000,
    )
    with camera:
        timer = threading.Timer(0.05, stop.set)
        timer.start()
        assert camera.read(math.inf) is None
        timer.join()


def test_a_file_is_passed_through() -> None:
    clock, events = Clock(), Events()
    scripted = Scripted(clock, [*some(2), None], live=False)
    with SupervisedCamera(lambda: scripted, events, clock=clock, sleep=clock.sleep) as camera:
        assert not camera.live
        found = [camera.read(1), camera.read(1), camera.read(1)]
    assert found[0] is not None and found[2] is None
    damaged = Scripted(clock, [CameraError("damaged")], live=False)
    with (
        SupervisedCamera(lambda: damaged, events, clock=clock, sleep=clock.sleep) as camera,
        pytest.raises(CameraError, match="damaged"),
    ):
        camera.read(1)
    assert events == []


def test_the_end_of_a_live_source_is_the_end() -> None:
    rig = Rig([*some(1), None])
    with rig.camera as camera:
        rig.frames(1)
        assert camera.read(5) is None
    assert rig.events == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["good", "bad", "lost", "silence"]), max_size=8),
        max_size=6,
    )
)
def test_whatever_happens_indices_rise_and_losses_and_recoveries_alternate(
    stories: list[list[str]],
) -> None:
    serial = iter(range(10_000))

    def item(word: str) -> Any:
        if word == "good":
            return random_image(next(serial))
        if word == "bad":
            return np.zeros((24, 32, 3), np.uint8)
        return CameraLost("lost") if word == "lost" else word

    scripts = [[item(word) for word in story] for story in stories]
    rig = Rig(*scripts, [*some(3, 20_000)], give_up_after_s=1e9)
    with rig.camera:
        indices: list[int] = []
        while len(rig.opened) <= len(stories) or rig.opened[-1].items:
            frame = rig.camera.read(math.inf)
            assert frame is not None
            indices.append(frame.index)
    assert indices == sorted(set(indices))
    turns = [kind for kind in rig.events.kinds if kind in ("camera.lost", "camera.recovered")]
    assert turns == ["camera.lost", "camera.recovered"] * (len(turns) // 2)
    assert bool(turns) == bool(stories)
    assert all(camera.closed == 1 for camera in rig.opened)


def test_reopening_leaks_no_thread_and_no_descriptor() -> None:
    def device() -> HandFed:
        camera = HandFed()
        camera.refusal = CameraNotFound("absent")
        return camera

    clock = Clock()
    camera = SupervisedCamera(
        device, Events(), clock=clock, sleep=clock.sleep, wait_at_start=True, give_up_after_s=2000
    )
    with camera:
        threads, descriptors = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(CameraLost, match="137 attempts to reopen it failed"):
            camera.read(math.inf)
    assert threading.active_count() == threads
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
