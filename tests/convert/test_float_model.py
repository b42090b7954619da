from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from convert import float_model
from convert.errors import ConversionError
from tests.convert.conftest import convolutional


def test_a_keras_file_is_described(keras_files: dict[str, Path]) -> None:
    model = float_model.load(keras_files["tiny"])
    assert (model.height, model.width, model.channels, model.outputs) == (48, 48, 1, 7)
    assert (model.output, model.rescales, model.name) == ("probabilities", True, "tiny")
    assert len(model.sha256) == 64
    assert model.network.input_shape[0] == 1


def test_a_legacy_h5_file_answers_like_its_keras_file(tmp_path: Path) -> None:
    network = convolutional()
    network.save(tmp_path / "net.h5")
    model = float_model.load(tmp_path / "net.h5")
    x = np.random.default_rng(0).uniform(0, 255, (1, 24, 24, 1)).astype(np.float32)
    np.testing.assert_allclose(model.network(x), network(x), atol=1e-6)


def test_logits_are_told_from_probabilities() -> None:
    assert float_model.from_keras(convolutional(softmax=False)).output == "logits"


def test_mixed_precision_is_rebuilt_in_float32() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = convolutional()
    finally:
        keras.config.set_dtype_policy("float32")
    model = float_model.from_keras(network)
    assert {layer.compute_dtype for layer in float_model.walk(model.network)} == {"float32"}
    for ours, theirs in zip(model.network.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, np.asarray(theirs, np.float32))


def test_an_open_input_size_has_to_be_said() -> None:
    image = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    network = keras.Model(image, keras.layers.Dense(3)(x))
    with pytest.raises(ConversionError, match="--input-size"):
        float_model.from_keras(network)
    assert float_model.from_keras(network, input_size=(32, 40, 3)).width == 40
    with pytest.raises(ConversionError, match="--input-size is"):
        float_model.from_keras(convolutional(), input_size=(32, 32, 1))


def test_weights_that_are_no_numbers_are_refused() -> None:
    network = convolutional()
    weights = network.get_weights()
    weights[0][0, 0, 0, 0] = np.nan
    network.set_weights(weights)
    with pytest.raises(ConversionError, match="NaN"):
        float_model.from_keras(network)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (keras.layers.Dense(3, activation="sigmoid"), "sigmoid"),
        (keras.layers.Dense(1, activation="sigmoid"), "two labels or more"),
        (keras.layers.Reshape((2, 2)), "expected"),
    ],
)
def test_what_is_no_classifier_is_refused(head: keras.layers.Layer, reason: str) -> None:
    image = keras.Input((8, 8, 1))
    x = keras.layers.Dense(4)(keras.layers.Flatten()(image))
    with pytest.raises(ConversionError, match=reason):
        float_model.from_keras(keras.Model(image, head(x)))


def test_sigmoids_that_are_one_hot_for_large_inputs_are_refused() -> None:
    image = keras.Input((8, 8, 1))
    x = keras.layers.Dense(3, activation="sigmoid")(keras.layers.Flatten()(image))
    network = keras.Model(image, x)
    kernel = np.zeros((64, 3), np.float32) + np.array([1, -1, -1], np.float32) / 64
    network.set_weights([kernel, np.zeros(3, np.float32)])
    with pytest.raises(ConversionError, match="sigmoid"):
        float_model.from_keras(network)


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    torn = tmp_path / "torn.keras"
    torn.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(ConversionError, match="cannot read"):
        float_model.load(torn)
    with pytest.raises(ConversionError, match="No such file"):
        float_model.load(tmp_path / "absent.keras")
    with pytest.raises(ConversionError, match="No such file"):
        float_model.load(tmp_path / "model.onnx")
