from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from convert import float_model, inspection, quantize, ranges
from convert.conversion import Converted, Job
from convert.errors import ConversionError
from convert.flatbuffer import WEIGHTED, Graph
from convert.quantize import Calibrator
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.model.manifest import InputSpec, Manifest
from tests.convert.conftest import convolutional

FACES = np.random.default_rng(1).integers(0, 256, (24, 24, 24), np.uint8)


@pytest.fixture(scope="module")
def small() -> float_model.FloatModel:
    return float_model.from_keras(convolutional(), name="small")


@pytest.fixture(scope="module")
def calibrator(small: float_model.FloatModel) -> Calibrator:
    return Calibrator(small, FACES, 1.0, 0.0)


def test_everything_in_int8_is_integer(calibrator: Calibrator) -> None:
    graph = Graph(quantize.quantize(calibrator.calibrated().model))
    assert {tensor.kind for tensor in graph.tensors} == {"INT8", "INT32"}
    assert not any(operator.custom for operator in graph.operators)
    assert graph.tensors[graph.inputs[0]].kind == "INT8"
    assert graph.tensors[graph.outputs[0]].kind == "INT8"
    # A dynamic batch would show as SHAPE and PACK.
    assert {op.name for op in graph.operators} <= {
        *WEIGHTED,
        "ADD",
        "MAX_POOL_2D",
        "RESHAPE",
        "SOFTMAX",
    }


def test_weights_have_a_scale_for_each_channel(calibrator: Calibrator) -> None:
    graph = Graph(quantize.quantize(calibrator.calibrated().model))
    for operator in graph.operators:
        if operator.name in WEIGHTED:
            weights = graph.tensors[operator.inputs[1]]
            channels = weights.shape[3 if operator.name == "DEPTHWISE_CONV_2D" else 0]
            assert len(weights.scales) == channels


def test_a_rescaling_with_an_offset_leaves_the_graph(calibrator: Calibrator) -> None:
    graph = Graph(quantize.quantize(calibrator.calibrated().model))
    assert graph.operators[0].name == "CONV_2D"
    source = graph.tensors[graph.inputs[0]]
    assert source.scales[0] == pytest.approx(1 / 127.5)
    # Each pixel value is one step: nothing is lost at the entry.
    spec = InputSpec(24, 24, 1, "gray", calibrator.scale, calibrator.offset)
    classifier = TFLiteClassifier(
        quantize.quantize(calibrator.calibrated().model),
        Manifest("small", "int8", "", EMOTIONS, spec),
    )
    ramp = np.resize(np.arange(256, dtype=np.uint8), (24, 24))
    np.testing.assert_array_equal(
        classifier.tensor(ramp)[0, ..., 0].astype(int), ramp.astype(int) - 128
    )


def test_the_lifted_graph_answers_like_keras(
    small: float_model.FloatModel, calibrator: Calibrator
) -> None:
    steps = calibrator.offset / calibrator.scale  # asked: -127.5
    assert steps == pytest.approx(round(steps), abs=1e-4) and abs(steps + 127.5) < 0.51
    lifted = ranges.preserving(calibrator.graph)
    out = Graph(calibrator.graph).outputs[0]
    raw = quantize.inputs(FACES[:8])
    for image, fed in zip(
        raw, quantize.inputs(FACES[:8], calibrator.scale, calibrator.offset), strict=True
    ):
        # Half a gray level at the zero padding is all that differs.
        np.testing.assert_allclose(lifted(fed)(out), small.network(image), atol=2e-3)


def test_ranges_are_those_of_each_tensor_alone(calibrator: Calibrator) -> None:
    graph = Graph(calibrator.calibrated().model)
    run = ranges.preserving(calibrator.graph)
    lows = dict.fromkeys(calibrator.seen, np.inf)
    for fed in quantize.inputs(FACES, calibrator.scale, calibrator.offset):
        values = run(fed)
        for i in lows:
            lows[i] = min(lows[i], float(values(i).min()))
    for i, low in lows.items():
        noted = graph.range(i)
        if noted is not None and i not in graph.inputs:
            assert noted[0] == pytest.approx(min(low, 0.0), abs=1e-6)


@pytest.mark.parametrize("method", list(ranges.METHODS))
def test_every_range_method_stays_inside_what_was_seen(calibrator: Calibrator, method: str) -> None:
    for activation in calibrator.seen.values():
        low, high = ranges.METHODS[method](activation)
        assert min(activation.low.min(), 0) <= low <= high <= max(activation.high.max(), 0)


def test_least_error_gives_up_the_tails() -> None:
    sample = np.random.default_rng(0).laplace(0, 1, 100000).astype(np.float32)
    activation = ranges.Activation(sample.min(keepdims=True), sample.max(keepdims=True), sample)

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        held = np.clip(np.rint((sample - low) / step), 0, 255) * step + low
        return float(((sample - held) ** 2).mean())

    low, high = ranges.least_error(activation)
    assert sample.min() < low < 0 < high < sample.max()
    assert error(low, high) < 0.95 * error(*ranges.smallest_and_largest(activation))


