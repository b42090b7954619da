"""Reopens a live camera that fails."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from emotion_edge.cameras.capture import usable
from emotion_edge.cameras.events import Listener, report
from emotion_edge.errors import CameraBusy, CameraError, CameraLost, CameraNotFound, FrameTimeout
from emotion_edge.values import Frame, Image

if TYPE_CHECKING:
    from emotion_edge.cameras import Camera

SLICE_S = 0.25
"""Longest single wait, so that ``stop`` is seen soon."""


class SupervisedCamera:
    """Reopens a live camera whenever it fails; gives up after a set time without frames.

    ::

                  good frame                      lost, frozen, garbage
        opening ────────────> delivering ─────────────────────────────────┐
           ^  └── absent, busy ──┐                                        │
           │                     v                                        │
           └──── backoff over ── waiting <────────────────────────────────┘
                                    └── give_up_after_s without a good frame ──> CameraLost

    A camera is lost when it reports so. It is frozen when it delivers no frame for
    ``frozen_after_s``, or the same image for ``identical_after_s``. A frame is garbage when it is
    not an image, changes its shape, or has the same value in every pixel. Garbage frames are
    dropped and leave gaps in ``Frame.index``, which keeps counting when the camera is reopened.

    Every transition is an event: ``camera.lost``, ``camera.retry``, ``camera.recovered``,
    ``camera.garbage``, ``camera.gave_up``.

    A source that is not live (a file) is passed through: its end is the end, its error the error.
    """

    def __init__(
        self,
        factory: Callable[[], Camera],
        on_event: Listener | None = None,
        *,
        stop: threading.Event | None = None,
        wait_at_start: bool = False,
        frozen_after_s: float = 5.0,
        identical_after_s: float = 10.0,
        give_up_after_s: float = 60.0,
        backoff_first_s: float = 0.5,
        backoff_limit_s: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """Nothing is opened yet.

        factory: makes a new camera for every opening.
        stop: once set, waits end and ``read`` returns None.
        wait_at_start: whether a camera that is absent or busy at the start is waited for too;
            else entering raises what its opening raised.
        identical_after_s: ``math.inf`` for a camera that may film darkness, where a sensor's
            noise can vanish and every frame be black: this also accepts frames of one value.
        clock: seconds; sleep: takes seconds. Tests replace both.
        """
        self._factory = factory
        self._on_event = on_event
        self._stop = stop or threading.Event()
        self._wait_at_start = wait_at_start
        self._frozen_after = frozen_after_s
        self._identical_after = identical_after_s
        self._give_up_after = give_up_after_s
        self._backoff_first = backoff_first_s
        self._backoff_limit = backoff_limit_s
        self._clock = clock
        self._sleep = sleep or self._stop.wait
        self._camera: Camera | None = None
        self._name = "camera"
        self._live = True
        self._index_base = 0
        self._next_index = 0
        self._lost_at: float | None = None  # when the current trouble began
        self._last_error = ""
        self._sample: bytes | None = None  # of the last good frame, whichever opening it came from
        self._shape: tuple[int, ...] | None = None  # of this opening's frames
        self._garbage_since: float | None = None

    @property
    def name(self) -> str:
        """The camera's own name, ``camera`` before the first opening."""
        return self._name

    @property
    def live(self) -> bool:
        """As the camera's."""
        return self._live

    @property
    def fps(self) -> float:
        """The open camera's; 0 while none is open."""
        return self._camera.fps if self._camera else 0.0

    def __enter__(self) -> Self:
        """Open once. Raises what the camera raises unless ``wait_at_start``."""
        self._begin()
        try:
            self._open()
        except CameraError as error:
            if not self._wait_at_start:
                raise
            self._lose(_reason(error), str(error))
        return self

    def read(self, timeout: float) -> Frame | None:
        """The next good frame; None at the end of a file or once ``stop`` is set.

        timeout: seconds, ``math.inf`` to wait until a frame comes or the camera is given up. An
            opening that has begun is finished, which may take longer.
        Raises FrameTimeout when none came in time and one may still come, CameraLost when the
        camera is given up.
        """
        end = self._clock() + timeout
        while not self._stop.is_set():
            now = self._clock()
            if self._live and now - self._last_good >= self._give_up_after:
                self._give_up(now)
            if self._camera is not None:
                if not self._live:
                    return self._camera.read(timeout)
                frame, ended = self._next(max(0.0, min(SLICE_S, end - now)))
                if frame is not None or ended:
                    return frame
            elif now >= self._retry_at:
                self._try_again()
                continue
            else:
                give_up_at = self._last_good + self._give_up_after
                self._sleep(max(0.0, min(self._retry_at, end, give_up_at) - now))
            if self._clock() >= end and not self._stop.is_set():
                raise FrameTimeout(f"{self._name} gave no good frame for {timeout:g} s")
        return None

    def pause(self) -> None:
        """Close a live camera, or do not open it yet; a file stays where it is.

        Then call ``read`` only after ``resume``.
        """
        if self._camera is None or self._live:
            self._close()
            self._begin()

    def resume(self) -> None:
        """Let the next ``read`` open the camera; one that is absent counts as lost."""
        if self._camera is None:
            self._begin()

    def __exit__(self, *error: object) -> None:
        """Close; safe to call twice, and after a failed open."""
        self._close()

    def _begin(self) -> None:
        now = self._clock()
        self._last_good = self._last_frame = self._recovered_at = self._retry_at = now
        self._delay = self._backoff_first
        self._attempts = 0
        self._lost_at = None
        self._sample = None

    def _open(self) -> None:
        camera = self._factory()
        self._name = camera.name
        try:
            camera.__enter__()
        except BaseException:
            camera.__exit__(None, None, None)
            raise
        self._camera = camera
        self._name = camera.name
        self._live = camera.live
        self._index_base = self._next_index
        self._opened_at = self._clock()
        self._shape = self._garbage_since = None

    def _try_again(self) -> None:
        self._attempts += 1
        try:
            self._open()
        except CameraError as error:
            self._lose(_reason(error), str(error))

    def _next(self, wait: float) -> tuple[Frame | None, bool]:
        """A frame to hand out, if one came in ``wait`` seconds, and whether the source ended."""
        assert self._camera is not None
        try:
            frame = self._camera.read(wait)
        except FrameTimeout as error:
            now = self._clock()
            silent = now - max(self._last_frame, self._opened_at)
            if silent >= self._frozen_after:
                what = f"{self._name} gave no frame for {silent:.1f} s"
                self._lose("frozen", str(FrameTimeout(what, error.remedy)))
            return None, False
        except CameraError as error:
            self._lose("lost", str(error))
            return None, False
        if frame is None:
            return None, True
        self._last_frame = now = self._clock()
        frame = Frame(frame.image, frame.captured_ns, self._index_base + frame.index)
        self._next_index = frame.index + 1
        if fault := self._fault(frame.image):
            self._take_garbage(fault, now)
            return None, False
        self._garbage_since = None
        sample = frame.image[::8].tobytes()
        if sample == self._sample and self._identical_after < math.inf:
            since = max(self._last_good, self._opened_at)
            if now - since >= self._identical_after:
                self._lose("frozen", f"{self._name} shows the same image for {now - since:.1f} s")
            return (frame if self._lost_at is None else None), False
        self._sample = sample
        self._recover(now)
        return frame, False

    def _fault(self, image: Image) -> str:
        """What makes a frame garbage; empty for a good one."""
        if not usable(image):
            return f"a frame is not an image ({getattr(image, 'shape', type(image).__name__)})"
        if self._shape is None:
            self._shape = image.shape
        if image.shape != self._shape:
            return f"a frame has the shape {image.shape} after frames of {self._shape}"
        if self._identical_after < math.inf:
            sample = image[::8]
            if (sample[0, 0] == sample[-1, -1]).all() and (sample == sample[0, 0]).all():
                return "all pixels of a frame have one value"
        return ""

    def _take_garbage(self, fault: str, now: float) -> None:
        if self._garbage_since is None:
            self._garbage_since = now
            report(self._on_event, "camera.garbage", f"{self._name}: {fault}; dropped")
        if now - self._garbage_since >= self._frozen_after:
            self._lose("garbage", f"{self._name}: {fault}, for {self._frozen_after:g} s")

    def _lose(self, reason: str, message: str) -> None:
        """Close, say so, and set the time of the next try."""
        self._close()
        now = self._clock()
        first = self._lost_at is None
        if first:
            self._lost_at = now
            self._attempts = 0
            # A camera that flaps is not worth a fresh start of the backoff.
            if now - self._recovered_at >= self._backoff_limit:
                self._delay = self._backoff_first
        self._retry_at = now + self._delay
        report(
            self._on_event,
            "camera.lost" if first else "camera.retry",
            f"{message} (next try in {self._delay:g} s)",
            reason=reason,
            attempt=self._attempts,
            wait_s=self._delay,
        )
        self._last_error = message
        self._delay = min(2 * self._delay, self._backoff_limit)

    def _recover(self, now: float) -> None:
        self._last_good = now
        if self._lost_at is None:
            return
        away = now - self._lost_at
        self._lost_at = None
        self._recovered_at = now
        report(
            self._on_event,
            "camera.recovered",
            f"{self._name} is back after {away:.1f} s",
            trouble=False,
            away_s=round(away, 3),
            attempts=self._attempts,
        )

    def _give_up(self, now: float) -> None:
        self._close()
        message = (
            f"{self._name} gave no good frame for {now - self._last_good:.0f} s, "
            f"{self._attempts} attempts to reopen it failed"
            + (f" (last: {self._last_error})" if self._last_error else "")
            + ": check the camera, its power and its connection"
        )
        report(self._on_event, "camera.gave_up", message, trouble=False, attempts=self._attempts)
        raise CameraLost(message)

    def _close(self) -> None:
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.__exit__(None, None, None)


def _reason(error: CameraError) -> str:
    if isinstance(error, CameraBusy):
        return "busy"
    return "absent" if isinstance(error, CameraNotFound) else "lost"
