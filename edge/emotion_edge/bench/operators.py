"""Measures where a model's time goes, operator by operator.

LiteRT's Python interface has no operator profiler. The graph is therefore cut after operator 1, 2,
3, ..., each cut is timed, and the differences are the operators' shares. If the runtime fuses
operators across a cut, the later operator carries the cost; a difference below the noise can be
negative.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emotion_edge.bench.worker import random_inputs, time_runs
from emotion_edge.model.backend import Backend, open_interpreter
from emotion_edge.model.graph import Graph, Operator


@dataclass(frozen=True, slots=True)
class Share:
    """An operator's part of a model's time.

    shape: of the operator's first output. macs: its multiply-accumulates.
    ms: the cut after it less the cut before it. total_ms: the cut after it. Both are lower
    quartiles, because disturbances only ever add time.
    """

    operator: Operator
    shape: tuple[int, ...]
    macs: int
    ms: float
    total_ms: float


def macs(flatbuffer: bytes) -> int:
    """Multiply-accumulates of one inference. Raises ModelError."""
    graph = Graph(flatbuffer)
    return sum(graph.macs(operator) for operator in graph.operators)


def is_integer(flatbuffer: bytes) -> bool:
    """Whether the first multiplication runs on 8-bit integers. Raises ModelError."""
    graph = Graph(flatbuffer)
    for operator in graph.operators:
        if graph.macs(operator):
            # Not the weights: of a model with dynamic ranges they alone are int8.
            return graph.tensors[operator.outputs[0]].kind in ("INT8", "UINT8")
    return False


def profile(
    flatbuffer: bytes,
    *,
    backend: Backend | None = None,
    rounds: int = 30,
    runs: int = 10,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Share]:
    """Where a model's time goes; the cuts are timed in turn, in a new random order every round."""
    graph = Graph(flatbuffer)
    progress(f"cutting the graph {len(graph.operators)} times")
    cuts = [open_interpreter(graph.head(n + 1), backend) for n in range(len(graph.operators))]
    inputs = random_inputs(cuts[0].get_input_details()[0], seed)
    times: list[list[int]] = [[] for _ in cuts]
    order = list(range(len(cuts)))
    shuffle = random.Random(seed).shuffle
    for number in range(rounds + 1):
        progress(f"round {number}/{rounds}")
        shuffle(order)
        for index in order:
            time_runs(cuts[index], inputs, 2)
            taken = time_runs(cuts[index], inputs, runs)["total"]
            if number:  # the first round is warm-up
                times[index] += taken
    totals = [float(np.percentile(taken, 25)) / 1e6 for taken in times]
    return [
        Share(
            operator,
            graph.tensors[operator.outputs[0]].shape,
            graph.macs(operator),
            total - before,
            total,
        )
        for operator, before, total in zip(
            graph.operators, [0.0, *totals[:-1]], totals, strict=True
        )
    ]
