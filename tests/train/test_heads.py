"""Heads: fitted, folded, kept; and the two conventions of a truth."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from train import heads, targets
from train.data import Split
from train.errors import ConfigError, DataError
from train.evaluate import score
from train.heads import Heads
from train.metrics import coverage_curve, softmax

RNG = np.random.default_rng(5)


def two_heads() -> Heads:
    made = {
        name: (
            RNG.normal(size=(4, 7)).astype(np.float32),
            RNG.normal(size=7).astype(np.float32),
        )
        for name in ("label", "votes")
    }
    shares = np.array([0.1, 0.01, 0.05, 0.3, 0.12, 0.12, 0.3], np.float32)
    return Heads(made, {"votes": shares})


def test_a_fitted_head_finds_the_shares_it_was_drawn_from() -> None:
    features = RNG.normal(size=(4000, 6)).astype(np.float32)
    kernel = RNG.normal(size=(6, 7)).astype(np.float32)
    shares = softmax(features @ kernel + 0.3)
    found, bias = heads.fit_head(features, shares, decay=1e-6)
    np.testing.assert_allclose(softmax(features @ found + bias), shares, atol=0.01)


def test_a_folded_head_is_the_point_of_the_curve() -> None:
    both = two_heads()
    features = RNG.normal(size=(50, 4)).astype(np.float32)
    label, votes = (features @ kernel + bias for kernel, bias in both.heads.values())
    wanted = heads.adjusted(label, votes, both.shares["votes"], mix=0.3, tau=0.5) / 1.7
    kernel, bias = both.folded(mix=0.3, tau=0.5, temperature=1.7)
    np.testing.assert_allclose(features @ kernel + bias, wanted, atol=1e-5)
    with pytest.raises(ConfigError, match="no eight head"):
        both.folded(classes=8)


def test_heads_are_kept_next_to_a_model(tmp_path: Path) -> None:
    both = two_heads()
    both.save(tmp_path / "heads.npz")
    again = Heads.load(tmp_path / "heads.npz")
    np.testing.assert_array_equal(again.folded(mix=0.5)[0], both.folded(mix=0.5)[0])
    np.testing.assert_array_equal(again.shares["votes"], both.shares["votes"])
    with pytest.raises(ConfigError, match="no heads at"):
        Heads.load(tmp_path / "none.npz")


def split_of(labels: list[int], votes: list[list[int]]) -> Split:
    count = len(labels)
    return Split(
        "PublicTest",
        np.zeros((count, 48, 48), np.uint8),
        np.array(labels),
        np.arange(count),
        np.array(votes, np.uint8),
        np.zeros(count, np.bool_),
    )


#         neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
SPLIT = split_of(
    [4, 3, 0, 6],
    [
        [8, 0, 0, 2, 0, 0, 0, 0, 0, 0],  # labelled sad; most people say neutral
        [0, 9, 1, 0, 0, 0, 0, 0, 0, 0],
        [4, 0, 0, 0, 5, 0, 0, 1, 0, 0],  # no majority of all ten; one of the nine after outliers
        [1, 0, 0, 0, 0, 0, 0, 7, 1, 1],  # contempt
    ],
)


def test_the_conventions_differ_in_rows_and_truth() -> None:
    rows, truth = targets.judged(SPLIT, "fer2013")
    assert (rows.tolist(), truth.tolist()) == ([0, 1, 2, 3], [4, 3, 0, 6])
    rows, truth = targets.judged(SPLIT, "people")
    assert (rows.tolist(), truth.tolist()) == ([0, 1], [6, 3])
    rows, truth = targets.judged(SPLIT, "people", 8)
    assert (rows.tolist(), truth.tolist()) == ([0, 1, 2, 3], [6, 3, 0, 7])
    bare = Split("PublicTest", SPLIT.images, SPLIT.labels, SPLIT.rows, None, SPLIT.twin)
    with pytest.raises(DataError, match=r"fer2013new\.csv"):
        targets.judged(bare, "people")
    with pytest.raises(ConfigError, match="use people or fer2013"):
        targets.judged(SPLIT, "everyone")


def test_a_score_in_the_people_convention_holds_the_original_labels_too() -> None:
    labels = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    answers = np.eye(7, dtype=np.float32)[[6, 3, 0, 6]]
    people = score(answers, SPLIT, labels, convention="people")
    assert (people["accuracy"], people["images"]) == (1.0, 2)
    assert people["original_labels"]["accuracy"] == 0.75
    original = score(answers, SPLIT, labels)
    assert original["accuracy"] == 0.75
    assert original["ferplus"]["accuracy"] == 1.0
    assert original["ferplus"]["eight_classes"]["accuracy"] == 0.75


def test_the_rule_for_people_leaves_disgust_out() -> None:
    rows = [
        {"mix": 1.0, "tau": 0.25, "ferplus": 0.90, "recall": 0.80, "recall_six": 0.86},
        {"mix": 1.0, "tau": 0.75, "ferplus": 0.86, "recall": 0.86, "recall_six": 0.87},
    ]
    assert heads.best_for_people(rows)["tau"] == 0.25


def test_precision_rises_where_coverage_falls() -> None:
    truth = RNG.integers(0, 7, 4000)
    logits = RNG.normal(0, 1, (4000, 7))
    logits[np.arange(4000), truth] += 1.5
    points = coverage_curve(softmax(logits * 1.5), truth)
    thresholds, precision, coverage = zip(*points, strict=True)
    assert thresholds[0] == 0 and coverage[0] == 1
    assert precision[60] > precision[0] + 0.1
    assert all(a >= b for a, b in itertools.pairwise(coverage))
