from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from emotion_edge.cameras import open_camera
from emotion_edge.cameras.stream import StreamCamera
from emotion_edge.errors import CameraLost, CameraNotFound
from tests.edge.cameras.fakes import Events, FakeCapture, random_image


class MJPEG(http.server.BaseHTTPRequestHandler):
    """A network camera: gray frames of rising brightness, until it is closed."""

    hang_up = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        level = 0
        try:
            while not self.hang_up.wait(0.01):
                level = (level + 1) % 256
                image = np.full((64, 96, 3), level, np.uint8)
                data = cv2.imencode(".jpg", image)[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
        except OSError:
            pass  # the viewer left

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    MJPEG.hang_up = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), MJPEG) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/stream.mjpg"
        MJPEG.hang_up.set()
        server.shutdown()
        thread.join()


def test_a_real_mjpeg_stream_and_its_end(server: str) -> None:
    events = Events()
    camera = open_camera(server, on_event=events)
    assert isinstance(camera, StreamCamera) and camera.live and camera.name == server
    with camera:
        frames = [camera.read(30) for _ in range(3)]
        indices = [frame.index for frame in frames if frame is not None]
        assert len(indices) == 3 and indices == sorted(set(indices))
        assert frames[0] is not None and frames[0].image.shape == (64, 96, 3)
        MJPEG.hang_up.set()
        with pytest.raises(CameraLost, match="reads in a row failed"):
            while True:
                camera.read(30)
    assert events.kinds == ["camera.opened"]
    assert events[0].details["granted"] == {"width": 96, "height": 64}


def test_no_answer_and_no_password_in_the_message() -> None:
    camera = StreamCamera("rtsp://me:secret@127.0.0.1:9/live")
    with pytest.raises(CameraNotFound) as caught, camera:
        pass
    assert str(caught.value).startswith("no video answers at rtsp://me:***@127.0.0.1:9/live: check")


def test_limits_and_low_delay_reach_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", raising=False)
    seen: list[Any] = []

    def make(*arguments: Any) -> FakeCapture:
        seen.append((*arguments, os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"]))
        return FakeCapture([random_image()])

    with StreamCamera("rtsp://camera/live", wait=2.5, capture=make) as camera:
        assert camera.read(5) is not None
    url, backend, limits, options = seen[0]
    assert (url, backend) == ("rtsp://camera/live", cv2.CAP_FFMPEG)
    assert dict(zip(limits[::2], limits[1::2], strict=True)) == {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: 2500,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: 2500,
    }
    assert "nobuffer" in options and "rtsp_transport;tcp" in options
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ


def test_the_users_own_options_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    seen: list[str] = []

    def make(*arguments: Any) -> FakeCapture:
        seen.append(os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"])
        return FakeCapture([random_image()])

    with StreamCamera("rtsp://camera/live", capture=make, colour=False) as camera:
        frame = camera.read(5)
    assert frame is not None and frame.image.ndim == 2
    assert seen == ["rtsp_transport;udp"]
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;udp"
