"""The simulated graph is the real one, and training with rounding brings int8 nearer to float."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from convert import finetune, quantize, ranges
from convert.flatbuffer import Graph
from convert.float_model import from_keras
from convert.quantize import Calibrated, Calibrator
from tests.convert.conftest import convolutional

FACES = np.random.default_rng(1).integers(0, 256, (48, 24, 24), np.uint8)


def calibrated(network: object, method: str = "min-max") -> Calibrated:
    return Calibrator(from_keras(network), FACES, 1, 0).calibrated(method)


@pytest.mark.parametrize("activation", ["relu", "relu6", "elu", "leaky_relu", "hard_silu", "tanh"])
def test_the_graph_computes_what_tflite_computes(activation: str) -> None:
    made = calibrated(convolutional(activation=activation))
    assert finetune.unsupported(made.model) == []
    graph = Graph(made.model)
    fed = np.concatenate([*quantize.inputs(FACES[:4], made.scale, made.offset)])
    found = np.asarray(finetune._run(graph, fed, finetune._constants(graph)))
    run = ranges.preserving(made.model)
    wanted = np.concatenate([run(x[None])(graph.outputs[0]) for x in fed])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_fine_tuning_lowers_the_error_of_int8() -> None:
    # Ranges that clip: something to repair.
    made = calibrated(convolutional(), "percentile-99.9")
    tuned = finetune.finetune(made, FACES, steps=60)
    assert (tuned.scale, tuned.offset) == (made.scale, made.offset)
    float_graph = Graph(made.model)
    run = ranges.preserving(made.model)
    inputs = [*quantize.inputs(FACES, made.scale, made.offset)]
    wanted = np.concatenate([run(x)(float_graph.outputs[0]) for x in inputs])

    def error(model: bytes) -> float:
        int8 = quantize.quantize(model)
        graph = Graph(int8)
        source, out = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
        step = ranges.preserving(int8)
        rows = []
        for x in inputs:
            q = np.rint(x / source.scales[0]) + source.zero_points[0]
            answer = step(np.clip(q, -128, 127).astype(np.int8))(graph.outputs[0])
            rows.append((answer.astype(float) - out.zero_points[0]) * out.scales[0])
        return float(np.abs(np.concatenate(rows) - wanted).mean())

    assert error(tuned.model) < 0.8 * error(made.model)


def test_operators_without_a_simulation_are_named() -> None:
    image = keras.Input((24, 24, 1))
    x = keras.layers.Conv2DTranspose(4, 3, bias_initializer="normal")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(image, keras.layers.Dense(7, "softmax", bias_initializer="normal")(x))
    assert "TRANSPOSE_CONV" in finetune.unsupported(calibrated(network).model)
