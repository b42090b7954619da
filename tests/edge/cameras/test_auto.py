from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emotion_edge.cameras import auto as auto_module
from emotion_edge.cameras import open_camera, v4l2
from emotion_edge.cameras.auto import AutoCamera
from emotion_edge.cameras.mounting import Mounting
from emotion_edge.cameras.v4l2 import V4L2Device
from emotion_edge.errors import CameraBusy, CameraError, CameraNotFound
from tests.edge.cameras.fakes import Clock, Scripted, random_image


class World:
    """Which cameras there are, and which of them open."""

    def __init__(self) -> None:
        self.csi: list[tuple[int, str]] | CameraError = CameraNotFound("picamera2 is not installed")
        self.webcams: list[str] = []
        self.broken: dict[str, CameraError] = {}
        self.made: list[tuple[str, dict[str, Any]]] = []

    def csi_cameras(self) -> list[tuple[int, str]]:
        if isinstance(self.csi, CameraError):
            raise self.csi
        return self.csi

    def picamera(self, number: int, **settings: Any) -> Scripted:
        return self._make(f"picamera2:{number}", settings)

    def webcam(self, path: str, **settings: Any) -> Scripted:
        return self._make(path, settings)

    def _make(self, name: str, settings: dict[str, Any]) -> Scripted:
        self.made.append((name, settings))
        camera = Scripted(Clock(), [random_image()], opening=self.broken.get(name))
        camera.name = name
        return camera


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(auto_module, "csi_cameras", world.csi_cameras)
    monkeypatch.setattr(auto_module, "Picamera", world.picamera)
    monkeypatch.setattr(auto_module, "Webcam", world.webcam)
    monkeypatch.setattr(v4l2, "devices", lambda: world.webcams)
    monkeypatch.setattr(v4l2, "query", lambda p: V4L2Device(p, "Webcam", "uvcvideo", True))
    monkeypatch.setattr(v4l2, "busy", lambda path: False)
    return world


def test_the_csi_camera_comes_first(world: World) -> None:
    world.csi = [(0, "imx708")]
    world.webcams = ["/dev/video0"]
    with open_camera("auto", width=320, fps=10, colour=False) as camera:
        assert camera.name == "picamera2:0" and camera.live
        assert camera.read(1) is not None
    assert camera.name == "auto"
    assert world.made[0][1] == {
        **{"width": 320, "height": 480, "fps": 10, "colour": False},
        **{"on_event": None, "stop": None, "mounting": Mounting()},
    }


def test_the_first_that_opens(world: World) -> None:
    world.csi = [(0, "imx708")]
    world.webcams = ["/dev/video0", "/dev/video2", "/dev/video4"]
    world.broken = {"picamera2:0": CameraError("broken"), "/dev/video0": CameraBusy("in use")}
    with AutoCamera() as camera:
        assert camera.name == "/dev/video2"


def test_none_at_all_says_what_was_tried_and_what_to_do(world: World) -> None:
    with pytest.raises(CameraNotFound) as caught, AutoCamera():
        pass
    assert str(caught.value) == (
        "no camera could be opened; tried: picamera2 is not installed; there is no webcam under "
        "/dev/video*. Plug in a USB camera, or try it without one: --camera demo"
    )
    world.csi = []
    with pytest.raises(CameraNotFound, match="picamera2 sees no CSI camera"), AutoCamera():
        pass


def test_all_busy_is_busy(world: World) -> None:
    world.webcams = ["/dev/video0"]
    world.broken = {"/dev/video0": CameraBusy("/dev/video0 is in use by cheese")}
    with pytest.raises(CameraBusy, match="in use by cheese"), AutoCamera():
        pass


def test_misuse() -> None:
    camera = AutoCamera()
    with pytest.raises(CameraError, match="auto is not open"):
        camera.read(1)
    camera.__exit__(None, None, None)


def test_devices_in_the_order_of_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("video10", "video2", "video0", "videonull", "null"):
        (tmp_path / name).touch()
    monkeypatch.setattr(v4l2, "Path", lambda path: tmp_path if path == "/dev" else Path(path))
    assert [Path(path).name for path in v4l2.devices()] == ["video0", "video2", "video10"]
