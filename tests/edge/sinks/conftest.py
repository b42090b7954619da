from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pytest

from emotion_edge.model.labels import EMOTIONS
from emotion_edge.sinks import Sink
from emotion_edge.values import Box, Emotion, Event, Face, Frame, Observation


def make_face(
    label: str = "happy", p: float = 0.9, track: int | None = 1, box: Box | None = None
) -> Face:
    rest = (1 - p) / (len(EMOTIONS) - 1)
    emotion = Emotion(EMOTIONS, tuple(p if name == label else rest for name in EMOTIONS))
    smoothed = emotion if track is not None else None
    return Face(box or Box(10, 12, 30, 30, 0.8), emotion, label, track, smoothed)


def make_observation(
    index: int = 0,
    faces: tuple[Face, ...] | None = None,
    *,
    at_s: float | None = None,
    size: tuple[int, int] = (64, 48),
    skipped: int = 0,
) -> Observation:
    """A random colour image; ``at_s`` on the monotonic clock, now by default."""
    image = np.random.default_rng(index).integers(0, 256, (size[1], size[0], 3), np.uint8)
    at_ns = time.monotonic_ns() if at_s is None else round(at_s * 1e9)
    timings = {"detect": 6.0, "classify": 0.3, "track": 0.1, "age": 12.0}
    faces = (make_face(),) if faces is None else faces
    return Observation(Frame(image, at_ns, index), faces, timings, skipped)


class Notebook(Sink):
    """A sink that remembers, and does what a test tells it to."""

    name = "notebook"

    def __init__(self, *, name: str = "notebook") -> None:
        self.name = name
        self.calls: list[str] = []
        self.threads: set[str] = set()
        self.taken: list[Observation | Event] = []
        self.before: Callable[[Observation | Event], None] = lambda item: None
        self.on_open: Callable[[], None] = lambda: None
        self.on_close: Callable[[], None] = lambda: None
        self.trouble_now = ""

    @property
    def trouble(self) -> str:
        return self.trouble_now

    @property
    def frames(self) -> list[int]:
        return [item.frame.index for item in self.taken if isinstance(item, Observation)]

    @property
    def kinds(self) -> list[str]:
        return [item.kind for item in self.taken if isinstance(item, Event)]

    def __enter__(self) -> Self:
        self._called("open")
        self.on_open()
        return self

    def write(self, observation: Observation) -> None:
        self._called("write")
        self.before(observation)
        self.taken.append(observation)

    def event(self, event: Event) -> None:
        self._called("event")
        self.before(event)
        self.taken.append(event)

    def __exit__(self, *error: object) -> None:
        self._called("close")
        self.on_close()

    def _called(self, what: str) -> None:
        self.calls.append(what)
        self.threads.add(threading.current_thread().name)


@pytest.fixture
def face() -> Callable[..., Face]:
    return make_face


@pytest.fixture
def observation() -> Callable[..., Observation]:
    return make_observation


@pytest.fixture
def notebook() -> type[Notebook]:
    return Notebook


@pytest.fixture
def event() -> Callable[..., Event]:
    def make(kind: str = "camera.lost", message: str = "gone", **details: Any) -> Event:
        return Event(kind, message, time.monotonic_ns(), details)

    return make


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    def wait(condition: Callable[[], Any], limit_s: float = 30.0) -> Any:
        """Wait for a condition to hold, and return it; fail when it does not within the limit."""
        deadline = time.monotonic() + limit_s
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {limit_s} s"
            time.sleep(0.005)
        return value

    return wait
