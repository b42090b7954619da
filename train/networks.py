"""Every network this project trains, with its source, size and cost.

All of them take gray faces as the camera gives them, 48x48x1 in 0..255, scale inside the graph,
and end in logits: softmax and temperature are added when a model is exported (:func:`export`),
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
    more than the convolutions around them. Same variables, same results; other backends fall
    through to Keras. Models on disk carry the plain layer (see :func:`export`).
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

    ``stem`` is (channels, kernel), one convolution that strides, named for :func:`export`; each
    stage (channels, stride, pairs) opens with one convolution, which may stride, and adds
    residual pairs (He et al. 2016, arXiv:1512.03385; the lone convolution between stages as in
    Page's ResNet-9). Dense convolutions with wide channels reach more of a CPU's int8 peak than
    separable ones, and so earn their MACs.
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
    """Convolution, ReLU and pooling, then a dense layer: the tutorials' first network.

    LeNet's order (LeCun et al. 1998, Proc. IEEE 86) with ReLU and max pooling.
    """
    for width in channels:
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    return _logits(x, units)


def conv_pool_bn(x: Tensor, units: int, *, channels: Sequence[int] = (32, 64, 128, 256)) -> Tensor:
    """Convolution, pooling, batch normalisation and dropout, in that order.

    Ioffe and Szegedy 2015 (arXiv:1502.03167), who normalise before the activation; Srivastava et
    al. 2014 (JMLR 15).
    """
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
    """Convolutions of several kernel sizes with several dropout rates.

    Wide kernels first, as in AlexNet (Krizhevsky et al. 2012).
    """
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


BLOCK = 8
"""Columns that are channels of the deployed stem: the bytes an int8 kernel reads at a time."""
PLACES = BLOCK // 2
"""Positions of a stem of stride 2 in one block."""


def export(
    model: keras.Model, head: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
) -> keras.Model:
    """The model that ships: float32, plain layers, one head, softmax, a stem in blocks.

    ``head`` is the kernel (features, classes) and bias (classes,) that replace the last layer of
    ``model``; None keeps the last layer. The last layer is linear, so a mix of two heads, an
    adjusted bias and a temperature cost nothing on the device (:mod:`train.heads`).

    A convolution of one channel gives an int8 kernel one byte where it takes eight, so a plain
    3x3 stem of stride 2 is deployed in another layout: eight neighbouring columns become the
    channels (a reshape, which moves nothing), and one convolution over two such blocks computes
    what the stem did at all four positions of a block. Same function; structural
    re-parameterisation, as of Ding et al. 2021 (arXiv:2101.03697), for a layout. A model that was
    exported before can be exported again with another head.
    """
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    if head is not None:
        kernel, bias = head
        weights["logits"] = [kernel.reshape(*weights["logits"][0].shape[:-1], -1), bias]
    classes = len(weights["logits"][1])
    blocked = _has_plain_stem(model)
    if blocked:
        weights["stem"] = [_in_blocks(*weights["stem"])]
        weights["stem_norm"] = [np.tile(value, PLACES) for value in weights["stem_norm"]]

    def plain(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config() | {"dtype": "float32"}
        if layer.name == "logits":
            config["units" if "units" in config else "filters"] = classes
        if blocked and layer.name == "stem":
            wide = PLACES * config["filters"]
            config |= {"filters": wide, "kernel_size": (3, 2), "strides": (2, 1)}
        fused = isinstance(layer, FusedBatchNormalization)
        return (layers.BatchNormalization if fused else type(layer)).from_config(config)

    def call(layer: keras.Layer, x: Tensor, **options: Tensor) -> Tensor:
        if blocked and layer.name == "stem":
            _, height, width, _ = x.shape
            x = layers.Reshape((height, width // BLOCK, BLOCK), name="blocks")(x)
        x = layer(x, **options)
        if blocked and layer.name == "stem_relu":
            _, height, width, channels = x.shape
            x = layers.Reshape((height, width * PLACES, channels // PLACES), name="positions")(x)
        return x

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        # A view without the compiled loss, which Keras would clone too and cannot; and without
        # the softmax of a model that was exported before.
        end = model.layers[-2] if model.layers[-1].name == "probabilities" else model.layers[-1]
        bare = keras.Model(model.input, end.output)
        logits = keras.models.clone_model(bare, clone_function=plain, call_function=call)
        for layer in bare.layers:
            logits.get_layer(layer.name).set_weights(weights[layer.name])
        probabilities = layers.Softmax(name="probabilities")(logits.output)
        return keras.Model(logits.input, probabilities, name=model.name)
    finally:
        keras.config.set_dtype_policy(policy)


def trunk(model: keras.Model) -> keras.Model:
    """The same model up to the input of its last dense layer: features (N, F).

    Raises ConfigError for a network that does not end in a dense layer.
    """
    last = next((layer for layer in model.layers if layer.name == "logits"), None)
    if not isinstance(last, layers.Dense):
        raise ConfigError(f"{model.name} does not end in a dense layer, so it has no linear heads")
    return keras.Model(model.input, last.input, name=model.name)


def _has_plain_stem(model: keras.Model) -> bool:
    """Whether a network opens by a 3x3 convolution of stride 2 over whole blocks of one channel."""
    stem = next((layer for layer in model.layers if layer.name == "stem"), None)
    if stem is None:
        return False
    _, _, width, channels = stem.input.shape
    shape = (*stem.kernel_size, *stem.strides, channels)
    return shape == (3, 3, 2, 2, 1) and width % BLOCK == 0


def _in_blocks(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The kernel (3, 3, 1, C) of a stem, once for each position of a block and zero elsewhere.

    (3, 2, BLOCK, PLACES * C): two blocks, since the last position looks into the next.
    """
    spread = np.zeros((3, 2 * BLOCK, PLACES, kernel.shape[-1]), np.float32)
    for place in range(PLACES):
        spread[:, 2 * place : 2 * place + 3, place] = kernel[:, :, 0]
    return spread.reshape(3, 2, BLOCK, -1)


