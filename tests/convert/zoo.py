"""Small networks in the manner of the public repositories for facial expression recognition.

Each function takes the module ``keras`` or ``tf_keras``, so that the same network can be written
by either. They are narrower than their models, so that each trains in less than a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

FER = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
ALPHABETICAL = tuple(sorted(FER))
FIVE = ("angry", "happy", "neutral", "sad", "surprise")
EIGHT = (*FER, "contempt")


def _norm(k: Any) -> Any:
    # The usual momentum of 0.99 needs more steps than the short training has.
    return k.layers.BatchNormalization(momentum=0.9)


def _head(k: Any, x: Any, labels: int, rate: float = 0.3) -> Any:
    x = k.layers.Dropout(rate)(k.layers.Dense(64, activation="relu")(k.layers.Flatten()(x)))
    return k.layers.Dense(labels, activation="softmax")(x)


def mini_xception(k: Any, image: Any, labels: int, widths: tuple[int, ...] = (8, 16, 24)) -> Any:
    """Arriaga et al. 2017: separable convolutions with residual 1x1 convolutions."""
    x = image
    for _ in range(2):
        x = k.layers.Conv2D(8, 3, use_bias=False, strides=2 if x is image else 1)(x)
        x = k.layers.Activation("relu")(_norm(k)(x))
    for width in widths:
        side = _norm(k)(k.layers.Conv2D(width, 1, strides=2, padding="same", use_bias=False)(x))
        for last in (False, True):
            x = k.layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x)
            x = _norm(k)(x)
            x = x if last else k.layers.Activation("relu")(x)
        x = k.layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = k.layers.add([x, side])
    x = k.layers.GlobalAveragePooling2D()(k.layers.Conv2D(labels, 3, padding="same")(x))
    return k.layers.Activation("softmax", name="predictions")(x)


def big_xception(k: Any, image: Any, labels: int) -> Any:
    """The wider one of the same paper."""
    return mini_xception(k, image, labels, (16, 32, 48))


def tutorial(k: Any, image: Any, labels: int) -> Any:
    """Conv, ReLU, BatchNorm: the order of many tutorials."""
    x = image
    for width in (16, 24, 32):
        x = k.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = k.layers.MaxPooling2D()(_norm(k)(x))
        x = k.layers.Dropout(0.1)(x)
    return _head(k, x, labels)


def tutorial_deep(k: Any, image: Any, labels: int) -> Any:
    """The same with two convolutions per block, and a normalised dense layer."""
    x = image
    for width in (8, 16, 32):
        for _ in range(2):
            x = _norm(k)(k.layers.Conv2D(width, 3, padding="same", activation="relu")(x))
        x = k.layers.MaxPooling2D()(x)
    x = k.layers.Dense(64, activation="relu")(k.layers.Flatten()(x))
    x = k.layers.Dropout(0.3)(_norm(k)(x))
    return k.layers.Dense(labels, activation="softmax")(x)


def plain(k: Any, image: Any, labels: int) -> Any:
    """Convolutions and pooling only."""
    x = image
    for width in (16, 24, 32):
        x = k.layers.MaxPooling2D()(k.layers.Conv2D(width, 3, activation="relu")(x))
    return _head(k, x, labels)


def vgg(k: Any, image: Any, labels: int) -> Any:
    """Two convolutions per block, batch norm before the activation."""
    x = image
    for width in (8, 16, 32):
        for _ in range(2):
            x = k.layers.Conv2D(width, 3, padding="same")(x)
            x = k.layers.Activation("relu")(_norm(k)(x))
        x = k.layers.MaxPooling2D()(x)
    return _head(k, x, labels, 0.5)


def mobilenet(k: Any, image: Any, labels: int) -> Any:
    """Inverted residuals with depthwise convolutions and ReLU6, as MobileNetV2."""
    x = k.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image)
    x = k.layers.ReLU(6.0)(_norm(k)(x))
    for width, strides in ((12, 2), (12, 1), (20, 2), (20, 1), (32, 1)):
        before, channels = x, x.shape[-1]
        x = k.layers.Conv2D(4 * channels, 1, use_bias=False)(x)
        x = k.layers.ReLU(6.0)(_norm(k)(x))
        x = k.layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = k.layers.ReLU(6.0)(_norm(k)(x))
        x = _norm(k)(k.layers.Conv2D(width, 1, use_bias=False)(x))
        if strides == 1 and channels == width:
            x = k.layers.Add()([before, x])
    x = k.layers.GlobalAveragePooling2D()(x)
    return k.layers.Dense(labels, activation="softmax")(x)


def separable_se(k: Any, image: Any, labels: int) -> Any:
    """Separable convolutions with squeeze and excitation."""
    x = k.layers.Conv2D(12, 3, strides=2, padding="same", activation="relu")(image)
    for width in (24, 32):
        x = k.layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x)
        x = k.layers.Activation("relu")(_norm(k)(x))
        gate = k.layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = k.layers.Conv2D(width // 4, 1, activation="relu")(gate)
        x = k.layers.Multiply()([x, k.layers.Conv2D(width, 1, activation="sigmoid")(gate)])
        x = k.layers.MaxPooling2D()(x)
    return _head(k, x, labels)


def noisy(k: Any, image: Any, labels: int) -> Any:
    """Gaussian noise and dropout between the layers."""
    x = k.layers.GaussianNoise(0.05)(image)
    for width in (16, 32):
        x = k.layers.SpatialDropout2D(0.05)(_norm(k)(k.layers.Conv2D(width, 5, strides=2)(x)))
        x = k.layers.ReLU()(x)
    return _head(k, x, labels)


def _activated(activation: Callable[[Any, Any], Any]) -> Callable[[Any, Any, int], Any]:
    def build(k: Any, image: Any, labels: int) -> Any:
        x = k.layers.Conv2D(12, 3, strides=2, padding="same")(image)
        for width in (16, 24):
            side = k.layers.Conv2D(width, 1, strides=2)(x)
            x = activation(k, _norm(k)(k.layers.Conv2D(width, 3, padding="same", strides=2)(x)))
            x = _norm(k)(k.layers.Conv2D(width, 3, padding="same")(x))
            x = activation(k, k.layers.Add()([x, side]))
        return _head(k, x, labels)

    return build


residual_swish = _activated(lambda k, x: k.layers.Activation("swish")(x))
residual_hard_swish = _activated(
    lambda k, x: k.layers.Multiply()([x, k.layers.ReLU(6.0)(x + 3.0) * (1 / 6)])
)
elu = _activated(lambda k, x: k.layers.ELU()(x))
leaky = _activated(lambda k, x: k.layers.LeakyReLU()(x))
prelu = _activated(lambda k, x: k.layers.PReLU(shared_axes=[1, 2])(x))


def lenet(k: Any, image: Any, labels: int) -> Any:
    """tanh and average pooling."""
    x = image
    for width in (12, 24):
        x = k.layers.AveragePooling2D(2)(k.layers.Conv2D(width, 5, activation="tanh")(x))
    return _head(k, x, labels)


def dead_branch(k: Any, image: Any, labels: int) -> Any:
    """A branch whose weights have decayed to almost nothing."""
    x = k.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
    side = k.layers.Conv2D(16, 3, padding="same", activation="relu", name="dead")(x)
    x = k.layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = k.layers.Add()([x, side])
    x = k.layers.MaxPooling2D()(_norm(k)(x))
    return _head(k, k.layers.Conv2D(24, 3, activation="relu")(x), labels)


def inception(k: Any, image: Any, labels: int) -> Any:
    """Parallel convolutions, concatenated."""
    x = k.layers.Conv2D(12, 3, strides=2, padding="same", activation="relu")(image)
    for width in (8, 12):
        parts = [
            k.layers.Conv2D(width, size, padding="same", activation="relu")(x) for size in (1, 3, 5)
        ]
        x = k.layers.MaxPooling2D()(_norm(k)(k.layers.Concatenate()(parts)))
    return _head(k, x, labels)


def dense_net(k: Any, image: Any, labels: int) -> Any:
    """Batch norm and ReLU before each convolution, whose input is kept."""
    x = k.layers.Conv2D(12, 3, strides=2, padding="same")(image)
    for _ in range(2):
        for _ in range(2):
            y = k.layers.ReLU()(_norm(k)(x))
            x = k.layers.Concatenate()([x, k.layers.Conv2D(8, 3, padding="same")(y)])
        x = k.layers.AveragePooling2D(2)(x)
    x = k.layers.GlobalAveragePooling2D()(k.layers.ReLU()(_norm(k)(x)))
    return k.layers.Dense(labels, activation="softmax")(x)


def gru(k: Any, image: Any, labels: int) -> Any:
    """Patches of the image, read by a recurrent layer."""
    x = k.layers.Conv2D(16, 8, strides=8, activation="relu")(image)
    x = k.layers.GRU(32)(k.layers.Reshape((36, 16))(x))
    return k.layers.Dense(labels, activation="softmax")(x)


def attention(k: Any, image: Any, labels: int) -> Any:
    """Patches with one layer of self-attention."""
    x = k.layers.Conv2D(24, 8, strides=8)(image)
    x = k.layers.Reshape((36, 24))(x)
    y = k.layers.MultiHeadAttention(2, 12)(x, x)
    x = k.layers.LayerNormalization()(k.layers.Add()([x, y]))
    y = k.layers.Dense(24)(k.layers.Dense(48, activation="relu")(x))
    x = k.layers.LayerNormalization()(k.layers.Add()([x, y]))
    return _head(k, x, labels)


def logits(k: Any, image: Any, labels: int) -> Any:
    """Ends without a softmax."""
    x = image
    for width in (16, 24, 32):
        x = k.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
        x = k.layers.ReLU()(_norm(k)(x))
    return k.layers.Dense(labels)(k.layers.GlobalAveragePooling2D()(x))


def centred(x: Any) -> Any:
    """What the Lambda layer of ``lambda_layer`` computes."""
    return (x - 0.5) * 2.0


def lambda_layer(k: Any, image: Any, labels: int) -> Any:
    """A Lambda layer in front."""
    return tutorial(k, k.layers.Lambda(centred, name="centred", output_shape=(48, 48, 1))(image), 7)


def augmented(k: Any, image: Any, labels: int) -> Any:
    """Augmentation layers in front."""
    x = k.layers.RandomRotation(0.05)(k.layers.RandomFlip("horizontal")(image))
    return vgg(k, x, labels)


def rescaled(k: Any, image: Any, labels: int) -> Any:
    """A Rescaling layer in front."""
    return tutorial(k, k.layers.Rescaling(1 / 127.5, offset=-1)(image), labels)


def preprocessed(k: Any, image: Any, labels: int) -> Any:
    """``preprocess_input`` of VGG16 inside the graph."""
    return vgg(k, k.applications.vgg16.preprocess_input(image) / 64.0, labels)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the set.

    build: the network. format: how it is written (``model_set.FORMATS``). labels: of the training
    images, in the order of the outputs. shape: of the input. fed: scale and offset of a pixel;
    ``pixel`` for mean and deviation of each pixel; or a mode of ``keras.applications``.
    """

    build: Callable[[Any, Any, int], Any]
    format: str
    labels: tuple[str, ...] = FER
    shape: tuple[int, int, int] = (48, 48, 1)
    fed: tuple[float, float] | str = (1 / 255, 0.0)


