from __future__ import annotations

import errno
import fcntl
import struct
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from emotion_edge.cameras import list_cameras, open_camera, v4l2
from emotion_edge.cameras.v4l2 import V4L2Device
from emotion_edge.cameras.webcam import Webcam
from emotion_edge.errors import CameraBusy, CameraError, CameraLost, CameraNotFound
from tests.edge.cameras.fakes import Events, FakeCapture, random_image

CAPTURE, META, OUTPUT = 0x1, 0x800000, 0x2


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A path that answers as a webcam does."""
    path = tmp_path / "video0"
    path.touch()
    monkeypatch.setattr(v4l2, "query", lambda p: V4L2Device(p, "HD Webcam", "uvcvideo", True))
    monkeypatch.setattr(v4l2, "busy", lambda p: False)
    return str(path)


def opened(device: str, capture: FakeCapture, **settings: Any) -> tuple[Webcam, list[Any]]:
    asked: list[Any] = []

    def make(*arguments: Any) -> FakeCapture:
        asked.append(arguments)
        return capture

    return Webcam(device, capture=make, **settings), asked


def test_frames_with_the_drivers_timestamp(device: str) -> None:
    stamp_ms = time.monotonic_ns() / 1e6 - 20
    capture = FakeCapture([random_image()])
    capture.properties[cv2.CAP_PROP_POS_MSEC] = stamp_ms
    camera, asked = opened(device, capture)
    with camera:
        frame = camera.read(5)
    assert frame is not None
    np.testing.assert_array_equal(frame.image, random_image())
    assert frame.captured_ns == pytest.approx(stamp_ms * 1e6, abs=1000)
    assert asked == [(device, cv2.CAP_V4L2, ())]
    assert capture.released


@pytest.mark.parametrize("stamp_ms", [0.0, 1.7e12, -5.0])
def test_a_timestamp_of_another_clock_is_not_believed(device: str, stamp_ms: float) -> None:
    capture = FakeCapture([random_image()])
    capture.properties[cv2.CAP_PROP_POS_MSEC] = stamp_ms
    camera, _ = opened(device, capture)
    before = time.monotonic_ns()
    with camera:
        frame = camera.read(5)
    assert frame is not None and before <= frame.captured_ns <= time.monotonic_ns()


def test_what_was_asked_and_what_was_granted(device: str) -> None:
    capture = FakeCapture([random_image()])
    capture.properties = {
        cv2.CAP_PROP_FRAME_WIDTH: 800.0,
        cv2.CAP_PROP_FRAME_HEIGHT: 600.0,
        cv2.CAP_PROP_FPS: 25.0,
        cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*"YUYV")),
    }
    events = Events()
    camera, _ = opened(device, capture, width=1280, height=720, fps=30, on_event=events)
    with camera:
        granted = {"width": 800, "height": 600, "fps": 25.0, "format": "YUYV"}
        assert camera.granted == granted
    assert events.kinds[0] == "camera.opened"
    assert events[0].details["granted"] == granted
    assert events[0].details["asked"] == {
        "width": 1280,
        "height": 720,
        "fps": 30,
        "format": "MJPG",  # USB 2 cannot carry this size uncompressed
    }
    assert "asked for 1280x720 at 30 fps MJPG, granted 800x600 at 25 fps YUYV" in events[0].message


def test_small_frames_leave_the_format_to_the_driver(device: str) -> None:
    capture = FakeCapture([random_image()])
    with opened(device, capture)[0]:
        pass
    assert cv2.CAP_PROP_FOURCC not in capture.properties
    assert cv2.CAP_PROP_FPS not in capture.properties


def test_gray_on_request(device: str) -> None:
    camera, _ = opened(device, FakeCapture([random_image()]), colour=False)
    with camera:
        frame = camera.read(5)
    assert frame is not None and frame.image.shape == (24, 32)


def test_a_read_without_an_image_is_a_failed_read(device: str) -> None:
    # Before colour conversion: cv2.cvtColor of nothing would raise and end the camera.
    nothing: list[Any] = [(True, None), (True, np.zeros((0, 0, 3), np.uint8)), (False, None)]
    camera, _ = opened(device, FakeCapture([*nothing, random_image()]), colour=False)
    with camera:
        assert camera.read(5) is not None


def test_unplugged(device: str) -> None:
    camera, _ = opened(device, FakeCapture([random_image()]))
    with camera:
        assert camera.read(5) is not None
        with pytest.raises(CameraLost, match="reads in a row failed"):
            camera.read(10)


def test_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v4l2, "devices", lambda: ["/dev/video7"])
    camera = open_camera("97")
    assert isinstance(camera, Webcam)
    message = r"there is no camera /dev/video97 \(found: /dev/video7\): plug one in"
    with pytest.raises(CameraNotFound, match=message), camera:
        pass


def test_busy(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v4l2, "busy", lambda path: True)
    monkeypatch.setattr(v4l2, "holders", lambda path: "cheese (pid 812)")
    camera, _ = opened(device, FakeCapture(opens=False))
    with pytest.raises(CameraBusy, match=r"in use by cheese \(pid 812\): close"), camera:
        pass


def test_there_and_not_usable(device: str) -> None:
    camera, _ = opened(device, FakeCapture(opens=False))
    with pytest.raises(CameraError, match="exists and OpenCV cannot open it") as caught, camera:
        pass
    assert not isinstance(caught.value, (CameraBusy, CameraNotFound))


def test_forbidden(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(v4l2, "query", refuse)
    camera, _ = opened(device, FakeCapture())
    with pytest.raises(CameraError, match=r"sudo usermod -aG video \$USER"), camera:
        pass


def test_gone_between_looking_and_opening(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: str) -> None:
        raise OSError(errno.ENODEV, "No such device", path)

    monkeypatch.setattr(v4l2, "query", gone)
    camera, _ = opened(device, FakeCapture())
    with pytest.raises(CameraNotFound, match=r"cannot be opened \(No such device\)"), camera:
        pass


def test_a_node_that_gives_no_images(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = V4L2Device(device, "bcm2835-codec-decode", "bcm2835-codec", False)
    monkeypatch.setattr(v4l2, "query", lambda path: codec)
    camera, _ = opened(device, FakeCapture())
    with (
        pytest.raises(CameraNotFound, match=r"is bcm2835-codec-decode .* delivers no images"),
        camera,
    ):
        pass


def test_a_device_that_is_no_camera() -> None:
    with pytest.raises(CameraNotFound, match="/dev/null is not a video device"):
        open_camera("/dev/null").__enter__()


def answer(driver: str, flags: int, own: int | None = None) -> bytes:
    whole = flags if own is None else flags | 0x80000000
    return struct.pack(
        "16s32s32s6I", driver.encode(), b"HD Webcam", b"usb", 0, whole, own or 0, 0, 0, 0
    )


@pytest.mark.parametrize(
    ("reply", "captures"),
    [
        (answer("uvcvideo", CAPTURE), True),
        (answer("uvcvideo", CAPTURE | META, own=CAPTURE), True),
        (answer("uvcvideo", CAPTURE | META, own=META), False),
        (answer("bcm2835-codec", CAPTURE), False),
        (answer("unicam", CAPTURE), False),
        (answer("vivid", OUTPUT), False),
    ],
)
def test_what_a_device_says_of_itself(
    reply: bytes, captures: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda handle, request, argument: reply)
    device = v4l2.query("/dev/null")
    assert device is not None and device.captures is captures and device.card == "HD Webcam"


def test_no_v4l2_device() -> None:
    assert v4l2.query("/dev/null") is None
    assert not v4l2.busy("/dev/null")
    with pytest.raises(FileNotFoundError):
        v4l2.query("/dev/no-such-device")


def test_busy_is_what_the_kernel_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> bytes:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert v4l2.busy("/dev/null")


def test_who_holds_a_file(tmp_path: Path) -> None:
    path = tmp_path / "held"
    with path.open("w"):
        assert "(pid " in v4l2.holders(str(path))
    assert v4l2.holders(str(path)) == ""


def test_the_list_for_doctor(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v4l2, "devices", lambda: [device])
    assert [(found.spec, found.model, found.trouble) for found in list_cameras()] == [
        (device, "HD Webcam", "")
    ]
    monkeypatch.setattr(v4l2, "busy", lambda path: True)
    assert list_cameras()[0].trouble == "in use by another program"

    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(v4l2, "query", refuse)
    assert list_cameras()[0].trouble == "Permission denied"
