"""Exact rewrites before calibration: the same function, and what int8 makes of it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from convert import float_model, quantize, ranges, rewrite
from convert.flatbuffer import Graph

FACES = np.random.default_rng(1).integers(0, 256, (24, 24, 24), np.uint8)


def tutorial_order() -> Any:
    """Convolution, ReLU, batch norm: the order of many tutorials, with channels of all sizes."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    layers = keras.layers
    norms = [layers.BatchNormalization(), layers.BatchNormalization()]
    network = keras.Sequential(
        [
            keras.Input((24, 24, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            norms[0],
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3),
            layers.ReLU(),
            norms[1],
            layers.Activation("relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(7, activation="softmax"),
        ]
    )
    for norm in norms:
        norm.set_weights(
            [
                10 ** random.uniform(-2, 1, 8),
                random.normal(size=8),
                random.normal(size=8),
                10 ** random.uniform(-2, 0, 8),
            ]
        )
    return network


def worst(model: bytes, other: bytes, faces: Any, scale: float = 1.0, offset: float = 0.0) -> float:
    """The largest difference between the outputs of two float graphs."""
    first, second = ranges.preserving(model), ranges.preserving(other)
    at, to = Graph(model).outputs[0], Graph(other).outputs[0]
    return max(
        float(np.abs(first(image)(at) - second(image)(to)).max())
        for image in quantize.inputs(faces, scale, offset)
    )


def test_a_batch_norm_after_an_activation_becomes_a_depthwise_convolution() -> None:
    model = float_model.from_keras(tutorial_order())
    plain = quantize.float_graph(model, FACES[:1], 1, 0)
    assert {"MUL", "ADD"} <= {operator.name for operator in Graph(plain).operators}
    rewritten = rewrite.affine_to_depthwise(plain)
    names = [operator.name for operator in Graph(rewritten).operators]
    assert "MUL" not in names and "ADD" not in names and names.count("DEPTHWISE_CONV_2D") == 2
    assert worst(plain, rewritten, FACES[:8]) < 1e-6
