"""Runs a configuration: camera, pipeline and sinks, with recovery from what fails.

::

    SupervisedCamera ──Frame──> Pipeline ──Observation──> Sinks, each in its own thread
            │                                               ^
            └── lost, recovered ─────── Event ──────────────┤
    BoardWatch ── hot: fewer frames ─── Event ──────────────┘
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from emotion_edge.cameras import Camera, find_camera, open_camera, v4l2
from emotion_edge.cameras.supervised import SupervisedCamera
from emotion_edge.detectors import open_detector
from emotion_edge.detectors.scheduled import ScheduledDetector
from emotion_edge.errors import CameraNotFound, FrameTimeout, UsageError
from emotion_edge.factory import load
from emotion_edge.files import printable
from emotion_edge.kiosk.board import Condition, read_condition
from emotion_edge.kiosk.configuration import Config
from emotion_edge.kiosk.control import Control
from emotion_edge.kiosk.drift import Drift
from emotion_edge.kiosk.state import state_folder
from emotion_edge.kiosk.thermal import BoardWatch, ThermalGovernor
from emotion_edge.kiosk.visits import End, Visits
from emotion_edge.kiosk.watchdog import Watchdog
from emotion_edge.model.manifest import Manifest
from emotion_edge.pipeline import Pipeline
from emotion_edge.sinks import Sink, open_sinks
from emotion_edge.values import VISIT, Event

READ_S = 1.0
"""Longest wait for a frame, in seconds, before the loop checks events, watchdog and time limit."""

_PAUSED_S = 0.25  # between two looks at whether a pause has ended
_CLOSE_S = 1.7  # for the camera, which closes while the sinks do: below the two seconds promised


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a run.

    frames: processed. skipped: delivered by the camera and not processed, since a newer one came.
    faces: the sum over all frames. seconds: from the first frame to the last.
    damaged: frames or images that could not be decoded. truncated: whether the file was cut off.
    troubles: for each sink of the configuration the error it ended with, or an empty string.
    stuck: whether the camera's driver did not close in time.
    """

    frames: int
    skipped: int
    faces: int
    seconds: float
    troubles: tuple[str, ...]
    stuck: bool
    damaged: int = 0
    truncated: bool = False

    def __str__(self) -> str:
        rate = f" ({self.frames / self.seconds:.1f} per second)" if self.seconds else ""
        skipped = f", {self.skipped} skipped for newer ones" if self.skipped else ""
        damaged = f", {self.damaged} damaged and omitted" if self.damaged else ""
        cut = ", and the file is cut off" if self.truncated else ""
        return f"{self.frames} frame{'s' * (self.frames != 1)}{rate}{skipped}{damaged}{cut}"


