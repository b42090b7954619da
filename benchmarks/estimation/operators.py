"""Finds a network's operators in an instruction trace, and prices each of them.

XNNPACK switches denormal numbers off before each of its own operators and back on after it, by a
write to the register FPCR that nothing else in an inference touches. So the trace itself shows
where an operator begins and ends; no marker disturbs it. XNNPACK's operators are matched to the
file's by their order and their multiplications.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.estimation.cycles import Blocks, Cost, cost, multiplications, total
from emotion_edge.model.graph import Graph, Operator

_WRITE_FPCR, _REGISTER = 0xD51B4400, 0x1F  # MSR FPCR, Xt; the register in bits 0 to 4
REST = "runtime, and what XNNPACK does not run"


def calls(section: NDArray[np.uint32], blocks: Blocks) -> list[slice]:
    """XNNPACK's operators in a section, as ranges of its blocks; empty for another runtime."""
    writes = np.zeros(max(blocks.words) + 1, np.int64)
    for number, code in blocks.words.items():
        writes[number] = sum((word & ~_REGISTER) == _WRITE_FPCR for word in code)
    places = np.repeat(np.arange(len(section)), writes[section]).tolist()
    if len(places) % 2:
        return []
    return [slice(a, b + 1) for a, b in zip(places[::2], places[1::2], strict=True)]


def matched(graph: Graph, macs: Sequence[float]) -> list[str]:
    """The name of the file's operator for each of XNNPACK's.

    macs: multiply-accumulates of each of XNNPACK's operators, those on padding included. An
    operator with multiplications takes the next call that has enough of them. The calls between
    two of these belong to the operators between them: one each, and another for a fused activation
    (XNNPACK runs the ReLU of an ADD on its own). If that does not add up, such as for a RESHAPE
    that moves nothing, the calls of the gap share one name.
    """
    places: dict[int, Operator] = {}
    at = 0
    for operator in graph.operators:
        needed = graph.macs(operator)
        if needed:
            found = next((n for n in range(at, len(macs)) if macs[n] >= 0.95 * needed), None)
            if found is None:
                return [f"call {n}" for n in range(len(macs))]
            places[found] = operator
            at = found + 1
    names = [name_of(places[n]) if n in places else "" for n in range(len(macs))]
    ends = [(-1, -1), *((n, each.index) for n, each in places.items())]
    for (call, index), (next_call, next_index) in zip(
        ends, [*ends[1:], (len(macs), len(graph.operators))], strict=True
    ):
        between = graph.operators[index + 1 : next_index]
        gap = range(call + 1, next_call)
        each_takes = [1 + bool(operator.activation) for operator in between]
        if sum(each_takes) == len(gap):
            shared = [o for o, n in zip(between, each_takes, strict=True) for _ in range(n)]
            for n, operator in zip(gap, shared, strict=True):
                names[n] = name_of(operator)
        else:
            for n in gap:
                names[n] = " and ".join(map(name_of, between)) or f"call {n}"
    return names


def name_of(operator: Operator) -> str:
    """Number and kind, such as ``4 CONV_2D``."""
    return f"{operator.index} {operator.name}"


def priced(
    graph: Graph, section: NDArray[np.uint32], blocks: Blocks, assembly: Mapping[int, str], cpu: str
) -> tuple[list[dict[str, Any]], Cost | None]:
    """Cycles of each operator, in order, and of the rest; and their sum. Nothing for ncnn.

    Keys: ``operator``, ``shape`` of the output, ``macs`` of the operator, ``instructions``,
    ``cycles`` and ``kernel``, the kind with most cycles.
    """
    found = calls(section, blocks)
    if not found:
        return [], None
    each = np.zeros(max(blocks.words) + 1)
    for number in np.unique(section).tolist():
        each[number] = sum(multiplications(assembly[word]) for word in blocks.words[number])
    names = matched(graph, [float(each[section[part]].sum()) for part in found])
    rest = np.delete(section, np.r_[*found])
    parts = [*(section[part] for part in found), rest]
    costs = [cost(part, blocks, assembly, cpu) for part in parts]
    known = {name_of(operator): operator for operator in graph.operators}
    rows: dict[str, dict[str, Any]] = {}
    for name, taken in zip([*names, REST], costs, strict=True):
        operator = known.get(name)
        row = rows.setdefault(
            name,
            {
                "operator": name,
                "shape": list(graph.tensors[operator.outputs[0]].shape) if operator else [],
                "macs": graph.macs(operator) if operator else 0,
                "instructions": 0,
                "cycles": 0,
                "kernel": next(iter(taken.kernels), "other"),
            },
        )
        row["instructions"] += taken.instructions
        row["cycles"] += round(taken.cycles)
    return list(rows.values()), total(costs)
