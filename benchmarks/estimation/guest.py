"""Runs networks on an emulated Arm core, each inference between two marks that the plugin sees.

``python guest.py FILE...`` in the emulated process. A ``.tflite`` file runs on LiteRT, a ``.param``
file, which is a network without weights, on ncnn.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

MARK = 0x5EED


def mark(kind: int) -> None:
    """Begin (1), begin with empty caches (2) or end (0) a recorded section."""
    with contextlib.suppress(OSError):  # the kernel refuses the arguments; the plugin has seen them
        os.getpriority(MARK, kind)


def litert(path: str) -> Callable[[], object]:
    """An inference of a TFLite file, one thread."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    rng = np.random.default_rng(0)
    if source["dtype"] == np.float32:
        values = rng.uniform(0, 1, source["shape"]).astype(np.float32)
    else:
        values = rng.integers(-128, 128, source["shape"]).astype(source["dtype"])
    interpreter.set_tensor(source["index"], values)
    run: Callable[[], object] = interpreter.invoke
    return run


def ncnn(path: str) -> Callable[[], object]:
    """An inference as ncnn's benchmark runs it, one thread."""
    import ncnn as library  # type: ignore[import-not-found]

    lines = Path(path).read_text().splitlines()
    (shape,) = [line.split()[4:] for line in lines if line.startswith("Input ")]
    image = library.Mat(*(int(word.partition("=")[2]) for word in shape[1:]))
    image.fill(0.01)
    net = library.Net()
    net.opt.num_threads = 1
    net.opt.lightmode = True
    net.load_param(path)
    net.load_model(library.DataReaderFromEmpty())

    def run() -> object:
        extractor = net.create_extractor()
        extractor.input(shape[0], image)
        return extractor.extract("output")

    # The functions of ncnn keep no reference to the network.
    run.net = net  # type: ignore[attr-defined]
    return run


def main(paths: list[str]) -> None:
    """One warm and one cold inference of each network."""
    for path in paths:
        run = ncnn(path) if path.endswith(".param") else litert(path)
        run()
        for kind in (1, 2):
            mark(kind)
            run()
            mark(0)


if __name__ == "__main__":
    main(sys.argv[1:])
