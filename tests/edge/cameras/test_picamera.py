"""Picamera2 by a fake of its module: buffers, requests and clocks behave as the real ones do."""

from __future__ import annotations

import gc
import queue
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import pytest

from emotion_edge.cameras import list_cameras, open_camera
from emotion_edge.cameras import picamera as picamera_module
from emotion_edge.cameras.mounting import Mounting
from emotion_edge.cameras.picamera import BUFFERS, LENT, Picamera, on_monotonic_clock
from emotion_edge.errors import CameraBusy, CameraError, CameraNotFound, FrameTimeout, UsageError
from emotion_edge.values import Frame
from tests.edge.cameras.fakes import Events

STRIDE = 48  # wider than a row of 32 pixels, as an ISP aligns it


class FakeRequest:
    def __init__(self, camera: FakePicamera2, buffer: int) -> None:
        self.camera = camera
        self.buffer = buffer
        self.released = False

    def get_metadata(self) -> dict[str, Any]:
        return self.camera.metadata.pop(0) if self.camera.metadata else {}

    def release(self) -> None:
        assert not self.released
        self.released = True
        self.camera.free.put(self.buffer)


class FakeMappedArray:
    def __init__(self, request: FakeRequest, stream: str, write: bool = True) -> None:
        assert not write
        self.request, self.stream = request, stream
        self.array: Any = None

    def __enter__(self) -> Self:
        self.array = self.request.camera.memory[self.stream][self.request.buffer]
        return self

    def __exit__(self, *_: object) -> None:
        self.array = None


class FakePicamera2:
    """Gives as many frames as ``permits`` allows; each fills its buffer with its number."""

    cameras: list[dict[str, Any]]
    opened: list[FakePicamera2]
    busy: bool

    def __init__(self, number: int = 0) -> None:
        if self.busy:
            raise RuntimeError("Camera __init__ sequence did not complete.")
        self.camera_controls = {"FrameDurationLimits": (1, 2, 3), "AfMode": (0, 2, 0)}
        self.permits: queue.Queue[None] = queue.Queue()
        self.free: queue.Queue[int] = queue.Queue()
        self.metadata: list[dict[str, Any]] = []
        self.count = 0
        self.closed = self.cancelled = False
        self.fault: Exception | None = None
        self.opened.append(self)

    @classmethod
    def global_camera_info(cls) -> list[dict[str, Any]]:
        return cls.cameras

    def create_video_configuration(self, **settings: Any) -> dict[str, Any]:
        return settings

    def configure(self, configuration: dict[str, Any]) -> None:
        self.configuration = configuration
        self.memory = {}
        for buffer in range(configuration["buffer_count"]):
            self.free.put(buffer)
        for name in ("main", "lores"):
            if name not in configuration:
                continue
            width, height = configuration[name]["size"]
            shape = (
                (height, width, 3)
                if configuration[name]["format"] == "RGB888"
                else (height * 3 // 2, STRIDE)
            )
            self.memory[name] = [np.zeros(shape, np.uint8) for _ in range(BUFFERS)]

    def camera_configuration(self) -> dict[str, Any]:
        return self.configuration

    def start(self) -> None:
        pass

    def capture_request(self, wait: float) -> FakeRequest:
        assert 0 < wait < 30
        if self.fault is not None:
            raise self.fault
        self.permits.get(timeout=30)
        buffer = self.free.get(timeout=30)  # as a starved sensor, stops here
        self.count += 1
        for planes in self.memory.values():
            planes[buffer][:] = self.count
        return FakeRequest(self, buffer)

    def cancel_all_and_flush(self) -> None:
        self.cancelled = True

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakePicamera2]]:
    module = types.ModuleType("picamera2")
    module.Picamera2 = FakePicamera2  # type: ignore[attr-defined]
    module.MappedArray = FakeMappedArray  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    FakePicamera2.cameras = [{"Model": "imx708", "Id": "/base/soc/i2c0mux/imx708@1a", "Num": 0}]
    FakePicamera2.opened = []
    FakePicamera2.busy = False
    yield FakePicamera2
    for camera in FakePicamera2.opened:
        assert camera.closed


