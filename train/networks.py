"""Every network this project trains, with its source, size and cost.

All of them take gray faces as the camera gives them, 48x48x1 in 0..255, scale inside the graph,
and end in logits: softmax and temperature are added when a model is finished (:func:`finish`),
in float32, whatever precision it was trained in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from train.errors import ConfigError

Tensor = Any


@keras.saving.register_keras_serializable(package="emotion_edge")
class FusedBatchNormalization(layers.BatchNormalization):  # type: ignore[misc]  # Keras is untyped
    """Batch normalisation through TensorFlow's fused kernel, where TensorFlow is the backend.

    Keras 3 spells the layer out in a dozen elementwise operations in float32; on a CPU they cost
    more than the convolutions beside them. Same variables, same results; other backends fall
    through to Keras. Models on disk carry the plain layer (see :func:`finish`).
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        """Normalise ``inputs`` (N, H, W, C) by batch in training, by moving statistics else."""
        if not training or not self.trainable or keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.convert_to_tensor(self.gamma.value),
            tf.convert_to_tensor(self.beta.value),
            epsilon=self.epsilon,
            is_training=True,
        )
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean * keep + mean * (1.0 - keep))
        self.moving_variance.assign(self.moving_variance * keep + variance * (1.0 - keep))
        return outputs


def _conv(
    x: Tensor,
    channels: int,
    kernel: int = 3,
    stride: int = 1,
    relu: bool = True,
    name: str | None = None,
) -> Tensor:
    x = layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    # Momentum 0.99 lags behind in short runs: right in training, nonsense at inference.
    x = FusedBatchNormalization(momentum=0.95, epsilon=1e-3, name=name and f"{name}_norm")(x)
    return layers.ReLU(name=name and f"{name}_relu")(x) if relu else x


def residual(
    x: Tensor,
    units: int,
    *,
    stem: Sequence[int],
    stages: Sequence[Sequence[int]],
    dropout: float = 0.0,
) -> Tensor:
    """Our network: dense 3x3 convolutions, residual pairs, a stride-2 stem.

    ``stem`` is (channels, kernel); each stage (channels, stride, pairs) opens with one
    convolution, which may stride, and adds residual pairs (He et al. 2016, arXiv:1512.03385;
    the lone convolution between stages as in Page's ResNet-9). Dense convolutions with wide
    channels reach more of a CPU's int8 peak than separable ones, and so earn their MACs.
    """
    x = _conv(x, stem[0], kernel=stem[1], stride=2, name="stem")
    for channels, stride, pairs in stages:
        x = _conv(x, channels, stride=stride)
        for _ in range(pairs):
            y = _conv(x, channels)
            y = _conv(y, channels, relu=False)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return _logits(layers.Dropout(dropout)(x) if dropout else x, units)


def simple(x: Tensor, units: int, *, channels: Sequence[int] = (32, 64, 128)) -> Tensor:
    """Convolution, ReLU and pooling, then a dense layer: the tutorials' first network."""
    for width in channels:
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    return _logits(x, units)


def conv_pool_bn(x: Tensor, units: int, *, channels: Sequence[int] = (32, 64, 128, 256)) -> Tensor:
    """Convolution, pooling, batch normalisation and dropout, in that order."""
    for width in channels:
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
        x = FusedBatchNormalization(momentum=0.95)(x)
        x = layers.Dropout(0.25)(x)
    x = layers.Dense(256, activation="relu")(layers.Flatten()(x))
    return _logits(layers.Dropout(0.5)(x), units)


def three_block(x: Tensor, units: int) -> Tensor:
    """Three blocks of two 3x3 convolutions (32, 64, 128): the classic of this niche.

    Each convolution has its batch normalisation, each block max pooling and dropout 0.25; the
    head is dense 256 with batch normalisation and dropout 0.5. A small VGG (Simonyan and
    Zisserman 2015, arXiv:1409.1556).
    """
    for width in (32, 64, 128):
        for _ in range(2):
            x = _conv(x, width)
        x = layers.MaxPooling2D()(x)
        x = layers.Dropout(0.25)(x)
    x = layers.Dense(256, use_bias=False)(layers.Flatten()(x))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))
    return _logits(layers.Dropout(0.5)(x), units)


