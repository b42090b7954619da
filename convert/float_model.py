"""Loads a Keras image classifier and determines its input and output."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from convert import keras_file
from convert.errors import ConversionError
from convert.native_output import suppressed_output

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow reads it once, when imported
with suppressed_output():
    import keras


@dataclass(frozen=True, slots=True)
class FloatModel:
    """A Keras classifier in float32 with batch size 1.

    network: ``(1, height, width, channels)`` float32 to ``(1, outputs)`` float32.
    sha256: of the file it came from; empty for a model that was not read from one.
    output: ``probabilities`` or ``logits``, found by running it.
    rescales: whether it contains a Rescaling or Normalization layer, so that it takes pixels.
    notes: what had to be changed to read the file. preprocessing: the mean and deviation that were
    built in front of it (``preprocessing.facts``), for the manifest.
    """

    network: Any
    name: str
    sha256: str
    height: int
    width: int
    channels: int
    outputs: int
    output: str
    rescales: bool
    notes: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Weights, trainable or not."""
        return int(self.network.count_params())


def load(
    path: str | Path,
    *,
    input_size: tuple[int, int, int] | None = None,
    architecture: str | None = None,
    custom_objects: keras_file.CustomObjects | None = None,
    allow_lambda: bool = False,
) -> FloatModel:
    """Read a ``.keras`` or HDF5 file of any version of Keras; see ``keras_file.load``.

    input_size: height, width, channels; needed if the model leaves them open.
    Raises ConversionError when the file cannot be read, or is not a classifier of one image.
    """
    path = Path(path)
    loaded = keras_file.load(
        path,
        architecture=architecture,
        custom_objects=custom_objects,
        allow_lambda=allow_lambda,
    )
    model = from_keras(
        loaded.network,
        name=path.stem,
        sha256=_sha256(path),
        input_size=input_size,
    )
    return replace(model, notes=loaded.notes)


def _sha256(path: Path) -> str:
    """Of a file, or of all files of a SavedModel folder in the order of their names."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def from_keras(
    network: Any,
    *,
    name: str = "model",
    sha256: str = "",
    input_size: tuple[int, int, int] | None = None,
) -> FloatModel:
    """Take a Keras model: rebuilt in float32, rewrapped with batch size 1.

    Raises ConversionError unless it has one image as input and one row of two or more scores as
    output, and every weight is a finite number.
    """
    for weight in network.weights:
        if not np.isfinite(np.asarray(weight, dtype=np.float32)).all():
            raise ConversionError(
                f"{name}: the weight {weight.path} holds NaN or infinite values: "
                "the training diverged; take an earlier checkpoint"
            )
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise ConversionError(
            f"{name} has {len(network.inputs)} inputs and {len(network.outputs)} outputs; "
            "the device feeds one image and reads one row of scores"
        )
    shape = network.inputs[0].shape[1:]
    if len(shape) != 3:
        raise ConversionError(f"{name} takes {tuple(shape)}; expected height x width x channels")
    if input_size is not None and any(
        own is not None and own != asked for own, asked in zip(shape, input_size, strict=True)
    ):
        raise ConversionError(
            f"{name} takes {tuple(shape)}, --input-size is {input_size}: omit the option"
        )
    if input_size is None:
        if None in shape:
            raise ConversionError(
                f"{name} leaves its input size open {tuple(shape)}: give --input-size HxWxC"
            )
        input_size = tuple(int(n) for n in shape)  # type: ignore[assignment]
    height, width, channels = input_size  # type: ignore[misc]
    if channels not in (1, 3):
        raise ConversionError(f"{name} takes {channels} channels; expected 1 (gray) or 3 (colour)")
    network = _in_float32(network)
    image = keras.Input(batch_shape=(1, height, width, channels), name="image")
    try:
        # A dynamic batch would leave SHAPE and PACK operators in the file.
        static = keras.Model(image, network(image), name=_plain(name))
    except Exception as error:
        raise ConversionError(f"{name} does not accept {input_size}: {error}") from error
    if len(static.output_shape) != 2 or (static.output_shape[1] or 0) < 2:
        raise ConversionError(
            f"{name} has the output shape {static.output_shape}; expected (1, labels) with two "
            "labels or more: a single sigmoid has to become two softmax outputs"
        )
    return FloatModel(
        static,
        name,
        sha256,
        height,
        width,
        channels,
        int(static.output_shape[1]),
        _output(static, name),
        any(
            isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization)
            for layer in walk(static)
        ),
    )


def walk(network: Any) -> Iterator[Any]:
    """Every layer, including those of nested models."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from walk(layer)
        else:
            yield layer


def _in_float32(network: Any) -> Any:
    """The same network in float32: mixed precision leaves casts that do not convert."""
    policies = {layer.dtype_policy.name for layer in walk(network)}
    if policies == {"float32"}:
        return network
    config = _replace_policy(keras.saving.serialize_keras_object(network))
    rebuilt = keras.saving.deserialize_keras_object(config)
    rebuilt.set_weights(network.get_weights())
    return rebuilt


def _replace_policy(node: Any) -> Any:
    if isinstance(node, dict):
        if node.get("class_name") == "DTypePolicy":
            return {**node, "config": {"name": "float32"}}
        return {key: _replace_policy(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_replace_policy(value) for value in node)
    return node


def _output(network: Any, name: str) -> str:
    """``probabilities`` if rows are positive and sum to 1, else ``logits``."""
    shape = network.input_shape
    noise = np.random.default_rng(0).uniform(0, 255, (8, *shape[1:])).astype(np.float32)
    # Sigmoids of large inputs are 0 or 1, and may sum to 1 by chance; those of small ones do not.
    noise = np.concatenate([noise, noise / np.float32(255)])
    rows = np.concatenate([np.asarray(network(one[None], training=False)) for one in noise])
    if not np.isfinite(rows).all():
        raise ConversionError(f"{name} returns NaN for noise in 0..255: check its weights")
    inside = bool((rows >= 0).all() and (rows <= 1).all())
    if inside and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        return "probabilities"
    if inside:
        raise ConversionError(
            f"{name} returns scores in 0..1 that do not sum to 1 (sigmoid?): "
            "end it in a softmax, or in logits"
        )
    return "logits"


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name) or "model"
