"""Changes the tensors and operators of a ``.tflite`` file."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from emotion_edge.model import graph
from emotion_edge.model.graph import Operator, Tensor

_DTYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
__all__ = ["WEIGHTED", "Graph", "Operator", "Tensor"]

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
"""Operators with a weight tensor as second input and a bias as third."""


class Graph(graph.Graph):
    """A model's only subgraph, which can be changed and written back."""

    def values(self, index: int) -> NDArray[Any]:
        """A constant's values, a copy in its shape."""
        tensor = self.tensors[index]
        raw = self._model.buffers[self._raw(index).buffer].data
        dtype = _DTYPES[tensor.kind]
        return np.frombuffer(bytes(raw), dtype).reshape(tensor.shape).copy()

    def set_values(self, index: int, values: NDArray[Any]) -> None:
        """Replace a constant; tensors that shared its buffer keep theirs."""
        tensor = self.tensors[index]
        dtype = _DTYPES[tensor.kind]
        buffer = type(self._model.buffers[0])()
        buffer.data = np.frombuffer(
            np.ascontiguousarray(values.reshape(tensor.shape), dtype).tobytes(), np.uint8
        )
        self._model.buffers.append(buffer)
        self._raw(index).buffer = len(self._model.buffers) - 1

    def range(self, index: int) -> tuple[float, float] | None:
        """Smallest and largest value that calibration noted for an activation."""
        quantization = self._raw(index).quantization
        if quantization is None or quantization.min is None or len(quantization.min) == 0:
            return None
        return float(quantization.min[0]), float(quantization.max[0])

    def set_range(self, index: int, low: float, high: float) -> None:
        """Note another range."""
        raw = self._raw(index)
        if raw.quantization is None:
            raw.quantization = flatbuffer_utils.QuantizationParametersT()
        quantization = raw.quantization
        quantization.min = np.array([low], np.float32)
        quantization.max = np.array([high], np.float32)

    def own(self, operator: Operator, place: int) -> int:
        """An input of an operator as a tensor that no other operator reads; a copy if need be."""
        # Read anew: an operator in the caller's hands may be from before an earlier copy.
        index = self.operators[operator.index].inputs[place]
        if len(self.readers(index)) == 1:
            return index
        subgraph = self._model.subgraphs[0]
        subgraph.tensors.append(copy.copy(subgraph.tensors[index]))
        subgraph.tensors[-1].name = self._raw(index).name + f"_{operator.index}".encode()
        raw = subgraph.operators[operator.index]
        raw.inputs = np.array(raw.inputs, np.int32)
        raw.inputs[place] = len(subgraph.tensors) - 1
        self._read()
        return len(subgraph.tensors) - 1

    def start_at(self, index: int, passed: Collection[Operator]) -> None:
        """Make a tensor the graph's input and drop the operators before it."""
        subgraph = self._model.subgraphs[0]
        gone = {operator.index for operator in passed}
        subgraph.operators = [op for at, op in enumerate(subgraph.operators) if at not in gone]
        subgraph.inputs = np.array([index], np.int32)
        # Signatures name the old input; nothing here calls a model by its signature.
        self._model.signatureDefs = None
        self._read()

    def readers(self, index: int) -> list[Operator]:
        """The operators that take a tensor."""
        return [operator for operator in self.operators if index in operator.inputs]

    def attach(self, name: str, data: bytes) -> None:
        """Store bytes in the model's metadata; an earlier entry of that name is replaced."""
        buffer = type(self._model.buffers[0])()
        buffer.data = np.frombuffer(data, np.uint8)
        entries = self._model.metadata or []
        for entry in entries:
            if entry.name == name.encode():
                self._model.buffers[entry.buffer] = buffer
                return
        self._model.buffers.append(buffer)
        entry = flatbuffer_utils.schema_fb.MetadataT()
        entry.name, entry.buffer = name.encode(), len(self._model.buffers) - 1
        self._model.metadata = [*entries, entry]

    def attached(self, name: str) -> bytes | None:
        """What ``attach`` stored; None where there is no such entry."""
        for entry in self._model.metadata or []:
            if entry.name == name.encode():
                return bytes(self._model.buffers[entry.buffer].data)
        return None

    def _raw(self, index: int) -> Any:
        return self._model.subgraphs[0].tensors[index]
