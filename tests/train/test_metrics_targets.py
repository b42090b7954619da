"""Figures against scikit-learn's, and targets against their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

from train import metrics, targets
from train.data import Split, load_fer2013
from train.errors import DataError

RNG = np.random.default_rng(11)
LOGITS = RNG.normal(0, 2, (4000, 7))
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
TRUTH = np.array([RNG.choice(7, p=row) for row in PROBABILITIES])


def test_figures_agree_with_scikit_learn() -> None:
    predicted = PROBABILITIES.argmax(axis=1)
    matrix = metrics.confusion_matrix(TRUTH, predicted, 7)
    np.testing.assert_array_equal(matrix, reference.confusion_matrix(TRUTH, predicted))
    assert metrics.macro_f1(matrix) == pytest.approx(
        reference.f1_score(TRUTH, predicted, average="macro")
    )
    np.testing.assert_allclose(
        metrics.recall(matrix), reference.recall_score(TRUTH, predicted, average=None)
    )
    np.testing.assert_allclose(
        metrics.precision(matrix), reference.precision_score(TRUTH, predicted, average=None)
    )
    assert metrics.recall(matrix).mean() == pytest.approx(
        reference.balanced_accuracy_score(TRUTH, predicted)
    )


def test_a_calibrated_model_sits_at_the_noise_floor() -> None:
    error = metrics.calibration_error(PROBABILITIES, TRUTH)
    noise = metrics.calibration_noise(PROBABILITIES)
    assert 0 < noise < 0.03
    assert error < 2 * noise
    sharper = PROBABILITIES**3 / (PROBABILITIES**3).sum(axis=1, keepdims=True)
    assert metrics.calibration_error(sharper, TRUTH) > 4 * noise


def test_the_temperature_is_found_again() -> None:
    assert metrics.fit_temperature(LOGITS * 2.5, TRUTH) == pytest.approx(2.5, rel=0.1)
    assert metrics.fit_temperature(LOGITS * 0.5, TRUTH) == pytest.approx(0.5, rel=0.1)


def votes_of(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.uint8)


def test_majority_needs_more_than_half_of_all_votes() -> None:
    votes = votes_of(
        [6, 4, 0, 0, 0, 0, 0, 0, 0, 0],  # neutral
        [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],  # a tie
        [0, 0, 0, 0, 5, 0, 0, 0, 5, 0],  # five of ten are not more than half
        [0, 0, 0, 0, 0, 0, 0, 9, 0, 0],  # contempt is none of the seven
        [0, 0, 0, 0, 0, 0, 6, 0, 0, 3],  # fear
    )
    emotion, clear = targets.majority(votes)
    assert clear.tolist() == [True, False, False, False, True]
    assert emotion[clear].tolist() == [6, 2]


def test_calibrated_votes_do_not_see_their_own_label(small: Path, cache: Path) -> None:
    split = load_fer2013(small / "fer2013.csv", cache=cache).split("Training")
    before = targets.calibrated_votes(split, 7)
    np.testing.assert_allclose(before.sum(axis=1), 1, atol=1e-5)
    assert (before.argmax(axis=1) == split.labels).mean() > 0.95
    labels = split.labels.copy()
    labels[17] = (labels[17] + 1) % 7
    changed = Split("Training", split.images, labels, split.rows, split.votes, split.twin)
    after = targets.calibrated_votes(changed, 7)
    np.testing.assert_array_equal(before[17], after[17])
    assert np.abs(before - after).max() > 0


def test_label_targets_are_distributions(small: Path, cache: Path) -> None:
    split = load_fer2013(small / "fer2013.csv", cache=cache).split("Training")
    for share, smoothing in ((1.0, 0.0), (1.0, 0.1), (0.4, 0.0)):
        target = targets.label_targets(split, 7, label_share=share, smoothing=smoothing)
        np.testing.assert_allclose(target.sum(axis=1), 1, atol=1e-5)
        assert target.min() >= 0
    bare = Split("Training", split.images, split.labels, split.rows, None, split.twin)
    with pytest.raises(DataError, match=r"fer2013new\.csv"):
        targets.label_targets(bare, 7, label_share=0.4)


def test_class_weights_balance() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    weight = targets.class_weights(labels, 3)
    assert weight[0] * 90 == pytest.approx(weight[1] * 10, rel=1e-5)
    assert weight[2] == 0
    assert weight[labels].mean() == pytest.approx(1, rel=1e-5)


def test_wilson_interval_agrees_with_the_published_example() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, and 0 of 20.
    assert metrics.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert metrics.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
