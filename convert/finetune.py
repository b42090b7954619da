"""Fine-tunes the weights of a float graph while int8's rounding is simulated.

Quantisation-aware training (Jacob et al. 2018, Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference) on the very graph that is quantised afterwards: batch
norms are folded and the rescaling is lifted out, so what is simulated is what the device computes.
Weights are rounded with one scale per channel, activations within their ranges, which are trained
too. The teacher is the float model itself: no labels are needed, and the aim is the gate's, equal
answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert import quantize
from convert.flatbuffer import WEIGHTED, Graph, Operator
from convert.native_output import suppressed_output
from convert.quantize import Calibrated
from emotion_edge.values import Image

STEPS = 300
BATCH = 32
IMAGES = 6000
"""Training images of which the batches are drawn."""

RATE = 5e-4
"""First step of a weight as a share of its tensor's root mean square; it falls to 0.

Larger steps move the weights further than rounding does, and the answers change with them.
"""

FIXED = {"LOGISTIC": (0.0, 255 / 256), "TANH": (-1.0, 127 / 128), "SOFTMAX": (0.0, 255 / 256)}
"""Operators whose output range TFLite sets itself."""

_SAME_RANGE = ("RESHAPE", "MAX_POOL_2D", "PAD", "STRIDED_SLICE", "PACK", "SQUEEZE", "EXPAND_DIMS")
"""Operators whose output has the range of their input."""

Values = dict[int, Any]


def unsupported(model: bytes) -> list[str]:
    """The operators of a graph that cannot be simulated; empty if all can."""
    graph = Graph(model)
    names = {operator.name for operator in graph.operators}
    activations = {operator.activation for operator in graph.operators}
    return sorted(names - set(_OPERATORS)) + sorted(activations - {"", "RELU", "RELU6"})


def finetune(
    calibrated: Calibrated, faces: Image, *, seed: int = 0, steps: int = STEPS
) -> Calibrated:
    """The same network with weights, biases and ranges that suit int8 better.

    calibrated: with a range for each activation. faces: uint8 ``(n, height, width[, 3])`` of
    Training. Every operator has to be supported (see ``unsupported``).
    """
    import tensorflow as tf

    graph = Graph(calibrated.model)
    fed = np.concatenate([*quantize.inputs(faces, calibrated.scale, calibrated.offset)])
    teacher = tf.function(lambda x: _run(graph, x, _constants(graph)))
    student = _Student(graph)
    rate = tf.keras.optimizers.schedules.CosineDecay(RATE, steps)
    optimizer = tf.keras.optimizers.Adam(rate)

    def step(x: Any, wanted: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = _divergence(wanted, student.run(x))
        gradients = tape.gradient(loss, student.variables)
        optimizer.apply_gradients(zip(gradients, student.variables, strict=True))
        return loss

    step = tf.function(step)
    logits = graph.operators[-1].name != "SOFTMAX"
    random = np.random.default_rng(seed)
    with suppressed_output():
        tf.random.set_seed(seed)
        for _ in range(steps):
            x = fed[random.choice(len(fed), min(BATCH, len(fed)), replace=False)]
            wanted = teacher(x)
            step(x, tf.nn.softmax(wanted) if logits else wanted)
    return Calibrated(student.written(), calibrated.scale, calibrated.offset)


def _divergence(wanted: Any, scores: Any) -> Any:
    """Kullback-Leibler, mean over the batch; wanted: probabilities, scores: logits."""
    import tensorflow as tf

    logarithm = tf.nn.log_softmax(scores)
    return tf.reduce_mean(tf.reduce_sum(wanted * (tf.math.log(wanted + 1e-6) - logarithm), axis=-1))


class _Student:
    """A graph whose weights, biases and ranges are trained with rounding."""

    def __init__(self, graph: Graph) -> None:
        import tensorflow as tf

        self.graph = graph
        self.first = _constants(graph)
        self.deltas: dict[int, Any] = {}
        self.sizes: dict[int, float] = {}
        self.channels: dict[int, tuple[int, ...]] = {}
        self.ends: dict[int, Any] = {}
        for operator in graph.operators:
            if operator.name in WEIGHTED and operator.inputs[1] in self.first:
                self._train(operator.inputs[1], operator)
                bias = operator.inputs[2] if len(operator.inputs) > 2 else -1
                if bias in self.first:
                    self._train(bias, None)
            if operator.name in FIXED or operator.name in _SAME_RANGE:
                continue
            for out in operator.outputs:
                if graph.range(out) is not None:
                    self.ends[out] = tf.Variable([1.0, 1.0])

    @property
    def variables(self) -> list[Any]:
        """What is trained."""
        return [*self.deltas.values(), *self.ends.values()]

    def _train(self, tensor: int, operator: Operator | None) -> None:
        import tensorflow as tf

        values = self.first[tensor]
        self.deltas[tensor] = tf.Variable(np.zeros_like(values))
        self.sizes[tensor] = max(float(np.sqrt((values**2).mean())), 1e-4)
        if operator is not None:
            kept = 3 if operator.name == "DEPTHWISE_CONV_2D" else 0
            self.channels[tensor] = tuple(at for at in range(values.ndim) if at != kept)

    def value(self, tensor: int) -> Any:
        """A trained constant, not rounded."""
        return self.first[tensor] + self.deltas[tensor] * self.sizes[tensor]

    def run(self, x: Any) -> Any:
        """Scores of a batch, before a final softmax, with everything rounded."""
        constants = {**self.first, **{tensor: self._rounded(tensor) for tensor in self.deltas}}
        return _run(self.graph, x, constants, self._activation, softmax=False)

    def _rounded(self, tensor: int) -> Any:
        import tensorflow as tf

        value = self.value(tensor)
        if tensor not in self.channels:  # a bias has 32 bits
            return value
        widest = tf.reduce_max(tf.abs(value), axis=self.channels[tensor], keepdims=True)
        scale = tf.stop_gradient(tf.maximum(widest, 1e-9) / 127)
        return value + tf.stop_gradient(tf.round(value / scale) * scale - value)

    def _activation(self, operator: Operator, value: Any) -> Any:
        import tensorflow as tf

        if operator.name in FIXED:
            return tf.quantization.fake_quant_with_min_max_args(value, *FIXED[operator.name])
        out = operator.outputs[0]
        if out not in self.ends:
            return value
        low, high = self._range(out)
        return tf.quantization.fake_quant_with_min_max_vars(value, low, high)

    def _range(self, tensor: int) -> tuple[Any, Any]:
        import tensorflow as tf

        low, high = self.graph.range(tensor) or (0.0, 0.0)
        ends = tf.clip_by_value(self.ends[tensor], 0.3, 1.5)
        return low * ends[0], tf.maximum(high * ends[1], low * ends[0] + 1e-6)

    def written(self) -> bytes:
        """The graph with the trained values and ranges."""
        graph = Graph(self.graph.to_bytes())
        for operator in graph.operators:
            for place, tensor in enumerate(operator.inputs):
                if tensor in self.deltas:
                    values = np.asarray(self.value(tensor), np.float32)
                    graph.set_values(graph.own(operator, place), values)
        for tensor in self.ends:
            low, high = (float(end) for end in self._range(tensor))
            graph.set_range(tensor, low, high)
        for operator in graph.operators:
            known = graph.range(operator.inputs[0])
            if operator.name in _SAME_RANGE and known is not None:
                graph.set_range(operator.outputs[0], *known)
        return graph.to_bytes()


# --- the graph as TensorFlow operations -----------------------------------------------------------


def _constants(graph: Graph) -> dict[int, NDArray[Any]]:
    return {tensor.index: graph.values(tensor.index) for tensor in graph.tensors if tensor.constant}


def _run(
    graph: Graph,
    x: Any,
    constants: Values,
    activation: Callable[[Operator, Any], Any] = lambda operator, value: value,
    *,
    softmax: bool = True,
) -> Any:
    """The output for a batch; the graph itself has batch size 1.

    softmax: whether to apply one at the end of the graph.
    """
    import tensorflow as tf

    values: Values = {**constants, graph.inputs[0]: x}
    for operator in graph.operators:
        taken = [values[i] if i >= 0 else None for i in operator.inputs]
        if operator.name == "SOFTMAX" and operator.outputs[0] in graph.outputs and not softmax:
            return taken[0]
        out = graph.tensors[operator.outputs[0]].shape
        made = _OPERATORS[operator.name](tf, graph.options(operator), taken, out)
        made = {"RELU": tf.nn.relu, "RELU6": tf.nn.relu6}.get(operator.activation, tf.identity)(
            made
        )
        values[operator.outputs[0]] = activation(operator, made)
    return values[graph.outputs[0]]


def _convolution(tf: Any, options: Any, taken: list[Any], out: tuple[int, ...]) -> Any:
    made = tf.nn.conv2d(
        taken[0],
        tf.transpose(taken[1], (1, 2, 3, 0)),
        (options.strideH, options.strideW),
        _padding(options),
        dilations=(options.dilationHFactor, options.dilationWFactor),
    )
    return _biased(made, taken)


def _biased(made: Any, taken: list[Any]) -> Any:
    return made if len(taken) < 3 or taken[2] is None else made + taken[2]


def _depthwise(tf: Any, options: Any, taken: list[Any], out: tuple[int, ...]) -> Any:
    height, width = taken[1].shape[1:3]
    filters = tf.reshape(taken[1], (height, width, taken[0].shape[-1], -1))
    stride = (1, options.strideH, options.strideW, 1)
    dilation = (options.dilationHFactor, options.dilationWFactor)
    made = tf.nn.depthwise_conv2d(taken[0], filters, stride, _padding(options), dilations=dilation)
    return _biased(made, taken)


def _dense(tf: Any, options: Any, taken: list[Any], out: tuple[int, ...]) -> Any:
    flat = tf.reshape(taken[0], (-1, taken[1].shape[1]))
    made = _biased(tf.matmul(flat, taken[1], transpose_b=True), taken)
    return tf.reshape(made, (-1, *out[1:]))


def _pool(kind: str) -> Callable[..., Any]:
    def pool(tf: Any, options: Any, taken: list[Any], out: tuple[int, ...]) -> Any:
        return getattr(tf.nn, kind)(
            taken[0],
            (options.filterHeight, options.filterWidth),
            (options.strideH, options.strideW),
            _padding(options),
        )

    return pool


def _padding(options: Any) -> str:
    return "VALID" if options.padding else "SAME"


def _plain(name: str) -> Callable[..., Any]:
    """An operator that is a TensorFlow function of its inputs."""

    def call(tf: Any, options: Any, taken: list[Any], out: tuple[int, ...]) -> Any:
        found = tf
        for part in name.split("."):
            found = getattr(found, part)
        return found(*taken)

    return call


def _hard_swish(tf: Any, options: Any, taken: list[Any], out: tuple[int, ...]) -> Any:
    return taken[0] * tf.nn.relu6(taken[0] + 3) / 6


def _prelu(tf: Any, options: Any, taken: list[Any], out: tuple[int, ...]) -> Any:
    return tf.maximum(taken[0], 0) + taken[1] * tf.minimum(taken[0], 0)


_OPERATORS: dict[str, Callable[..., Any]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "MAX_POOL_2D": _pool("max_pool2d"),
    "AVERAGE_POOL_2D": _pool("avg_pool2d"),
    "MEAN": lambda tf, options, taken, out: tf.reduce_mean(
        taken[0], axis=taken[1].tolist(), keepdims=options.keepDims
    ),
    "RESHAPE": lambda tf, options, taken, out: tf.reshape(taken[0], (-1, *out[1:])),
    "CONCATENATION": lambda tf, options, taken, out: tf.concat(taken, options.axis),
    "PAD": _plain("pad"),
    "SOFTMAX": _plain("nn.softmax"),
    "ADD": _plain("add"),
    "SUB": _plain("subtract"),
    "MUL": _plain("multiply"),
    "DIV": _plain("divide"),
    "RELU": _plain("nn.relu"),
    "RELU6": _plain("nn.relu6"),
    "ELU": _plain("nn.elu"),
    "LEAKY_RELU": lambda tf, options, taken, out: tf.nn.leaky_relu(taken[0], options.alpha),
    "PRELU": _prelu,
    "LOGISTIC": _plain("sigmoid"),
    "TANH": _plain("tanh"),
    "HARD_SWISH": _hard_swish,
}
"""By TFLite's name: TensorFlow, the operator's options, its inputs and the shape of its output."""
