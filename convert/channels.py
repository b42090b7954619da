"""Rewrites the channels of a float graph's activations, so that int8 loses less of them.

:func:`equalise` brings the channels of a tensor to like ranges and costs nothing on the device.
:func:`double` computes chosen channels twice, rounded half a step apart, and costs time there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convert.flatbuffer import WEIGHTED, Graph, Operator
from convert.ranges import Observations

PASSING = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD", "RELU")
"""What a positive factor on a channel goes through unchanged."""

ELEMENTWISE = ("RELU6", "LEAKY_RELU", "HARD_SWISH", "ELU", "GELU")
"""What else treats every channel alike: two copies stay two copies.

Not TANH and LOGISTIC: their int8 steps are fixed, and not those of the calibrated range.
"""

LARGEST_FACTOR = 16.0
"""Of equalisation; more than 4 bits would be taken from noise."""


@dataclass(slots=True)
class Group:
    """Activations with the same channels, and the weighted operators around them.

    carriers: depthwise convolutions inside, when they link what they read and write.
    macs: multiply-accumulates of all these operators.
    """

    tensors: set[int]
    writers: list[Operator]
    readers: list[Operator]
    carriers: list[Operator]
    channels: int
    macs: int = 0


def equalise(model: bytes, seen: Observations, *, with_weights: bool = True) -> bytes:
    """The same float function with the channels of each activation in like ranges.

    Nagel et al. 2019, Data-Free Quantization through Weight Equalization and Bias Correction,
    section 4.1. Activations that poolings, paddings and additions link are one group: they share a
    factor per channel, which the operators that write the group multiply and those that read it
    divide.
    with_weights: balance the activation's range with that of the weights that read it,
    ``sqrt(weights / activation)``, unless those are depthwise, whose weights are quantised channel
    by channel. Otherwise the activation alone decides: where it loses more than the weights do, as
    in separable convolutions, that is nearer to float.
    """
    graph = Graph(model)
    for group in groups(graph):
        inside = [seen[tensor] for tensor in group.tensors if tensor in seen]
        widths = [
            np.maximum(np.abs(activation.low), np.abs(activation.high)).astype(np.float64)
            for activation in inside
        ]
        if not widths or any(len(width) != group.channels or width.max() <= 0 for width in widths):
            continue
        relative = [
            np.where(width > 1e-6 * width.max(), width / width.max(), 1.0) for width in widths
        ]
        width = np.exp(np.mean(np.log(relative), axis=0))
        wanted = 1 / width
        dense = [operator for operator in group.readers if operator.name != "DEPTHWISE_CONV_2D"]
        if with_weights and dense:
            reading = np.max(
                [
                    np.abs(graph.values(operator.inputs[1])).reshape(-1, group.channels).max(axis=0)
                    for operator in dense
                ],
                axis=0,
            )
            wanted = np.sqrt(np.maximum(reading, 1e-9) / width)
        factor = wanted / (wanted * width).max()
        factor = np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
        for operator in group.writers:
            _scale_outputs(graph, operator, factor)
        for operator in group.readers:
            weights = graph.values(graph.operators[operator.index].inputs[1])
            graph.set_values(graph.own(graph.operators[operator.index], 1), weights / factor)
    return graph.to_bytes()


def double(calibrated: bytes, chosen: Collection[Group]) -> bytes:
    """Nearly the same float function, with every channel of some groups computed twice.

    calibrated: a float FlatBuffer with a range for each activation, in whose steps int8 will round.
    chosen: of ``groups(Graph(calibrated), doubling=True)``.

    The biases of the two copies differ by about half a step, so their mean is rounded in half
    steps: int8 with the resolution of a ninth bit, for the multiply-accumulates of twice the
    channels.
    The operators that read them take half of each. Their weights are rounded a half step apart too,
    with alternating sign, so that the two differences do not multiply up to a shift of the mean.
    (Splitting a channel into two that round to its exact sum is from Zhao et al. 2019, Improving
    Neural Network Quantization without Retraining using Outlier Channel Splitting, section 3.3;
    there it narrows the range, here it divides the step.) Behind a ReLU the copies differ by up to
    an eighth of a step from float, near zero.
    """
    graph = Graph(calibrated)
    for group in chosen:
        shifts = _shifts(graph, group)
        for operator in group.writers:
            _repeat(graph, graph.own(operator, 1), axis=0)
            _shift_biases(graph, operator, shifts[operator.outputs[0]])
        for operator in group.carriers:
            weights = graph.own(operator, 1)
            total = graph.values(weights).sum(axis=(0, 1, 2), dtype=np.float64)
            _repeat(graph, weights, axis=-1)
            passed = shifts[operator.inputs[0]] * total
            _shift_biases(graph, operator, shifts[operator.outputs[0]] - passed)
        for operator in graph.operators:
            if operator.name == "RESHAPE" and operator.outputs[0] in group.tensors:
                _flatten_twice(graph, operator)
        for tensor in group.tensors:
            shape = graph.tensors[tensor].shape
            graph.set_shape(tensor, (*shape[:-1], 2 * shape[-1]))
        for operator in group.readers:
            _read_both(graph, operator, group.channels)
    return graph.to_bytes()


def groups(graph: Graph, *, doubling: bool = False) -> list[Group]:
    """The groups whose channels may be changed, from input to output.

    doubling: those of ``double``, where depthwise convolutions, any elementwise function and a
    flattening are inside a group. Otherwise those of ``equalise``, where a factor has to pass.
    """
    links: dict[int, int] = {}

    def group_of(tensor: int) -> int:
        while links.setdefault(tensor, tensor) != tensor:
            tensor = links[tensor]
        return tensor

    fixed = {*graph.inputs, *graph.outputs}
    for operator in graph.operators:
        out, *_ = operator.outputs
        taken = [tensor for tensor in operator.inputs if tensor >= 0]
        if not doubling and operator.activation not in ("", "RELU"):
            fixed |= {*operator.outputs}
        if operator.name in WEIGHTED:
            if not _readable(graph, operator):
                fixed |= {taken[0], out}
            elif doubling and operator.name == "DEPTHWISE_CONV_2D":
                links[group_of(taken[0])] = group_of(out)
        else:
            linked = _linked(graph, operator, doubling)
            for tensor in linked:
                links[group_of(tensor)] = group_of(out)
            if not linked:
                fixed |= {*taken, *operator.outputs}
    found: dict[int, Group] = {}
    for operator in graph.operators:
        if operator.name not in WEIGHTED:
            continue
        for tensor, written in ((operator.outputs[0], True), (operator.inputs[0], False)):
            made = Group(set(), [], [], [], graph.tensors[tensor].shape[-1])
            group = found.setdefault(group_of(tensor), made)
            if doubling and operator.name == "DEPTHWISE_CONV_2D":
                if written:
                    group.carriers.append(operator)
            else:
                (group.writers if written else group.readers).append(operator)
    for tensor in {*links, *fixed}:
        if group_of(tensor) in found:
            found[group_of(tensor)].tensors.add(tensor)
    kept = [
        group
        for group in found.values()
        if group.writers
        and group.readers
        and not group.tensors & fixed
        and not any(graph.tensors[tensor].constant for tensor in group.tensors)
    ]
    for group in kept:
        around = (*group.writers, *group.carriers, *group.readers)
        group.macs = sum(graph.macs(operator) for operator in around)
    return kept


def _readable(graph: Graph, operator: Operator) -> bool:
    """Whether weights and bias are constants, one channel of weights for each of the input."""
    source, weights, *bias = (i for i in operator.inputs if i >= 0)
    channels = graph.tensors[source].shape[-1]
    return graph.tensors[weights].shape[-1] == channels and all(
        graph.tensors[i].constant for i in (weights, *bias)
    )


def _linked(graph: Graph, operator: Operator, doubling: bool) -> list[int]:
    """The inputs whose channels are those of the output."""
    taken = [tensor for tensor in operator.inputs if tensor >= 0]
    first, made = (graph.tensors[i].shape for i in (taken[0], operator.outputs[0]))
    if not doubling and operator.activation not in ("", "RELU"):
        return []
    if operator.name == "ADD":
        return taken if all(graph.tensors[i].shape == made for i in taken) else []
    if operator.name == "MEAN":
        axes = graph.tensors[operator.inputs[1]]
        over = graph.values(axes.index).reshape(-1).tolist() if axes.constant else [-1]
        return taken[:1] if len(first) - 1 not in over and -1 not in over else []
    if doubling and operator.name == "RESHAPE":
        flattens = len(made) == 2 and len(taken) == 2 and graph.tensors[taken[1]].constant
        return taken[:1] if flattens and first[0] == made[0] else []
    if operator.name in PASSING or (doubling and operator.name in ELEMENTWISE):
        return taken[:1] if first[-1] == made[-1] else []
    return []


def _scale_outputs(graph: Graph, operator: Operator, factor: NDArray[np.float64]) -> None:
    operator = graph.operators[operator.index]
    weights = graph.values(operator.inputs[1])
    if operator.name == "DEPTHWISE_CONV_2D":
        scaled = weights * factor
    else:
        scaled = weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
    graph.set_values(graph.own(operator, 1), scaled)
    operator = graph.operators[operator.index]
    if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
        bias = graph.values(operator.inputs[2]) * factor
        graph.set_values(graph.own(operator, 2), bias)


def _shifts(graph: Graph, group: Group) -> dict[int, float]:
    """For each tensor of a group, what its first copy is less and its second copy more.

    Every convolution of the group chooses its own shift. An addition has the sum of its inputs', so
    they are chosen together: each in turn such that the mean of the copies is nearest to float in
    all tensors that it reaches. For one tensor alone that is a quarter of its step.
    """
    sources = [operator.outputs[0] for operator in (*group.writers, *group.carriers)]
    reached = {source: {source} for source in sources}
    for operator in graph.operators:
        out = operator.outputs[0]
        if out in group.tensors and out not in reached:
            reached[out] = set().union(*(reached[i] for i in operator.inputs if i in reached))
    step = {tensor: _step(graph, tensor) for tensor in group.tensors}
    shift = {source: step[source] / 4 for source in sources}

    def total(tensor: int) -> float:
        return sum(shift[source] for source in reached[tensor])

    def error(tensor: int) -> float:
        """Mean square of the copies' mean, up to a factor; each alone has ``step**2``."""
        if step[tensor] <= 0:
            return 0.0
        apart = 2 * total(tensor) / step[tensor] % 1
        # The two errors are uniform over a step, and correlated by how far apart they are.
        return step[tensor] ** 2 * (1 - 3 * apart + 3 * apart**2)

    for _ in range(3):
        for source in sources:
            behind = [tensor for tensor in group.tensors if source in reached[tensor]]
            tried = {}
            for share in np.arange(1, 9) / 8:
                shift[source] = float(share * step[source] / 2)
                tried[shift[source]] = sum(error(tensor) for tensor in behind)
            shift[source] = min(tried, key=lambda found: tried[found])
    return {tensor: total(tensor) for tensor in group.tensors}


