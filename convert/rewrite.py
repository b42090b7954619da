"""Rewrites a float graph, without changing its function, into one that int8 represents better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convert.flatbuffer import WEIGHTED, Graph, Operator


def lift_rescaling(model: bytes) -> tuple[bytes, float, float]:
    """Take a leading ``x * scale + offset`` out of a float graph; returns the graph and the two.

    With an offset and zero padding the converter cannot fold the rescaling into the first
    convolution: it would stay as two operators over the whole image, each of which rounds. Outside
    it is free, since int8 has a zero point: the offset is rounded to a whole number of steps, and
    the rest, half a step at most, goes into the first bias.
    Returns scale 1 and offset 0 if there is nothing to lift.
    """
    graph = Graph(model)
    at, scale, offset, passed = _leading_rescaling(graph)
    if not passed or offset == 0 or scale <= 0:
        return model, 1.0, 0.0
    snapped = round(offset / scale) * scale
    shift = offset - snapped
    first = _biased(graph, at)
    if abs(shift) > 1e-6 * scale and first is None:
        return model, 1.0, 0.0
    if first is not None:
        _shift_input(graph, first, shift)
    graph.start_at(at, passed)
    return graph.to_bytes(), scale, snapped


def _leading_rescaling(graph: Graph) -> tuple[int, float, float, list[Operator]]:
    """The tensor after the rescaling, its scale and offset, and its operators."""
    at, scale, offset = graph.inputs[0], 1.0, 0.0
    passed: list[Operator] = []
    while (step := _only_reader(graph, at)) is not None:
        term = _constant_term(graph, step, at)
        if term is None or term.scale.size != 1 or term.offset.size != 1:
            break
        scale, offset = scale * term.scale.item(), offset * term.scale.item() + term.offset.item()
        passed.append(step)
        at = step.outputs[0]
    return at, scale, offset, passed


def _shift_input(graph: Graph, first: Operator, shift: float) -> None:
    """Add to a weighted operator's bias what a shift of its input by ``shift`` would."""
    weights, bias = (graph.values(i) for i in first.inputs[1:3])
    axes = (0, 1, 2) if first.name == "DEPTHWISE_CONV_2D" else tuple(range(1, weights.ndim))
    moved = bias + np.float32(shift) * weights.sum(axis=axes)
    graph.set_values(graph.own(first, 2), moved)


def _biased(graph: Graph, at: int) -> Operator | None:
    """The weighted operator that reads a tensor, if it has a bias; a reshape may be between."""
    reader = _only_reader(graph, at)
    while reader is not None and reader.name == "RESHAPE":
        reader = _only_reader(graph, reader.outputs[0])
    if reader is None or reader.name not in WEIGHTED:
        return None
    has_bias = len(reader.inputs) > 2 and reader.inputs[2] >= 0
    return reader if has_bias else None


def _only_reader(graph: Graph, at: int) -> Operator | None:
    readers = graph.readers(at)
    return readers[0] if len(readers) == 1 else None


@dataclass(frozen=True, slots=True)
class Term:
    """``x * scale + offset`` with constants of one value, or of one for each channel."""

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]


def _constant_term(graph: Graph, operator: Operator, at: int) -> Term | None:
    """The constant by which an operator scales or shifts tensor ``at``; None if it does not."""
    if operator.name not in ("MUL", "ADD", "SUB", "DIV") or operator.activation:
        return None
    first = operator.inputs[0] == at
    if not first and operator.name in ("SUB", "DIV"):
        return None
    other = graph.tensors[operator.inputs[1 if first else 0]]
    if not other.constant or other.kind != "FLOAT32":
        return None
    channels = graph.tensors[at].shape[-1] if graph.tensors[at].shape else 1
    if other.size != 1 and (other.size != channels or other.shape[-1] != channels):
        return None
    value = graph.values(other.index).ravel()
    zero, one = np.zeros_like(value), np.ones_like(value)
    match operator.name:
        case "MUL":
            return Term(value, zero)
        case "DIV":
            return Term(np.reciprocal(value), zero)
        case "ADD":
            return Term(one, value)
    return Term(one, -value)


def affine_to_depthwise(model: bytes) -> bytes:
    """Replace scales and offsets per channel by 1x1 depthwise convolutions, the same function.

    A batch normalisation after an activation cannot be folded into the convolution before it. It
    stays as MUL and ADD, which int8 quantises with one scale for all channels; a depthwise
    convolution has a scale per channel for its weights, an int32 bias, and rounds once.
    """
    graph = Graph(model)
    at = 0
    while at < len(graph.operators):
        chain = _affine_chain(graph, graph.operators[at])
        if chain is not None:
            source, operators, term, activation = chain
            graph.replace_by_depthwise(operators, source, term.scale, term.offset, activation)
        at += 1
    return graph.to_bytes()


def _affine_chain(graph: Graph, first: Operator) -> tuple[int, list[Operator], Term, str] | None:
    """Source tensor, operators, and combined term of a MUL or DIV per channel and what follows."""
    source = next((i for i in first.inputs if i >= 0 and not graph.tensors[i].constant), -1)
    if source < 0 or len(graph.tensors[source].shape) != 4:
        return None
    term = _affine_term(graph, first, source)
    if term is None:
        return None
    channels = graph.tensors[source].shape[-1]
    operators, activation = [first], first.activation
    while not activation:
        reader = _only_reader(graph, operators[-1].outputs[0])
        following = (
            None if reader is None else _affine_term(graph, reader, operators[-1].outputs[0])
        )
        if reader is None or following is None or operators[-1].outputs[0] in graph.outputs:
            break
        term = Term(term.scale * following.scale, term.offset * following.scale + following.offset)
        operators.append(reader)
        activation = reader.activation
    if max(term.scale.size, term.offset.size) == 1 or activation not in ("", "RELU", "RELU6"):
        return None  # one value for all channels: a scale and a zero point express it
    term = Term(
        np.broadcast_to(term.scale, channels).astype(np.float32),
        np.broadcast_to(term.offset, channels).astype(np.float32),
    )
    return source, operators, term, activation


def _affine_term(graph: Graph, operator: Operator, at: int) -> Term | None:
    """As ``_constant_term``, for an operator that may end in an activation."""
    plain = Operator(
        operator.index, operator.name, operator.inputs, operator.outputs, "", operator.custom
    )
    return _constant_term(graph, plain, at)