class Running:
    """An opened Picamera whose sensor ticks on command."""

    def __init__(self, fake: type[FakePicamera2], **settings: Any) -> None:
        self.events = Events()
        self.camera = Picamera(
            width=32, height=24, on_event=self.events, close_timeout=5, **settings
        )
        self._fake = fake

    def __enter__(self) -> Self:
        self.camera.__enter__()
        self.device = self._fake.opened[-1]
        return self

    def frame(self) -> Frame:
        self.device.permits.put(None)
        frame = self.camera.read(30)
        assert frame is not None
        return frame

    def __exit__(self, *_: object) -> None:
        # The thread waits for a permit: closing is asked for first, then it gets one.
        timer = threading.Timer(0.05, lambda: self.device.permits.put(None))
        timer.start()
        self.camera.__exit__(None, None, None)
        timer.join()


def test_gray_is_the_luma_plane_in_the_cameras_own_memory(fake: type[FakePicamera2]) -> None:
    with Running(fake, colour=False) as running:
        frame = running.frame()
        assert frame.image.shape == (24, 32) and (frame.image == 1).all()
        assert any(np.shares_memory(frame.image, b) for b in running.device.memory["lores"])
        assert not frame.image.flags.writeable
        configuration = running.device.configuration
        assert configuration["lores"] == {"size": (32, 24), "format": "YUV420"}
        assert configuration["main"]["format"] == "YUV420"  # no colour for anybody
        assert configuration["queue"] is False
        assert configuration["controls"]["FrameDurationLimits"] == (33333, 33333)
        assert running.events.kinds == ["camera.opened"]


def test_colour_only_on_request(fake: type[FakePicamera2]) -> None:
    with Running(fake, colour=True, fps=10) as running:
        frame = running.frame()
        assert frame.image.shape == (24, 32, 3)
        assert any(np.shares_memory(frame.image, b) for b in running.device.memory["main"])
        assert running.device.configuration["main"] == {"size": (32, 24), "format": "RGB888"}
        assert "lores" not in running.device.configuration
        assert running.device.configuration["controls"]["FrameDurationLimits"] == (100000, 100000)


def test_a_buffer_goes_back_when_the_last_view_is_gone(fake: type[FakePicamera2]) -> None:
    with Running(fake, colour=False) as running:
        kept = running.frame().image[4:8, 4:8]  # a view of a view, as a crop is
        for _ in range(5 * BUFFERS):  # the sensor always has a free buffer
            running.frame()
        assert (kept == 1).all()
        del kept
        gc.collect()
        for _ in range(BUFFERS):
            running.frame()
        assert running.device.free.qsize() >= BUFFERS - 2


def test_whoever_keeps_many_frames_gets_copies(fake: type[FakePicamera2]) -> None:
    with Running(fake, colour=False) as running:
        kept = [running.frame() for _ in range(4 * BUFFERS)]  # more than there are buffers
        for number, frame in enumerate(kept, 1):
            assert (frame.image == number).all()
        shared = [
            any(np.shares_memory(frame.image, b) for b in running.device.memory["lores"])
            for frame in kept
        ]
        assert shared == [True] * LENT + [False] * (len(kept) - LENT)


def test_frames_may_outlive_the_camera(fake: type[FakePicamera2]) -> None:
    with Running(fake, colour=False) as running:
        frame = running.frame()
    gc.collect()
    assert (frame.image == 1).all()
    del frame
    gc.collect()


def test_frames_the_sensor_made_and_nobody_saw_are_counted(fake: type[FakePicamera2]) -> None:
    with Running(fake, colour=False) as running:
        start = time.monotonic_ns() - 1_000_000_000
        running.device.metadata = [
            {"SensorTimestamp": start + late * 33_333_000, "FrameDuration": 33333}
            for late in (0, 1, 4, 5)
        ]
        assert [running.frame().index for _ in range(4)] == [0, 1, 4, 5]


def test_age_counts_from_the_sensor(fake: type[FakePicamera2]) -> None:
    with Running(fake, colour=False) as running:
        stamp = time.monotonic_ns() - 50_000_000
        running.device.metadata = [{"SensorTimestamp": stamp}]
        assert running.frame().captured_ns == stamp
        before = time.monotonic_ns()
        assert running.frame().captured_ns >= before  # without a timestamp: the arrival


def test_both_clocks_of_a_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = 3_600_000_000_000
    monkeypatch.setattr(
        picamera_module.time, "clock_gettime_ns", lambda _: time.monotonic_ns() + asleep
    )
    now = time.monotonic_ns()
    assert on_monotonic_clock(now - 40_000_000, now) == now - 40_000_000
    # On CLOCK_BOOTTIME; the two clocks are read a moment apart.
    assert on_monotonic_clock(now + asleep - 40_000_000, now) == pytest.approx(
        now - 40_000_000, abs=20_000_000
    )
    for nonsense in (0, now + 5_000_000_000, time.time_ns()):
        assert on_monotonic_clock(nonsense, now) == now


