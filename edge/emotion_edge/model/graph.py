"""Reads the operators, tensors and cost of a ``.tflite`` file."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from emotion_edge.errors import ModelError, UsageError

_ACTIVATIONS = {0: "", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor.

    kind: ``FLOAT32``, ``INT8`` and so on. constant: whether the file holds its values.
    scales, zero_points: one of each, or one per channel; empty if it is not quantized.
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
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator; ``activation`` is the one fused into it, empty for none.

    name: TFLite's, such as ``CONV_2D``, or the custom operator's own.
    inputs, outputs: indices of tensors; -1 for an input that is omitted.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    activation: str
    custom: bool


class Graph:
    """A model's only subgraph, in the order in which its operators run."""

    def __init__(self, model: bytes) -> None:
        """Read a FlatBuffer.

        model: the bytes of a ``.tflite`` file without the archive behind it.
        Raises ModelError when they are damaged or hold more than one subgraph, UsageError when
        LiteRT's reader is not installed.
        """
        self._tools = tools()
        try:
            self._model: Any = self._tools.read_model_from_bytearray(bytearray(model))
            count = len(self._model.subgraphs)
            if count == 1:
                self._read()
        except Exception as error:  # the generated reader raises anything, depending on the bytes
            raise ModelError(f"the model's FlatBuffer is damaged ({error}): copy it again") from (
                error
            )
        if count != 1:
            raise ModelError(
                f"the model has {count} subgraphs, as LSTM and GRU layers make; expected one: its "
                "operators cannot be listed"
            )

    def macs(self, operator: Operator) -> int:
        """Multiply-accumulate operations of one inference: of convolutions and matrix products."""
        shapes = [self.tensors[i].shape if i >= 0 else () for i in operator.inputs]
        output = self.tensors[operator.outputs[0]].size
        match operator.name:
            case "CONV_2D":  # weights (out, height, width, in)
                return output * prod(shapes[1][1:])
            case "DEPTHWISE_CONV_2D":  # weights (1, height, width, out)
                return output * prod(shapes[1][1:3])
            case "FULLY_CONNECTED":  # weights (out, in)
                return output * shapes[1][-1]
            case "BATCH_MATMUL":
                return output * shapes[0][-1]
            case "TRANSPOSE_CONV":  # each input value meets all of its channel's weights
                return prod(shapes[2]) * prod(shapes[1][:3])
            case _:
                return 0

    def head(self, count: int) -> bytes:
        """The model of the first ``count`` operators; its output is the last one's."""
        if not 1 <= count <= len(self.operators):
            raise ValueError(f"{count} of {len(self.operators)} operators")
        graph = self._model.subgraphs[0]
        kept = graph.operators, graph.outputs, self._model.signatureDefs
        try:
            graph.operators = graph.operators[:count]
            graph.outputs = np.array([graph.operators[-1].outputs[0]], np.int32)
            self._model.signatureDefs = []
            return self.to_bytes()
        finally:
            graph.operators, graph.outputs, self._model.signatureDefs = kept

    def to_bytes(self) -> bytes:
        """The FlatBuffer, with every change made to it."""
        builder = aligned_builder()
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _read(self) -> None:
        graph = self._model.subgraphs[0]
        self.tensors = tuple(self._tensor(i, t) for i, t in enumerate(graph.tensors))
        self.operators = tuple(self._operator(i, o) for i, o in enumerate(graph.operators))
        self.inputs = tuple(int(i) for i in graph.inputs)
        self.outputs = tuple(int(i) for i in graph.outputs)

    def _tensor(self, index: int, raw: Any) -> Tensor:
        quantization = raw.quantization
        scales = () if quantization is None or quantization.scale is None else quantization.scale
        zeros = () if not len(scales) else quantization.zeroPoint
        data = self._model.buffers[raw.buffer].data
        return Tensor(
            index,
            (raw.name or b"").decode(),
            tuple(int(n) for n in raw.shape) if raw.shape is not None else (),
            self._tools.type_to_name(raw.type),
            data is not None and len(data) > 0,
            tuple(float(scale) for scale in scales),
            tuple(int(zero) for zero in (zeros if zeros is not None else ())),
        )

    def _operator(self, index: int, raw: Any) -> Operator:
        custom = self._model.operatorCodes[raw.opcodeIndex].customCode
        name = (
            custom.decode() if custom else self._tools.opcode_to_name(self._model, raw.opcodeIndex)
        )
        fused = getattr(raw.builtinOptions, "fusedActivationFunction", 0)
        return Operator(
            index,
            name or "?",
            tuple(int(i) for i in raw.inputs) if raw.inputs is not None else (),
            tuple(int(i) for i in raw.outputs) if raw.outputs is not None else (),
            _ACTIVATIONS.get(fused, "?"),
            bool(custom),
        )


def aligned_builder() -> Any:
    """A FlatBuffer builder that aligns byte vectors to 16 bytes, as the schema requires of buffers.

    flatbuffers' own builder aligns a vector to the size of its elements, here one byte.
    """
    import flatbuffers  # a dependency of LiteRT's reader

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        def CreateNumpyVector(self, x: Any) -> int:
            if x.dtype != np.uint8:
                return int(super().CreateNumpyVector(x))
            self.StartVector(1, x.size, 16)
            self.head: int = self.head - x.size
            self.Bytes[self.head : self.head + x.size] = x.tobytes()
            return int(self.EndVector())

    return Builder(1024)


def tools() -> Any:
    """LiteRT's ``flatbuffer_utils``. Raises UsageError when it is not installed."""
    try:
        from ai_edge_litert.tools import flatbuffer_utils
    except ImportError as error:
        raise UsageError(
            "reading a model's operators requires LiteRT: pip install ai-edge-litert"
        ) from error
    return flatbuffer_utils
