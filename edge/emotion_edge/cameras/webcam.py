"""A USB camera, or any other /dev/video device, through OpenCV and V4L2."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2

from emotion_edge.cameras import CameraRequest, CameraSettings, v4l2
from emotion_edge.cameras.capture import Capture, CaptureDevice, OpenCapture, open_capture
from emotion_edge.cameras.events import Listener, report
from emotion_edge.cameras.live import Device, LiveCamera
from emotion_edge.errors import CameraBusy, CameraError, CameraNotFound
from emotion_edge.settings import key

OLDEST_STAMP_NS = 2_000_000_000
"""A driver's timestamp is used if it is at most this old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebcamSettings(CameraSettings):
    """Which V4L2 device, and its format."""

    usage: ClassVar[str] = "/dev/videoN"
    help: ClassVar[str] = "a USB camera, or any other V4L2 device"
    positional: ClassVar[str] = "device"

    device: str = key("0", "`/dev/videoN`, a link to one, or N.", filled=True)
    pixel_format: str | None = key(
        None, "FourCC to request, `MJPG` or `YUYV`; unset: MJPG above 640x480.", filled=True
    )

    @classmethod
    def matches(cls, spec: str) -> bool:
        """A number, or a path below /dev."""
        return spec.isdigit() or spec.startswith("/dev/")

    def open(self, request: CameraRequest) -> Webcam:
        """Nothing is opened yet."""
        return Webcam(
            self.device,
            width=request.width,
            height=request.height,
            fps=request.fps,
            colour=request.colour,
            pixel_format=self.pixel_format,
            on_event=request.on_event,
            stop=request.stop,
        )


class Webcam(LiveCamera):
    """A V4L2 camera.

    granted: what the driver agreed to, once open: ``width``, ``height`` in pixels, ``fps``,
        ``format`` (FourCC). It need not be what was asked for; the event ``camera.opened`` says
        both.
    """

    def __init__(
        self,
        device: str | int = 0,
        *,
        width: int = 640,
        height: int = 480,
        fps: float | None = None,
        colour: bool = True,
        pixel_format: str | None = None,
        on_event: Listener | None = None,
        stop: threading.Event | None = None,
        capture: OpenCapture = open_capture,
        **waits: float,
    ) -> None:
        """Nothing is opened yet.

        device: ``/dev/video0``, a link to such a node, or its number.
        fps: frames per second to ask for; None leaves the driver's choice.
        pixel_format: FourCC to request, ``MJPG`` or ``YUYV``. None requests MJPG above 640x480,
            which USB 2 cannot carry uncompressed at 30 fps, and else leaves the driver's choice.
        """
        path = f"/dev/video{device}" if str(device).isdigit() else str(device)
        super().__init__(path, on_event=on_event, stop=stop, **waits)
        self.granted: dict[str, float | str] = {}
        big = width * height > 640 * 480
        self._asked: dict[str, float | str | None] = {
            "width": width,
            "height": height,
            "fps": fps,
            "format": pixel_format or ("MJPG" if big else None),
        }
        self._colour = colour
        self._capture = capture

    def _open(self) -> Device:
        self._check_access()
        capture = self._capture(self.name, cv2.CAP_V4L2, ())
        if not capture.isOpened():
            capture.release()
            raise self._why_not()
        self._settle(capture)
        return _V4L2Capture(capture, self._colour)

    def _check_access(self) -> None:
        if not Path(self.name).exists():
            there = v4l2.devices()
            raise CameraNotFound(
                f"there is no camera {self.name} (found: {', '.join(there) or 'none'}): "
                "plug one in, or name another"
            )
        try:
            device = v4l2.query(self.name)
        except PermissionError:
            raise CameraError(
                f"{self.name} may not be opened by this user: "
                'run "sudo usermod -aG video $USER", then log in again'
            ) from None
        except OSError as error:
            if v4l2.busy(self.name):
                raise self._busy() from error
            raise CameraNotFound(
                f"{self.name} cannot be opened ({error.strerror}): plug it in again"
            ) from error
        if device is None or not device.captures:
            what = f"{device.card} ({device.driver})" if device else "not a video device"
            raise CameraNotFound(
                f"{self.name} is {what} and delivers no images: name another, or use auto"
            )

    def _why_not(self) -> CameraError:
        if v4l2.busy(self.name):
            return self._busy()
        return CameraError(
            f"{self.name} exists and OpenCV cannot open it: "
            "it may offer no format that OpenCV reads; see v4l2-ctl --list-formats-ext"
        )

    def _busy(self) -> CameraBusy:
        who = v4l2.holders(self.name) or "another program"
        return CameraBusy(f"{self.name} is in use by {who}: close that program first")

    def _settle(self, capture: Capture) -> None:
        asked = self._asked
        if asked["format"]:
            code = cv2.VideoWriter.fourcc(*str(asked["format"]))
            capture.set(cv2.CAP_PROP_FOURCC, code)  # first: the size and rate depend on it
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, float(asked["width"] or 0))
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, float(asked["height"] or 0))
        if asked["fps"]:
            capture.set(cv2.CAP_PROP_FPS, float(asked["fps"]))
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        granted: dict[str, float | str] = {
            "width": int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            "height": int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            "fps": capture.get(cv2.CAP_PROP_FPS),
            "format": code.to_bytes(4, "little", signed=code < 0).decode("ascii", "replace"),
        }
        self.granted = granted
        self.fps = float(granted["fps"])
        report(
            self._on_event,
            "camera.opened",
            f"{self.name}: asked for {_words(asked)}, granted {_words(granted)}",
            trouble=False,
            asked=asked,
            granted=granted,
        )


class _V4L2Capture(CaptureDevice):
    def captured_ns(self, now: int) -> int:
        # V4L2 stamps a buffer on the monotonic clock when its first byte arrives (videodev2's
        # V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC); a driver with another clock shows by the difference.
        stamp = int(self.capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        return stamp if 0 <= now - stamp < OLDEST_STAMP_NS else now


def _words(settings: dict[str, float | str | None] | dict[str, float | str]) -> str:
    words = f"{settings['width']}x{settings['height']}"
    if settings["fps"]:
        words += f" at {settings['fps']:g} fps"
    if settings["format"]:
        words += f" {settings['format']}"
    return words
