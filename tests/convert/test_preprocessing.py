"""Mean and deviation per channel or per pixel become part of the file; the device feeds pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from convert import conversion, float_model, preprocessing, publish
from convert.__main__ import main
from convert.errors import ConversionError
from emotion_edge.errors import UsageError
from emotion_edge.model import manifest as manifests
from emotion_edge.model.classifier import TFLiteClassifier
from tests.convert import tiny
from train.arguments import number

DEVIATION = 60.0


def bare(mean: Any, std: Any, channels: int = 1) -> Any:
    """The tiny network for inputs of ``(pixel - mean) / std``: it undoes them itself."""
    network = tiny.network()
    image = keras.Input((48, 48, channels))
    x = image * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
    if channels == 3:
        x = x[..., :1]
    for layer in network.layers[1:]:
        x = layer(x)
    return keras.Model(image, x)


def pixel_mean() -> Any:
    """Between 100 and 150, another one for each pixel: ``(48, 48)``."""
    return np.add.outer(np.linspace(100, 130, 48), np.linspace(0, 20, 48))


@pytest.mark.parametrize("each", ["pixel", "channel"])
def test_values_per_pixel_or_channel_are_in_the_file(
    each: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if each == "pixel":
        mean: Any = pixel_mean()
        np.save(tmp_path / "mean.npy", mean)
        options = ["--mean", f"{tmp_path / 'mean.npy'}", "--std", "60"]
        network = bare(mean[..., None], DEVIATION)
    else:
        options = ["--mean", "100,120,140", "--std", "60,55,50"]
        network = bare([100, 120, 140], [60, 55, 50], channels=3)
    network.save(tmp_path / "bare.keras")
    out = tmp_path / "bare-int8.tflite"
    words = [str(tmp_path / "bare.keras"), "--data", str(data), *options, "--out", str(out)]
    assert main(["run", *words, "--report", str(tmp_path / "report")]) == 0, capsys.readouterr()
    model, manifest = manifests.load(out)
    assert (manifest.input.scale, manifest.input.offset) == (1, 0)
    assert manifest.accuracy["PublicTest"]["converted"]["accuracy"] == 1
    assert manifest.training["preprocessing"]["inside_the_graph"]
    report = json.loads((tmp_path / "report/int8/report.json").read_text())
    assert report["preprocessing"]["formula"] == "(pixel * scale + offset - mean) / std"
    # What the device feeds is a plain image.
    face = np.full((48, 48) if each == "pixel" else (48, 48, 3), 18 + 36 * 3, np.uint8)
    assert TFLiteClassifier(model, manifest).emotion(face).label == manifest.labels[3]


def test_one_mean_and_deviation_are_a_scale_and_an_offset(data: Path) -> None:
    model = float_model.from_keras(bare(100, DEVIATION))
    prepared = preprocessing.read("100", "60", None)
    job = conversion.prepare(model, data, prepared=prepared)
    assert job.spec.scale == pytest.approx(1 / 60) and job.spec.offset == pytest.approx(-100 / 60)
    assert job.model.network is model.network
    attempt = conversion.Attempt("float32", conversion.convert(job, "float32"))
    facts = publish.describe(job, attempt).training["preprocessing"]
    assert facts["mean"] == [100] and not facts["inside_the_graph"]


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_the_modes_are_those_of_keras_applications(mode: str) -> None:
    module = {"tf": "mobilenet_v2", "torch": "densenet", "caffe": "vgg16"}[mode]
    found = preprocessing.of_function(f"keras.applications.{module}")
    known = preprocessing.MODES[mode]
    assert found.colour == (known.colour or "rgb")
    np.testing.assert_allclose(found.mean, np.broadcast_to(known.mean, 3), rtol=1e-4)
    np.testing.assert_allclose(found.std, np.broadcast_to(known.std, 3), rtol=1e-4)


def test_a_function_that_is_not_affine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def square(x): return x**2\ndef mean(x): return x.mean()\n")
    with pytest.raises(ConversionError, match="build it into the network"):
        preprocessing.read(None, None, f"{tmp_path / 'own.py'}:square")
    with pytest.raises(ConversionError, match="keep the shape"):
        preprocessing.read(None, None, f"{tmp_path / 'own.py'}:mean")
    with pytest.raises(ConversionError, match="no function 'preprocess_input'"):
        preprocessing.read(None, None, f"{tmp_path / 'own.py'}")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("1,2,x", None, None), "FILE.npy"),
        ((None, "1,0,1", None), "greater than 0"),
        (("1", None, "tf"), "give one"),
        (("nowhere.npy", None, None), "not a NumPy array"),
        (("nan", None, None), "finite"),
        (("1,inf,1", None, None), "finite"),
        ((None, "inf", None), "finite"),
    ],
)
def test_wrong_values_are_refused(words: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        preprocessing.read(*words)


def test_files_without_plain_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mean.npy"
    path.touch()
    with pytest.raises(UsageError, match="not a NumPy array"):
        preprocessing.read(str(path), None, None)
    with path.open("wb") as file:
        np.savez(file, mean=np.ones(3))
    with pytest.raises(UsageError, match="several arrays"):
        preprocessing.read(str(path), None, None)
    np.save(path, np.array([1j]))
    with pytest.raises(UsageError, match="complex128"):
        preprocessing.read(str(path), None, None)


def test_a_scale_is_a_finite_number() -> None:
    for text in ("nan", "inf", "1e308/1e-308"):
        with pytest.raises(UsageError, match="--scale"):
            number(text, "--scale")


def test_values_of_another_shape_are_refused(data: Path) -> None:
    model = float_model.from_keras(tiny.network())
    prepared = preprocessing.read("1,2,3", None, None)
    with pytest.raises(UsageError, match=r"--mean has the shape 3; the network takes 48x48x1"):
        conversion.prepare(model, data, prepared=prepared)
    with pytest.raises(UsageError, match="torch takes rgb"):
        conversion.prepare(model, data, prepared=preprocessing.MODES["torch"], colour="bgr")