def varying_filters(x: Tensor, units: int) -> Tensor:
    """Convolutions of several kernel sizes with several dropout rates."""
    for width, kernel, rate in ((32, 7, 0.1), (64, 5, 0.2), (128, 3, 0.3), (128, 3, 0.4)):
        x = _conv(x, width, kernel=kernel)
        x = layers.MaxPooling2D()(x)
        x = layers.Dropout(rate)(x)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    return _logits(layers.Dropout(0.5)(x), units)


def mini_xception(x: Tensor, units: int) -> Tensor:
    """mini-XCEPTION (Arriaga et al. 2017, arXiv:1710.07557), the network of the ``fer`` package.

    Made for 64x64 faces; at seven classes and one head 58,423 parameters, as published.
    """
    for _ in range(2):
        x = layers.Conv2D(8, 3, use_bias=False)(x)
        x = layers.ReLU()(FusedBatchNormalization(momentum=0.95)(x))
    for width in (16, 32, 64, 128):
        short = layers.Conv2D(width, 1, strides=2, padding="same", use_bias=False)(x)
        short = FusedBatchNormalization(momentum=0.95)(short)
        x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(FusedBatchNormalization(momentum=0.95)(x))
        x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x)
        x = FusedBatchNormalization(momentum=0.95)(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = layers.Add()([x, short])
    x = layers.Conv2D(units, 3, padding="same", name="logits")(x)
    return layers.GlobalAveragePooling2D(dtype="float32")(x)


def _logits(x: Tensor, units: int) -> Tensor:
    return layers.Dense(units, dtype="float32", name="logits")(x)


NETWORKS: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        residual,
        simple,
        conv_pool_bn,
        three_block,
        varying_filters,
        mini_xception,
    )
}


def build(
    name: str,
    *,
    classes: int = 7,
    heads: int = 1,
    shape: tuple[int, int] = (48, 48),
    seed: int = 0,
    **options: Any,
) -> keras.Model:
    """A network that maps (N, H, W, 1) in 0..255 to float32 logits (N, heads * classes)."""
    if name not in NETWORKS:
        raise ConfigError(f"no network {name!r}: known are {', '.join(sorted(NETWORKS))}")
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((*shape, 1), name="face")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(inputs)
    try:
        logits = NETWORKS[name](x, heads * classes, **options)
    except TypeError as error:
        raise ConfigError(f"[network] {name}: {error}") from error
    return keras.Model(inputs, logits, name=name)


def cost(model: keras.Model) -> dict[str, int]:
    """Parameters and multiply-accumulates of one inference, counted from the layers."""
    macs = 0
    for layer in model.layers:
        if isinstance(layer, layers.SeparableConv2D):
            height, width = layer.output.shape[1:3]
            macs += (
                height
                * width
                * (
                    int(np.prod(layer.depthwise_kernel.shape))
                    + int(np.prod(layer.pointwise_kernel.shape))
                )
            )
        elif isinstance(layer, layers.DepthwiseConv2D | layers.Conv2D):
            height, width = layer.output.shape[1:3]
            macs += height * width * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, layers.Dense):
            macs += int(np.prod(layer.kernel.shape))
    return {"parameters": int(model.count_params()), "macs": int(macs)}


