"""``emotion-edge site-check``: two minutes in front of the camera, and what to change there."""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emotion_edge.cameras import open_camera
from emotion_edge.commands.status import SERVICE_CONFIG
from emotion_edge.errors import (
    CameraBusy,
    CameraError,
    CameraLost,
    FrameTimeout,
    OutputExists,
    UsageError,
)
from emotion_edge.files import write_whole
from emotion_edge.kiosk import site_check
from emotion_edge.kiosk.configuration import Config, load_config
from emotion_edge.kiosk.service import open_pipeline
from emotion_edge.kiosk.site_check import Trial
from emotion_edge.model import certainty
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.model.manifest import Manifest
from emotion_edge.pipeline import Pipeline
from emotion_edge.values import Frame

HELP = "check a place: agreement with what people show, light, size and angle of faces"

_SETTLE_S = 1.5
"""After a request, a person needs this long to show it; the frames until then do not count."""
_LOOK_BACK_S = 2.0
"""What an observer types is about the frames of the last two seconds."""
_PRECISION = 0.95


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add = parser.add_argument
    add("--config", metavar="FILE", help="the kiosk's configuration, by default the service's")
    add("--camera", metavar="SOURCE", help="another camera than the configuration's")
    add("--seconds", type=float, default=120, metavar="S", help="how long it takes; 120")
    add("--hold", type=float, default=5, metavar="S", help="seconds per expression; 5")
    add(
        "--observer",
        action="store_true",
        help="an observer types what people show, one label or its first letters per line",
    )
    add("--script", metavar="FILE", help="an observer's lines, each 'SECONDS LABEL', for tests")
    add("--out", default="site-check", metavar="NAME", help="writes NAME.md and NAME.json")
    add("--overwrite", action="store_true", help="replace an earlier report")


