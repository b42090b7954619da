from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from convert import channels, quantize, ranges
from convert.flatbuffer import Graph
from convert.float_model import from_keras
from convert.quantize import Calibrator
from tests.convert.conftest import convolutional

FACES = np.random.default_rng(1).integers(0, 256, (16, 24, 24), np.uint8)


def test_equalising_changes_the_channels_and_not_the_answers() -> None:
    calibrator = Calibrator(from_keras(convolutional()), FACES, 1, 0)
    graph = channels.equalise(calibrator.graph, calibrator.seen)
    assert graph != calibrator.graph
    before, after = ranges.preserving(calibrator.graph), ranges.preserving(graph)
    out = Graph(graph).outputs[0]
    for image in quantize.inputs(FACES[:4], calibrator.scale, calibrator.offset):
        np.testing.assert_allclose(after(image)(out), before(image)(out), atol=1e-5)
    level = calibrator.on(graph=graph)
    depthwise = next(op for op in Graph(graph).operators if op.name == "DEPTHWISE_CONV_2D")
    spreads = [
        float(np.ptp(np.log(np.abs(seen[depthwise.outputs[0]].high) + 1e-9)))
        for seen in (calibrator.seen, level.seen)
    ]
    assert spreads[1] < spreads[0]


def residual() -> Any:
    """Two blocks whose sum is pooled, with channels of very unlike ranges."""
    keras.utils.set_random_seed(4)
    layers = keras.layers
    image = keras.Input((24, 24, 1))
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="stem")(image)
    for block in range(2):
        side = layers.Conv2D(6, 1, strides=2, name=f"side{block}")(x)
        x = layers.SeparableConv2D(6, 3, padding="same", name=f"separable{block}")(x)
        x = layers.add([layers.MaxPooling2D(3, strides=2, padding="same")(x), side])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(7, 3, padding="same", name="answer")(x))
    network = keras.Model(image, layers.Softmax()(x))
    random = np.random.default_rng(4)
    for name in ("side0", "separable0", "side1", "separable1"):
        *others, kernel, bias = network.get_layer(name).get_weights()
        uneven = kernel * np.logspace(-1.5, 0, 6, dtype=np.float32)
        bias = bias + random.normal(0, 0.1, 6).astype(np.float32)
        network.get_layer(name).set_weights([*others, uneven, bias])
    return network


@pytest.mark.parametrize("with_weights", [True, False])
def test_equalising_across_additions(with_weights: bool) -> None:
    calibrator = Calibrator(from_keras(residual()), FACES, 1 / 255, 0)
    graph = channels.equalise(calibrator.graph, calibrator.seen, with_weights=with_weights)
    level = calibrator.on(graph=graph)
    before, after = ranges.preserving(calibrator.graph), ranges.preserving(graph)
    out = Graph(graph).outputs[0]
    for image in quantize.inputs(FACES[:4], calibrator.scale, calibrator.offset):
        np.testing.assert_allclose(after(image)(out), before(image)(out), atol=1e-5)
    sums = [op.outputs[0] for op in Graph(graph).operators if op.name == "ADD"]
    assert len(sums) == 2
    for tensor in sums:
        before_and_after = []
        for seen in (calibrator.seen[tensor], level.seen[tensor]):
            width = np.maximum(np.abs(seen.low), np.abs(seen.high))
            before_and_after.append(float(np.ptp(np.log(width))))
        assert before_and_after[1] < 0.8 * before_and_after[0], before_and_after


def test_no_factor_passes_a_bounded_activation() -> None:
    # ReLU6 stops at 6 whatever the factor; a group with several sizes of channels has none.
    keras.utils.set_random_seed(5)
    layers = keras.layers
    image = keras.Input((24, 24, 1))
    x = layers.ReLU(6)(layers.Conv2D(4, 3, strides=2, name="stem")(image))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="two")(x)
    x = layers.Dense(7, activation="softmax")(layers.Flatten()(x))
    calibrator = Calibrator(from_keras(keras.Model(image, x)), FACES, 1 / 255, 0)
    graph = Graph(calibrator.graph)
    assert channels.groups(graph) == []
    assert (
        channels.equalise(calibrator.graph, calibrator.seen) == Graph(calibrator.graph).to_bytes()
    )


def test_no_factor_passes_a_mean_over_the_channels() -> None:
    keras.utils.set_random_seed(6)
    layers = keras.layers
    image = keras.Input((24, 24, 1))
    x = layers.Conv2D(6, 3, strides=4, name="stem")(image)  # six rows, columns and channels
    x = keras.ops.mean(x, axis=3)
    x = layers.Dense(7, activation="softmax")(x)
    x = layers.GlobalAveragePooling1D()(x)
    calibrator = Calibrator(from_keras(keras.Model(image, x)), FACES, 1 / 255, 0)
    assert "MEAN" in {operator.name for operator in Graph(calibrator.graph).operators}
    assert channels.groups(Graph(calibrator.graph)) == []
