"""Shows what a ``.tflite`` contains: operators, tensors, cost, manifest, XNNPACK's share."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert import metadata
from convert.errors import ConversionError
from convert.flatbuffer import WEIGHTED, Graph, Operator, Tensor
from emotion_edge.errors import ModelError
from emotion_edge.model import manifest as manifests
from emotion_edge.model.backend import LITERT, open_interpreter
from emotion_edge.model.manifest import Manifest

INTEGERS = ("INT8", "INT32")
"""The only types in a file named int8: int8 values, int32 biases and shapes."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """The contents of a model file.

    xnnpack: positions of the operators that XNNPACK runs; the others run in built-in kernels.
    manifest, metadata: ours and TFLite's; None if the file has none.
    """

    size: int
    operators: tuple[Operator, ...]
    tensors: tuple[Tensor, ...]
    macs: tuple[int, ...]
    xnnpack: frozenset[int]
    manifest: Manifest | None
    metadata: Mapping[str, Any] | None

    @property
    def parameters(self) -> int:
        """Values of weights and biases."""
        found = {
            i
            for operator in self.operators
            if operator.name in WEIGHTED
            for i in operator.inputs[1:]
            if i >= 0
        }
        return sum(self.tensors[i].size for i in found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "bytes": self.size,
            "macs": sum(self.macs),
            "parameters": self.parameters,
            "operators": [
                {
                    **dataclasses.asdict(operator),
                    "macs": macs,
                    "runs_on": "xnnpack" if operator.index in self.xnnpack else "built-in",
                }
                for operator, macs in zip(self.operators, self.macs, strict=True)
            ],
            "tensors": [dataclasses.asdict(tensor) for tensor in self.tensors],
            "manifest": None if self.manifest is None else dataclasses.asdict(self.manifest),
            "metadata": self.metadata,
        }

    def to_text(self) -> str:
        """For a person."""
        lines = [
            f"{self.size:,} bytes, {self.parameters:,} parameters, "
            f"{sum(self.macs) / 1e6:.2f} MMAC, {len(self.operators)} operators: "
            f"{len(self.xnnpack)} in XNNPACK, "
            f"{len(self.operators) - len(self.xnnpack)} in built-in kernels",
            "",
            f"{'':>3} {'operator':<20} {'output':<18} {'type':<8} {'scale':>11} {'zero':>5} "
            f"{'weights':<16} {'kMAC':>9}  runs on",
        ]
        for operator, macs in zip(self.operators, self.macs, strict=True):
            out = self.tensors[operator.outputs[0]]
            weights = ""
            if operator.name in WEIGHTED:
                tensor = self.tensors[operator.inputs[1]]
                scales = len(tensor.scales)
                weights = f"{tensor.kind.lower()} " + (
                    f"x{scales} scales" if scales > 1 else "1 scale" if scales else ""
                )
            lines.append(
                f"{operator.index:>3} {operator.name.lower():<20} "
                f"{'x'.join(map(str, out.shape)):<18} {out.kind.lower():<8} "
                f"{f'{out.scales[0]:.6g}' if out.scales else '':>11} "
                f"{out.zero_points[0] if out.zero_points else '':>5} {weights:<16} "
                f"{macs / 1e3:>9,.1f}  "
                f"{'XNNPACK' if operator.index in self.xnnpack else 'built-in'}"
            )
        lines += ["", self.manifest.to_json() if self.manifest else "no manifest"]
        if self.metadata is None:
            lines += ["", "no TFLite metadata"]
        else:
            text = json.dumps(self.metadata, indent=2, ensure_ascii=False)
            lines += ["", f"TFLite metadata ({metadata.NAME}): {text}"]
        return "\n".join(lines)


def inspect(path: str | Path) -> Inspection:
    """Read a file. Raises ModelError if it is not a model, ManifestError for a bad manifest."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror or error}") from error
    model, text = manifests.split(data, str(path))
    graph = Graph(model)
    return Inspection(
        len(data),
        graph.operators,
        graph.tensors,
        tuple(graph.macs(operator) for operator in graph.operators),
        xnnpack_takes(model),
        None if text is None else Manifest.from_json(text),
        metadata.read(model),
    )


def xnnpack_takes(model: bytes) -> frozenset[int]:
    """Positions of the operators that XNNPACK runs on this machine."""
    steps = open_interpreter(model, LITERT)._get_ops_details()
    plain = [step for step in steps if step["op_name"] != "DELEGATE"]
    maker = {int(out): at for at, step in enumerate(plain) for out in step["outputs"]}
    taken: set[int] = set()
    for step in steps:
        if step["op_name"] != "DELEGATE":
            continue
        # A delegate lists only its ends: every operator between them is inside.
        fed = {int(i) for i in step["inputs"]}
        open_ends = [int(i) for i in step["outputs"]]
        while open_ends:
            at = maker.get(open_ends.pop())
            if at is None or at in taken:
                continue
            taken.add(at)
            open_ends += [int(i) for i in plain[at]["inputs"] if int(i) not in fed]
    return frozenset(taken)


def floats(model: bytes) -> list[str]:
    """What is not integer in a FlatBuffer: operators first, then every other tensor."""
    graph = Graph(model)
    strange = {tensor.index for tensor in graph.tensors if tensor.kind not in INTEGERS}
    found = [f"the operator {op.name}" for op in graph.operators if op.custom]
    for operator in graph.operators:
        made = {i for i in operator.outputs if i in strange}
        if made and operator.name not in ("DEQUANTIZE", "QUANTIZE"):
            found.append(f"the operator {operator.name} ({graph.tensors[min(made)].name})")
            strange -= made
    return found + [
        f"the tensor {graph.tensors[i].name} ({graph.tensors[i].kind.lower()})"
        for i in sorted(strange)
    ]


def require_integer(model: bytes, name: str) -> None:
    """Raises ConversionError when a model that will be named int8 has any other type."""
    found = floats(model)
    if found:
        raise ConversionError(
            f"{name} has a layer without an integer form: {found[0]} would stay float in the int8 "
            "file; replace the layer, or use --variant float16"
        )
