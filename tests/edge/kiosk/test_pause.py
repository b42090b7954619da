"""Pause and resume: the camera is closed, everything says so, and a restart forgets or keeps it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_edge.cameras import v4l2
from emotion_edge.errors import CameraNotFound, SinkError
from emotion_edge.kiosk.board import Condition
from emotion_edge.kiosk.configuration import Config, build
from emotion_edge.kiosk.control import MARK, Control
from emotion_edge.kiosk.reload import Runs
from emotion_edge.kiosk.service import Service
from emotion_edge.kiosk.state import state_folder
from emotion_edge.kiosk.watchdog import Watchdog
from emotion_edge.pipeline import Pipeline
from emotion_edge.sinks.health import Health
from emotion_edge.values import Event, Frame
from tests.edge.parts import Classifier, Detector

COOL = Condition(None, None, 40.0, None)


class Device:
    """A live camera that holds a file open, as a driver holds its device."""

    name, live, fps = "fake", True, 0.0

    def __init__(self, path: Path, *, hangs: bool = False) -> None:
        self.path = path
        self.hangs = hangs
        self.descriptor = -1
        self.absent = False
        self.index = 0

    def __enter__(self) -> Device:
        if self.absent:
            raise CameraNotFound("nothing there")
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT)
        return self

    def read(self, timeout: float) -> Frame | None:
        time.sleep(0.002)
        assert self.descriptor >= 0, "read from a closed camera"
        self.index += 1
        image = np.random.default_rng(self.index).integers(0, 255, (16, 16), np.uint8)
        return Frame(image, time.monotonic_ns(), self.index)

    def __exit__(self, *_: object) -> None:
        if self.descriptor >= 0 and not self.hangs:
            os.close(self.descriptor)
            self.descriptor = -1


class Kiosk:
    """A run in a thread, with its records."""

    def __init__(self, folder: Path, device: Device, control: Control) -> None:
        self.out = folder / "out.jsonl"
        self.stop = threading.Event()
        tables: dict[str, Any] = {"quiet": True, "sinks": {"jsonl": {"path": str(self.out)}}}
        self.watchdog = Fed()
        service = Service(
            build(tables),
            camera=lambda: device,
            pipeline=Pipeline(Detector(), Classifier()),
            condition=lambda: COOL,
            watchdog=self.watchdog,
            control=control,
            stop=self.stop,
            tell=lambda line: None,
        )
        self._thread = threading.Thread(target=service.run)
        self._thread.start()

    def records(self) -> list[dict[str, Any]]:
        if not self.out.exists():
            return []
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def kinds(self) -> list[str]:
        return [one["kind"] for one in self.records() if one["type"] == "event"]

    def frames(self) -> int:
        return sum(one["type"] == "observation" for one in self.records())

    def end(self) -> None:
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


class Fed(Watchdog):
    def __init__(self) -> None:
        super().__init__({})
        self.states: list[str] = []

    def alive(self, status: str = "") -> None:
        self.states.append(status)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    # The kernel's own list of open files, asked for the fake device in place of /dev/video0.
    held = v4l2.held
    monkeypatch.setattr(v4l2, "held", lambda: held(str(tmp_path / "video")))
    return Device(tmp_path / "video0")


def test_paused_closes_the_device_and_resumed_opens_it(tmp_path: Path, device: Device) -> None:
    control = Control()
    kiosk = Kiosk(tmp_path, device, control)
    until(kiosk.frames)
    assert v4l2.held() == (str(device.path),)
    assert control.obey("pause")
    until(lambda: "camera.paused" in kiosk.kinds())
    assert v4l2.held() == () and device.descriptor == -1
    paused = next(one for one in kiosk.records() if one.get("kind") == "camera.paused")
    assert paused["details"] == {"held": []} and "closed on request" in paused["message"]
    before, fed = kiosk.frames(), len(kiosk.watchdog.states)
    until(lambda: len(kiosk.watchdog.states) > fed + 2)
    assert set(kiosk.watchdog.states[fed:]) == {"paused"}
    assert kiosk.frames() == before
    control.resume()
    until(lambda: kiosk.frames() > before)
    assert kiosk.kinds() == ["camera.paused", "camera.resumed"]
    kiosk.end()


def test_a_device_that_is_not_released_is_named(tmp_path: Path, device: Device) -> None:
    device.hangs = True
    control = Control()
    kiosk = Kiosk(tmp_path, device, control)
    until(kiosk.frames)
    control.pause()
    until(lambda: "camera.paused" in kiosk.kinds())
    kiosk.end()
    paused = next(one for one in kiosk.records() if one.get("kind") == "camera.paused")
    assert paused["details"] == {"held": [str(device.path)]}
    assert "still open" in paused["message"]


def test_a_run_that_starts_paused_opens_no_camera(tmp_path: Path, device: Device) -> None:
    control = Control()
    control.pause()
    kiosk = Kiosk(tmp_path, device, control)
    until(lambda: "camera.paused" in kiosk.kinds())
    assert device.descriptor == -1 and not device.path.exists()
    control.resume()
    until(kiosk.frames)
    kiosk.end()


def test_a_camera_that_is_gone_when_resumed_is_waited_for(tmp_path: Path, device: Device) -> None:
    control = Control()
    kiosk = Kiosk(tmp_path, device, control)
    until(kiosk.frames)
    control.pause()
    until(lambda: "camera.paused" in kiosk.kinds())
    device.absent = True
    control.resume()
    until(lambda: "camera.lost" in kiosk.kinds())
    before = kiosk.frames()
    device.absent = False
    until(lambda: kiosk.frames() > before)
    kiosk.end()


def test_health_of_a_pause() -> None:
    health = Health(0.05)

    def event(kind: str, **details: Any) -> None:
        health.event(Event(kind, "a message", time.monotonic_ns(), details))

    event("camera.paused", held=[])
    time.sleep(0.1)
    assert health.verdict().status == "paused" and not health.seeing
    event("camera.paused", held=["/dev/video0"])
    assert (health.verdict().status, health.verdict().reason) == ("degraded", "a message")
    event("camera.resumed")
    assert health.verdict().status == "starting"


def test_only_a_pause_that_is_kept_outlasts_a_restart(tmp_path: Path) -> None:
    forgetful = Control()
    forgetful.remember(None, start=True)
    forgetful.pause()
    again = Control()
    again.remember(tmp_path, start=True)
    assert not again.paused
    again.pause()
    third = Control()
    third.remember(tmp_path, start=True)
    assert third.paused
    third.resume()
    assert not (tmp_path / MARK).exists()
    fourth = Control()
    fourth.remember(tmp_path, start=True)
    assert not fourth.paused


def test_an_old_mark_does_not_pause_a_run_that_begins_to_keep_pauses(tmp_path: Path) -> None:
    (tmp_path / MARK).touch()
    control = Control()
    control.remember(None, start=True)
    control.remember(tmp_path)
    assert not control.paused and not (tmp_path / MARK).exists()


def test_a_run_that_no_longer_keeps_pauses_leaves_no_mark(tmp_path: Path) -> None:
    control = Control()
    control.remember(tmp_path / "a", start=True)
    control.pause()
    control.remember(tmp_path / "b")
    assert not (tmp_path / "a" / MARK).exists() and (tmp_path / "b" / MARK).exists()
    control.remember(None)
    control.resume()
    assert not (tmp_path / "b" / MARK).exists()


def test_a_pause_that_cannot_be_kept_still_closes_the_camera(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lines: list[str] = []
    control = Control(tell=lines.append)
    control.remember(tmp_path / "file" / "state", start=True)
    with pytest.raises(SinkError, match="cannot write"):
        control.pause()
    assert control.paused
    assert control.obey("pause") and "pause: cannot write" in lines[0]
    assert not control.obey("dance")


def test_where_the_state_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder(None) == tmp_path / "emotion-edge"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/emotion-edge:/var/lib/other")
    assert state_folder(None) == Path("/var/lib/emotion-edge")
    assert state_folder(tmp_path) == tmp_path


def test_a_reload_does_not_end_a_pause(tmp_path: Path) -> None:
    controls: list[Control] = []

    class Stub:
        opened = True

        def __init__(self, config: Config, *, control: Control, **_: Any) -> None:
            controls.append(control)

    config = build({"quiet": True, "keep_paused": True, "state_dir": str(tmp_path)})
    runs = Runs(config, lambda: build({"quiet": True}), service=Stub)  # type: ignore[arg-type]
    controls[0].pause()
    runs.reload()
    assert controls[1] is controls[0] and controls[1].paused