MEMBERS: dict[str, Member] = {
    "mini-xception": Member(mini_xception, "tf_keras h5", fed=(1 / 127.5, -1.0)),
    "big-xception": Member(big_xception, "tf_keras h5", fed=(1 / 127.5, -1.0)),
    "tutorial": Member(tutorial, "tf_keras h5"),
    "tutorial-deep": Member(tutorial_deep, "tf_keras .keras"),
    "tutorial-alphabetical": Member(tutorial, "Keras 3 h5", labels=ALPHABETICAL),
    "plain": Member(plain, "Sequential of Keras 2.0"),
    "vgg": Member(vgg, "tf_keras h5"),
    "vgg-multi-gpu": Member(vgg, "multi-GPU h5"),
    "vgg-five-labels": Member(vgg, "Keras 3", labels=FIVE),
    "vgg-rgb-torch": Member(vgg, "Keras 3", shape=(48, 48, 3), fed="torch"),
    "logits-rgb-caffe": Member(logits, "Keras 3", shape=(48, 48, 3), fed="caffe"),
    "preprocess-input": Member(preprocessed, "tf_keras h5", shape=(48, 48, 3), fed=(1.0, 0.0)),
    "mobilenet": Member(mobilenet, "tf_keras h5", fed=(1 / 127.5, -1.0)),
    "separable-se": Member(separable_se, "tf_keras .keras"),
    "noise-dropout": Member(noisy, "tf_keras h5"),
    "eight-labels": Member(plain, "weights and JSON", labels=EIGHT),
    "pixel-mean": Member(tutorial, "Keras 3 h5", fed="pixel"),
    "residual-swish": Member(residual_swish, "Keras 3"),
    "residual-hard-swish": Member(residual_hard_swish, "Keras 3"),
    "elu": Member(elu, "tf_keras h5"),
    "leaky": Member(leaky, "tf_keras h5"),
    "prelu": Member(prelu, "tf_keras .keras"),
    "lenet": Member(lenet, "HDF5 named .keras"),
    "dead-branch": Member(dead_branch, "tf_keras h5"),
    "inception": Member(inception, "SavedModel"),
    "dense-net": Member(dense_net, "Keras 3"),
    "rescaling": Member(rescaled, "Keras 3", fed=(1.0, 0.0)),
    "augmented": Member(augmented, "Keras 3"),
    "lambda": Member(lambda_layer, "Keras 3"),
    "mixed-precision": Member(logits, "Keras 3, bfloat16"),
    "attention": Member(attention, "Keras 3"),
    "gru": Member(gru, "tf_keras h5"),
}


def pixel_statistics(faces: Any) -> tuple[Any, Any]:
    """Mean and standard deviation of each pixel over faces ``(n, h, w)``, float32 ``(h, w)``."""
    mean = faces.mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32), (faces.std(axis=0) + 1e-3).astype(np.float32)