def finish(
    model: keras.Model,
    classes: int,
    *,
    mix: float = 0.0,
    temperature: float = 1.0,
) -> keras.Model:
    """The model that ships: float32, plain layers, one head, softmax.

    Two heads become one: both are linear in the same features, so (1-mix) times the first plus
    mix times the second is again one layer. The temperature divides its weights. Neither costs
    anything on the device.
    """
    config = model.get_config()
    for layer in config["layers"]:
        layer["config"]["dtype"] = "float32"
        if layer["class_name"].endswith("FusedBatchNormalization"):
            layer |= {"class_name": "BatchNormalization", "module": "keras.layers"}
            layer["registered_name"] = None
        if layer["config"]["name"] == "logits":
            layer["config"]["units" if "units" in layer["config"] else "filters"] = classes
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        plain = keras.Model.from_config(config)
        for layer in model.layers:
            if layer.name != "logits":
                plain.get_layer(layer.name).set_weights(layer.get_weights())
        kernel, bias = model.get_layer("logits").get_weights()
        shares = [1.0] if len(bias) == classes else [1 - mix, mix]

        def fold(value: NDArray[np.float32]) -> NDArray[np.float32]:
            parts = np.split(value, len(shares), axis=-1)
            joined = sum(s * p for s, p in zip(shares, parts, strict=True))
            return np.asarray(joined / temperature)

        plain.get_layer("logits").set_weights([fold(kernel), fold(bias)])
        probabilities = layers.Softmax(name="probabilities")(plain.output)
        return block_stem(keras.Model(plain.input, probabilities, name=model.name))
    finally:
        keras.config.set_dtype_policy(policy)


BLOCK = 8
"""Columns that are channels of the deployed stem: as many bytes as int8 kernels take at once."""


def block_stem(model: keras.Model) -> keras.Model:
    """The same function with a stem that int8 kernels like.

    A convolution of one channel hands an int8 kernel one byte where it takes eight, and costs as
    much time as thirty times its multiplications elsewhere. So a network trains with a plain 3x3
    stem of stride 2 and is deployed with another: eight neighbouring columns become the channels
    (a reshape, which moves nothing), and one convolution over two such blocks computes what the
    stem did at all four positions of a block, its kernel repeated at each and zero elsewhere.
    Structural re-parameterisation, as of Ding et al. 2021 (arXiv:2101.03697), for a layout.

    Returns the model itself where it has no such stem.
    """
    names = {layer.name for layer in model.layers}
    if not {"stem", "stem_norm", "stem_relu"} <= names:
        return model
    stem, norm = model.get_layer("stem"), model.get_layer("stem_norm")
    _, height, width, channels = stem.input.shape
    if (*stem.kernel_size, *stem.strides, channels) != (3, 3, 2, 2, 1) or width % BLOCK:
        return model
    each, places = stem.filters, BLOCK // 2
    blocks = layers.Reshape((height, width // BLOCK, BLOCK), name="blocks")
    wide = layers.Conv2D(each * places, (3, 2), (2, 1), "same", use_bias=False, name="stem")
    wide_norm = layers.BatchNormalization(
        momentum=norm.momentum, epsilon=norm.epsilon, name="stem_norm"
    )
    positions = layers.Reshape((height // 2, width // 2, each), name="positions")

    def call(layer: keras.Layer, *inputs: Tensor, **options: Tensor) -> Tensor:
        if layer.name == "stem":
            return wide(blocks(*inputs))
        if layer.name == "stem_norm":
            return wide_norm(*inputs)
        answer = layer(*inputs, **options)
        return positions(answer) if layer.name == "stem_relu" else answer

    blocked = keras.models.clone_model(model, call_function=call)
    for layer in model.layers:
        if layer.name not in ("stem", "stem_norm"):
            blocked.get_layer(layer.name).set_weights(layer.get_weights())
    (kernel,) = stem.get_weights()  # (3, 3, 1, each)
    spread = np.zeros((3, 2 * BLOCK, places, each), np.float32)
    for place in range(places):
        spread[:, 2 * place : 2 * place + 3, place] = kernel[:, :, 0]
    wide.set_weights([spread.reshape(3, 2, BLOCK, places * each)])
    wide_norm.set_weights([np.tile(value, places) for value in norm.get_weights()])
    return blocked
