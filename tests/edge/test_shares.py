"""Shares corrected for a classifier's known mistakes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from emotion_edge.shares import LEAST_PEOPLE, corrected, estimate, fit_prior

ROOT = Path(__file__).parents[2]
LABELS = ("angry", "happy", "sad")
PRIOR = np.array([0.2, 0.5, 0.3])
CONFUSION = np.array([[0.7, 0.1, 0.2], [0.05, 0.9, 0.05], [0.25, 0.15, 0.6]])


def crowd(shares: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Posteriors under ``PRIOR`` for people of these shares, as a calibrated model gives them."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, count, p=shares)
    signal = np.array([rng.choice(3, p=CONFUSION[each]) for each in truth])
    joint = CONFUSION[:, signal].T * PRIOR
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))


def test_the_shares_of_another_crowd_are_found() -> None:
    actual = np.array([0.6, 0.1, 0.3])
    people = crowd(actual, 20_000, 0)
    raw = np.bincount(people.argmax(axis=1), minlength=3) / len(people)
    found = corrected(people, PRIOR)
    assert np.abs(raw - actual).max() > 0.03
    assert np.abs(found - actual).max() < 0.02
    assert found.sum() == pytest.approx(1)


def test_the_interval_holds_the_truth_and_narrows_with_more_people() -> None:
    actual = np.array([0.6, 0.1, 0.3])
    widths = []
    for count in (40, 1000):
        found = estimate(LABELS, crowd(actual, count, 1).tolist(), PRIOR.tolist())
        assert list(found) == list(LABELS)
        for label, share in zip(LABELS, actual, strict=True):
            assert found[label].low <= share <= found[label].high
        widths.append(found["angry"].high - found["angry"].low)
    assert widths[1] < widths[0] / 2


def test_few_people_and_models_without_a_prior_get_no_estimate() -> None:
    people = crowd(PRIOR, LEAST_PEOPLE, 2).tolist()
    assert estimate(LABELS, people, PRIOR.tolist())
    assert estimate(LABELS, people[1:], PRIOR.tolist()) == {}
    assert estimate(LABELS, people, ()) == {}


def test_the_prior_is_found_again() -> None:
    rng = np.random.default_rng(3)
    truth = rng.choice(3, 5000, p=PRIOR)
    signal = np.array([rng.choice(3, p=CONFUSION[each]) for each in truth])
    skewed = np.array([0.4, 0.3, 0.3])  # the prior a model answers under after an adjustment
    joint = CONFUSION[:, signal].T * skewed
    found = fit_prior(joint / joint.sum(axis=1, keepdims=True), truth)
    np.testing.assert_allclose(found, skewed, atol=0.03)


def test_a_class_the_model_never_answers_is_no_division_by_zero() -> None:
    certain = np.eye(3)[[0, 1, 1, 0]]
    assert np.isfinite(fit_prior(certain, np.array([0, 1, 1, 2]))).all()


@pytest.mark.slow
def test_on_twenty_class_mixes_of_publictest_the_error_is_halved() -> None:
    from emotion_edge.model.classifier import TFLiteClassifier
    from emotion_edge.model.shipped import model_path
    from train.data import load_fer2013
    from train.targets import judged

    folder = Path(os.environ.get("EMOTION_EDGE_DATA", ROOT.parent / "shared/data/fer2013"))
    if not (folder / "fer2013.csv.gz").is_file():
        pytest.skip(f"no fer2013.csv.gz in {folder}: set EMOTION_EDGE_DATA to FER2013's folder")
    classifier = TFLiteClassifier.load(model_path("fast"))
    public = load_fer2013(folder / "fer2013.csv.gz").split("PublicTest")
    rows, truth = judged(public, "people")
    probabilities = classifier.predict(public.images[rows]).astype(np.float64)
    rng = np.random.default_rng(0)
    raw_errors, errors = [], []
    for _ in range(20):
        actual = rng.dirichlet(np.ones(7))
        chance = actual[truth] / np.bincount(truth, minlength=7)[truth]
        drawn = rng.choice(len(truth), 2000, p=chance / chance.sum())
        shares = np.bincount(truth[drawn], minlength=7) / 2000
        answers = probabilities[drawn]
        raw = np.bincount(answers.argmax(axis=1), minlength=7) / 2000
        raw_errors.append(np.abs(raw - shares).mean())
        errors.append(
            np.abs(corrected(answers, np.array(classifier.manifest.prior)) - shares).mean()
        )
    print(f"mean absolute error: raw {np.mean(raw_errors):.4f}, corrected {np.mean(errors):.4f}")
    assert np.mean(errors) <= np.mean(raw_errors) / 2
