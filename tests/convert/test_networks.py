"""Networks of every kind: ours, the baselines', MobileNetV3 in colour, a separable ``.h5``."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from convert import conversion, float_model, images, inspection, quantize, recover
from convert.__main__ import main
from convert.flatbuffer import Graph
from convert.quantize import Calibrator
from emotion_edge.model import manifest as manifests
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.model.manifest import InputSpec
from train import networks

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("EMOTION_EDGE_DATA", ROOT.parent / "shared/data/fer2013"))
FACES = np.random.default_rng(2).integers(0, 256, (4, 48, 48), np.uint8)
OPTIONS = {"residual": {"stem": (16, 3), "stages": ((32, 2, 1), (48, 2, 1))}}


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("three_block", "residual") else pytest.param(name, marks=pytest.mark.slow)
        for name in networks.NETWORKS
    ],
)
def test_every_network_of_train_becomes_integer(name: str) -> None:
    network = networks.export(networks.build(name, **OPTIONS.get(name, {})))
    calibrator = Calibrator(float_model.from_keras(network, name=name), FACES, 1, 0)
    model = quantize.quantize(calibrator.calibrated().model)
    assert inspection.floats(model) == []
    operators = Graph(model).operators
    first, second = operators[0].name, operators[1].name
    # The rescaling is gone; the residual network's blocked stem begins by a reshape.
    assert (second if first == "RESHAPE" else first) == "CONV_2D"
    built_in = {op.name for op in operators if op.index not in inspection.xnnpack_takes(model)}
    assert built_in <= {"SOFTMAX"}


def real(name: str = "fer2013.csv.gz") -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"no {name} in {DATA}: set EMOTION_EDGE_DATA to FER2013's folder")
    return DATA / name


@pytest.mark.slow
@pytest.mark.timeout(1500)  # it trains, and may try every step of --recover
def test_a_mobilenet_trained_on_faces_in_colour_passes(tmp_path: Path) -> None:
    data = real()
    spec = InputSpec(96, 96, 3, "rgb")
    training = images.read(data, "Training", spec, EMOTIONS)
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV3Small(
        input_shape=(96, 96, 3), weights=None, classes=7, minimalistic=True, dropout_rate=0.0
    )
    network.compile(
        keras.optimizers.Adam(2e-3), loss="sparse_categorical_crossentropy", jit_compile=False
    )
    for layer in float_model.walk(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # 0.99 has not settled after so few steps
    order = np.random.default_rng(0).permutation(len(training))[:25600]
    for at in range(0, len(order), 64):
        rows = order[at : at + 64]
        network.train_on_batch(training.faces[rows].astype(np.float32), training.truth[rows])
    network.save(tmp_path / "mobile.keras")
    job = conversion.prepare(float_model.load(tmp_path / "mobile.keras"), data)
    assert job.spec.channels == 3 and job.spec.height == 96
    done = conversion.convert(job, "int8")
    if not done.passed:
        done = recover.recover(job, done, say=print)
    # Minutes from scratch: more than the share of the largest class, and no more is asked.
    assert done.comparison.float_figures["accuracy"] > 0.26
    assert done.passed, done.failures


@pytest.mark.slow
def test_a_separable_network_from_a_legacy_file_is_mended(tmp_path: Path) -> None:
    data = real()
    spec = InputSpec(48, 48, 1, "gray")
    training = images.read(data, "Training", spec, EMOTIONS)
    network = networks.build("mini_xception")
    network.compile(
        keras.optimizers.Adam(2e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    order = np.random.default_rng(0).permutation(len(training))
    for at in range(0, len(order), 128):
        rows = order[at : at + 128]
        faces = training.faces[rows][..., None].astype(np.float32)
        network.train_on_batch(faces, training.truth[rows])
    networks.export(network).save(tmp_path / "separable.h5")
    words = [str(tmp_path / "separable.h5"), "--data", str(data), "--recover"]
    assert main(words) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fast", "accurate"])
def test_the_shipped_model_is_made_again_and_passes(name: str, tmp_path: Path) -> None:
    source = ROOT / "models" / name / f"{name}.keras"
    if not source.is_file():
        pytest.skip(f"no {source}: train it first")
    out = tmp_path / f"{name}-int8.tflite"
    words = [str(source), "--data", str(real()), "--out", str(out), "--recover"]
    assert main(words) == 0
    assert inspection.floats(manifests.split(out.read_bytes())[0]) == []
