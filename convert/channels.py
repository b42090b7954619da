"""Brings the channels of a float graph's activations to like ranges, so that int8 loses less."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convert.flatbuffer import WEIGHTED, Graph, Operator
from convert.ranges import Observations

PASSING = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD", "RELU")
"""What a positive factor on a channel goes through unchanged."""

LARGEST_FACTOR = 16.0
"""More than 4 bits would be taken from noise."""


@dataclass(slots=True)
class Group:
    """Activations that share a factor per channel, and the weighted operators around them."""

    tensors: set[int]
    writers: list[Operator]
    readers: list[Operator]
    channels: int


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


def groups(graph: Graph) -> list[Group]:
    """The groups whose channels may be scaled, from input to output."""
    links: dict[int, int] = {}

    def group_of(tensor: int) -> int:
        while links.setdefault(tensor, tensor) != tensor:
            tensor = links[tensor]
        return tensor

    fixed = {*graph.inputs, *graph.outputs}
    for operator in graph.operators:
        out, *_ = operator.outputs
        taken = [tensor for tensor in operator.inputs if tensor >= 0]
        if operator.activation not in ("", "RELU"):
            fixed |= {*operator.outputs}
        if operator.name in WEIGHTED:
            source, weights = taken[:2]
            channels = graph.tensors[source].shape[-1]
            readable = graph.tensors[weights].constant and (
                graph.tensors[weights].shape[-1] == channels
            )
            if not readable:  # such as weights behind a reshape, or several filters a channel
                fixed |= {source, out}
        else:
            linked = _linked(graph, operator)
            for tensor in linked:
                links[group_of(tensor)] = group_of(out)
            if not linked:
                fixed |= {*taken, *operator.outputs}
    found: dict[int, Group] = {}
    for operator in graph.operators:
        if operator.name not in WEIGHTED:
            continue
        for tensor, written in ((operator.outputs[0], True), (operator.inputs[0], False)):
            made = Group(set(), [], [], graph.tensors[tensor].shape[-1])
            group = found.setdefault(group_of(tensor), made)
            (group.writers if written else group.readers).append(operator)
    for tensor in {*links, *fixed}:
        if group_of(tensor) in found:
            found[group_of(tensor)].tensors.add(tensor)
    return [
        group
        for group in found.values()
        if group.writers
        and group.readers
        and not group.tensors & fixed
        and not any(graph.tensors[tensor].constant for tensor in group.tensors)
    ]


def _linked(graph: Graph, operator: Operator) -> list[int]:
    """The inputs of an operator without weights that have the channels of its output."""
    taken = [tensor for tensor in operator.inputs if tensor >= 0]
    if not taken or operator.activation not in ("", "RELU"):
        return []
    first, made = (graph.tensors[i].shape for i in (taken[0], operator.outputs[0]))
    if operator.name == "ADD":
        return taken if all(graph.tensors[i].shape == made for i in taken) else []
    if operator.name == "MEAN":
        axes = graph.tensors[operator.inputs[1]]
        over = graph.values(axes.index).reshape(-1).tolist() if axes.constant else [-1]
        return taken[:1] if len(first) - 1 not in over and -1 not in over else []
    return taken[:1] if operator.name in PASSING and first[-1] == made[-1] else []


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
