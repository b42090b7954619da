"""What values each activation takes, and the part of them that int8 is to hold.

``TFLiteConverter`` notes the smallest and largest value itself, but while the network runs in
place: an elementwise operator that writes over its input leaves one range for both tensors, and a
range too wide costs precision. So the ranges are taken here, with every tensor preserved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from convert.flatbuffer import WEIGHTED, Graph, Operator

SAMPLED = 512
"""Values of one activation kept from each image, for the methods that look at how they lie."""


@dataclass(frozen=True, slots=True)
class Activation:
    """What one tensor held over the calibration set.

    low, high: per channel (the last axis), ``(channels,)``. sample: some of its values.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    sample: NDArray[np.float32]


Observations = Mapping[int, Activation]
"""By the tensor's index."""


def lift_rescaling(model: bytes) -> tuple[bytes, float, float]:
    """Take a leading ``x * scale + offset`` out of a float graph; returns it beside the rest.

    With an offset and zero padding the converter cannot fold the rescaling into the first
    convolution: it would stay as two operators over the whole picture, each of which rounds.
    Outside, it costs nothing, since int8 has a zero point: the offset is snapped to a whole
    number of steps, and the half step at most that this moves the picture goes into the first
    bias. Scale 1 and offset 0 where there is nothing to lift.
    """
    graph = Graph(model)
    at, scale, offset, passed = graph.inputs[0], 1.0, 0.0, []
    while len(readers := graph.readers(at)) == 1:
        step = readers[0]
        if step.name not in ("MUL", "ADD", "SUB", "DIV") or step.inputs[0] != at or step.activation:
            break
        other = graph.tensors[step.inputs[1]]
        if not other.constant or other.size != 1:
            break
        value = float(graph.values(other.index).ravel()[0])
        if step.name in ("MUL", "DIV"):
            factor = value if step.name == "MUL" else 1 / value
            scale, offset = scale * factor, offset * factor
        else:
            offset += value if step.name == "ADD" else -value
        passed.append(step)
        at = step.outputs[0]
    snapped = round(offset / scale) * scale if scale else 0.0
    shift = offset - snapped
    first = _biased(graph, at)
    if not passed or offset == 0 or scale <= 0 or (abs(shift) > 1e-6 * scale and first is None):
        return model, 1.0, 0.0
    if first is not None:
        weights, bias = (graph.values(i) for i in first.inputs[1:3])
        axes = (0, 1, 2) if first.name == "DEPTHWISE_CONV_2D" else tuple(range(1, weights.ndim))
        moved = bias + np.float32(shift) * weights.sum(axis=axes)
        graph.set_values(graph.own(first, 2), moved)
    graph.start_at(at, passed)
    return graph.to_bytes(), scale, snapped


def observe(
    model: bytes, pictures: Iterable[NDArray[np.float32]], *, seed: int = 0
) -> Observations:
    """Run a float model over the calibration set and watch every activation.

    pictures: each ``(1, height, width, channels)`` float32, as the graph takes it.
    """
    graph = Graph(model)
    watched = [
        i
        for i in (*graph.inputs, *(out for op in graph.operators for out in op.outputs))
        if graph.tensors[i].kind == "FLOAT32"
    ]
    run = preserving(model)
    random = np.random.default_rng(seed)
    low: dict[int, NDArray[Any]] = {}
    high: dict[int, NDArray[Any]] = {}
    samples: dict[int, list[NDArray[Any]]] = {i: [] for i in watched}
    places = {
        i: random.integers(0, graph.tensors[i].size, min(SAMPLED, graph.tensors[i].size))
        for i in watched
    }
    for picture in pictures:
        values = run(picture)
        for i in watched:
            found = values(i)
            channels = found.reshape(-1, found.shape[-1])
            low[i] = np.minimum(low.get(i, np.float32(np.inf)), channels.min(axis=0))
            high[i] = np.maximum(high.get(i, np.float32(-np.inf)), channels.max(axis=0))
            samples[i].append(found.ravel()[places[i]])
    return {i: Activation(low[i], high[i], np.concatenate(samples[i])) for i in watched}


def preserving(model: bytes) -> Callable[[NDArray[Any]], Callable[[int], NDArray[Any]]]:
    """A function that runs the model on an input tensor and gives access to every tensor.

    Built-in kernels: XNNPACK does not show what happens between its ends.
    """
    interpreter = Interpreter(
        model_content=model,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    at = interpreter.get_input_details()[0]["index"]

    def run(picture: NDArray[Any]) -> Callable[[int], NDArray[Any]]:
        interpreter.set_tensor(at, picture)
        interpreter.invoke()
        tensor: Callable[[int], NDArray[Any]] = interpreter.get_tensor
        return tensor

    return run


def note(
    model: bytes, seen: Observations, method: str, pixels: tuple[float, float] | None
) -> bytes:
    """The model with the range of each activation noted by a method of ``METHODS``.

    pixels: the input's range, which is known: each of the 256 values becomes one of int8's.
    """
    graph = Graph(model)
    for i, activation in seen.items():
        low, high = METHODS[method](activation)
        if i in graph.inputs and pixels is not None:
            low, high = pixels
        # Zero has to be exact: padding and ReLU write it.
        graph.set_range(i, min(low, 0.0), max(high, 0.0))
    return graph.to_bytes()


def smallest_and_largest(activation: Activation) -> tuple[float, float]:
    """Everything that was seen, and zero."""
    return min(float(activation.low.min()), 0.0), max(float(activation.high.max()), 0.0)


def least_error(activation: Activation) -> tuple[float, float]:
    """The range with the least squared error, rounding inside against clipping outside.

    Each end is drawn in alone, in steps, as in Nagel et al. 2021 (A White Paper on Neural
    Network Quantization), section 2.3.1 "MSE".
    """
    low, high = smallest_and_largest(activation)
    values = activation.sample.astype(np.float64)

    def error(low: float, high: float) -> float:
        step = max(high - low, 1e-12) / 255
        held = np.clip(np.rint((values - low) / step), 0, 255) * step + low
        return float(((values - held) ** 2).mean())

    shares = np.linspace(0.4, 1, 31)
    for _ in range(2):
        high = min((share * high for share in shares), key=lambda end: error(low, end))
        low = min((share * low for share in shares), key=lambda end: error(end, high))
    return low, high


def _percentile(share: float) -> Callable[[Activation], tuple[float, float]]:
    def method(activation: Activation) -> tuple[float, float]:
        low, high = np.percentile(activation.sample, [100 - share, share])
        return float(low), float(high)

    return method


METHODS: Mapping[str, Callable[[Activation], tuple[float, float]]] = MappingProxyType(
    {
        "min-max": smallest_and_largest,
        "least-error": least_error,
        "percentile-99.99": _percentile(99.99),
        "percentile-99.9": _percentile(99.9),
    }
)
"""Ways to choose the range of an activation, by name."""


def _biased(graph: Graph, at: int) -> Operator | None:
    """The operator whose weights a tensor meets first, if it has a bias too.

    A reshape on the way moves nothing.
    """
    while len(readers := graph.readers(at)) == 1 and readers[0].name == "RESHAPE":
        at = readers[0].outputs[0]
    if len(readers) != 1 or readers[0].name not in WEIGHTED:
        return None
    has_bias = len(readers[0].inputs) > 2 and readers[0].inputs[2] >= 0
    return readers[0] if has_bias else None
