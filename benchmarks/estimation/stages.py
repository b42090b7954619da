"""Prices the whole pipeline, from frame to tracked label, stage by stage, on boards.

The pipeline runs as it does on a device: Python, OpenCV and LiteRT, one face at 640x480, one
thread, over one whole period of the detector's schedule. The code of OpenCV and Python does not
depend on the core, so it is recorded once and priced by LLVM's model of each core.

Such code branches far more than a network's kernels, which llvm-mca does not see: it assumes that
every branch is predicted and every instruction is at hand. So it is priced by a wider range of
factors (``BRANCHING``) than a network.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.estimation import calibration, emulator
from benchmarks.estimation.cycles import (
    EstimateError,
    disassemble,
    read_blocks,
    read_sections,
    simulate,
    stretches,
)

BRANCHING = (1.0, 2.4)
"""What code of Python and OpenCV takes, in units of llvm-mca's cycles. A judgement, not a fit."""
WARM_UP, FRAMES = 12, 30
"""Frames before the recorded ones, and recorded ones: one period of the search of whole frames."""
STAGES = ("detect", "crop", "network", "track")
FPS = 15
_GUEST = Path(__file__).with_name("guest_stages.py")
_RECORDED_ON = "cortex-a72"


def frames() -> NDArray[np.uint8]:
    """Frames ``(n, 480, 640, 3)`` of the demo camera with one face."""
    from emotion_edge.cameras import open_camera

    taken: list[Any] = []
    with open_camera("demo:faces=1", width=640, height=480, paced=False) as camera:
        while len(taken) < WARM_UP + FRAMES:
            frame = camera.read(5.0)
            if frame is None:
                raise EstimateError("the demo camera ended early")
            taken.append(frame.image)
    return np.stack(taken)


def cycles_by_stage(detector: str, model: Path, models: Sequence[str]) -> dict[str, Any]:
    """Instructions and cycles per frame of each stage, by LLVM's models of the cores.

    Raises EstimateError when a tool is missing or no face was found.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "frames.npy", frames())
        done = emulator.emulate(
            [detector, model, folder / "frames.npy", str(WARM_UP)],
            _RECORDED_ON,
            f"blocks={folder / 'blocks'},trace={folder / 'trace'}",
            guest=_GUEST,
        )
        blocks, sections = read_blocks(folder / "blocks"), read_sections(folder / "trace")
    found, *names = done.stdout.split()
    return _priced(int(found), names, sections, blocks, models)


def _priced(
    found: int, names: Sequence[str], sections: Sequence[Any], blocks: Any, models: Sequence[str]
) -> dict[str, Any]:
    if found < FRAMES * 0.9 or len(names) != len(sections):
        raise EstimateError(
            f"{found} faces in {FRAMES} frames, {len(sections)} of {len(names)} marks"
        )
    size = np.zeros(max(blocks.words) + 1, np.int64)
    for number, code in blocks.words.items():
        size[number] = len(code)
    result: dict[str, Any] = {}
    for stage in STAGES:
        parts = [part for name, part in zip(names, sections, strict=True) if name == stage]
        each = [int(np.bincount(part, minlength=len(size)) @ size) for part in parts]
        sampled = stretches(np.concatenate(parts), size)
        words = [[word for block in one.blocks for word in blocks.words[block]] for one in sampled]
        assembly = disassemble({word for one in words for word in one})
        texts = [[assembly[word] for word in one] for one in words]
        # The network has an estimate of its own.
        cycles = {
            model: sum(simulate(texts, model, (1, 2))) / sum(map(len, texts))
            for model in (models if stage != "network" else ())
        }
        result[stage] = {
            "instructions": round(sum(each) / FRAMES),
            "most_instructions": max(each),
            "cycles": {model: round(one * sum(each) / FRAMES) for model, one in cycles.items()},
        }
    return result


def estimate(
    stages: Mapping[str, Any], board: str, network: Mapping[str, float]
) -> list[dict[str, Any]]:
    """A row per stage and one of the whole frame, in ms. network: the estimate with cold caches."""
    core = calibration.boards()[board]
    rows: list[dict[str, Any]] = []
    for stage in STAGES:
        if stage == "network":
            low, high = network["low"], network["high"]
        else:
            ms = stages[stage]["cycles"][core["model"]] / core["clock_ghz"] / 1e6
            low, high = ms * BRANCHING[0], ms * BRANCHING[1]
        rows.append({"stage": stage, "low": low, "high": high})
    low, high = (sum(row[end] for row in rows) for end in ("low", "high"))
    rows.append({"stage": "frame", "low": low, "high": high})
    for row in rows:
        row["ms"] = math.sqrt(row["low"] * row["high"])
    return [
        {key: value if key == "stage" else float(f"{value:.3g}") for key, value in row.items()}
        for row in rows
    ]


NOTES = (
    "Estimates of milliseconds per frame, one thread, one face at 640x480, averaged over a period\n"
    "of the detector's schedule while something moves. fps: of one core that does nothing else.\n"
    "Reading and decoding the camera's frames is not included."
)


def as_row(case: Mapping[str, Any]) -> dict[str, Any]:
    """A board and detector as a row of the table."""
    found = {stage["stage"]: stage for stage in case["stages"]}
    frame = found["frame"]
    return {
        "on": calibration.boards()[case["board"]]["name"],
        "detector": case["detector"],
        **{f"{name} ms": _range(one["low"], one["high"]) for name, one in found.items()},
        "fps": _range(1000 / frame["high"], 1000 / frame["low"]),
        f"% of a core at {FPS} fps": _range(FPS * frame["low"] / 10, FPS * frame["high"] / 10),
    }


def _range(low: float, high: float) -> str:
    """Two numbers, to two digits."""
    return "-".join(f"{float(f'{value:.2g}'):g}" for value in (low, high))