def _step(graph: Graph, tensor: int) -> float:
    """Of int8 over a tensor's range."""
    low, high = graph.range(tensor) or (0.0, 0.0)
    return (high - low) / 255


def _repeat(graph: Graph, tensor: int, axis: int) -> None:
    values = graph.values(tensor)
    graph.replace(tensor, np.concatenate([values, values], axis=axis))


def _shift_biases(graph: Graph, operator: Operator, shift: NDArray[np.float64] | float) -> None:
    """The first copy's biases less a shift, the second copy's plus it."""
    index = graph.bias(operator)
    bias = graph.values(index).ravel()
    graph.replace(index, np.concatenate([bias - shift, bias + shift]))


def _flatten_twice(graph: Graph, operator: Operator) -> None:
    index = graph.own(operator, 1)
    batch, values = graph.values(index)
    graph.set_values(index, np.array([batch, values if values < 0 else 2 * values]))
    options = graph.options(operator)
    if options is not None and options.newShape is not None and len(options.newShape):
        options.newShape = [int(batch), int(values if values < 0 else 2 * values)]


def _read_both(graph: Graph, operator: Operator, channels: int) -> None:
    """Half of the weights for each copy, rounded half a step apart."""
    index = graph.own(operator, 1)
    weights = graph.values(index)
    half = weights.reshape(len(weights), -1, channels) / 2
    step = np.abs(half).max(axis=(1, 2), keepdims=True) / 127
    apart = step / 4 * (-1.0) ** np.arange(channels)
    both = np.concatenate([half + apart, half - apart], axis=-1)
    graph.replace(index, both.reshape(*weights.shape[:-1], 2 * weights.shape[-1]))