class Service:
    """One run of a configuration; tests replace the parts that touch hardware."""

    def __init__(
        self,
        config: Config,
        *,
        stop: threading.Event | None = None,
        camera: Callable[[], Camera] | None = None,
        pipeline: Pipeline | None = None,
        condition: Callable[[], Condition] = read_condition,
        watchdog: Watchdog | None = None,
        control: Control | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Load the model and the detector; no camera and no output is opened yet.

        stop: once set, the run ends within two seconds, with all sinks flushed.
        camera: makes a camera for each opening; by default the configured one.
        condition: reads the board's temperature and throttle state.
        control: says whether the camera is to be closed.
        tell: receives each line meant for the user; by default it goes to standard error.

        Raises ModelError, DetectorError or UsageError.
        """
        self._config = config
        self._stop = stop or threading.Event()
        self._events: deque[Event] = deque()  # a camera may report from its own thread
        self._pipeline = pipeline or open_pipeline(config)
        self._condition = condition
        self._watchdog = watchdog or Watchdog()
        self._control = control or Control()
        self._tell = tell or to_stderr
        self._thermal = ThermalGovernor(config.thermal)
        self._camera = SupervisedCamera(
            camera or self._open_camera,
            self._events.append,
            stop=self._stop,
            wait_at_start=config.camera.wait,
            frozen_after_s=config.camera.frozen_s,
            identical_after_s=config.camera.identical_s or math.inf,
            give_up_after_s=config.camera.give_up_s or math.inf,
            backoff_limit_s=config.camera.retry_s,
        )
        self.opened = False
        """Whether the camera and all outputs could be opened."""
        self._damaged, self._truncated = 0, False
        self._visits: Visits | None = None
        if config.visits is not None:
            if self._pipeline.tracker is None:
                raise UsageError(
                    "visits need a camera or a video, and the source is a folder of images: "
                    "omit [visits]"
                )
            self._visits = Visits(config.visits, config.tracker)
        self._drift: Drift | None = None
        if config.drift is not None:
            self._drift = Drift(
                config.drift,
                state_folder(config.state_dir),
                self._pipeline.classifier.labels,
                _identity(self._pipeline, config),
                tell=self._tell,
            )
        self._silent = not any(sink.prints for sink in config.sinks)
        if camera is None and config.camera.wait:
            self._check_source()

    def run(self) -> Summary:
        """Run until the source ends, a limit is reached, a window is closed or ``stop`` is set.

        Raises CameraError when the camera cannot be opened or does not come back, SinkError when a
        required sink fails, OutputExists when an output file exists.
        """
        config = self._config
        manifest = getattr(self._pipeline.classifier, "manifest", None)
        with BoardWatch(config.thermal.check_s, self._condition) as board:
            closing: threading.Thread | None = None
            deadline = math.inf
            try:
                if self._control.paused:
                    self._camera.pause()
                else:
                    self._camera.__enter__()
                sinks = open_sinks(
                    config.sinks,
                    labels=self._pipeline.classifier.labels,
                    live=self._camera.live,
                    fps=self._camera.fps,
                    aggregate=config.aggregate,
                    on_event=self._on_sink_event,
                    temperature=board.temperature,
                    prior=manifest.prior if manifest is not None else (),
                    about=self._about(manifest),
                    visits=config.visits is not None,
                    commands=self._control,
                    ignored_keys=len(config.ignored),
                    faces=config.faces,
                    drift=self._drift.figures if self._drift is not None else None,
                    zones=config.zones,
                    set_zones=self._control.set_zones,
                )
                with sinks, self._drift or nullcontext():
                    self.opened = True
                    self._watchdog.ready("paused" if self._control.paused else "running")
                    self._events.extend(
                        Event("config.ignored", f"{line} (ignored)", time.monotonic_ns())
                        for line in config.ignored
                    )
                    try:
                        counts = self._loop(sinks, board)
                    finally:
                        self._watchdog.stopping()
                        # In its own thread while the sinks flush: a driver may hang.
                        closing = self._close_camera()
                        deadline = time.monotonic() + _CLOSE_S
                        self._end_visits("stopped")
                        self._drain(sinks)
            finally:
                closing = closing or self._close_camera()
                closing.join(max(0.1, min(_CLOSE_S, deadline - time.monotonic())))
        troubles = tuple(state.failing for state in sinks.states())
        return Summary(
            *counts,
            troubles=troubles,
            stuck=closing.is_alive(),
            damaged=self._damaged,
            truncated=self._truncated,
        )

    def _loop(self, sinks: Sink, board: BoardWatch) -> tuple[int, int, int, float]:
        """Process each frame; returns frames, skipped, faces and seconds."""
        config, pipeline = self._config, self._pipeline
        frames = skipped = faces = 0
        paused = False
        begun = last = started = time.monotonic()
        while not (self._stop.is_set() or sinks.finished):
            now = time.monotonic()
            left = config.seconds - (now - started) if config.seconds else math.inf
            if left <= 0 or (config.frames and frames >= config.frames):
                break
            self._check_board(board, sinks)
            if paused != self._control.paused:
                paused = not paused
                self._pause() if paused else self._resume()
            if paused:
                self._drain(sinks)
                self._watchdog.alive("paused")
                self._stop.wait(min(_PAUSED_S, left))
                continue
            if self._thermal.max_fps and frames:
                due = last + 1 / self._thermal.max_fps
                if now < due:
                    self._stop.wait(min(due - now, left, READ_S))
                    continue
            try:
                frame = self._camera.read(min(READ_S, left))
            except FrameTimeout:
                # The loop itself works: the camera is slow, or is being opened again.
                if self._visits is not None:
                    self._events.extend(self._visits.expire(time.monotonic_ns()))
                self._watchdog.alive("waiting for the camera")
                continue
            finally:
                self._drain(sinks)
            if frame is None:
                break
            last = time.monotonic()
            if not frames:
                begun = last
            observation = pipeline.process(frame)
            sinks.write(observation)
            if self._drift is not None:
                self._drift.add(observation)
            if self._visits is not None:
                self._events.extend(self._visits.update(observation))
            self._watchdog.alive("running")
            frames += 1
            if self._camera.live:  # a file skips what is damaged, which its events report
                skipped += observation.skipped
            faces += len(observation.faces)
        return frames, skipped, faces, last - begun

    def _check_board(self, board: BoardWatch, sinks: Sink) -> None:
        condition = board.take()
        if condition is not None:
            event = self._thermal.consider(condition, time.monotonic_ns())
            if event is not None:
                self._events.append(event)
                self._drain(sinks)

    def _drain(self, sinks: Sink) -> None:
        """Pass on what the camera and the board reported, in the loop's own thread."""
        while self._events:
            event = self._events.popleft()
            if event.kind in ("camera.damaged", "camera.skipped"):
                self._damaged += int(event.details.get("frames", 1))
            self._truncated = self._truncated or event.kind == "camera.truncated"
            if self._silent and event.kind != VISIT:  # no labels in the system's journal
                self._tell(event.message)
            sinks.event(event)

    def _on_sink_event(self, event: Event) -> None:
        """Print the message unless a console sink does."""
        self._silent = self._silent or event.kind == "sink.closed"
        if self._silent:
            self._tell(event.message)

    def _pause(self) -> None:
        """Close the camera, and report whether its device is free."""
        self._end_visits("paused")
        self._camera.pause()
        held = v4l2.held()
        message = "the camera is closed on request"
        if held:
            message = (
                f"paused, but {' and '.join(held)} is still open: its driver hangs; restart the "
                "service to release it"
            )
        self._events.append(
            Event("camera.paused", message, time.monotonic_ns(), {"held": list(held)})
        )

    def _resume(self) -> None:
        self._camera.resume()
        self._events.append(
            Event("camera.resumed", "resumed: the camera is being opened", time.monotonic_ns())
        )

    def _end_visits(self, why: End) -> None:
        if self._visits is not None:
            self._events.extend(self._visits.close(why))

    def _check_source(self) -> None:
        """Report a source that nothing has: it would be waited for as an unplugged camera is."""
        try:
            find_camera(self._config.camera.source, self._config.cameras)
        except CameraNotFound as error:
            self._tell(f"{error}; waiting for it (camera.wait)")

    def _open_camera(self) -> Camera:
        camera = self._config.camera
        colour = any(sink.pixels for sink in self._config.sinks)
        return open_camera(
            camera.source,
            width=camera.width,
            height=camera.height,
            fps=camera.fps or None,
            colour=colour or self._pipeline.classifier.colour,
            paced=camera.paced,
            on_event=self._events.append,
            stop=self._stop,
            rotate=camera.rotate,
            flip=camera.flip,
            tables=self._config.cameras,
        )

    def _about(self, manifest: Manifest | None) -> dict[str, str]:
        facts = {"site": self._config.site}
        if manifest is None:
            return facts | {"model": self._config.model}
        return facts | {
            "model": manifest.name,
            "model_sha256": manifest.model_sha256[:12],
            "convention": manifest.convention,
        }

    def _close_camera(self) -> threading.Thread:
        thread = threading.Thread(
            target=self._camera.__exit__, args=(None, None, None), name="close", daemon=True
        )
        thread.start()
        return thread


def open_pipeline(config: Config) -> Pipeline:
    """The pipeline of a configuration. Raises what ``factory.load`` and ``open_detector`` raise."""
    try:
        stream = find_camera(config.camera.source, config.cameras).stream
    except CameraNotFound:
        stream = True  # a path that appears later, or an error when the camera is opened
    detector = open_detector(config.detector, scheduled=stream, tables=config.detectors)
    if config.faces != "show" and isinstance(detector, ScheduledDetector):
        detector.search_every_frame()
    return load(
        config.model,
        detector=detector,
        track=config.tracker if stream else False,
        backend=config.backend,
        precision=config.precision,
        unsure_below=config.tracker.unsure_below,
        zones=config.zones,
    )


def _identity(pipeline: Pipeline, config: Config) -> str:
    """What tells one model's answers from another's."""
    manifest = getattr(pipeline.classifier, "manifest", None)
    return config.model if manifest is None else str(manifest.model_sha256[:16])


def to_stderr(line: str) -> None:
    """Print one line for the user, also when a name or another library's error has several."""
    print(f"emotion-edge: {printable(line)}", file=sys.stderr, flush=True)
