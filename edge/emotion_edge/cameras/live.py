"""Reads a live camera in a thread that keeps only the newest frame."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from emotion_edge.cameras.events import Listener, report
from emotion_edge.errors import CameraError, CameraLost, FrameTimeout
from emotion_edge.values import Frame, Image

FAILED_READS = 10
"""Reads in a row that may fail before the camera counts as lost: a damaged JPEG is one of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Grab:
    """An image as the driver returned it.

    captured_ns: monotonic clock, as close to the exposure as the driver reports.
    step: frames the driver produced since the last grab, this one included.
    """

    image: Image
    captured_ns: int
    step: int = 1


class Device(Protocol):
    """An opened camera; only the thread that opened it touches it."""

    def grab(self) -> Grab | None:
        """The next image, or None when a read failed. Blocks for about a second at most.

        Raises FrameTimeout when none came in that time; it is then asked again.
        """

    def close(self) -> None:
        """Release the hardware."""


class LiveCamera(ABC):
    """A camera that never shows an old frame: a thread reads it, one slot holds the newest.

    Opening, reading and closing happen in that thread, because a driver may block in any of them
    indefinitely; the caller waits with a time limit and can be stopped. Frames that were not read
    show as gaps in ``Frame.index``.
    """

    live = True
    fps: float = 0.0
    """Frames per second; set when the camera opens, 0 where it does not report it."""
    remedy = "check its cable"
    """What a user can do when frames stop: the end of such errors."""

    def __init__(
        self,
        name: str,
        *,
        on_event: Listener | None = None,
        stop: threading.Event | None = None,
        open_timeout: float = 10.0,
        close_timeout: float = 1.5,
    ) -> None:
        """Nothing is opened yet.

        stop: once set, waits end and ``read`` returns None.
        open_timeout, close_timeout: seconds.
        """
        self.name = name
        self._on_event = on_event
        self._stop = stop
        self._open_timeout = open_timeout
        self._close_timeout = close_timeout
        self._slot: _Slot | None = None
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _open(self) -> Device:
        """Open the hardware. Raises CameraNotFound, CameraBusy or CameraError."""

    def __enter__(self) -> Self:
        """Open. Raises CameraNotFound, CameraBusy or CameraError."""
        slot = self._slot = _Slot(self._stop)
        # A daemon: a driver that hangs must not keep a process alive that has decided to end.
        self._thread = threading.Thread(
            target=self._run, args=(slot,), name=f"camera {self.name}", daemon=True
        )
        self._thread.start()
        with slot.condition:
            answered = slot.wait(lambda: slot.opened or slot.error is not None, self._open_timeout)
            error = slot.error
        if error is not None and not slot.opened:
            self._close()
            raise error
        if not answered and not slot.stopped:
            self._close()
            raise CameraError(
                f"{self.name} did not open within {self._open_timeout:g} s: "
                "unplug it and plug it in again, or restart the computer"
            )
        return self

    def read(self, timeout: float) -> Frame | None:
        """The newest frame that was not read yet; None once ``stop`` is set.

        Raises FrameTimeout when none came in ``timeout`` seconds, CameraLost when none will come.
        """
        slot = self._slot
        if slot is None:
            raise CameraError(f"{self.name} is not open: use it in a with statement")
        with slot.condition:
            slot.wait(lambda: slot.frame is not None or slot.error is not None, timeout)
            if slot.stopped:
                return None
            frame, slot.frame = slot.frame, None
            if frame is not None:
                return frame
            if slot.error is not None:
                raise slot.error
        raise FrameTimeout(f"{self.name} gave no frame for {timeout:g} s", self.remedy)

    def __exit__(self, *error: object) -> None:
        """Close; a driver that does not let go in time is reported and left behind."""
        self._close()

    def _close(self) -> None:
        slot, thread = self._slot, self._thread
        self._slot = self._thread = None
        if slot is None or thread is None:
            return
        slot.closing.set()
        # At the end of a run less patience will do: the process takes the device with it.
        patience = min(1.0, self._close_timeout) if slot.stopped else self._close_timeout
        thread.join(patience)
        if thread.is_alive():
            report(
                self._on_event,
                "camera.stuck",
                f"{self.name} did not close within {patience:g} s: its driver hangs",
            )

    def _run(self, slot: _Slot) -> None:
        device: Device | None = None
        try:
            device = self._open()
            slot.report_opened()
            failed = 0
            while not slot.closing.is_set():
                try:
                    grab = device.grab()
                except FrameTimeout:
                    continue  # the reader decides how long is too long
                if grab is not None:
                    failed = 0
                    slot.put(grab)
                    continue
                failed += 1
                if failed == FAILED_READS:
                    raise CameraLost(
                        f"{self.name} stopped: {failed} reads in a row failed: {self.remedy}"
                    )
                # After an unplug reads fail immediately: do not spin.
                slot.closing.wait(0.02 * failed)
        except CameraError as error:
            slot.fail(error)
        except Exception as error:  # whatever a driver raises ends this camera, not the program
            what = "stopped" if slot.opened else "cannot be opened"
            sort = CameraLost if slot.opened else CameraError
            slot.fail(sort(f"{self.name} {what}: {type(error).__name__}: {error}"))
        finally:
            if device is not None:
                try:
                    device.close()
                except Exception as error:
                    slot.fail(CameraLost(f"{self.name} did not close: {error}"))


class _Slot:
    """What the thread and the caller share: a frame at most."""

    def __init__(self, stop: threading.Event | None) -> None:
        self.condition = threading.Condition()
        self.closing = threading.Event()
        self.opened = False
        self.frame: Frame | None = None
        self.error: CameraError | None = None
        self._stop = stop
        self._index = -1

    @property
    def stopped(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    def wait(self, done: Callable[[], bool], timeout: float) -> bool:
        """Wait, the condition held, until done, stopped or out of time; whether it is done."""
        end = time.monotonic() + timeout
        while not done() and not self.stopped:
            left = end - time.monotonic()
            if left <= 0:
                break
            # An Event set elsewhere does not wake a Condition: look after it ten times a second.
            self.condition.wait(min(left, 60.0 if self._stop is None else 0.1))
        return done()

    def report_opened(self) -> None:
        with self.condition:
            self.opened = True
            self.condition.notify_all()

    def put(self, grab: Grab) -> None:
        with self.condition:
            self._index += grab.step if self._index >= 0 else 1
            self.frame = Frame(grab.image, grab.captured_ns, self._index)
            self.condition.notify_all()

    def fail(self, error: CameraError) -> None:
        with self.condition:
            self.error = self.error or error
            self.condition.notify_all()
