"""Runs the pipeline over prepared frames on an emulated Arm core, each stage between two marks.

``python guest_stages.py DETECTOR MODEL FRAMES.npy WARM_UP`` in the emulated process. It prints the
name of the stage of every recorded section, in order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from guest import mark  # type: ignore[import-not-found]

from emotion_edge.factory import load
from emotion_edge.values import Frame

FPS = 15


class Stages:
    """Marks the sections of stages, of which the network's lies within another."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.on = False

    def wrap(self, call: Callable[..., Any], name: str, within: str | None = None) -> Any:
        """The call as a section of its own. within: the stage that it interrupts."""

        def marked(*values: Any) -> Any:
            if not self.on:
                return call(*values)
            if within is not None:
                mark(0)
            self.names.append(name)
            mark(1)
            answer = call(*values)
            mark(0)
            if within is not None:
                self.names.append(within)
                mark(1)
            return answer

        return marked


class Marked:
    """An object with one of its methods marked."""

    def __init__(self, inner: Any, method: str, call: Any) -> None:
        self._inner = inner
        setattr(self, method, call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def main(detector: str, model: str, frames: str, warm_up: str) -> None:
    """Process the frames, the first ``warm_up`` of them unrecorded."""
    cv2.setNumThreads(1)
    stages = Stages()
    # Its parts are replaced by marked ones, which their types do not allow.
    pipeline: Any = load(model, detector=detector, track=True)
    inner = pipeline.classifier
    network = inner.interpreter
    inner.interpreter = Marked(network, "invoke", stages.wrap(network.invoke, "network", "crop"))
    pipeline.detector = Marked(
        pipeline.detector, "detect", stages.wrap(pipeline.detector.detect, "detect")
    )
    pipeline.classifier = Marked(inner, "classify", stages.wrap(inner.classify, "crop"))
    pipeline.tracker = Marked(
        pipeline.tracker, "update", stages.wrap(pipeline.tracker.update, "track")
    )
    found = 0
    for index, image in enumerate(np.load(frames)):
        stages.on = index >= int(warm_up)
        seen = pipeline.process(Frame(image, index * 10**9 // FPS, index))
        found += stages.on and len(seen.faces)
    print(found, *stages.names)


if __name__ == "__main__":
    main(*sys.argv[1:])
