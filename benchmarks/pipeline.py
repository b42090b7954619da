"""Measures the path from camera to label: time per stage, frame rate, age of a frame.

Two measurements. Unpaced, every setup (detector, frame size, faces in view) processes the same
frames, the setups in turn, a few frames each; frames are read or drawn outside the timed part.
Live, the camera keeps its pace and shows the newest frame: what is skipped is counted, and a
frame's age is taken when its labels are out.

The third part is the emotion stage alone: what ``TFLiteClassifier.classify`` costs above
set_tensor, invoke and get_tensor, without and with a resize, interleaved on one interpreter.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from benchmarks.roofline import bar
from emotion_edge.bench import measure as bench
from emotion_edge.bench.measure import Model
from emotion_edge.bench.report import (
    add_output_arguments,
    check_outputs,
    emit,
    progress_of,
    table,
)
from emotion_edge.bench.worker import time_runs
from emotion_edge.cameras import Camera, open_camera
from emotion_edge.commands.flags import add_backend_arguments, backend
from emotion_edge.detectors import DETECTORS
from emotion_edge.errors import UsageError
from emotion_edge.factory import load
from emotion_edge.model.backend import Backend
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.shipped import DEFAULT, model_path
from emotion_edge.pipeline import Pipeline
from emotion_edge.values import Box, Frame

HELP = "camera to label: stages, percentiles, frames per second, skipped frames, frame age"
TURN = 20  # frames of one setup before the next has its turn
OVERHEAD_MS = 0.040
_STAGES = ("detect", "classify", "track")


@dataclass(slots=True)
class Setup:
    """One row of the table: a detector on a source, and its figures so far.

    width, height, faces: requested from the source; None if the source decides.
    """

    detector: str
    width: int | None
    height: int | None
    faces: int | None
    backend: Backend = field(default_factory=Backend)
    total_ns: list[int] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in _STAGES})
    found: list[int] = field(default_factory=list)

    def camera(self, source: str, *, paced: bool, fps: float | None = None) -> Camera:
        """The source, with this size and number of faces."""
        spec = f"{source}:faces={self.faces}" if self.faces is not None else source
        if self.width is None or self.height is None:
            return open_camera(spec, paced=paced, fps=fps)
        return open_camera(spec, width=self.width, height=self.height, paced=paced, fps=fps)

    def pipeline(self, model: str) -> Pipeline:
        """As ``emotion-edge run`` makes it."""
        return load(model, detector=self.detector, track=True, backend=self.backend)

    def process(self, pipeline: Pipeline, frames: Sequence[Frame]) -> None:
        """Process and time frames that were read before."""
        for frame in frames:
            start = time.perf_counter_ns()
            seen = pipeline.process(frame)
            self.total_ns.append(time.perf_counter_ns() - start)
            self.found.append(len(seen.faces))
            for stage in _STAGES:
                self.stages_ms[stage].append(seen.timings[stage])

    def row(self) -> dict[str, Any]:
        """Durations in ms; stages are means, as shares are."""
        total = bench.summarise(self.total_ns)
        means = {stage: float(np.mean(ms)) for stage, ms in self.stages_ms.items()}
        return {
            "detector": self.detector,
            "size": f"{self.width}x{self.height}" if self.width else "source",
            "faces": self.faces,
            "found": round(float(np.mean(self.found)), 2),
            "frames": total["count"],
            **{f"{stage} ms": round(ms, 3) for stage, ms in means.items()},
            **{f"{s} %": round(100 * means[s] / total["mean"], 1) for s in _STAGES},
            **{name: round(total[name], 2) for name in ("p50", "p95", "p99", "max")},
            "fps": round(1000 / total["mean"], 1),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--source", default="demo", help="as emotion-edge run takes it")
    parser.add_argument("--model", default=DEFAULT)
    add_backend_arguments(parser)
    parser.add_argument(
        "--detectors", default=None, metavar="D,..", help="default: those that are installed"
    )
    parser.add_argument(
        "--sizes", default="320x240,640x480,1280x720", metavar="WxH,..", help="of the demo source"
    )
    parser.add_argument("--faces", default="1,2,5", metavar="N,..", help="of the demo source")
    parser.add_argument("--frames", type=int, default=180, help="of each setup")
    parser.add_argument("--live", type=float, default=5.0, help="seconds each; 0: none")
    parser.add_argument("--fps", type=float, default=30.0, help="of the live source")
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and report."""
    check_outputs(options)
    setups = _setups(options)
    progress = progress_of(options)
    settings = {
        name: getattr(options, name) for name in ("source", "model", "frames", "live", "fps")
    }
    network = backend(options)
    if network != Backend():
        settings["backend"] = network.to_record()
    with bench.document("pipeline", settings) as result:
        measure(setups, options.source, options.model, options.frames, progress)
        result["rows"] = [setup.row() for setup in setups]
        result["live"] = [
            live(setup, options.source, options.model, options.live, options.fps)
            for setup in setups
            if options.live
        ]
        progress("the emotion stage")
        model = Model.read(model_path(options.model))
        result["model"] = bench.describe(model)
        result["stage"] = emotion_stage(model, network)
        value = round(result["stage"]["classify_ms"] - result["stage"]["bare_ms"], 5)
        result["bars"] = [bar("emotion stage above the bare runs, ms", value, "<=", OVERHEAD_MS)]
    progress("")
    notes = [table(result[part]) for part in ("live", "bars") if result[part]]
    emit(options, result, result["rows"], "\n\n".join(notes))
    return 0


