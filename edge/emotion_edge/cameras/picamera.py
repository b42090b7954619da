"""The Raspberry Pi's own camera, through Picamera2 and libcamera."""

from __future__ import annotations

import importlib
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from emotion_edge.cameras import CameraRequest, CameraSettings
from emotion_edge.cameras.events import Listener, report
from emotion_edge.cameras.live import Device, Grab, LiveCamera
from emotion_edge.cameras.mounting import Mounting
from emotion_edge.errors import CameraBusy, CameraError, CameraNotFound, FrameTimeout
from emotion_edge.settings import key
from emotion_edge.values import Image

BUFFERS = 6
"""Frame buffers libcamera cycles through."""
LENT = 3
"""Buffers that frames may keep; further frames are copied, so that the sensor has some."""
OLDEST_STAMP_NS = 2_000_000_000
"""A sensor's timestamp is used if it is at most this old."""
_WAIT_S = 1.0
"""Seconds for which one request blocks; a camera that is closed waits that long at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PicameraSettings(CameraSettings):
    """Which of several CSI cameras."""

    usage: ClassVar[str] = "picamera2"
    help: ClassVar[str] = "the Raspberry Pi's own camera; picamera2:1 is the second of two"
    positional: ClassVar[str] = "number"
    turns: ClassVar[bool] = True

    number: int = key(
        0, "which camera, in the order of `rpicam-hello --list-cameras`.", ge=0, le=15
    )

    def open(self, request: CameraRequest) -> Picamera:
        """Nothing is opened yet."""
        return Picamera(
            self.number,
            width=request.width,
            height=request.height,
            fps=request.fps,
            colour=request.colour,
            mounting=Mounting(request.rotate, request.flip),
            on_event=request.on_event,
            stop=request.stop,
        )


class Picamera(LiveCamera):
    """A CSI camera in a low-latency video configuration.

    Gray frames are the luma plane of the low-resolution YUV420 stream, read in the camera's own
    buffer without a copy; the buffer returns to the camera when the last array that views
    it is gone. Only ``colour`` makes the ISP write BGR.
    """

    remedy = "check the ribbon cable"

    def __init__(
        self,
        number: int = 0,
        *,
        width: int = 640,
        height: int = 480,
        fps: float | None = None,
        colour: bool = True,
        mounting: Mounting | None = None,
        on_event: Listener | None = None,
        stop: threading.Event | None = None,
        **waits: float,
    ) -> None:
        """Nothing is opened yet.

        number: which camera, in the order of ``rpicam-hello --list-cameras``.
        fps: frames per second, 30 unless given.
        mounting: libcamera does what it can, a half turn and a mirror image, at no cost; OpenCV
            does a quarter turn.
        """
        name = f"picamera2:{number}" if number else "picamera2"
        super().__init__(name, on_event=on_event, stop=stop, **waits)
        self._number = number
        self._size = (width, height)
        self.fps = fps or 30.0
        self._colour = colour
        mounting = mounting or Mounting()
        self._flips = mounting.flips or (False, False)
        self._mounting = mounting if mounting.flips is None else Mounting()

    def __enter__(self) -> Self:
        """Open. Raises CameraNotFound, CameraBusy or CameraError."""
        # From a cold card the import takes many seconds, and no hardware hangs in it: the
        # time limit of an opening does not cover it.
        picamera2_module()
        return super().__enter__()

    def _open(self) -> Device:
        maker = picamera2_module().Picamera2
        count = len(maker.global_camera_info())
        if self._number >= count:
            raise CameraNotFound(
                f"there is no camera {self.name} (libcamera sees {count}): switch the Pi off, "
                "check the ribbon cable at both ends, then run rpicam-hello --list-cameras"
            )
        try:
            camera = maker(self._number)
        except Exception as error:  # RuntimeError, or IndexError before 0.3.19
            raise CameraBusy(
                f"{self.name} exists and does not open ({error.__cause__ or error}): "
                "close the other program that uses it"
            ) from error
        try:
            stream = self._configure(camera)
            camera.start()
        except Exception:
            camera.close()
            raise
        return _Requests(camera, stream, self.name, self._mounting)

    def _configure(self, camera: Any) -> str:
        """Set the streams up; returns the name of the one that frames come from."""
        controls: dict[str, Any] = {}
        if "AfMode" in camera.camera_controls:
            controls["AfMode"] = 2  # AfModeEnum.Continuous: faces come and go at any distance
        if "FrameDurationLimits" in camera.camera_controls:
            microseconds = round(1e6 / self.fps)
            controls["FrameDurationLimits"] = (microseconds, microseconds)
        streams: dict[str, Any] = {
            "main": {"size": self._size, "format": "RGB888"}
        }  # libcamera's name for BGR
        if not self._colour:
            # A main stream is required, at least as large as the low-resolution one.
            streams = {name: {"size": self._size, "format": "YUV420"} for name in ("main", "lores")}
        if any(self._flips):
            horizontal, vertical = self._flips
            transform = importlib.import_module("libcamera").Transform
            streams["transform"] = transform(hflip=int(horizontal), vflip=int(vertical))
        camera.configure(
            camera.create_video_configuration(
                **streams,
                controls=controls,
                buffer_count=BUFFERS,
                queue=False,  # else a frame completed earlier answers the next request
            )
        )
        stream = "main" if self._colour else "lores"
        granted = camera.camera_configuration()[stream]
        width, height = granted["size"]
        report(
            self._on_event,
            "camera.opened",
            f"{self.name}: asked for {self._size[0]}x{self._size[1]} at {self.fps:g} fps, "
            f"granted {width}x{height} {granted['format']}",
            trouble=False,
            asked={"width": self._size[0], "height": self._size[1], "fps": self.fps},
            granted={"width": width, "height": height, "format": str(granted["format"])},
        )
        return stream


class _Requests:
    """A started Picamera2, one completed request at a time."""

    def __init__(self, camera: Any, stream: str, name: str, mounting: Mounting) -> None:
        self._camera = camera
        self._stream = stream
        self._name = name
        self._mounting = mounting
        self._last_stamp: int | None = None
        self._lent = 0
        # Buffers come back from whatever thread drops the last array, perhaps in the middle of a
        # garbage collection; only this queue is safe there, Picamera2's lock is not.
        self._returned: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def grab(self) -> Grab | None:
        self._take_back()
        try:
            request = self._camera.capture_request(wait=_WAIT_S)
        except TimeoutError as error:
            self._camera.cancel_all_and_flush()  # the waiting job, so that the camera can close
            raise FrameTimeout(f"{self._name} gave no frame for {_WAIT_S:g} s") from error
        now = time.monotonic_ns()
        metadata = request.get_metadata()
        stamp = metadata.get("SensorTimestamp")
        captured = now if stamp is None else on_monotonic_clock(stamp, now)
        step = self._step(stamp, metadata.get("FrameDuration"))
        return Grab(self._mounting.apply(self._image(request)), captured, step)

    def _step(self, stamp: int | None, microseconds: int | None) -> int:
        """Frames the sensor made since the last request, from the time between them."""
        last, self._last_stamp = self._last_stamp, stamp
        if last is None or stamp is None or not microseconds:
            return 1
        return max(1, round((stamp - last) / (1000 * microseconds)))

    def _image(self, request: Any) -> Image:
        mapped = picamera2_module().MappedArray(request, self._stream, write=False)
        mapped.__enter__()
        width, height = self._camera.camera_configuration()[self._stream]["size"]
        plane = mapped.array[:height, :width]  # lores: the Y plane, without the stride's padding

        def give_back() -> None:
            mapped.__exit__(None, None, None)
            request.release()

        if self._lent >= LENT:
            image = np.array(plane, dtype=np.uint8)
            del plane
            give_back()
            return image
        self._lent += 1
        loan = _Loan(plane)
        weakref.finalize(loan, self._returned.put, give_back).atexit = False
        return np.asarray(loan)

    def _take_back(self) -> None:
        while True:
            try:
                give_back = self._returned.get_nowait()
            except queue.Empty:
                return
            self._lent -= 1
            give_back()

    def close(self) -> None:
        self._take_back()
        self._camera.close()


class _Loan:
    """Memory of a camera buffer; every array that views it keeps this object alive."""

    def __init__(self, array: Image) -> None:
        address, _ = array.__array_interface__["data"]
        # Read-only: the camera writes there next.
        self.__array_interface__ = {**array.__array_interface__, "data": (address, True)}


def on_monotonic_clock(stamp_ns: int, now_ns: int) -> int:
    """A sensor's timestamp on the monotonic clock.

    libcamera documents CLOCK_BOOTTIME and hands on what the kernel's driver gave, which is
    CLOCK_MONOTONIC on others. The two differ by the time the machine has slept, so the clock is
    the one on which the frame is a little old. A timestamp on neither gives ``now_ns``.
    """
    asleep = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    for stamp in (stamp_ns, stamp_ns - asleep):
        if 0 <= now_ns - stamp < OLDEST_STAMP_NS:
            return stamp
    return now_ns


def picamera2_module() -> Any:
    """The module, with its log switched off.

    Raises CameraNotFound when it is not installed, CameraError when it does not import.
    """
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:FATAL")
    try:
        module = importlib.import_module("picamera2")
    except ImportError as error:
        raise CameraNotFound(
            f"picamera2 cannot be imported ({error}): sudo apt install python3-picamera2, and "
            "make the virtual environment with --system-site-packages"
        ) from error
    except Exception as error:  # on Bookworm its parts were built against NumPy 1
        raise CameraError(
            f"picamera2 does not start ({type(error).__name__}: {error}): "
            "on Bookworm pip install 'numpy<2' 'opencv-python-headless<4.12'"
        ) from error
    logging.getLogger("picamera2").setLevel(logging.CRITICAL)
    return module


def csi_cameras() -> list[tuple[int, str]]:
    """Number and sensor model of each CSI camera libcamera sees.

    USB cameras, which libcamera lists too, are left to V4L2.
    Raises CameraNotFound or CameraError when picamera2 does not work.
    """
    found = picamera2_module().Picamera2.global_camera_info()
    return [
        (number, str(camera.get("Model", "camera")))
        for number, camera in enumerate(found)
        if "usb" not in str(camera.get("Id", "")).lower()
    ]
