"""Makes tests/edge/tiny.tflite: ``python -m tests.convert.tiny``.

A real int8 network of a few kilobytes with predictable answers: it labels an image by its mean
brightness, in seven steps. A flat gray of ``18 + 36 * k`` is the k-th label of ``EMOTIONS``.

The mean passes a 3x3 convolution and a global pooling. With centres c_k, the class of the nearest
one has the greatest ``2 c_k x - c_k²``, which a dense layer computes; no training is needed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from convert import float_model, quantize
from emotion_edge.model import manifest as manifests
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.model.manifest import InputSpec, Manifest

PATH = Path(__file__).parents[1] / "edge" / "tiny.tflite"
SHARPNESS = 300.0


def network() -> Any:
    """48x48 gray in 0..255 to seven probabilities."""
    image = keras.Input((48, 48, 1), name="face")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, strides=4, padding="valid", activation="relu", name="mean")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(7, activation="softmax", name="nearest")(x)
    model = keras.Model(image, x, name="tiny")
    model.get_layer("mean").set_weights([np.full((3, 3, 1, 4), 1 / 9), np.zeros(4)])
    centres = (18 + 36 * np.arange(7)) / 255
    model.get_layer("nearest").set_weights(
        [
            np.tile(SHARPNESS * 2 * centres / 4, (4, 1)),
            -SHARPNESS * centres**2,
        ]
    )
    return model


def build() -> bytes:
    """The file's bytes."""
    model = float_model.from_keras(network(), name="tiny")
    flat = np.stack([np.full((48, 48), value, np.uint8) for value in range(0, 256, 5)])
    return manifests.attach(
        quantize.quantize(quantize.Calibrator(model, flat, 1, 0).calibrated().model),
        Manifest(
            name="tiny",
            variant="int8",
            model_sha256="",
            labels=EMOTIONS,
            input=InputSpec(48, 48, 1, "gray"),
            output="probabilities",
            licence="MIT",
            calibration={"source": "flat grays", "images": len(flat)},
        ),
    )


if __name__ == "__main__":
    PATH.write_bytes(build())
    sys.stdout.write(f"{PATH}\n")