def test_other_variants_hold_what_their_names_say(small: float_model.FloatModel) -> None:
    kinds = {
        name: {tensor.kind for tensor in Graph(make(small)).tensors if tensor.size > 8}
        for name, make in (
            ("float32", quantize.float32),
            ("float16", quantize.float16),
            ("dynamic", quantize.dynamic),
        )
    }
    assert "INT8" not in kinds["float32"] and "FLOAT16" not in kinds["float32"]
    assert "FLOAT16" in kinds["float16"]
    assert "FLOAT32" in kinds["dynamic"]


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    convolutional().save(tmp_path / "small.keras")
    first, second = (
        quantize.quantize(
            Calibrator(float_model.load(tmp_path / "small.keras"), FACES, 1, 0).calibrated().model
        )
        for _ in range(2)
    )
    assert first == second


def test_a_mixed_file_keeps_what_it_was_told_to_in_float(calibrator: Calibrator) -> None:
    calibrated = calibrator.calibrated().model
    graph = Graph(calibrated)
    depthwise = next(op for op in graph.operators if op.name == "DEPTHWISE_CONV_2D")
    name = graph.tensors[depthwise.outputs[0]].name
    mixed = quantize.quantize(calibrated, keep_float=[name])
    kinds = {
        op.name: Graph(mixed).tensors[op.inputs[1]].kind
        for op in Graph(mixed).operators
        if op.name in WEIGHTED
    }
    assert kinds["DEPTHWISE_CONV_2D"] == "FLOAT32"
    assert kinds["FULLY_CONNECTED"] == "INT8"
    with pytest.raises(ConversionError, match="integer form"):
        inspection.require_integer(mixed, "mixed")


def test_a_layer_without_an_integer_form_is_named() -> None:
    model = float_model.from_keras(convolutional(activation=keras.ops.sin), name="odd")
    with pytest.raises(ConversionError, match="integer form: the operator SIN"):
        inspection.require_integer(
            quantize.quantize(Calibrator(model, FACES, 1, 0).calibrated().model), "odd"
        )


def test_a_layer_that_tflite_does_not_know_is_named() -> None:
    model = float_model.from_keras(convolutional(activation=keras.ops.erf), name="odd")
    with pytest.raises(ConversionError, match="TensorFlow's Erf"):
        quantize.float32(model)


def test_a_graph_that_was_read_writes_the_same_network(converted: dict[str, Converted]) -> None:
    model = converted["tiny"].model
    again = Graph(Graph(model).to_bytes())
    assert again.operators == Graph(model).operators
    assert again.tensors == Graph(model).tensors


def test_macs_are_counted(jobs: dict[str, Job]) -> None:
    graph = Graph(jobs["tiny"].reference)
    macs = {operator.name: graph.macs(operator) for operator in graph.operators}
    assert macs["CONV_2D"] == 12 * 12 * 4 * 9
    assert macs["FULLY_CONNECTED"] == 4 * 7


def test_a_dead_branch_leaves_a_file_that_xnnpack_accepts() -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((24, 24, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu", padding="same")(image)
    dead = keras.layers.Conv2D(4, 3, padding="same", name="dead")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([x, dead(x)]))
    network = keras.Model(image, keras.layers.Dense(3)(x))
    dead.set_weights([weights * 1e-8 for weights in dead.get_weights()])
    calibrator = Calibrator(float_model.from_keras(network), FACES, 1, 0)
    graph = Graph(calibrator.calibrated().model)
    found = (graph.range(i) for i in calibrator.seen)
    widths = [high - low for low, high in (pair for pair in found if pair)]
    assert min(widths) > 0.5e-4 * np.median(widths)
    assert len(inspection.xnnpack_takes(quantize.quantize(graph.to_bytes()))) >= 4


def test_the_range_of_the_logits_serves_the_probabilities() -> None:
    # Most answers are close; a few are so sure that their logits take most of the steps.
    random = np.random.default_rng(0)
    logits = random.normal(0, 0.5, (400, 7)).astype(np.float32)
    logits[:20] *= 60
    activation = ranges.Activation(logits.min(axis=0), logits.max(axis=0), logits.ravel())

    def equal(low: float, high: float) -> float:
        step = (high - low) / 255
        held = np.clip(np.rint(logits / step), np.rint(low / step), np.rint(high / step))
        return float((held.argmax(axis=1) == logits.argmax(axis=1)).mean())

    low, high = ranges.least_divergence(activation)
    assert equal(low, high) > equal(*ranges.smallest_and_largest(activation)) + 0.01


def test_only_the_logits_take_that_range(calibrator: Calibrator) -> None:
    plain = Graph(calibrator.calibrated().model)
    other = Graph(calibrator.calibrated(answers=True).model)
    changed = [
        tensor.index
        for tensor in plain.tensors
        if plain.range(tensor.index) != other.range(tensor.index)
    ]
    assert changed in ([], [ranges.logits_of(plain)])
    assert plain.operators[-1].inputs[0] == ranges.logits_of(plain)
    assert len(calibrator.seen[ranges.logits_of(plain)].sample) == 7 * len(FACES)
