"""Times one interpreter in a separate process: the other end of ``measure.Worker``.

A case has its own process so that its memory is its own, and so that a runtime that needs another
NumPy or Python can run in its own environment. Requests (see ``process``)::

    {"do": "open", "model": PATH, "backend": {"runtime": "litert", "threads": 1, ...},
     "cpus": [0], "seed": 0, "inputs": PATH.npy or null}
    {"do": "run", "count": 20, "discard": 5, "rate": 15.0 or null}

Only the standard library, NumPy and the runtime are imported.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Clock = Callable[[], int]


def time_runs(
    interpreter: Any,
    inputs: list[NDArray[Any]],
    count: int,
    rate: float | None = None,
    clock: Clock = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, list[int]]:
    """Nanoseconds of ``count`` inferences.

    inputs: whole input tensors, taken in turn.
    rate: requests per second; None runs them back to back.
    Returns ``total`` (set_tensor, invoke, get_tensor), ``invoke`` alone and, at a fixed rate,
    ``response``: from the instant the request was due, so that waiting for a slow
    predecessor counts.
    """
    source = interpreter.get_input_details()[0]["index"]
    sink = interpreter.get_output_details()[0]["index"]
    total: list[int] = []
    invoke: list[int] = []
    response: list[int] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        begin = clock()
        for number in range(count):
            due = begin + round(number * 1e9 / rate) if rate else 0
            if rate and (early := due - clock()) > 0:
                sleep(early / 1e9)
            tensor = inputs[number % len(inputs)]
            start = clock()
            interpreter.set_tensor(source, tensor)
            ready = clock()
            interpreter.invoke()
            done = clock()
            interpreter.get_tensor(sink)
            end = clock()
            total.append(end - start)
            invoke.append(done - ready)
            if rate:
                response.append(end - due)
    finally:
        if collecting:
            gc.enable()
    return {"total": total, "invoke": invoke, "response": response}


class Session:
    """The interpreter of this process and its inputs."""

    def __init__(self) -> None:
        self.interpreter: Any = None
        self.inputs: list[NDArray[Any]] = []

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Import the runtime, load the model, infer once: nanoseconds of each, and versions."""
        if request["cpus"]:
            os.sched_setaffinity(0, request["cpus"])
        model = Path(request["model"]).read_bytes()
        start = time.perf_counter_ns()
        runtimes = _runtimes()
        backend = runtimes.Backend(**request["backend"])
        runtimes.import_runtime(backend.runtime)
        imported = time.perf_counter_ns()
        self.interpreter = runtimes.open_interpreter(model, backend)
        loaded = time.perf_counter_ns()
        tensor = self.interpreter.get_input_details()[0]
        given = np.load(request["inputs"]) if request["inputs"] else None
        self.inputs = random_inputs(tensor, request["seed"]) if given is None else list(given)
        first = time_runs(self.interpreter, self.inputs, 1)["total"][0]
        return {
            "import_ns": imported - start,
            "load_ns": loaded - imported,
            "first_ns": first,
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "runtime_version": runtimes.installed().get(backend.runtime, ""),
        }

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Nanoseconds of inferences, as ``time_runs`` gives them."""
        # The first runs after a pause find cold caches and a parked clock.
        time_runs(self.interpreter, self.inputs, request["discard"])
        return time_runs(self.interpreter, self.inputs, request["count"], request["rate"])


def random_inputs(tensor: dict[str, Any], seed: int, count: int = 16) -> list[NDArray[Any]]:
    """Whole input tensors of uniform noise; 0..255 if the tensor is float."""
    rng = np.random.default_rng(seed)
    shape, dtype = tuple(tensor["shape"]), np.dtype(tensor["dtype"])
    if dtype.kind == "f":
        return [rng.uniform(0, 255, shape).astype(dtype) for _ in range(count)]
    limits = np.iinfo(dtype)
    return [
        rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
        for _ in range(count)
    ]


def _runtimes() -> Any:
    """``emotion_edge.model.backend`` without the package's own imports, which need OpenCV."""
    if "emotion_edge" not in sys.modules:
        package = types.ModuleType("emotion_edge")
        package.__path__ = [str(Path(__file__).parents[1])]
        sys.modules["emotion_edge"] = package
    from emotion_edge.model import backend as runtimes

    return runtimes
