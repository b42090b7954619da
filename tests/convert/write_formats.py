"""Writes networks in the formats of one Keras; run with that Keras in the path.

    python -m tests.convert.write_formats FOLDER tf_keras|keras

Each file has its answers to ``X`` next to it, in NAME.npy.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

X = np.random.default_rng(0).uniform(0, 1, (2, 48, 48, 1)).astype(np.float32)
COLOUR = np.repeat(X * 255, 3, axis=-1)


def small(k: Any) -> Any:
    """A Sequential with the layers whose arguments changed between versions."""
    layers = k.layers
    return k.Sequential(
        [
            layers.InputLayer((48, 48, 1)),
            layers.Conv2D(4, 3, strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.SeparableConv2D(6, 3),
            layers.DepthwiseConv2D(3, strides=2),
            layers.LeakyReLU(),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(7, activation="softmax"),
        ]
    )


def branched(k: Any) -> Any:
    """A functional network with a nested one and a shared layer."""
    inner = k.Sequential([k.layers.InputLayer((24, 24, 4)), k.layers.Conv2D(4, 3, padding="same")])
    image = k.layers.Input((48, 48, 1))
    x = k.layers.Conv2D(4, 3, strides=2, padding="same", activation="hard_sigmoid")(image)
    x = k.layers.Concatenate()([inner(x), k.layers.Activation("tanh")(inner(x))])
    x = k.layers.GlobalAveragePooling2D()(x)
    return k.Model(image, k.layers.Dense(7, activation="softmax")(x))


def recurrent(k: Any) -> Any:
    """GRU and bidirectional LSTM over the rows."""
    image = k.layers.Input((48, 48, 1))
    x = k.layers.Reshape((48, 48))(image)
    x = k.layers.GRU(6, return_sequences=True)(x)
    x = k.layers.Bidirectional(k.layers.LSTM(4))(x)
    return k.Model(image, k.layers.Dense(7, activation="softmax")(x))


def application(k: Any) -> Any:
    """MobileNetV2 with ``preprocess_input`` in the graph."""
    image = k.layers.Input((48, 48, 3))
    x = k.applications.mobilenet_v2.preprocess_input(image)
    base = k.applications.MobileNetV2((48, 48, 3), alpha=0.35, include_top=False, weights=None)
    x = k.layers.GlobalAveragePooling2D()(base(x))
    return k.Model(image, k.layers.Dense(7, activation="softmax")(x))


def augmented(k: Any) -> Any:
    """Augmentation in front, with an argument that later versions dropped."""
    options = {"value_range": (0, 255)}
    try:
        turn = k.layers.RandomRotation(0.1, **options)
    except (TypeError, ValueError):
        turn = k.layers.RandomRotation(0.1)
    layers = [k.layers.InputLayer((48, 48, 1)), k.layers.RandomFlip(), turn]
    layers += [k.layers.Flatten(), k.layers.Dense(7, activation="softmax")]
    return k.Sequential(layers)


def with_side_effect(k: Any) -> Any:
    """A Lambda whose code writes a file; it imports by itself, as it runs without this module."""
    image = k.layers.Input((48, 48, 1))
    x = k.layers.Lambda(lambda x: x + (__import__("pathlib").Path("ran").touch() or 0))(image)
    return k.Model(image, k.layers.Dense(7, activation="softmax")(k.layers.Flatten()(x)))


def main(folder: Path, module: str) -> None:
    k = importlib.import_module(module)
    suffixes = (".h5", ".keras") if module == "tf_keras" else (".keras",)
    for build in (small, branched, recurrent, application, augmented):
        k.utils.set_random_seed(0)
        made = build(k)
        random = np.random.default_rng(0)
        made.set_weights([w + random.uniform(0, 0.05, w.shape) for w in made.get_weights()])
        fed = COLOUR if build is application else X
        answers = np.asarray(made(fed, training=False))
        saved = [""] if module == "tf_keras" and build in (small, branched) else []
        for suffix in (*suffixes, *saved):
            name = f"{build.__name__}{suffix or '-saved'}"
            made.save(folder / name)
            np.save(folder / f"{name}.npy", answers)
        if build is small and module == "tf_keras":
            with contextlib.chdir(folder):
                risky = with_side_effect(k)
            risky.save(folder / "risky.h5")
            made.save_weights(folder / "weights.h5")
            (folder / "weights.json").write_text(made.to_json())
            np.save(folder / "weights.h5.npy", answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
