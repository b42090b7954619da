"""Changes the tensors and operators of a ``.tflite`` file."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
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
_ACTIVATIONS = ("", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
"""In the order of the schema."""
__all__ = ["WEIGHTED", "Graph", "Operator", "Tensor", "subgraphs"]

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
        """Smallest and largest value that calibration recorded for an activation."""
        quantization = self._raw(index).quantization
        if quantization is None or quantization.min is None or len(quantization.min) == 0:
            return None
        return float(quantization.min[0]), float(quantization.max[0])

    def set_range(self, index: int, low: float, high: float) -> None:
        """Record another range."""
        raw = self._raw(index)
        if raw.quantization is None:
            raw.quantization = flatbuffer_utils.QuantizationParametersT()
        quantization = raw.quantization
        quantization.min = np.array([low], np.float32)
        quantization.max = np.array([high], np.float32)

    def own(self, operator: Operator, place: int) -> int:
        """An input of an operator as a tensor that no other operator reads, copied if necessary."""
        # The caller's operator may be from before an earlier copy.
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

    def replace_by_depthwise(
        self,
        operators: Sequence[Operator],
        source: int,
        scale: NDArray[np.float32],
        offset: NDArray[np.float32],
        activation: str,
    ) -> None:
        """Replace a chain of operators by one 1x1 depthwise convolution.

        operators: the chain, of which the first reads ``source`` and the last writes the result.
        scale, offset: ``(channels,)``. activation: fused, empty for none.
        """
        schema = flatbuffer_utils.schema_fb
        graph = self._model.subgraphs[0]
        options = schema.DepthwiseConv2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideH = options.strideW = options.depthMultiplier = 1
        options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = _ACTIVATIONS.index(activation)
        made = schema.OperatorT()
        made.opcodeIndex = self._opcode(schema.BuiltinOperator.DEPTHWISE_CONV_2D)
        made.builtinOptionsType = schema.BuiltinOptions.DepthwiseConv2DOptions
        made.builtinOptions = options
        out = operators[-1].outputs[0]
        name = self._raw(out).name
        made.inputs = [
            source,
            self._constant(name + b"/scale", scale.reshape(1, 1, 1, -1)),
            self._constant(name + b"/offset", offset),
        ]
        made.outputs = [out]
        gone = {operator.index for operator in operators}
        last = operators[-1].index
        graph.operators = [
            made if at == last else operator
            for at, operator in enumerate(graph.operators)
            if at == last or at not in gone
        ]
        self._read()

    def _constant(self, name: bytes, values: NDArray[np.float32]) -> int:
        """Add a float32 constant; returns its index."""
        schema = flatbuffer_utils.schema_fb
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        tensor = schema.TensorT()
        tensor.name, tensor.type = name, schema.TensorType.FLOAT32
        tensor.shape = list(values.shape)
        tensor.buffer = len(self._model.buffers) - 1
        tensors = self._model.subgraphs[0].tensors
        tensors.append(tensor)
        return len(tensors) - 1

    def _opcode(self, builtin: int) -> int:
        """The index of an operator code, added if the model does not use it yet."""
        for at, code in enumerate(self._model.operatorCodes):
            if code.builtinCode == builtin:
                return at
        code = flatbuffer_utils.schema_fb.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 1
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1

    def options(self, operator: Operator) -> Any:
        """An operator's options, as TFLite's schema names them."""
        return self._model.subgraphs[0].operators[operator.index].builtinOptions

    def readers(self, index: int) -> list[Operator]:
        """The operators that take a tensor."""
        return [operator for operator in self.operators if index in operator.inputs]

    def _raw(self, index: int) -> Any:
        return self._model.subgraphs[0].tensors[index]


def subgraphs(model: bytes) -> int:
    """The number of subgraphs: more than one where the network has a loop or a branch."""
    return int(flatbuffer_utils.schema_fb.Model.GetRootAs(model, 0).SubgraphsLength())
