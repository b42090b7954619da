"""Opens the first camera that works."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from emotion_edge.cameras import Camera, CameraInfo, CameraRequest, CameraSettings, v4l2
from emotion_edge.cameras.mounting import Mounting, mounted
from emotion_edge.cameras.picamera import Picamera, csi_cameras
from emotion_edge.cameras.webcam import Webcam
from emotion_edge.errors import CameraBusy, CameraError, CameraNotFound
from emotion_edge.values import Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoSettings(CameraSettings):
    """Picamera2's cameras, then V4L2's."""

    usage: ClassVar[str] = "auto"
    help: ClassVar[str] = "the first camera that opens"
    turns: ClassVar[bool] = True

    def open(self, request: CameraRequest) -> AutoCamera:
        """No camera is opened yet."""
        return AutoCamera(
            Mounting(request.rotate, request.flip),
            width=request.width,
            height=request.height,
            fps=request.fps,
            colour=request.colour,
            on_event=request.on_event,
            stop=request.stop,
        )


class AutoCamera:
    """The first that opens: CSI cameras by Picamera2, then V4L2 devices by number.

    ``name`` is the chosen camera's once open.
    """

    live = True

    def __init__(self, mounting: Mounting | None = None, **settings: Any) -> None:
        """No camera is opened yet; settings: what Picamera and Webcam both take."""
        self._mounting = mounting or Mounting()
        self._settings = settings
        self._chosen: Camera | None = None
        self._open: contextlib.ExitStack | None = None

    @property
    def name(self) -> str:
        """``auto``, or the chosen camera's name."""
        return self._chosen.name if self._chosen else "auto"

    @property
    def fps(self) -> float:
        """The chosen camera's; 0 before opening."""
        return self._chosen.fps if self._chosen else 0.0

    def __enter__(self) -> Self:
        """Open the first that opens.

        Raises CameraBusy when every camera is busy, CameraNotFound when there are none.
        """
        tried: list[str] = []
        busy = False
        for camera in self._candidates(tried):
            stack = contextlib.ExitStack()
            try:
                self._chosen = stack.enter_context(camera)
                self._open = stack
                return self
            except CameraError as error:
                busy = busy or isinstance(error, CameraBusy)
                tried.append(str(error))
        sort = CameraBusy if busy else CameraNotFound
        raise sort(
            f"no camera could be opened; tried: {'; '.join(tried)}. "
            "Plug in a USB camera, or try it without one: --camera demo"
        )

    def _candidates(self, tried: list[str]) -> list[Camera]:
        found: list[Camera] = []
        try:
            for number, _ in csi_cameras():
                found.append(Picamera(number, mounting=self._mounting, **self._settings))
            if not found:
                tried.append("picamera2 sees no CSI camera")
        except CameraError as error:
            tried.append(str(error))
        webcams = _webcams()
        if not webcams:
            tried.append("there is no webcam under /dev/video*")
        found.extend(
            mounted(Webcam(webcam.spec, **self._settings), self._mounting) for webcam in webcams
        )
        return found

    def read(self, timeout: float) -> Frame | None:
        """As the chosen camera does."""
        if self._chosen is None:
            raise CameraError("auto is not open: use it in a with statement")
        return self._chosen.read(timeout)

    def __exit__(self, *error: object) -> None:
        """Close; safe to call twice, and after a failed open."""
        stack, self._open, self._chosen = self._open, None, None
        if stack is not None:
            stack.close()


def list_cameras() -> list[CameraInfo]:
    """Every camera of this machine, in the order ``auto`` tries them. Opens none."""
    try:
        csi = [
            CameraInfo(f"picamera2:{number}" if number else "picamera2", model)
            for number, model in csi_cameras()
        ]
    except CameraError:
        csi = []
    return csi + _webcams()


def _webcams() -> list[CameraInfo]:
    found = []
    for path in v4l2.devices():
        try:
            device = v4l2.query(path)
        except OSError as error:
            found.append(CameraInfo(path, "unknown", error.strerror or str(error)))
            continue
        if device is not None and device.captures:
            trouble = ""
            if v4l2.busy(path):
                trouble = f"in use by {v4l2.holders(path) or 'another program'}"
            found.append(CameraInfo(path, device.card, trouble))
    return found