def test_a_late_frame_is_waited_for(fake: type[FakePicamera2]) -> None:
    with Running(fake) as running:
        running.frame()
        running.device.fault = TimeoutError()
        running.device.permits.put(None)  # ends the request under way
        with pytest.raises(FrameTimeout, match=r"for 0[.]3 s: check the ribbon cable"):
            while True:
                running.camera.read(0.3)
        assert running.device.cancelled  # else a request would wait while the camera closes
        running.device.fault = None
        running.frame()
        assert len(fake.opened) == 1


def test_absent_and_busy(fake: type[FakePicamera2]) -> None:
    with pytest.raises(CameraNotFound, match=r"no camera picamera2:1 \(libcamera sees 1\)"):
        open_camera("picamera2:1").__enter__()
    with pytest.raises(UsageError, match="number is 'front'; expected a whole number"):
        open_camera("picamera2:front")
    fake.busy = True
    with pytest.raises(CameraBusy, match=r"did not complete.*close the other program"):
        open_camera("picamera2").__enter__()
    fake.cameras = []
    with pytest.raises(CameraNotFound, match="check the ribbon cable"):
        open_camera("picamera2").__enter__()


def test_a_failed_start_closes_the_camera(
    fake: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FakePicamera2) -> None:
        raise RuntimeError("Failed to start camera")

    monkeypatch.setattr(fake, "start", refuse)
    with pytest.raises(CameraError, match="Failed to start camera"):
        Picamera().__enter__()


def raising(error: Exception) -> Callable[[str], Any]:
    def fail(name: str) -> Any:
        raise error

    return fail


def test_a_slow_import_is_no_hanging_camera(
    fake: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch
) -> None:
    importers = []
    load = picamera_module.importlib.import_module

    def slow(name: str) -> Any:
        importers.append(threading.current_thread())
        return load(name)

    monkeypatch.setattr(picamera_module.importlib, "import_module", slow)
    with Running(fake):
        # Where no time limit runs; later ones only look the module up.
        assert importers[0] is threading.current_thread()


def test_not_installed_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    importlib = picamera_module.importlib
    monkeypatch.setattr(importlib, "import_module", raising(ModuleNotFoundError("No module")))
    with pytest.raises(CameraNotFound, match="sudo apt install python3-picamera2"):
        Picamera().__enter__()
    monkeypatch.setattr(importlib, "import_module", raising(ValueError("numpy.dtype size changed")))
    with pytest.raises(CameraError, match=r"pip install 'numpy<2'"):
        Picamera().__enter__()


def test_usb_cameras_are_left_to_v4l2(fake: type[FakePicamera2]) -> None:
    fake.cameras = [
        *fake.cameras,
        {"Model": "HD Webcam", "Id": "/base/soc/usb@7e980000-1:1.0-046d:0825", "Num": 1},
    ]
    specs = [(camera.spec, camera.model) for camera in list_cameras()]
    assert specs[0] == ("picamera2", "imx708")
    assert "HD Webcam" not in [model for spec, model in specs if spec.startswith("picamera2")]


@pytest.mark.parametrize(
    ("mounting", "flips"),
    [(Mounting(180), (1, 1)), (Mounting(0, True), (1, 0)), (Mounting(180, True), (0, 1))],
)
def test_libcamera_turns_frames_where_it_can(
    fake: type[FakePicamera2],
    monkeypatch: pytest.MonkeyPatch,
    mounting: Mounting,
    flips: tuple[int, int],
) -> None:
    libcamera = types.ModuleType("libcamera")
    libcamera.Transform = lambda hflip, vflip: (hflip, vflip)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    with Running(fake, colour=False, mounting=mounting) as running:
        assert running.device.configuration["transform"] == flips
        running.device.permits.put(None)
        frame = running.camera.read(5)
        assert frame is not None and frame.image.shape == (24, 32)


def test_opencv_does_a_quarter_turn(fake: type[FakePicamera2]) -> None:
    with Running(fake, colour=False, mounting=Mounting(90)) as running:
        assert "transform" not in running.device.configuration
        running.device.permits.put(None)
        frame = running.camera.read(5)
        assert frame is not None and frame.image.shape == (32, 24)
