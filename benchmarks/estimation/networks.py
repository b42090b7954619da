"""The networks of the published latencies, with random weights: speed does not depend on them.

``python -m benchmarks.estimation.networks FOLDER`` writes them as TFLite files, float32 and int8.
Needs the extra ``[train]``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _applications(name: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        import keras

        return getattr(keras.applications, name)(weights=None, input_shape=(224, 224, 3), **options)

    return build


def resnet18() -> Any:
    """ResNet-18 (He et al. 2016, arXiv:1512.03385, table 1)."""
    import keras
    from keras import layers

    def unit(x: Any, channels: int, stride: int = 1, kernel: int = 3, relu: bool = True) -> Any:
        x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        return layers.ReLU()(x) if relu else x

    inputs = keras.Input((224, 224, 3))
    x = layers.MaxPooling2D(3, 2, padding="same")(unit(inputs, 64, 2, 7))
    for channels in (64, 128, 256, 512):
        for number in range(2):
            stride = 2 if channels > 64 and number == 0 else 1
            short = unit(x, channels, stride, 1, relu=False) if stride == 2 else x
            y = unit(unit(x, channels, stride), channels, relu=False)
            x = layers.ReLU()(layers.Add()([y, short]))
    outputs = layers.Dense(1000)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def squeezenet() -> Any:
    """SqueezeNet 1.0 (Iandola et al. 2016, arXiv:1602.07360, table 1)."""
    import keras
    from keras import layers

    inputs = keras.Input((224, 224, 3))
    x = layers.Conv2D(96, 7, 2, activation="relu")(inputs)
    x = layers.MaxPooling2D(3, 2)(x)
    for number, (squeeze, expand) in enumerate(
        ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
    ):
        s = layers.Conv2D(squeeze, 1, activation="relu")(x)
        x = layers.Concatenate()(
            [
                layers.Conv2D(expand, 1, activation="relu")(s),
                layers.Conv2D(expand, 3, padding="same", activation="relu")(s),
            ]
        )
        if number in (2, 6):
            x = layers.MaxPooling2D(3, 2)(x)
    x = layers.Conv2D(1000, 1, activation="relu")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


NETWORKS: dict[str, Callable[[], Any]] = {
    "mobilenet-v1": _applications("MobileNet"),
    "mobilenet-v2": _applications("MobileNetV2"),
    "mobilenet-v3-large": _applications("MobileNetV3Large"),
    "mobilenet-v3-small": _applications("MobileNetV3Small"),
    "resnet-50": _applications("ResNet50"),
    "resnet-18": resnet18,
    "squeezenet-1.0": squeezenet,
}


def write(name: str, variant: str, path: Path) -> None:
    """A network as a TFLite file; ``variant``: float32 or int8."""
    import keras
    import numpy as np
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    fixed = keras.Input(batch_shape=(1, *model.input.shape[1:]))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(fixed, model(fixed)))
    if variant == "int8":
        rng = np.random.default_rng(0)

        def samples() -> Iterator[list[Any]]:
            for _ in range(4):
                yield [rng.uniform(-1, 1, (1, *model.input.shape[1:])).astype(np.float32)]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for wanted in sys.argv[2:]:
        chosen, _, kind = wanted.rpartition("-")
        write(chosen, kind, folder / f"{wanted}.tflite")
        print(folder / f"{wanted}.tflite")
