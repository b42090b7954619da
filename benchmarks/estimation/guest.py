"""Runs model files or a pipeline on an emulated Arm core, between markers that the plugin sees.

In the emulated process; only a pipeline needs more than NumPy and ai_edge_litert::

    python guest.py models MODEL...
    python guest.py pipeline DETECTOR MODEL FRAMES.npy WARM
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

MARK = 0x5EED


def mark(kind: int) -> None:
    """Begin (1), begin with empty caches (2) or end (0) a recorded section."""
    with contextlib.suppress(OSError):  # the kernel refuses the arguments; the plugin has seen them
        os.getpriority(MARK, kind)


def models(paths: list[str]) -> None:
    """One warm and one cold inference of each model, single thread."""
    for path in paths:
        interpreter = Interpreter(model_path=path, num_threads=1)
        interpreter.allocate_tensors()
        (source,) = interpreter.get_input_details()
        rng = np.random.default_rng(0)
        if source["dtype"] == np.float32:
            values = rng.uniform(0, 1, source["shape"]).astype(np.float32)
        else:
            values = rng.integers(-128, 128, source["shape"]).astype(source["dtype"])
        interpreter.set_tensor(source["index"], values)
        interpreter.invoke()
        for kind in (1, 2):
            mark(kind)
            interpreter.invoke()
            mark(0)


def pipeline(detector: str, model: str, frames: str, warm: str) -> None:
    """Frames uint8 (N, height, width, 3) through a tracking pipeline; the stages are recorded.

    The first ``warm`` frames are not. Prints a JSON list: the stage of each recorded section.
    """
    import cv2

    import emotion_edge

    cv2.setNumThreads(1)
    line = emotion_edge.load(model, detector=detector, track=True)
    stages: list[str] = []

    def recorded(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            if line.recording:  # type: ignore[attr-defined]
                mark(1)
            result = call(*arguments)
            if line.recording:  # type: ignore[attr-defined]
                mark(0)
                stages.append(stage)
            return result

        return run

    for stage, owner, name in (
        ("detect", line.detector, "detect"),
        ("classify", line.classifier, "classify"),
        ("track", line.tracker, "update"),
    ):
        setattr(owner, name, recorded(stage, getattr(owner, name)))
    for index, image in enumerate(np.load(frames)):
        line.recording = index >= int(warm)  # type: ignore[attr-defined]
        line.process(emotion_edge.Frame(image, index * 66_666_667, index))
    print(json.dumps(stages))


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    if kind == "models":
        models(arguments)
    else:
        pipeline(*arguments)
