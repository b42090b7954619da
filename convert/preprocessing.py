"""Describes how images were prepared for training: mean and deviation, and Keras' own functions.

A single mean and deviation is a scale and an offset, which the device applies. Values per channel
or per pixel become part of the network, so that the device still feeds plain pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.errors import ConversionError
from convert.float_model import FloatModel
from convert.keras_file import import_module
from convert.native_output import suppressed_output
from emotion_edge.errors import UsageError

with suppressed_output():
    import keras

Floats = NDArray[np.float64]

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_DEVIATION = (58.395, 57.12, 57.375)
"""Of red, green and blue in 0..255, as ``keras.applications`` uses them in its mode ``torch``."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a pixel becomes the input of the network as it was trained: ``(x - mean) / std``.

    x is ``pixel * scale + offset`` with the manifest's scale and offset.
    mean, std: float64 that broadcast to ``(height, width, channels)``, channels in the order of
    ``colour``. colour: ``rgb``, ``bgr``, or None where it is not stated.
    source: what the user gave, for the manifest.
    """

    mean: Floats
    std: Floats
    colour: str | None = None
    source: str = ""

    @property
    def uniform(self) -> bool:
        """Whether one mean and one deviation apply to the whole image."""
        return self.mean.size == 1 and self.std.size == 1

    def facts(self) -> dict[str, Any]:
        """What the manifest contains about it."""

        def short(values: Floats) -> Any:
            if values.size <= 3:
                return [round(float(value), 6) for value in values.ravel()]
            return {
                "shape": list(values.shape),
                "smallest": round(float(values.min()), 6),
                "largest": round(float(values.max()), 6),
            }

        return {
            "formula": "(pixel * scale + offset - mean) / std",
            "mean": short(self.mean),
            "std": short(self.std),
            "source": self.source,
            "inside_the_graph": not self.uniform,
        }


MODES: Mapping[str, Preprocessing] = MappingProxyType(
    {
        "tf": Preprocessing(np.array(127.5), np.array(127.5), source="tf"),
        "torch": Preprocessing(
            np.array(IMAGENET_MEAN), np.array(IMAGENET_DEVIATION), "rgb", "torch"
        ),
        "caffe": Preprocessing(np.array([103.939, 116.779, 123.68]), np.array(1.0), "bgr", "caffe"),
    }
)
"""The three modes of ``keras.applications``."""


def read(mean: str | None, std: str | None, preprocess: str | None) -> Preprocessing | None:
    """The preprocessing that the options state; None without one.

    mean, std: numbers, one or one per channel, separated by commas, or a ``.npy`` file.
    preprocess: a mode of ``MODES``, a module with a function ``preprocess_input``, or
    ``MODULE:FUNCTION``; MODULE may be ``FILE.py``.
    Raises UsageError or ConversionError.
    """
    if preprocess is not None:
        if mean is not None or std is not None:
            raise UsageError("--preprocess and --mean or --std say the same thing: give one")
        return MODES[preprocess] if preprocess in MODES else of_function(preprocess)
    if mean is None and std is None:
        return None
    deviation = _values(std, "--std") if std is not None else np.array(1.0)
    if not (deviation > 0).all():
        raise UsageError(
            f"--std {std}: the smallest value is {deviation.min():g}; every value has to be "
            "greater than 0 (add the small constant that your training code added)"
        )
    return Preprocessing(
        _values(mean, "--mean") if mean is not None else np.array(0.0),
        deviation,
        source=" ".join(f"{name} {text}" for name, text in (("mean", mean), ("std", std)) if text),
    )


def _values(text: str, option: str) -> Floats:
    if text.endswith(".npy"):
        try:
            found = np.load(text, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{option} {text} is not a NumPy array: {error}") from error
        if not isinstance(found, np.ndarray):
            found.close()
            raise UsageError(f"{option} {text} holds several arrays: save one with numpy.save")
        real = np.issubdtype(found.dtype, np.integer) or np.issubdtype(found.dtype, np.floating)
        if not real or not np.isfinite(found).all():
            raise UsageError(
                f"{option} {text} holds {found.dtype} values that are not all real, finite numbers"
            )
        return np.asarray(found, np.float64)
    try:
        found = np.array([float(part) for part in text.split(",")])
    except ValueError as error:
        raise UsageError(
            f"{option} {text!r}: expected one number, one per channel (a,b,c), or FILE.npy"
        ) from error
    if not np.isfinite(found).all():
        raise UsageError(f"{option} {text!r}: every value has to be a finite number")
    return found[0] if found.size == 1 else found


def of_function(name: str) -> Preprocessing:
    """What a function does to a pixel, found by calling it on RGB images.

    Raises ConversionError unless it is ``(x - mean) / std`` per channel, with or without the
    exchange of red and blue: the functions of ``keras.applications`` are.
    """
    module, _, function = name.partition(":")
    called = getattr(import_module(module, "--preprocess"), function or "preprocess_input", None)
    if not callable(called):
        raise ConversionError(
            f"--preprocess {name}: {module} has no function {function or 'preprocess_input'!r}; "
            f"give {', '.join(MODES)}, or MODULE:FUNCTION"
        )
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 8, 8, 3)).astype(np.float32)
    images[0], images[1] = 0, 255
    answers = _call(called, images, name)
    for colour, seen in (("rgb", images), ("bgr", images[..., ::-1])):
        slope = (answers[1] - answers[0]).mean(axis=(0, 1)) / 255
        start = answers[0].mean(axis=(0, 1))
        if (slope > 0).all() and np.allclose(answers, seen * slope + start, atol=1e-3, rtol=1e-4):
            return Preprocessing(
                np.asarray(-start / slope, np.float64),
                np.asarray(1 / slope, np.float64),
                colour,
                name,
            )
    raise ConversionError(
        f"--preprocess {name} is not (pixel - mean) / std per channel: build it into the network "
        "with Keras layers, and save the network with it"
    )


def _call(function: Callable[[Any], Any], images: Any, name: str) -> Floats:
    try:
        answers = np.asarray(function(images.copy()), np.float64)
    except Exception as error:  # whatever the user's code raises
        raise ConversionError(
            f"--preprocess {name} fails on a batch of RGB images: {error}"
        ) from error
    if answers.shape != images.shape:
        raise ConversionError(
            f"--preprocess {name} makes an array of shape {answers.shape} from one of shape "
            f"{images.shape}: it has to keep the shape"
        )
    return answers


def build_in(model: FloatModel, preprocessing: Preprocessing) -> FloatModel:
    """The model with mean and deviation inside its graph, in front of everything else.

    Raises UsageError when their shape does not fit the input.
    """
    shape = (model.height, model.width, model.channels)
    mean, std = (
        _fitting(values, shape, option)
        for values, option in ((preprocessing.mean, "--mean"), (preprocessing.std, "--std"))
    )
    image = keras.Input(batch_shape=(1, *shape), name="image")
    x = (image - mean) * (1 / std).astype(np.float32)
    network = keras.Model(image, model.network(x), name=model.network.name)
    return replace(model, network=network, rescales=True, preprocessing=preprocessing.facts())


def _fitting(values: Floats, shape: tuple[int, int, int], option: str) -> NDArray[np.float32]:
    height, width, channels = shape
    plain = values[0] if values.ndim == 4 and len(values) == 1 else values
    if plain.shape == (height, width):
        plain = plain[..., None]
    sizes = {(height, width, channels), (height, width, 1), (1, 1, channels), (channels,)}
    if plain.size != 1 and plain.shape not in sizes:
        raise UsageError(
            f"{option} has the shape {'x'.join(map(str, values.shape))}; the network takes "
            f"{height}x{width}x{channels}: give one value, {channels} (one per channel), or one "
            "per pixel"
        )
    values_32: NDArray[np.float32] = plain.astype(np.float32)
    return values_32[None] if values_32.ndim == 3 else values_32.reshape(1, 1, 1, -1)
