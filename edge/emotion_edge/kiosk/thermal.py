"""Lowers the frame rate when the board is hot, and raises it again when the board has cooled.

The cores of a Raspberry Pi slow down on their own from 80 to 85 degrees Celsius, whatever runs on
them. Processing fewer frames before that keeps each of them fast.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from emotion_edge.errors import UsageError
from emotion_edge.kiosk.board import Condition, read_condition
from emotion_edge.settings import Settings, key
from emotion_edge.values import Event

_THERMAL = {"throttled", "soft temperature limit"}  # throttle bits that heat sets
_SLOWEST_FPS = 0.1  # below this, systemd's watchdog would take the pause for a hang
_WEAK_SUPPLY = "under-voltage"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThermalSettings(Settings):
    """When to lower the frame rate."""

    hot_c: float = key(78.0, "degrees Celsius from which the frame rate steps down.", ge=0, le=150)
    cool_c: float = key(70.0, "degrees Celsius below which it steps up again.", ge=-50, le=150)
    steps_fps: tuple[float, ...] = key(
        (10.0, 5.0, 2.0, 1.0),
        "frame rate limits, step by step; empty: never slow down.",
        ge=_SLOWEST_FPS,
        le=1000,
    )
    check_s: float = key(5.0, "seconds between two readings.", ge=0.1, le=3600)
    settle_s: float = key(
        30.0,
        "shortest time between two steps, in seconds: the temperature follows the work slowly.",
        ge=0,
        le=3600,
    )

    def check(self) -> None:
        """Cool is below hot, and each step is slower than the one before."""
        if not self.cool_c < self.hot_c:
            raise UsageError(
                f"cool_c is {self.cool_c:g} and hot_c is {self.hot_c:g}: cool_c must be lower"
            )
        if any(a <= b for a, b in zip(self.steps_fps, self.steps_fps[1:], strict=False)):
            raise UsageError(f"steps_fps is {list(self.steps_fps)}: use falling numbers")


class ThermalGovernor:
    """Decides from each reading how many frames per second the board may process."""

    def __init__(self, settings: ThermalSettings | None = None) -> None:
        self.settings = settings or ThermalSettings()
        self._step = 0  # 0: full speed; k: steps_fps[k - 1]
        self._stepped_ns: int | None = None
        self._weak = False

    @property
    def max_fps(self) -> float | None:
        """The greatest frame rate; None for no limit."""
        return self.settings.steps_fps[self._step - 1] if self._step else None

    def consider(self, condition: Condition, at_ns: int) -> Event | None:
        """Take a reading and return what changed, if anything did.

        at_ns: monotonic clock. An event's kind is ``thermal.slower``, ``thermal.faster``,
        ``power.weak`` (the supply's voltage fell) or ``power.recovered``.
        """
        now = set(condition.throttling.now) if condition.throttling else set()
        if (_WEAK_SUPPLY in now) != self._weak:
            self._weak = not self._weak
            if self._weak:
                return Event("power.weak", "under-voltage: use a stronger power supply", at_ns)
            return Event("power.recovered", "the power supply's voltage is normal again", at_ns)
        settled = self._stepped_ns is None or (
            at_ns - self._stepped_ns >= self.settings.settle_s * 1e9
        )
        celsius = condition.temperature_c
        hot = bool(now & _THERMAL) or (celsius is not None and celsius >= self.settings.hot_c)
        cool = not now & _THERMAL and celsius is not None and celsius <= self.settings.cool_c
        if settled and hot and self._step < len(self.settings.steps_fps):
            return self._go(self._step + 1, "thermal.slower", condition, at_ns)
        if settled and cool and self._step:
            return self._go(self._step - 1, "thermal.faster", condition, at_ns)
        return None

    def _go(self, step: int, kind: str, condition: Condition, at_ns: int) -> Event:
        self._step, self._stepped_ns = step, at_ns
        celsius = condition.temperature_c
        reading = "throttled" if celsius is None else f"{celsius:.0f} °C"
        rate = "full frame rate" if self.max_fps is None else f"{self.max_fps:g} frames per second"
        return Event(
            kind,
            f"{reading}: {rate}",
            at_ns,
            {"temperature_c": celsius, "max_fps": self.max_fps},
        )


class BoardWatch:
    """Reads the board at intervals in a thread of its own: a reading may take milliseconds."""

    def __init__(self, every_s: float, read: Callable[[], Condition] = read_condition) -> None:
        """every_s: seconds between two readings."""
        self._every_s = every_s
        self._read = read
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._fresh: Condition | None = None
        self._last: Condition | None = None

    def __enter__(self) -> BoardWatch:
        """Start reading."""
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)
        self._thread.start()
        return self

    def take(self) -> Condition | None:
        """The newest reading if it was not taken yet, else None."""
        fresh, self._fresh = self._fresh, None
        return fresh

    def temperature(self) -> float | None:
        """Degrees Celsius at the last reading."""
        return self._last.temperature_c if self._last else None

    def __exit__(self, *error: object) -> None:
        """Stop; a reading that has begun is abandoned."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(0.1)

    def _run(self) -> None:
        while True:
            self._last = self._fresh = self._read()
            if self._stop.wait(self._every_s):
                return