def run(options: argparse.Namespace) -> int:
    """Write the report; 0 when the check was complete, 130 when interrupted, 3 without a camera."""
    if not (0 < options.seconds < math.inf and _SETTLE_S < options.hold < math.inf):
        raise UsageError(
            f"--seconds {options.seconds:g} --hold {options.hold:g}: use more than 0 seconds, and "
            f"more than {_SETTLE_S:g} per expression"
        )
    files = [Path(f"{options.out}.{end}") for end in ("md", "json")]
    for file in files:
        if file.exists() and not options.overwrite:
            raise OutputExists(file)
    path = options.config or (str(SERVICE_CONFIG) if SERVICE_CONFIG.is_file() else None)
    config = load_config(path) if path else Config()
    lines = _script(Path(options.script)) if options.script else None
    pipeline = open_pipeline(config)
    labels = pipeline.classifier.labels
    observer = options.observer or lines is not None
    source = options.camera or config.camera.source
    print(
        f"{options.seconds:g} seconds. No image is kept. "
        + (
            f"Type what the person shows: {', '.join(labels)}, or the first letters."
            if observer
            else "Show what is asked for, as you would to another person. Ctrl-C ends it."
        ),
        flush=True,
    )
    trials: list[Trial] = []
    status = 0
    trouble: CameraError | None = None
    started = time.monotonic()
    try:
        with _interruptible():
            frames = _frames(config, source, pipeline, options.seconds)
            started = time.monotonic()
            if observer:
                typed = lines if lines is not None else _typed(sys.stdin.fileno())
                _observe(frames, pipeline, trials, typed)
            else:
                _ask(frames, pipeline, trials, labels, options.hold)
    except KeyboardInterrupt:
        status = 130
    except CameraError as error:
        status, trouble = error.exit_code, error
        if not trials:
            raise
    lasted = time.monotonic() - started
    manifest = getattr(pipeline.classifier, "manifest", None)
    complete = status == 0 and (observer or lasted >= options.seconds * 0.99)
    found = site_check.report(
        trials,
        unsure_below=_threshold(config, manifest),
        precision=config.precision or _PRECISION,
        input_side=manifest.input.height if manifest else 48,
        smallest_face=config.zones.smallest_face,
        planned_s=options.seconds,
        lasted_s=max(lasted, options.seconds) if complete else min(lasted, options.seconds - 0.1),
        about={
            "site": config.site,
            "time": time.strftime("%Y-%m-%d %H:%M"),
            "camera": source,
            "model": manifest.name if manifest else config.model,
            "detector": config.detector,
            "how": "an observer typed" if observer else "people were asked",
            "ended by": str(trouble or ""),
        },
    )
    text = site_check.markdown(found)
    write_whole(files[0], text)
    write_whole(files[1], json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    print(f"\n{text}\nwritten: {files[0]}, {files[1]}")
    if trouble is not None:
        print(f"emotion-edge: the check is partial: {trouble}", file=sys.stderr)
    elif status:
        print("emotion-edge: the check is partial: interrupted", file=sys.stderr)
    return status


def _threshold(config: Config, manifest: Manifest | None) -> float:
    given = config.tracker.unsure_below
    if manifest is None:
        return given or 0.0
    return certainty.unsure_below(manifest, given, config.precision)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the check as Ctrl-C does, with a partial report."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _frames(config: Config, source: str, pipeline: Pipeline, seconds: float) -> Iterator[Frame]:
    """Frames for so many seconds from the first one. Raises CameraError."""
    camera = config.camera
    opened = open_camera(
        source,
        width=camera.width,
        height=camera.height,
        fps=camera.fps or None,
        colour=pipeline.classifier.colour,
        paced=True,
        rotate=camera.rotate,
        flip=camera.flip,
        tables=config.cameras,
    )
    try:
        with opened:
            end = 0.0
            silent_since = time.monotonic()
            while not end or time.monotonic() < end:
                try:
                    frame = opened.read(0.5)
                except FrameTimeout:
                    if time.monotonic() - silent_since > 20:
                        raise CameraLost(f"{source}: no frame for 20 s") from None
                    continue
                if frame is None:
                    return
                silent_since = time.monotonic()
                end = end or silent_since + seconds
                yield frame
    except CameraBusy as error:
        raise CameraBusy(
            f"{error}; a kiosk's service holds its camera: sudo systemctl stop emotion-edge"
        ) from error


def _ask(
    frames: Iterator[Frame],
    pipeline: Pipeline,
    trials: list[Trial],
    labels: tuple[str, ...],
    hold_s: float,
) -> None:
    """Ask for one expression after the other; what is shown meanwhile is a trial's."""
    asked_at = -hold_s
    number = 0
    for frame in frames:
        now = time.monotonic()
        if now - asked_at >= hold_s:
            truth = labels[number % len(labels)]
            number += 1
            asked_at = now
            trials.append(Trial(truth))
            print(f"  please show: {truth}", flush=True)
        seen = site_check.look(pipeline.process(frame))
        if now - asked_at >= _SETTLE_S:
            trials[-1].looks.append(seen)


def _observe(
    frames: Iterator[Frame],
    pipeline: Pipeline,
    trials: list[Trial],
    typed: Callable[[float], list[str]],
) -> None:
    """Add a trial for each line that an observer types, of the frames just before it."""
    labels = pipeline.classifier.labels
    recent: list[tuple[float, site_check.Look]] = []
    started: float | None = None
    for frame in frames:
        now = time.monotonic()
        started = now if started is None else started
        recent.append((now, site_check.look(pipeline.process(frame))))
        recent = [(at, look) for at, look in recent if now - at <= _LOOK_BACK_S]
        typed_now = typed(now - started)
        for line in typed_now:
            try:
                truth = _label(line, labels)
            except UsageError as error:
                print(f"  {error}", flush=True)
                continue
            trials.append(Trial(truth, [look for _, look in recent]))
            print(f"  {truth}: the camera says {trials[-1].answer or 'no face'}", flush=True)
        if typed_now:
            recent = []


def _label(text: str, labels: tuple[str, ...]) -> str:
    """The label that a text begins. Raises UsageError for none or several."""
    found = [label for label in labels if label.startswith(text.strip().lower())]
    if len(found) != 1 or not text.strip():
        raise UsageError(f"{text.strip()!r} is not a label: type one of {', '.join(labels)}")
    return found[0]


def _typed(descriptor: int) -> Callable[[float], list[str]]:
    """Lines as a person types them; the time is ignored."""
    # Not through sys.stdin, whose buffer select() does not see.
    waiting = b""
    ended = False

    def lines(_: float) -> list[str]:
        nonlocal waiting, ended
        while not ended and select.select([descriptor], [], [], 0)[0]:
            data = os.read(descriptor, 4096)
            ended = not data
            waiting += data
        *found, waiting = waiting.split(b"\n")
        return [line.decode(errors="replace") for line in found if line.strip()]

    return lines


def _script(path: Path) -> Callable[[float], list[str]]:
    """Lines of a file, each at its time. Raises UsageError."""
    try:
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        waiting = [(float(at), label) for at, label in rows]
        if not all(math.isfinite(at) for at, _ in waiting):
            raise ValueError("a time is not a finite number")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--script {path}: {error}; each line is 'SECONDS LABEL', such as '3.5 happy'"
        ) from error
    for _, label in waiting:
        _label(label, EMOTIONS)

    def lines(now_s: float) -> list[str]:
        found = [label for at, label in waiting if at <= now_s]
        waiting[:] = [(at, label) for at, label in waiting if at > now_s]
        return found

    return lines
