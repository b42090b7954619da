"""Classifies faces with a model file.

``TFLiteClassifier`` is the only code that runs a model on images: the device's loop, the
converter's gate, the evaluation and the benchmarks all use it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emotion_edge.errors import ImageError, ManifestError
from emotion_edge.model import manifest as manifests
from emotion_edge.model.backend import Backend, open_interpreter
from emotion_edge.model.manifest import Manifest
from emotion_edge.model.preprocessing import as_image, face_input
from emotion_edge.values import Box, Emotion, Image


class EmotionClassifier(Protocol):
    """Names the emotion of a face in a frame."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The possible answers, in the order of the probabilities."""

    @property
    def colour(self) -> bool:
        """Whether it needs colour frames; otherwise gray ones are enough."""

    def classify(self, image: Image, box: Box) -> Emotion:
        """The emotion of the face at ``box`` of ``image`` (gray or BGR, uint8)."""


class TFLiteClassifier:
    """A model file with its manifest, ready to classify.

    The interpreter is made once. A classifier is not safe to call from two threads at a time: make
    one for each.

    interpreter: the runtime's ``Interpreter``, for measurements.
    """

    def __init__(self, model: bytes, manifest: Manifest, backend: Backend | None = None) -> None:
        """Open a FlatBuffer with its manifest; ``load`` reads both from a file.

        backend: None for the default one.
        Raises ManifestError when the model's input or output is not what the manifest says, and
        the errors of ``open_interpreter``.
        """
        self.manifest = manifest
        self.interpreter = open_interpreter(model, backend)
        source, sink = self._check()
        self._input: int = source["index"]
        self._output: int = sink["index"]
        spec = manifest.input
        self._shape = (spec.height, spec.width, *((spec.channels,) if spec.channels == 3 else ()))
        self._tensor_shape = (1, spec.height, spec.width, spec.channels)
        self._lookup = _input_lookup(spec.scale, spec.offset, source)
        scale, zero_point = sink["quantization"]
        self._dequantise = None if sink["dtype"] == np.float32 else (zero_point, scale)

    @classmethod
    def load(cls, path: str | Path, backend: Backend | None = None) -> TFLiteClassifier:
        """Read, verify and open a model file.

        Raises ModelError or ManifestError, and UsageError for the backend.
        """
        model, manifest = manifests.load(path)
        return cls(model, manifest, backend)

    @property
    def labels(self) -> tuple[str, ...]:
        """One for each output, in order."""
        return self.manifest.labels

    @property
    def colour(self) -> bool:
        """Whether the network has three input channels."""
        return self.manifest.input.channels == 3

    def crop(self, image: Image, box: Box) -> Image:
        """The network's input for a face: uint8 ``(height, width)`` or ``(height, width, 3)``."""
        return face_input(image, box, self.manifest.input)

    def classify(self, image: Image, box: Box) -> Emotion:
        """The emotion of the face at ``box`` of a gray or BGR frame."""
        return self.emotion(self.crop(image, box))

    def emotion(self, face: Image) -> Emotion:
        """The emotion of a face image that already has the network's size and colours.

        Raises ImageError for another shape or type.
        """
        return Emotion(self.labels, tuple(self.probabilities(face).tolist()))

    def tensor(self, face: Image) -> NDArray[Any]:
        """The input tensor ``(1, height, width, channels)`` for what ``crop`` returns.

        Raises ImageError for another shape or type.
        """
        if not isinstance(face, np.ndarray):
            face = as_image(face)
        if face.shape != self._shape or face.dtype != np.uint8:
            raise ImageError(
                f"a face of shape {face.shape} and type {face.dtype}; this model requires "
                f"{self._shape} uint8: use crop() first"
            )
        tensor: NDArray[Any] = self._lookup.take(face).reshape(self._tensor_shape)
        return tensor

    def probabilities(self, face: Image) -> NDArray[np.float32]:
        """Probabilities ``(labels,)`` for what ``crop`` returns.

        face: uint8 ``(height, width)`` or ``(height, width, 3)``.
        Raises ImageError for another shape or type.
        """
        interpreter = self.interpreter
        interpreter.set_tensor(self._input, self.tensor(face))
        interpreter.invoke()
        answer: NDArray[np.float32] = interpreter.get_tensor(self._output)[0]
        if self._dequantise is not None:
            zero_point, scale = self._dequantise
            answer = (answer.astype(np.float32) - zero_point) * np.float32(scale)
        if self.manifest.output == "logits":
            answer = np.exp(answer - answer.max())
            answer /= answer.sum()
        return answer

    def predict(self, faces: Image) -> NDArray[np.float32]:
        """Probabilities ``(n, labels)`` for a stack of faces ``(n, height, width[, 3])`` uint8."""
        if len(faces) == 0:
            return np.zeros((0, len(self.labels)), np.float32)
        return np.stack([self.probabilities(face) for face in faces])

    def _check(self) -> tuple[dict[str, Any], dict[str, Any]]:
        inputs = self.interpreter.get_input_details()
        outputs = self.interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ManifestError(
                f"the model has {len(inputs)} inputs and {len(outputs)} outputs; expected one each"
            )
        source, sink = inputs[0], outputs[0]
        spec = self.manifest.input
        for what, tensor, shape in (
            ("input", source, (1, spec.height, spec.width, spec.channels)),
            ("output", sink, (1, len(self.manifest.labels))),
        ):
            actual = tuple(int(n) for n in tensor["shape"])
            if actual != shape:
                raise ManifestError(
                    f"the model's {what} has shape {actual}, its manifest says {shape}: "
                    "convert it again or fix the manifest"
                )
            if tensor["dtype"] not in (np.int8, np.uint8, np.float32):
                raise ManifestError(
                    f"the model's {what} is {np.dtype(tensor['dtype'])}; "
                    "expected int8, uint8 or float32"
                )
        integer = source["dtype"] != np.float32
        variant = self.manifest.variant
        if variant != "mixed" and integer != (variant == "int8"):
            raise ManifestError(
                f"the model's input is {np.dtype(source['dtype'])}, its manifest says variant "
                f"{variant!r}: convert it again or fix the manifest"
            )
        return source, sink


def _input_lookup(scale: float, offset: float, tensor: dict[str, Any]) -> NDArray[Any]:
    """The tensor's value for each of the 256 pixel values: ``lookup[pixels]`` is the input."""
    real = np.arange(256, dtype=np.float64) * scale + offset
    dtype = np.dtype(tensor["dtype"])
    if dtype == np.float32:
        return real.astype(np.float32)
    step, zero_point = tensor["quantization"]
    limits = np.iinfo(dtype)
    lookup: NDArray[Any] = np.clip(np.rint(real / step) + zero_point, limits.min, limits.max)
    return lookup.astype(dtype)
