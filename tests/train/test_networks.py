"""Sizes and costs as the table says, and an exported model that answers what was trained."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from train import networks
from train.config import load_config
from train.errors import ConfigError
from train.heads import Heads

CONFIGS = Path(__file__).parents[2] / "train" / "configs"
SIZES = {
    "accurate": (1_874_951, 117_671_680),
    "teacher": (1_869_223, 117_247_744),
    "fast": (261_479, 14_875_296),
    "quickstart": (29_839, 1_774_304),
    "simple": (683_527, 22_487_936),
    "conv-pool-bn": (981_639, 33_105_664),
    "three-block": (1_470_247, 86_779_648),
    "balanced": (1_470_247, 86_779_648),
    "varying-filters": (423_847, 49_177_472),
    "mini-xception": (58_423, 5_520_448),
}
"""Parameters and multiply-accumulates, as train/README.md tables them."""


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_macs_are_those_of_the_table(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.toml")
    model = networks.build(config.network, **config.options)
    parameters, macs = SIZES[name]
    deployed = networks.export(model)
    assert networks.cost(deployed) == {"parameters": parameters, "macs": macs}
    assert model.input_shape == (None, 48, 48, 1)
    readme = (CONFIGS.parent / "README.md").read_text()
    row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}` "))
    assert f" {parameters:,} " in row
    assert f" {macs / 1e6:.1f} " in row


def test_mini_xception_has_the_published_size() -> None:
    model = networks.build("mini_xception", shape=(64, 64))
    assert networks.cost(model) == {"parameters": 58_423, "macs": 10_163_392}


@pytest.mark.parametrize("stem", [[16, 3], [8, 5]], ids=["blocked", "left as it is"])
def test_the_deployed_stem_answers_what_was_trained(stem: list[int], tmp_path: Path) -> None:
    model = networks.build("residual", stem=stem, stages=[[16, 2, 1]])
    rng = np.random.default_rng(0)
    for variable in model.variables:  # batch statistics that are not all zeros and ones
        value = variable.numpy()
        variable.assign(value + rng.normal(0, 0.02, value.shape))
    faces = rng.uniform(0, 255, (16, 48, 48, 1)).astype(np.float32)
    logits = model.predict(faces, verbose=0)
    wanted = np.exp(logits - logits.max(axis=1, keepdims=True))
    wanted /= wanted.sum(axis=1, keepdims=True)
    assert wanted.max() < 0.999  # a saturated answer would prove nothing
    deployed = networks.export(model)
    np.testing.assert_allclose(deployed.predict(faces, verbose=0), wanted, atol=1e-5)
    assert ("blocks" in {layer.name for layer in deployed.layers}) == (stem == [16, 3])
    deployed.save(tmp_path / "deployed.keras")
    again = keras.models.load_model(tmp_path / "deployed.keras")
    np.testing.assert_allclose(again.predict(faces, verbose=0), wanted, atol=1e-5)


def test_limits_of_the_shipped_sizes() -> None:
    assert SIZES["fast"][0] < 300_000
    assert SIZES["fast"][1] <= 15e6
    assert SIZES["accurate"][0] < 2_000_000
    assert SIZES["accurate"][1] <= 120e6


def test_the_fused_normalisation_is_the_plain_one() -> None:
    x = np.random.default_rng(0).normal(3, 2, (16, 6, 6, 32)).astype(np.float32)
    fused = networks.FusedBatchNormalization(momentum=0.9, dtype="float32")
    plain = keras.layers.BatchNormalization(momentum=0.9, dtype="float32")
    outputs = [keras.ops.convert_to_numpy(layer(x, training=True)) for layer in (fused, plain)]
    np.testing.assert_allclose(*outputs, atol=1e-4)
    for a, b in zip(fused.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=1e-3)  # n-1 against n in the variance
    assert np.abs(fused.get_weights()[2]).max() > 0.1


@pytest.mark.parametrize("name", ["residual", "mini_xception"])
def test_an_exported_model_answers_the_mixed_and_tempered_logits(name: str, tmp_path: Path) -> None:
    options = (
        {"stem": [16, 3], "stages": [[16, 2, 1]], "dropout": 0.1} if name == "residual" else {}
    )
    faces = np.random.default_rng(1).integers(0, 256, (4, 48, 48, 1)).astype(np.float32)
    model = networks.build(name, heads=2, **options)
    model.compile("sgd", loss=lambda target, logits: 0.0)  # as fit leaves it
    both = keras.ops.convert_to_numpy(model(faces))
    kernel, bias = model.get_layer("logits").get_weights()
    parts = zip(np.split(kernel, 2, axis=-1), np.split(bias, 2), strict=True)
    shares = np.full(7, 1 / 7, np.float32)
    heads = Heads(dict(zip(("label", "votes"), parts, strict=True)), {"votes": shares})
    done = networks.export(model, heads.folded(mix=0.25, temperature=1.7))
    logits = (0.75 * both[:, :7] + 0.25 * both[:, 7:]) / 1.7
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    done.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loaded(faces)), wanted, atol=1e-5)
    kinds = {type(layer) for layer in loaded.layers}
    assert networks.FusedBatchNormalization not in kinds
    assert keras.layers.BatchNormalization in kinds


def test_a_model_trained_in_bfloat16_is_exported_in_float32() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = networks.build("residual", stem=[16, 3], stages=[[16, 2, 0]])
        done = networks.export(model)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.dtype_policy.name for layer in done.layers} == {"float32"}


def test_unknown_networks_and_options_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no network 'resnet'.*residual"):
        networks.build("resnet")
    with pytest.raises(ConfigError, match=r"residual.*stages"):
        networks.build("residual", stem=[16, 3])


def test_an_exported_model_gives_its_trunk_back(tmp_path: Path) -> None:
    options = {"stem": [16, 3], "stages": [[16, 2, 1]]}
    model = networks.build("residual", heads=2, **options)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        value = variable.numpy()
        variable.assign(value + rng.normal(0, 0.02, value.shape))
    networks.export(model, (np.ones((16, 7), np.float32), np.zeros(7, np.float32))).save(
        tmp_path / "exported.keras"
    )
    fresh = networks.build("residual", heads=2, seed=1, **options)
    networks.reopen(keras.models.load_model(tmp_path / "exported.keras"), fresh)
    faces = rng.uniform(0, 255, (4, 48, 48, 1)).astype(np.float32)
    np.testing.assert_allclose(
        networks.trunk(fresh).predict(faces, verbose=0),
        networks.trunk(model).predict(faces, verbose=0),
        atol=1e-5,
    )
    other = networks.build("residual", stem=[16, 3], stages=[[32, 2, 1]])
    with pytest.raises(ConfigError, match="weights of"):
        networks.reopen(keras.models.load_model(tmp_path / "exported.keras"), other)


def test_frozen_convolutions_keep_their_weights() -> None:
    model = networks.build("residual", stem=[16, 3], stages=[[16, 2, 1]])
    networks.freeze(model, 2)
    frozen = [layer.name for layer in model.layers if layer.weights and not layer.trainable]
    assert len(frozen) == 4  # two convolutions, two normalisations
    assert len(model.trainable_variables) == 2 * 3 + 2
    with pytest.raises(ConfigError, match="has 4 convolutions"):
        networks.freeze(model, 9)
