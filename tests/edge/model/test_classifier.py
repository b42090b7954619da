"""The classifier, on a tiny real int8 model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from emotion_edge.errors import ImageError, ManifestError, ModelError, UsageError
from emotion_edge.model import manifest as manifests
from emotion_edge.model.backend import Backend, open_interpreter
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.values import Box

TINY = Path(__file__).parents[1] / "tiny.tflite"


@pytest.fixture(scope="module")
def classifier() -> TFLiteClassifier:
    return TFLiteClassifier.load(TINY)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (20, 48, 48), dtype=np.uint8)


def test_probabilities_equal_the_bare_interpreter(
    classifier: TFLiteClassifier, faces: np.ndarray
) -> None:
    model, _ = manifests.load(TINY)
    interpreter = open_interpreter(model)
    source, sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    in_scale, in_zero = source["quantization"]
    out_scale, out_zero = sink["quantization"]
    for face in faces:
        quantised = np.clip(np.rint(face / in_scale) + in_zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], quantised[None, :, :, None])
        interpreter.invoke()
        raw = interpreter.get_tensor(sink["index"])[0]
        expected = (raw.astype(np.float32) - out_zero) * out_scale
        assert np.array_equal(classifier.probabilities(face), expected.astype(np.float32))


def test_predict_stacks_the_answers_of_emotion(
    classifier: TFLiteClassifier, faces: np.ndarray
) -> None:
    table = classifier.predict(faces)
    assert table.shape == (len(faces), len(EMOTIONS))
    assert table.dtype == np.float32
    for row, face in zip(table, faces, strict=True):
        assert classifier.emotion(face).probabilities == tuple(row.tolist())
    assert classifier.predict(faces[:0]).shape == (0, len(EMOTIONS))


def test_probabilities_sum_to_one(classifier: TFLiteClassifier, faces: np.ndarray) -> None:
    # Seven outputs, each rounded to 1/256.
    assert np.all(np.abs(classifier.predict(faces).sum(axis=1) - 1) <= 7 / 512)


def test_classify_crops_and_resizes(classifier: TFLiteClassifier) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    box = Box(150, 150, 80, 80)  # over the edge
    crop = classifier.crop(frame, box)
    assert crop.shape == (48, 48)
    assert classifier.classify(frame, box) == classifier.emotion(crop)


@pytest.mark.parametrize(
    "face",
    [np.zeros((48, 47), np.uint8), np.zeros((48, 48, 3), np.uint8), np.zeros((48, 48), np.float32)],
)
def test_other_shapes_and_types_are_refused(classifier: TFLiteClassifier, face: np.ndarray) -> None:
    with pytest.raises(ImageError, match="this model requires"):
        classifier.probabilities(face)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ("a", "b")}, r"output has shape \(1, 7\)"),
        ({"input": manifests.InputSpec(64, 64, 1, "gray")}, r"input has shape \(1, 48, 48, 1\)"),
        ({"variant": "float32"}, "variant 'float32'"),
    ],
)
def test_a_manifest_that_contradicts_the_model_is_refused(
    change: dict[str, object], message: str
) -> None:
    model, manifest = manifests.load(TINY)
    with pytest.raises(ManifestError, match=message):
        TFLiteClassifier(model, dataclasses.replace(manifest, **change))  # type: ignore[arg-type]


def test_a_corrupt_flatbuffer_is_one_line(tmp_path: Path) -> None:
    _, manifest = manifests.load(TINY)
    path = tmp_path / "broken.tflite"
    path.write_bytes(manifests.attach(b"\x1c\0\0\0TFL3" + bytes(500), manifest))
    with pytest.raises(ModelError) as caught:
        TFLiteClassifier.load(path)
    assert "\n" not in str(caught.value)


def test_logits_become_probabilities(faces: np.ndarray) -> None:
    model, manifest = manifests.load(TINY)
    raw = TFLiteClassifier(model, manifest).probabilities(faces[0]).astype(np.float64)
    as_logits = TFLiteClassifier(model, dataclasses.replace(manifest, output="logits"))
    expected = np.exp(raw) / np.exp(raw).sum()
    assert np.allclose(as_logits.probabilities(faces[0]), expected, atol=1e-6)


def test_without_xnnpack_it_answers_too(faces: np.ndarray) -> None:
    plain = TFLiteClassifier.load(TINY, Backend(xnnpack=False)).predict(faces)
    fast = TFLiteClassifier.load(TINY).predict(faces)
    assert np.abs(plain - fast).max() <= 26 / 255  # other kernels, other rounding


def test_an_unknown_runtime_names_the_known() -> None:
    with pytest.raises(UsageError, match="litert, tflite-runtime, tensorflow"):
        Backend(runtime="onnx")


def test_loading_prints_nothing_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    TFLiteClassifier.load(TINY)
    assert capfd.readouterr().err == ""