def measure(setups: Sequence[Setup], source: str, model: str, frames: int, progress: Any) -> None:
    """Let every setup process ``frames`` frames, in turn."""
    with ExitStack() as stack:
        cameras = [stack.enter_context(s.camera(source, paced=False)) for s in setups]
        pipelines = [setup.pipeline(model) for setup in setups]
        # Warm-up: every setup's code, caches and buffers; the camera's own first frames.
        for camera, pipeline in zip(cameras, pipelines, strict=True):
            for frame in _read(camera, 3):
                pipeline.process(frame)
        for done in range(0, frames, TURN):
            progress(f"frame {done}/{frames} of {len(setups)} setups")
            for setup, camera, pipeline in zip(setups, cameras, pipelines, strict=True):
                setup.process(pipeline, _read(camera, min(TURN, frames - done)))
    if short := [setup for setup in setups if not setup.total_ns]:
        raise UsageError(f"{source} ended before {short[0]} saw a frame: give a longer source")


def live(setup: Setup, source: str, model: str, seconds: float, fps: float) -> dict[str, Any]:
    """The ages of a paced camera's frames, in ms from capture to label."""
    pipeline = setup.pipeline(model)
    ages: list[float] = []
    indices: list[int] = []
    skipped = 0
    with setup.camera(source, paced=True, fps=fps) as camera:
        end = time.monotonic() + seconds
        for seen in pipeline.stream(camera):
            # Paced frames are captured when they are due, those of a file too.
            ages.append((time.monotonic_ns() - seen.frame.captured_ns) / 1e6)
            skipped += seen.skipped if indices else 0
            indices.append(seen.frame.index)
            if time.monotonic() >= end:
                break
    produced = max(1, indices[-1] - indices[0]) if indices else 1
    if not ages:
        raise UsageError(f"{source} delivered no frame: use one that lasts {seconds:g} s")
    summary = bench.summarise(np.array(ages) * 1e6)
    return {
        "detector": setup.detector,
        "size": f"{setup.width}x{setup.height}" if setup.width else "source",
        "faces": setup.faces,
        "asked fps": fps,
        "fps": round(len(ages) / seconds, 1),
        "skipped %": round(100 * skipped / produced, 1),
        **{f"age {name}": round(summary[name], 2) for name in ("p50", "p95", "max")},
    }


def emotion_stage(
    model: Model, backend: Backend | None = None, *, rounds: int = 60, runs: int = 20
) -> dict[str, Any]:
    """Medians in ms of the bare runs, of a face that needs no resize, and of one of 160 px.

    The frame is BGR, as cameras give it.
    """
    if model.manifest is None:
        raise UsageError(f"{model.path} has no manifest: python -m convert attach")
    classifier = TFLiteClassifier(model.flatbuffer, model.manifest, backend)
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    side = model.manifest.input.height
    same, larger = Box(200, 150, side, side), Box(200, 150, 160, 160)
    # The classifier's own interpreter: a second one would keep its weights elsewhere in memory.
    interpreter = classifier.interpreter
    inputs = [classifier.tensor(classifier.crop(frame, same))]
    taken: dict[str, list[int]] = {"bare_ms": [], "classify_ms": [], "classify_160px_ms": []}
    for _ in range(rounds):
        time_runs(interpreter, inputs, 5)
        taken["bare_ms"] += time_runs(interpreter, inputs, runs)["total"]
        for name, box in (("classify_ms", same), ("classify_160px_ms", larger)):
            for _ in range(runs):
                start = time.perf_counter_ns()
                classifier.classify(frame, box)
                taken[name].append(time.perf_counter_ns() - start)
    return {name: round(float(np.median(ns)) / 1e6, 5) for name, ns in taken.items()}


def _setups(options: argparse.Namespace) -> list[Setup]:
    network = backend(options)
    installed = [name for name, kind in DETECTORS.items() if kind.installed()]
    detectors = options.detectors.split(",") if options.detectors else installed
    if options.source != "demo":
        return [Setup(detector, None, None, None, network) for detector in detectors]
    sizes = [_size(text) for text in options.sizes.split(",")]
    faces = [int(text) for text in options.faces.split(",")]
    return [Setup(d, *size, count, network) for d, size, count in product(detectors, sizes, faces)]


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise UsageError(f"size {text!r}; expected WIDTHxHEIGHT, e.g. 640x480")
    return int(width), int(height)


def _read(camera: Camera, count: int) -> list[Frame]:
    frames: list[Frame] = []
    while len(frames) < count and (frame := camera.read(5.0)) is not None:
        frames.append(frame)
    return frames
