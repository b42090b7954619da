"""Writes Keras files as older versions of Keras wrote them, from a network of today's Keras.

Only the arrangement of configuration and weights differs, so no old TensorFlow is needed.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

SHAPE = [None, 48, 48, 1]


def network() -> Any:
    """Convolution, batch norm, separable and depthwise layers, with weights that are not zero."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    made = keras.Sequential(
        [
            keras.Input((48, 48, 1)),
            layers.Conv2D(4, 3, strides=2, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.SeparableConv2D(6, 3, name="separable"),
            layers.LeakyReLU(negative_slope=0.1, name="leaky"),
            layers.DepthwiseConv2D(3, strides=2, name="depthwise"),
            layers.Flatten(name="flat"),
            layers.Dense(7, activation="softmax", name="answer"),
        ],
        name="old",
    )
    random = np.random.default_rng(0)
    for layer in made.layers:
        layer.set_weights([random.uniform(0.01, 0.1, w.shape) for w in layer.get_weights()])
    return made


def _config(layer: Any, **extra: Any) -> dict[str, Any]:
    config = {
        key: value
        for key, value in layer.get_config().items()
        if not isinstance(value, dict) and key not in ("autocast", "negative_slope")
    }
    return {**config, **extra}


def keras_2(made: Any, version: str = "2.11.0") -> dict[str, Any]:
    """The configuration as TF 2's Keras wrote it: with ``groups`` in depthwise layers."""
    layers = []
    for at, layer in enumerate(made.layers):
        extra: dict[str, Any] = {"batch_input_shape": SHAPE} if at == 0 else {}
        if layer.name in ("separable", "depthwise"):
            extra["groups"] = 1
        if layer.name == "leaky":
            extra["alpha"] = 0.1
        if layer.name == "norm":
            extra["axis"] = [3]
        layers.append({"class_name": type(layer).__name__, "config": _config(layer, **extra)})
    return {
        "class_name": "Sequential",
        "config": {"name": "old", "layers": layers},
        "keras_version": version,
        "backend": "tensorflow",
    }


def keras_1() -> tuple[dict[str, Any], Any]:
    """A configuration as Keras 1.2 wrote it, and the network that it describes."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    made = keras.Sequential(
        [
            keras.Input((48, 48, 1)),
            layers.Conv2D(4, (3, 5), strides=4, activation="relu", name="convolution2d_1"),
            layers.MaxPooling2D(name="maxpooling2d_1"),
            layers.Dropout(0.25, name="dropout_1"),
            layers.Flatten(name="flatten_1"),
            layers.Dense(7, activation="softmax", name="dense_1"),
        ]
    )
    common = {"trainable": True, "W_regularizer": None, "b_constraint": None, "bias": True}
    shared = {"init": "glorot_uniform", "activity_regularizer": None, **common}
    config = [
        {
            "class_name": "Convolution2D",
            "config": {
                **{"name": "convolution2d_1", "batch_input_shape": SHAPE, "nb_filter": 4},
                **{"nb_row": 3, "nb_col": 5, "border_mode": "valid", "subsample": [4, 4]},
                **{"dim_ordering": "tf", "activation": "relu", "input_dtype": "float32"},
                **shared,
            },
        },
        {
            "class_name": "MaxPooling2D",
            "config": {
                **{"name": "maxpooling2d_1", "pool_size": [2, 2], "strides": [2, 2]},
                **{"border_mode": "valid", "dim_ordering": "tf", "trainable": True},
            },
        },
        {"class_name": "Dropout", "config": {"name": "dropout_1", "p": 0.25, "trainable": True}},
        {"class_name": "Flatten", "config": {"name": "flatten_1", "trainable": True}},
        {
            "class_name": "Dense",
            "config": {
                **{"name": "dense_1", "output_dim": 7, "activation": "softmax", "input_dim": None},
                **shared,
            },
        },
    ]
    return {"class_name": "Sequential", "config": config, "keras_version": "1.2.0"}, made


def write_weights(group: Any, layers: Sequence[Any], *, suffix: str = "/{}:0") -> None:
    """Layer groups with ``weight_names``, the arrangement of all HDF5 files before Keras 3."""
    group.attrs["layer_names"] = [layer.name.encode() for layer in layers]
    for layer in layers:
        own = group.create_group(layer.name)
        names = []
        for variable in layer.weights:
            path = variable.path.split("/")
            name = path[-2] + suffix.format(path[-1])
            own[name] = variable.numpy()
            names.append(name.encode())
        own.attrs["weight_names"] = names


def write_h5(
    path: Path, config: Mapping[str, Any] | None, layers: Sequence[Any], **options: Any
) -> Path:
    """An HDF5 file: a whole model, or weights alone where ``config`` is None."""
    with h5py.File(path, "w") as file:
        if config is None:
            write_weights(file, layers, **options)
            return path
        file.attrs["keras_version"] = str(config["keras_version"]).encode()
        file.attrs["model_config"] = json.dumps(config).encode()
        write_weights(file.create_group("model_weights"), layers, **options)
    return path


def edit_keras(path: Path, edit: Any) -> None:
    """Change the configuration inside a ``.keras`` archive."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    edit(config)
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def write_multi_gpu(path: Path, inner: Path) -> Path:
    """The HDF5 file that ``multi_gpu_model`` on two devices makes of a functional model.

    inner: that model as tf_keras wrote it.
    """
    with h5py.File(inner, "r") as file:
        config = json.loads(file.attrs["model_config"])
        weights = {
            name.decode(): np.asarray(group[name])
            for group in file["model_weights"].values()
            for name in map(_bytes, group.attrs.get("weight_names", ()))
        }
    shape = config["config"]["layers"][0]["config"]["batch_input_shape"]

    def layer(kind: str, name: str, calls: Any, **content: Any) -> dict[str, Any]:
        own = {"name": name, **content}
        return {"class_name": kind, "name": name, "config": own, "inbound_nodes": calls}

    parts = [
        layer("Lambda", f"part_{at}", [[["whole", 0, 0, {}]]], function=["4wE=", None, None])
        for at in range(2)
    ]
    copies = [[[f"part_{at}", 0, 0, {}]] for at in range(2)]
    outer = {
        "name": "copies",
        "layers": [
            layer("InputLayer", "whole", [], batch_input_shape=shape, dtype="float32"),
            *parts,
            {**config, "name": "inner", "inbound_nodes": copies},
            layer("Concatenate", "joined", [[["inner", 1, 0, {}], ["inner", 2, 0, {}]]], axis=0),
        ],
        "input_layers": [["whole", 0, 0]],
        "output_layers": [["joined", 0, 0]],
    }
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = b"2.2.4"
        file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": outer}).encode()
        group = file.create_group("model_weights/inner")
        for name, values in weights.items():
            group[name] = values
        group.attrs["weight_names"] = [name.encode() for name in weights]
    return path


def _bytes(name: Any) -> bytes:
    return name if isinstance(name, bytes) else str(name).encode()
