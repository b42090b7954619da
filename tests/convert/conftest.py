"""Small networks and images with known answers, converted once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from convert import conversion, float_model
from convert.conversion import Converted, Job
from emotion_edge.model.labels import EMOTIONS
from tests.convert import tiny

COUNTS = {"Training": 12, "PublicTest": 10, "PrivateTest": 4}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Keras 3.15 saves through an __array__ that lacks NumPy 2's copy keyword.
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(
                pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
            )


def gray(label: int, random: np.random.Generator, size: int = 48) -> Any:
    """A noisy image whose mean brightness is that of a label."""
    return np.clip(random.normal(18 + 36 * label, 8, (size, size)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What train.data keeps of a data set goes to a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fer2013.csv of gray images, seven labels, three splits."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "fer2013.csv"
    lines = ["emotion,pixels,Usage"]
    for split, count in COUNTS.items():
        for label in range(7):
            for _ in range(count):
                pixels = " ".join(map(str, gray(label, random).ravel()))
                lines.append(f"{label},{pixels},{split}")
    path.write_text("\n".join(lines) + "\n")
    return path


def unbalanced() -> Any:
    """The tiny network with one channel 300 times as wide as the others, and unused later.

    int8 has one scale for all channels of an activation, so the others lose all their steps.
    """
    network = tiny.network()
    kernel, bias = network.get_layer("mean").get_weights()
    kernel[..., 0] *= 300
    network.get_layer("mean").set_weights([kernel, bias])
    kernel, bias = network.get_layer("nearest").get_weights()
    kernel[1:] *= 4 / 3
    kernel[0] = 1e-6
    network.get_layer("nearest").set_weights([kernel, bias])
    return network


@pytest.fixture(scope="session")
def keras_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``tiny``, which passes its gate, and ``unbalanced``, which does not."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, network in (("tiny", tiny.network()), ("unbalanced", unbalanced())):
        found[name] = folder / f"{name}.keras"
        network.save(found[name])
    return found


@pytest.fixture(scope="session")
def jobs(keras_files: dict[str, Path], data: Path) -> dict[str, Job]:
    return {
        name: conversion.prepare(float_model.load(path), data) for name, path in keras_files.items()
    }


@pytest.fixture(scope="session")
def converted(jobs: dict[str, Job]) -> dict[str, Converted]:
    return {name: conversion.convert(job, "int8") for name, job in jobs.items()}


def convolutional(
    *,
    size: int = 24,
    channels: int = 1,
    rescale: tuple[float, float] | None = (1 / 127.5, -1.0),
    activation: Any = "relu",
    softmax: bool = True,
    labels: int = len(EMOTIONS),
) -> Any:
    """Convolution, batch norm, separable and residual layers with random weights."""
    keras.utils.set_random_seed(3)
    image = x = keras.Input((size, size, channels))
    if rescale is not None:
        x = keras.layers.Rescaling(*rescale)(x)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = early = keras.layers.Activation(activation)(x)
    x = keras.layers.SeparableConv2D(8, 3, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Add()([x, early])
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    # Not zeros: the converter leaves a bias of zeros away.
    x = keras.layers.Dense(labels, "softmax" if softmax else None, bias_initializer="normal")(x)
    return keras.Model(image, x, name="small")
