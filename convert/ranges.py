"""Measures the values of each activation and chooses the range that int8 covers.

``TFLiteConverter`` records the smallest and largest value itself, but runs the network in place:
an elementwise operator that overwrites its input leaves one range for both tensors, and too wide a
range costs precision. Here every tensor is preserved while the ranges are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from convert.flatbuffer import Graph
from train import metrics

SAMPLED = 512
"""Values of one activation kept from each image, for the methods that use their distribution."""


BINS = 4096
"""Of values, for the range of least squared error; all values take 50 times longer."""


@dataclass(frozen=True, slots=True)
class Activation:
    """The values of one tensor over the calibration set.

    low, high: per channel (the last axis), ``(channels,)``. sample: some of its values, or all,
    image by image, if an image has no more than ``SAMPLED``.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    sample: NDArray[np.float32]


NARROWEST = 1e-4
"""Least width of a range, as a share of the median width of all activations.

A dead branch has activations of almost zero. Their scale would be so small that its ratio to
others is outside what XNNPACK accepts, and it refuses the file.
"""

Observations = Mapping[int, Activation]
"""By the tensor's index."""


def observe(model: bytes, inputs: Iterable[NDArray[np.float32]], *, seed: int = 0) -> Observations:
    """Run a float model over the calibration set and record every activation.

    inputs: each ``(1, height, width, channels)`` float32, as the graph expects.
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
        i: np.arange(graph.tensors[i].size)
        if graph.tensors[i].size <= SAMPLED
        else random.integers(0, graph.tensors[i].size, SAMPLED)
        for i in watched
    }
    for fed in inputs:
        values = run(fed)
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

    def run(fed: NDArray[Any]) -> Callable[[int], NDArray[Any]]:
        interpreter.set_tensor(at, fed)
        interpreter.invoke()
        tensor: Callable[[int], NDArray[Any]] = interpreter.get_tensor
        return tensor

    return run


def note(
    model: bytes,
    seen: Observations,
    method: str,
    pixels: tuple[float, float] | None,
    *,
    answers: bool = False,
) -> bytes:
    """The model with a range for each activation, chosen by a method of ``METHODS``.

    pixels: the input's range, which is known: each of the 256 values becomes one of int8's.
    answers: whether the range of the logits is that of ``least_divergence``.
    """
    graph = Graph(model)
    logits = logits_of(graph) if answers else -1
    widths = [float(x.high.max() - x.low.min()) for x in seen.values()]
    floor = NARROWEST * float(np.median(widths)) if widths else 0.0
    for i, activation in seen.items():
        low, high = least_divergence(activation) if i == logits else METHODS[method](activation)
        if i in graph.inputs and pixels is not None:
            low, high = pixels
        # Zero has to be exact: padding and ReLU write it.
        low, high = min(low, 0.0), max(high, 0.0)
        graph.set_range(i, low, max(high, low + floor))
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
    values, weights = _binned(activation.sample, low, high)

    def error(low: float, high: float) -> float:
        step = max(high - low, 1e-12) / 255
        held = np.clip(np.rint((values - low) / step), 0, 255) * step + low
        return float((weights * (values - held) ** 2).sum())

    shares = np.linspace(0.4, 1, 31)
    for _ in range(2):
        high = min((share * high for share in shares), key=lambda end: error(low, end))
        low = min((share * low for share in shares), key=lambda end: error(end, high))
    return low, high


def _binned(
    sample: NDArray[np.float32], low: float, high: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean value of each bin between two ends that holds any, and its share of the sample."""
    place = np.rint((sample - low) * ((BINS - 1) / max(high - low, 1e-12))).astype(np.int64)
    counts = np.bincount(place, minlength=BINS)
    sums = np.bincount(place, weights=sample, minlength=BINS)
    held = counts > 0
    return sums[held] / counts[held], counts[held] / len(sample)


def logits_of(graph: Graph) -> int:
    """The tensor with the scores before a final softmax, which may be the output itself."""
    last = graph.operators[-1]
    return last.inputs[0] if last.name == "SOFTMAX" else graph.outputs[0]


def least_divergence(logits: Activation) -> tuple[float, float]:
    """The range of the logits that keeps the probabilities nearest to float's.

    The largest logits belong to sure answers, the smallest to classes that are ruled out. Clipping
    them changes no answer, and the steps of all others become smaller.
    """
    scores = logits.sample.reshape(-1, len(logits.low)).astype(np.float64)
    wanted = metrics.softmax(scores)

    def divergence(low: float, high: float) -> float:
        step = max(high - low, 1e-12) / 255
        zero = np.rint(low / step) * step  # zero is one of the steps
        held = np.clip(np.rint((scores - zero) / step), 0, 255) * step + zero
        found = metrics.softmax(held)
        return float(metrics.kl_divergence(wanted, found, smoothing=1 / 512).mean())

    low, high = smallest_and_largest(logits)
    shares = np.linspace(0.2, 1, 17)
    return min(
        ((first * low, last * high) for first in shares for last in shares),
        key=lambda ends: divergence(*ends),
    )


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
