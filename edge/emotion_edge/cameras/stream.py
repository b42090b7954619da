"""A network camera: RTSP, HTTP (MJPEG, HLS) or whatever else FFmpeg reads."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import ClassVar

import cv2

from emotion_edge.cameras import CameraRequest, CameraSettings
from emotion_edge.cameras.capture import CaptureDevice, OpenCapture, ffmpeg_options, open_capture
from emotion_edge.cameras.events import Listener, report
from emotion_edge.cameras.live import Device, LiveCamera
from emotion_edge.errors import CameraNotFound
from emotion_edge.settings import REQUIRED, key

LOW_DELAY = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay"
"""TCP, because lost packets smear; and FFmpeg must not collect frames before it hands them out."""


SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "srt", "rtp", "mms")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings(CameraSettings):
    """A stream's address."""

    usage: ClassVar[str] = "an RTSP or HTTP address"
    help: ClassVar[str] = "a network camera, or any other stream that FFmpeg reads"
    positional: ClassVar[str] = "url"

    url: str = key(REQUIRED, "its address; `camera.source` sets it.", filled=True)
    wait_s: float = key(5.0, "seconds to wait for the server, and for each packet.", ge=0.1, le=600)

    @classmethod
    def matches(cls, spec: str) -> bool:
        """An address with one of ``SCHEMES``."""
        scheme, mark, _ = spec.partition("://")
        return bool(mark) and scheme.lower() in SCHEMES

    def open(self, request: CameraRequest) -> StreamCamera:
        """Nothing is opened yet."""
        return StreamCamera(
            self.url,
            colour=request.colour,
            wait=self.wait_s,
            on_event=request.on_event,
            stop=request.stop,
        )


class StreamCamera(LiveCamera):
    """A stream behind a URL, always its newest frame.

    ``name`` is the URL without its password.
    """

    remedy = "check the camera's power and the network"

    def __init__(
        self,
        url: str,
        *,
        colour: bool = True,
        wait: float = 5.0,
        on_event: Listener | None = None,
        stop: threading.Event | None = None,
        capture: OpenCapture = open_capture,
    ) -> None:
        """Nothing is opened yet.

        wait: seconds to wait for the server to answer, and for each packet.
        """
        name = re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", url)
        super().__init__(name, on_event=on_event, stop=stop, open_timeout=2 * wait + 5.0)
        self._url = url
        self._colour = colour
        self._wait_ms = round(1000 * wait)
        self._capture = capture

    def _open(self) -> Device:
        limits = (
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, self._wait_ms),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, self._wait_ms),
        )
        with ffmpeg_options(LOW_DELAY):
            capture = self._capture(self._url, cv2.CAP_FFMPEG, limits)
        if not capture.isOpened():
            capture.release()
            raise CameraNotFound(
                f"no video answers at {self.name}: check the address, the password and the network"
            )
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.fps = rate if 0 < rate <= 240 else 0.0  # a stream without a rate reports its clock
        size = [int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        report(
            self._on_event,
            "camera.opened",
            f"{self.name}: {size[0]}x{size[1]}",
            trouble=False,
            granted={"width": size[0], "height": size[1]},
        )
        # The sender's clock is not ours: the instant of arrival is the best available.
        return CaptureDevice(capture, self._colour)
