"""A ``.tflite`` as tensors and operators that can be read, changed and written back."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from emotion_edge.errors import ModelError

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
_ACTIVATIONS = {0: "", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
"""Operators with a weight tensor as second input and a bias as third."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor.

    kind: ``FLOAT32``, ``INT8`` and so on. constant: whether its values stand in the file.
    scales, zero_points: one of each, or one for each channel; empty where it is not quantised.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    kind: str
    constant: bool
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator; ``activation`` is the one fused into it, empty for none.

    inputs, outputs: indices of tensors; -1 for an input that was left away.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    activation: str
    custom: bool


class _AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Aligns byte vectors to 16 bytes: the schema requires it of buffers.

    flatbuffers' own builder aligns a vector to the size of its elements, here one byte.
    """

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:
        if x.dtype != np.uint8:
            return int(super().CreateNumpyVector(x))
        self.StartVector(1, x.size, 16)
        self.head = self.head - x.size
        self.Bytes[self.head : self.head + x.size] = x.tobytes()
        return int(self.EndVector())


class Graph:
    """The first subgraph of a model; image classifiers have no other."""

    def __init__(self, model: bytes) -> None:
        """Read a FlatBuffer, without an archive behind it. Raises ModelError."""
        try:
            self._model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
            self._read()
        except Exception as error:  # the generated reader raises whatever the bytes provoke
            raise ModelError(f"the model's FlatBuffer is damaged ({error}): copy it again") from (
                error
            )

    def _read(self) -> None:
        graph = self._model.subgraphs[0]
        self.tensors = tuple(self._tensor(i, t) for i, t in enumerate(graph.tensors))
        self.operators = tuple(self._operator(i, o) for i, o in enumerate(graph.operators))
        self.inputs = tuple(int(i) for i in graph.inputs)
        self.outputs = tuple(int(i) for i in graph.outputs)

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
        graph = self._model.subgraphs[0]
        graph.tensors.append(copy.copy(graph.tensors[index]))
        graph.tensors[-1].name = self._raw(index).name + f"_{operator.index}".encode()
        raw = graph.operators[operator.index]
        raw.inputs = np.array(raw.inputs, np.int32)
        raw.inputs[place] = len(graph.tensors) - 1
        self._read()
        return len(graph.tensors) - 1

    def start_at(self, index: int, passed: Collection[Operator]) -> None:
        """Make a tensor the graph's input and drop the operators before it."""
        graph = self._model.subgraphs[0]
        gone = {operator.index for operator in passed}
        graph.operators = [op for at, op in enumerate(graph.operators) if at not in gone]
        graph.inputs = np.array([index], np.int32)
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

    def to_bytes(self) -> bytes:
        """The FlatBuffer with every change made to it."""
        builder = _AlignedBuilder(1024)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def macs(self, operator: Operator) -> int:
        """Multiply-accumulate operations of one inference."""
        shapes = [self.tensors[i].shape if i >= 0 else () for i in operator.inputs]
        made = self.tensors[operator.outputs[0]].size
        match operator.name:
            case "CONV_2D":
                return made * int(np.prod(shapes[1][1:]))
            case "DEPTHWISE_CONV_2D":
                return made * int(np.prod(shapes[1][1:3]))
            case "FULLY_CONNECTED":
                return made * shapes[1][-1]
            case "BATCH_MATMUL":
                return made * shapes[0][-1]
            case "TRANSPOSE_CONV":
                return int(np.prod(shapes[2])) * int(np.prod(shapes[1][:3]))
            case _:
                return 0

    def _raw(self, index: int) -> Any:
        return self._model.subgraphs[0].tensors[index]

    def _tensor(self, index: int, raw: Any) -> Tensor:
        quantization = raw.quantization
        scales = () if quantization is None or quantization.scale is None else quantization.scale
        zeros = () if not len(scales) else quantization.zeroPoint
        data = self._model.buffers[raw.buffer].data
        return Tensor(
            index,
            (raw.name or b"").decode(),
            tuple(int(n) for n in raw.shape) if raw.shape is not None else (),
            flatbuffer_utils.type_to_name(raw.type),
            data is not None and len(data) > 0,
            tuple(float(scale) for scale in scales),
            tuple(int(zero) for zero in (zeros if zeros is not None else ())),
        )

    def _operator(self, index: int, raw: Any) -> Operator:
        code = self._model.operatorCodes[raw.opcodeIndex]
        custom = code.customCode
        fused = getattr(raw.builtinOptions, "fusedActivationFunction", 0)
        return Operator(
            index,
            custom.decode()
            if custom
            else flatbuffer_utils.opcode_to_name(self._model, raw.opcodeIndex) or "?",
            tuple(int(i) for i in raw.inputs) if raw.inputs is not None else (),
            tuple(int(i) for i in raw.outputs) if raw.outputs is not None else (),
            _ACTIVATIONS.get(fused, "?"),
            bool(custom),
        )
