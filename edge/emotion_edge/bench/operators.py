"""What a model file is made of, operator by operator, and where its time goes.

LiteRT's Python interface has no operator profiler. The graph is therefore cut after operator 1, 2,
3, ..., each cut is timed, and the differences are the operators' shares. What the runtime fuses
across a cut lands on the later operator; a difference below the noise can come out negative.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from emotion_edge.bench.worker import random_inputs, time_runs
from emotion_edge.errors import MissingExtra, ModelError
from emotion_edge.model.backend import Backend, open_interpreter

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_INTEGER_TYPES = (3, 9)  # UINT8 and INT8 of the TFLite schema's TensorType


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a graph.

    name: TFLite's, e.g. ``CONV_2D``. shape: of its first output. macs: multiply-accumulates of
    one inference: convolutions (depthwise and transposed too) and fully connected layers; 0 for
    what multiplies no weights.
    """

    name: str
    shape: tuple[int, ...]
    macs: int


@dataclass(frozen=True, slots=True)
class Share:
    """An operator's part of a model's time.

    ms: the cut after it less the cut before it. total_ms: the cut after it. Both by the lower
    quartile, because disturbances only ever add.
    """

    operator: Operator
    ms: float
    total_ms: float


def operators(flatbuffer: bytes) -> list[Operator]:
    """A model's operators in the order they run. Raises ModelError for more than one subgraph."""
    graph, names = _graph(flatbuffer)
    return [
        Operator(name, _shape(graph.tensors[op.outputs[0]]), _macs(name, op, graph.tensors))
        for name, op in zip(names, graph.operators, strict=True)
    ]


def macs(flatbuffer: bytes) -> int:
    """Multiply-accumulates of one inference."""
    return sum(operator.macs for operator in operators(flatbuffer))


def is_integer(flatbuffer: bytes) -> bool:
    """Whether the multiplications run on integers: the first weighted operator's input is int8."""
    graph, names = _graph(flatbuffer)
    for name, operator in zip(names, graph.operators, strict=True):
        if name in _WEIGHTED:
            return int(graph.tensors[operator.inputs[0]].type) in _INTEGER_TYPES
    return False


def cut(flatbuffer: bytes, count: int) -> bytes:
    """The model of the first ``count`` operators; its output is the last one's."""
    tools = _tools()
    model = tools.read_model_from_bytearray(bytearray(flatbuffer))
    graph = _only(model)
    if not 1 <= count <= len(graph.operators):
        raise ValueError(f"cut after {count} of {len(graph.operators)} operators")
    graph.operators = graph.operators[:count]
    graph.outputs = np.array([graph.operators[-1].outputs[0]], np.int32)
    model.signatureDefs = []
    return bytes(tools.convert_object_to_bytearray(model))


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
    parts = operators(flatbuffer)
    progress(f"cutting the graph {len(parts)} times")
    cuts = [open_interpreter(cut(flatbuffer, n + 1), backend) for n in range(len(parts))]
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
        Share(part, total - before, total)
        for part, before, total in zip(parts, [0.0, *totals[:-1]], totals, strict=True)
    ]


def _graph(flatbuffer: bytes) -> tuple[Any, list[str]]:
    tools = _tools()
    model = tools.read_model_from_bytearray(bytearray(flatbuffer))
    graph = _only(model)
    names = [
        tools.opcode_to_name(model, operator.opcodeIndex) or "CUSTOM"
        for operator in graph.operators
    ]
    return graph, names


def _only(model: Any) -> Any:
    if len(model.subgraphs) != 1:
        raise ModelError(f"the model has {len(model.subgraphs)} subgraphs; expected one")
    return model.subgraphs[0]


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(n) for n in tensor.shape)


def _macs(name: str, operator: Any, tensors: list[Any]) -> int:
    output = prod(_shape(tensors[operator.outputs[0]]))
    if name not in _WEIGHTED:
        return 0
    weights = _shape(tensors[operator.inputs[1]])
    if name == "CONV_2D":  # (out, height, width, in)
        return output * prod(weights[1:])
    if name == "DEPTHWISE_CONV_2D":  # (1, height, width, out)
        return output * weights[1] * weights[2]
    if name == "FULLY_CONNECTED":  # (out, in)
        return output * weights[1]
    # each input value meets every weight of its channel: (out, height, width, in)
    return prod(_shape(tensors[operator.inputs[2]])) * prod(weights[:3])


def _tools() -> Any:
    try:
        from ai_edge_litert.tools import flatbuffer_utils
    except ImportError as error:
        raise MissingExtra("reading a model's operators", "edge", "ai_edge_litert") from error
    return flatbuffer_utils
