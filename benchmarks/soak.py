"""Runs for hours or many frames and checks that memory does not grow and nothing slows down.

A virtual camera delivers frames as fast as they are processed. The detector is a stub that moves
one box around, or a real one; the network and the tracker are the real ones. The first
``--settle`` frames are start-up. After them memory may grow by ``--max-growth`` MB, the numbers of
threads and open descriptors must not change, and the median latency of the last tenth may exceed
that of the first by ``--max-drift``.

A short run (``--frames 30000``, as in CI) finds a leak of 100 bytes per frame; only the long one
finds slower leaks and events that happen once in a hundred thousand frames.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from emotion_edge.cameras import open_camera
from emotion_edge.errors import UsageError
from emotion_edge.factory import load
from emotion_edge.model.shipped import DEFAULT, model_path
from emotion_edge.values import Box, Image

HELP = "memory, threads, descriptors and latency over hours or frames; exit 1 past a limit"
_POINTS = 500  # of the plot and of the document


@dataclass(frozen=True, slots=True)
class Health:
    """This process at one moment. rss: bytes resident."""

    rss: int
    threads: int
    descriptors: int


class MovingBox:
    """A detector that reports one moving face and costs no time."""

    name = "stub"

    def __init__(self) -> None:
        self._frame = 0

    def detect(self, image: Image) -> list[Box]:
        """One box, a pixel further each frame."""
        self._frame += 1
        height, width = image.shape[:2]
        side = min(height, width) // 2
        return [Box(self._frame % (width - side), self._frame % (height - side), side, side, 1.0)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--hours", type=float, help="stop after this time, even before --frames")
    parser.add_argument("--detector", default="stub", help="stub, haar or yunet")
    parser.add_argument(
        "--source",
        help="as emotion-edge run takes it; default: pattern, with a real detector demo:faces=1",
    )
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--settle", type=int, default=10_000, help="frames that are start-up")
    parser.add_argument("--max-growth", type=float, default=2.0, metavar="MB")
    parser.add_argument("--max-drift", type=float, default=0.25, help="share of the median latency")
    parser.add_argument("--plot", type=Path, metavar="STEM", help="write STEM.png and STEM.svg")
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Run, report, judge."""
    check_outputs(options, options.plot)
    if options.frames < 2 * options.settle:
        raise UsageError(
            f"{options.frames} frames; expected at least twice --settle ({options.settle})"
        )
    options.source = options.source or ("pattern" if options.detector == "stub" else "demo:faces=1")
    detector = MovingBox() if options.detector == "stub" else options.detector
    pipeline = load(options.model, detector=detector, track=True)
    settings = {
        name: getattr(options, name)
        for name in ("frames", "hours", "detector", "source", "settle", "max_growth", "max_drift")
    }
    with (
        bench.document("soak", settings) as result,
        open_camera(options.source, width=320, height=240, colour=False, paced=False) as camera,
    ):

        def step() -> int | None:
            frame = camera.read(5.0)
            if frame is None:
                return None
            start = time.perf_counter_ns()
            pipeline.process(frame)
            return time.perf_counter_ns() - start

        limit = options.hours * 3600 if options.hours else None
        watched = soak(step, options.frames, options.settle, limit, progress_of(options))
        result["model"] = bench.describe(Model.read(model_path(options.model)))
        result |= judge(watched, options.max_growth, options.max_drift)
        result["rows"] = [
            {"model": options.model, "detector": options.detector} | result.pop("row")
        ]
        result["course"] = {name: values.tolist() for name, values in watched.items()}
    if options.plot:
        plot(watched, options.plot)
    emit(options, result, result["rows"], table(result["bars"]))
    return 0 if all(one["holds"] for one in result["bars"]) else 1