def reopen(exported: keras.Model, network: keras.Model) -> None:
    """Give ``network``, freshly built, the trunk of an exported model of the same architecture.

    The last layer keeps its own weights, since the exported one holds a single folded head. Raises
    ConfigError when the two are not the same network.
    """
    trunk, mine = _weighted(exported), _weighted(network)
    if len(trunk) != len(mine):
        raise ConfigError(
            f"the start model has {len(trunk)} layers with weights, {network.name} has {len(mine)}"
        )
    blocked = any(layer.name == "blocks" for layer in exported.layers)
    for source, layer in zip(trunk, mine, strict=True):
        values = _unblocked(source) if blocked else source.get_weights()
        found = [value.shape for value in values]
        expected = [tuple(weight.shape) for weight in layer.weights]
        if found != expected:
            raise ConfigError(
                f"layer {source.name} of the start model has weights of {found}, "
                f"{network.name} has {expected}"
            )
        layer.set_weights(values)


def _weighted(model: keras.Model) -> list[Any]:
    """The layers with weights, without the last one."""
    return [layer for layer in model.layers if layer.weights and layer.name != "logits"]


def _unblocked(layer: Any) -> list[NDArray[np.float32]]:
    """A layer's weights as before its model was exported with a stem over blocks."""
    values: list[NDArray[np.float32]] = layer.get_weights()
    if layer.name == "stem":
        return [_from_blocks(*values)]
    if layer.name == "stem_norm":
        return [value[: len(value) // PLACES] for value in values]
    return values


def _from_blocks(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The kernel (3, 3, 1, C) that :func:`_in_blocks` spread."""
    spread = kernel.reshape(3, 2 * BLOCK, PLACES, -1)
    return np.ascontiguousarray(spread[:, :3, 0][:, :, None])


def freeze(network: keras.Model, convolutions: int) -> None:
    """Keep the first convolutions as they are, with the normalisation and statistics after each.

    Raises ConfigError when the network has no more convolutions than that.
    """
    if not convolutions:
        return
    seen = 0
    for layer in network.layers:
        seen += isinstance(layer, layers.Conv2D)
        if seen > convolutions:
            return
        layer.trainable = False
    raise ConfigError(f"freeze = {convolutions}: {network.name} has {seen} convolutions")
