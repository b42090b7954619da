"""Converts a float model to each of TFLite's variants.

Full-integer conversion has two steps, so that the result of the first can be examined and changed:
:class:`Calibrator` makes a float FlatBuffer with a range for each activation, and :func:`quantize`
converts it to int8. They are the stages of ``TFLiteConverter.convert``.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert import isolation, ranges, rewrite
from convert.errors import ConversionError
from convert.float_model import FloatModel
from convert.native_output import suppressed_output
from emotion_edge.values import Image

VARIANTS = {
    "int8": "integers throughout, int8 in and out",
    "mixed": "int8, with some operators left in float32",
    "dynamic": "int8 weights, activations quantised at run time",
    "float16": "half-precision weights, float32 arithmetic",
    "float32": "unchanged",
}
"""What a file's ``variant`` may be, and what it means."""


def inputs(faces: Image, scale: float = 1.0, offset: float = 0.0) -> Iterator[NDArray[np.float32]]:
    """Each face of ``(n, height, width[, 3])`` uint8 as the network's ``(1, h, w, c)`` float32."""
    for face in faces:
        real = face.astype(np.float32) * np.float32(scale) + np.float32(offset)
        yield real.reshape(1, *face.shape[:2], -1)


def float32(model: FloatModel) -> bytes:
    """The model unchanged: the reference that the gate compares with."""
    return _convert(model)


def float16(model: FloatModel) -> bytes:
    """Weights in half precision, everything else float32."""

    def set_up(converter: Any, tf: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    return _convert(model, set_up)


def dynamic(model: FloatModel) -> bytes:
    """Weights in int8, activations quantised while the network runs."""

    def set_up(converter: Any, tf: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]

    return _convert(model, set_up)


def float_graph(model: FloatModel, faces: Image, scale: float, offset: float) -> bytes:
    """The float FlatBuffer as the quantiser expects it, ready for ranges.

    faces: one is enough; the converter's own ranges are replaced (see ``ranges``).
    """

    def set_up(converter: Any, tf: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x] for x in inputs(faces, scale, offset))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter._experimental_calibrate_only = True

    return _convert(model, set_up)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A float FlatBuffer with a range for each activation.

    scale, offset: how a pixel becomes its input; a rescaling inside the model was lifted out.
    """

    model: bytes
    scale: float
    offset: float


class Calibrator:
    """The float graph of one model over one calibration set; ranges can be chosen repeatedly.

    faces: uint8 ``(n, height, width[, 3])``. scale, offset: of a pixel, before the model.
    """

    def __init__(self, model: FloatModel, faces: Image, scale: float, offset: float) -> None:
        graph = float_graph(model, faces[:1], scale, offset)
        graph, inner_scale, inner_offset = rewrite.lift_rescaling(graph)
        self.graph = rewrite.affine_to_depthwise(graph)
        self.faces = faces
        self.scale = scale * inner_scale
        self.offset = offset * inner_scale + inner_offset
        self._seen: ranges.Observations | None = None

    @property
    def seen(self) -> ranges.Observations:
        """The values of each activation over the calibration set."""
        if self._seen is None:
            self._seen = ranges.observe(self.graph, inputs(self.faces, self.scale, self.offset))
        return self._seen

    def on(self, *, graph: bytes | None = None, faces: Image | None = None) -> Calibrator:
        """The same with another graph of the same tensors, or another calibration set."""
        other = copy.copy(self)
        other.graph = self.graph if graph is None else graph
        other.faces = self.faces if faces is None else faces
        other._seen = None
        return other

    def calibrated(self, method: str = "min-max", *, answers: bool = False) -> Calibrated:
        """The graph with ranges by a method of ``ranges.METHODS``; answers: see ``ranges.note``."""
        pixels = self.offset, 255 * self.scale + self.offset
        noted = ranges.note(self.graph, self.seen, method, pixels, answers=answers)
        return Calibrated(noted, self.scale, self.offset)


def quantize(calibrated: bytes, *, keep_float: Collection[str] = ()) -> bytes:
    """Full-integer int8, per-channel weights, int8 in and out.

    calibrated: the FlatBuffer of ``Calibrated``.
    keep_float: names of output tensors whose operators stay float; the file is then ``mixed``.
    Raises ConversionError when an operator has no integer form.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.lite.python.util import modify_model_io_type

    with _guarded("the quantiser"):
        if not keep_float:
            return bytes(
                mlir_quantize(calibrated, input_data_type=tf.int8, output_data_type=tf.int8)
            )
        mixed = mlir_quantize(calibrated, denylisted_nodes=set(keep_float))
    with contextlib.suppress(ValueError), _guarded("the quantiser"):
        # Where the first or last operator stays float, so does that end of the model.
        mixed = modify_model_io_type(mixed, tf.int8, tf.float32)
    with contextlib.suppress(ValueError), _guarded("the quantiser"):
        mixed = modify_model_io_type(mixed, tf.float32, tf.int8)
    return bytes(mixed)


def _convert(model: FloatModel, set_up: Callable[[Any, Any], None] | None = None) -> bytes:
    import tensorflow as tf

    with _guarded(f"the converter, on {model.name},"):
        converter = tf.lite.TFLiteConverter.from_keras_model(model.network)
        if set_up is not None:
            set_up(converter, tf)
        return bytes(converter.convert())


@contextlib.contextmanager
def _guarded(who: str) -> Iterator[None]:
    """Hide what TensorFlow prints, and turn what it raises into one line."""
    isolation.entering(f"running {who}".rstrip(","))
    try:
        with suppressed_output():
            yield
    except ConversionError:
        raise
    except Exception as error:  # the converter raises whatever its passes raise
        raise ConversionError(f"{who} failed: {_reason(str(error))}") from error


def _reason(text: str) -> str:
    """The line of the converter's report that names the operator at fault."""
    operators = sorted(set(re.findall(r"'tf\.(\w+)' op", text)))
    if operators:
        return (
            f"TFLite has no operator for TensorFlow's {', '.join(operators)}; "
            "replace the layer that uses it"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else "no reason given")[:300]