def soak(
    step: Callable[[], int | None],
    frames: int,
    settle: int,
    seconds: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
    look: Callable[[], Health] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, NDArray[Any]]:
    """Call ``step`` repeatedly; returns one value for each of up to 500 equal stretches.

    step: processes a frame and returns its nanoseconds, None at the end of the source.
    settle: frames before the first stretch. seconds: when to stop at the latest.
    Returns ``frame`` (the stretch's last), ``rss_mb``, ``threads``, ``descriptors`` and the
    latency's ``p50_ms`` and ``p95_ms``. Nothing is appended while it runs: the
    measurement's own memory must not look like a leak.
    """
    look = look or health
    each = max(1, (frames - settle) // _POINTS)
    stretches = (frames - settle) // each
    course = {
        "frame": np.zeros(stretches, np.int64),
        "rss_mb": np.zeros(stretches),
        "threads": np.zeros(stretches, np.int64),
        "descriptors": np.zeros(stretches, np.int64),
        "p50_ms": np.zeros(stretches),
        "p95_ms": np.zeros(stretches),
    }
    taken = np.zeros(each, np.int64)
    end = None if seconds is None else clock() + seconds
    for _ in range(settle):
        if step() is None:
            raise UsageError("the source ended during the start-up frames: use a longer one")
    look(), np.percentile(taken, (50, 95))  # the first call allocates
    filled = 0
    for stretch in range(stretches):
        for number in range(each):
            nanoseconds = step()
            if nanoseconds is None:
                break
            taken[number] = nanoseconds
        if nanoseconds is None or (end is not None and clock() > end):
            break
        seen = look()
        course["frame"][stretch] = settle + (stretch + 1) * each
        course["rss_mb"][stretch] = seen.rss / 1e6
        course["threads"][stretch] = seen.threads
        course["descriptors"][stretch] = seen.descriptors
        course["p50_ms"][stretch], course["p95_ms"][stretch] = np.percentile(taken, (50, 95)) / 1e6
        filled = stretch + 1
        progress(f"frame {course['frame'][stretch]:,}, {course['rss_mb'][stretch]:.1f} MB")
    if filled < 2:
        raise UsageError("the run ended within its first stretch: use more frames or hours")
    return {name: values[:filled].round(4) for name, values in course.items()}


def health() -> Health:
    """Memory, threads and descriptors of this process, from ``/proc``."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Health(
        rss=pages * os.sysconf("SC_PAGE_SIZE"),
        threads=sum(1 for _ in Path("/proc/self/task").iterdir()),
        descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
    )


def judge(course: dict[str, NDArray[Any]], max_growth: float, max_drift: float) -> dict[str, Any]:
    """The limits: growth from the first stretch to the maximum, leaks, drift."""
    tenth = max(1, len(course["frame"]) // 10)
    rss, p50 = course["rss_mb"], course["p50_ms"]
    growth = float(rss.max() - rss[0])
    drift = float(np.median(p50[-tenth:]) / np.median(p50[:tenth]) - 1)
    leaks = {name: int(course[name].max() - course[name][0]) for name in ("threads", "descriptors")}
    bars = [bar("memory growth, MB", round(growth, 2), "<", max_growth)]
    bars += [bar(f"{name} more than at first", more, "<=", 0) for name, more in leaks.items()]
    bars.append(bar("latency drift", round(drift, 3), "<=", max_drift))
    row = {
        "frames": int(course["frame"][-1]),
        "MB at first": round(float(rss[0]), 1),
        "growth MB": round(growth, 2),
        "p50 ms": round(float(np.median(p50)), 3),
        "p95 ms": round(float(np.median(course["p95_ms"])), 3),
        "drift %": round(100 * drift, 1),
        "held": "yes" if all(one["holds"] for one in bars) else "no",
    }
    return {"bars": bars, "row": row}


def plot(course: dict[str, NDArray[Any]], stem: Path) -> None:
    """Memory and latency over the frames."""
    from train import plots

    with plots.figure(7.0, 4.6, rows=2, sharex=True) as (page, (memory, latency)):
        frames = course["frame"] / 1000
        memory.plot(frames, course["rss_mb"], **plots.series(0, markers=False))
        memory.set_ylabel("resident, MB")
        memory.set_ylim(0, 1.15 * course["rss_mb"].max())
        memory.set_title("Soak: memory and latency")
        for index, name in enumerate(("p50_ms", "p95_ms")):
            look = plots.series(index, markers=False)
            latency.plot(frames, course[name], label=name.removesuffix("_ms"), **look)
        latency.set_ylabel("frame, ms")
        latency.set_ylim(bottom=0)
        latency.set_xlabel("frames, thousands")
        latency.legend()
        plots.save(page, stem)
