"""Runs model files on an emulated Arm core, each between two markers that the plugin sees.

``python guest.py MODEL...`` in the emulated process; needs NumPy and ai_edge_litert only.
"""

from __future__ import annotations

import contextlib
import os
import sys

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


if __name__ == "__main__":
    models(sys.argv[1:])
