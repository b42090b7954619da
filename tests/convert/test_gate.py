from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert import conversion, gate, publish
from convert.conversion import Attempt, Converted, Job
from convert.errors import ConversionError
from convert.gate import Bar
from convert.images import Images
from emotion_edge.errors import UsageError

LABELS = ("a", "b", "c")


def faces(truth: Any) -> Images:
    return Images(
        "PublicTest",
        LABELS,
        np.zeros((len(truth), 2, 2), np.uint8),
        np.asarray(truth, np.int64),
        "made up",
        "all rows",
    )


def certain(predicted: Any, confidence: float = 0.9) -> Any:
    rest = (1 - confidence) / (len(LABELS) - 1)
    rows = np.full((len(predicted), len(LABELS)), rest, np.float32)
    rows[np.arange(len(predicted)), predicted] = confidence
    return rows


def test_two_equal_models_lose_nothing() -> None:
    truth = np.arange(300) % 3
    answers = certain(truth)
    result = gate.compare(answers, answers, faces(truth))
    assert (result.drop, result.agreement, result.p_value) == (0, 100, 1)
    assert result.divergence_worst == pytest.approx(0, abs=1e-12)
    assert result.failures(Bar(0, 100, 0, 0)) == []


def test_losses_are_counted_in_pairs() -> None:
    truth = np.zeros(1000, int)
    first, second = truth.copy(), truth.copy()
    first[:10] = 1  # right only in converted
    second[990:] = 2
    second[980:990] = 1  # right only in float: 20
    result = gate.compare(certain(first), certain(second), faces(truth))
    assert (result.only_float, result.only_converted) == (20, 10)
    assert result.drop == pytest.approx(1.0)
    assert result.agreement == pytest.approx(97.0)
    # 2 P(X <= 10) for X of Binomial(30, 1/2)
    assert result.p_value == pytest.approx(0.0987371, abs=1e-6)
    assert result.float_figures["accuracy"] == pytest.approx(0.99)
    low, high = result.float_figures["accuracy_interval"]
    assert (low, high) == (pytest.approx(0.98169, abs=1e-4), pytest.approx(0.99456, abs=1e-4))
    lines = result.failures(Bar())
    assert len(lines) == 2 and "1.00 points" in lines[0] and "97.00%" in lines[1]


@settings(max_examples=30)
@given(lost=st.integers(0, 12), size=st.sampled_from([20, 55, 100, 400]))
def test_a_class_may_lose_the_larger_of_two_points_and_two_images(lost: int, size: int) -> None:
    truth = np.array([0] * size + [1] * 30)
    second = truth.copy()
    second[:lost] = 2
    result = gate.compare(certain(truth), certain(second), faces(truth))
    failed = any("recall of a" in line for line in result.failures(Bar(100, 0)))
    assert failed == (lost > max(0.02 * size, 2))


def test_divergence_stays_finite_where_int8_answers_zero() -> None:
    one = np.array([[1, 0, 0]], np.float32)
    other = np.array([[0, 1, 0]], np.float32)
    result = gate.compare(one, other, faces([0]))
    s = 1 / 512
    total = 1 + 3 * s
    expected = ((1 + s) * np.log((1 + s) / s) + s * np.log(s / (1 + s))) / total
    assert result.divergence_worst == pytest.approx(expected, rel=1e-6)


def test_a_bar_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="bar"):
        Bar(agreement=101)


@pytest.mark.parametrize("limit", ["drop", "agreement", "recall_points"])
def test_a_limit_that_is_not_a_number_is_refused(limit: str) -> None:
    # Every comparison with NaN is false: such a gate would never fail.
    with pytest.raises(UsageError, match="bar"):
        Bar(**{limit: float("nan")})


def test_the_tiny_network_passes_and_the_unbalanced_one_does_not(
    converted: dict[str, Converted],
) -> None:
    assert converted["tiny"].passed
    assert converted["tiny"].comparison.float_figures["accuracy"] == 1
    assert not converted["unbalanced"].passed
    assert converted["unbalanced"].comparison.float_figures["accuracy"] == 1
    assert converted["unbalanced"].comparison.drop > 10


def test_the_float_reference_is_keras(jobs: dict[str, Job]) -> None:
    assert jobs["tiny"].keras_difference < 1e-5
    job = jobs["tiny"]
    wrong = job.expected[:, ::-1]
    with pytest.raises(ConversionError, match="differs from Keras"):
        gate.check_against_keras(job.model, job.manifest("float32"), wrong, job.judged, 4)


def test_the_manifest_says_what_was_measured(
    jobs: dict[str, Job], converted: dict[str, Converted]
) -> None:
    job, done = jobs["tiny"], converted["tiny"]
    facts = publish.facts({"epochs": 0}, {})
    manifest = publish.describe(job, Attempt("int8", done), facts)
    accuracy = manifest.accuracy["PublicTest"]
    assert accuracy["n"] == 70 and accuracy["float"]["accuracy"] == 1
    assert set(accuracy["converted"]["recall"]) == set(job.labels)
    assert manifest.calibration["split"] == "Training"
    assert manifest.calibration["images"] == 84
    assert manifest.gate["passed"] and not manifest.gate["forced"]
    assert manifest.training["keras_sha256"] == job.model.sha256
    assert "ai-edge-litert" in manifest.versions
    failed = Attempt("int8", converted["unbalanced"])
    forced = publish.describe(jobs["unbalanced"], failed)
    assert forced.gate["forced"] and forced.gate["failures"]


def test_float_variants_agree_with_float(jobs: dict[str, Job]) -> None:
    for variant in ("float32", "float16", "dynamic"):
        done = conversion.convert(jobs["tiny"], variant)
        assert done.passed and done.variant == variant
    with pytest.raises(UsageError, match="int4"):
        conversion.convert(jobs["tiny"], "int4")


def test_labels_have_to_match_the_outputs(jobs: dict[str, Job], data: Any) -> None:
    with pytest.raises(UsageError, match="2 labels"):
        conversion.prepare(jobs["tiny"].model, data, labels=("a", "b"))
    bare = replace(jobs["tiny"].model, rescales=False)
    with pytest.raises(UsageError, match="--scale"):
        conversion.prepare(bare, data)


def test_near_ties_are_counted_apart(jobs: dict[str, Job]) -> None:
    job = jobs["tiny"]
    tie = np.zeros((len(job.judged), 7), np.float32)
    tie[:, 0], tie[:, 1] = 0.52, 0.48
    tie[0, 0], tie[0, 1] = 0.9, 0.1
    turned = tie.copy()
    turned[1:, :2] = turned[1:, 1::-1]
    found = gate.compare(tie, turned, job.judged)
    assert found.clear == 1 and found.clear_agreement == 100
    assert found.agreement == pytest.approx(100 / len(job.judged))
    assert any("100.00% are equal without near ties" in line for line in found.failures(Bar()))
