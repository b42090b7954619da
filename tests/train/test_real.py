"""What is known of the real FER2013, where it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from train.augment import Augmentation
from train.config import Config, Fit, Targets
from train.data import CACHE, load_fer2013, read_cached
from train.data_report import twin_counts
from train.near_duplicates import find_pairs, in_other
from train.readers import SPLITS
from train.targets import majority


def test_counts_of_the_clean_protocol(real: Path) -> None:
    data = load_fer2013(real / "fer2013.csv.gz")
    assert list(data.dropped.values()) == [1429, 97]
    assert {name: len(split) for name, split in data.splits.items()} == {
        "Training": 27_280,
        "PublicTest": 3_492,
        "PrivateTest": 3_589,
    }
    assert data.split("PrivateTest").twin.sum() == 514


def test_counts_of_twins(real: Path) -> None:
    table, pairs, _ = read_cached(real / "fer2013.csv.gz", CACHE)
    counts = {
        (row["images_of"], row["with_a_twin_in"]): row for row in twin_counts(table, pairs)["table"]
    }
    public, private = counts["PublicTest", "Training"], counts["PrivateTest", "Training"]
    assert (public["near"], private["near"]) == (488, 514)
    assert (public["identical"], public["identical_same_label"]) == (280, 273)
    assert (private["identical"], private["identical_same_label"]) == (288, 279)
    assert counts["PublicTest", "PrivateTest"]["near"] == 97


def test_the_rule_on_the_leaking_rows_alone(real: Path) -> None:
    # What the cache holds may be old; these 5,018 faces take a second.
    data = load_fer2013(real / "fer2013.csv.gz", clean=False)
    train, private = data.split("Training"), data.split("PrivateTest")
    assert train.twin.sum() == 1429
    near = np.concatenate([train.images[train.twin], private.images])
    pairs = find_pairs(near)
    here = np.arange(len(near)) >= int(train.twin.sum())
    assert in_other(pairs, here, ~here).sum() == 514


def test_ferplus_majority(real: Path) -> None:
    private = load_fer2013(real / "fer2013.csv.gz").split("PrivateTest")
    assert private.votes is not None
    wanted, clear = majority(private.votes)
    assert clear.sum() == 2720
    assert np.mean((wanted == private.labels)[clear]) == pytest.approx(0.722, abs=5e-4)


def distance(faces: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean absolute difference of each face to the nearest of others, in gray steps, (N,)."""
    a, b = (each.reshape(len(each), -1).astype(np.float32) for each in (faces, others))
    nearest = np.concatenate(
        [
            ((b**2).sum(axis=1) - 2 * a[at : at + 1024] @ b.T).argmin(axis=1)
            for at in range(0, len(a), 1024)
        ]
    )
    return np.abs(a - b[nearest]).mean(axis=1)


@pytest.mark.slow
def test_kaggles_zip_holds_the_csvs_faces_and_all_but_thirteen_of_its_labels(real: Path) -> None:
    plain = load_fer2013(real / "fer2013.csv.gz", clean=False)
    if not (real / "archive.zip").is_file():
        pytest.skip(f"no archive.zip (Kaggle's) in {real}")
    kaggle = load_fer2013(real / "archive.zip", clean=False)
    assert kaggle.labels == plain.labels
    relabelled = {}
    for name in SPLITS:
        a, b = plain.split(name), kaggle.split(name)
        np.testing.assert_array_equal(np.bincount(a.labels), np.bincount(b.labels))
        strange = np.concatenate(
            [
                np.flatnonzero(here)[distance(a.images[here], b.images[b.labels == label]) > 2]
                for label in range(7)
                for here in [a.labels == label]
            ]
        )
        relabelled[name] = len(strange)
        # JPEG moves pixels by a step or two; under another label, each face is there.
        assert not len(strange) or distance(a.images[strange], b.images).max() < 2
    assert relabelled == {"Training": 5, "PublicTest": 0, "PrivateTest": 8}


def test_a_few_steps_on_real_faces_learn(real: Path, tmp_path: Path) -> None:
    import csv
    import dataclasses

    from train.fit import fit

    data = load_fer2013(real / "fer2013.csv.gz")
    train = data.split("Training").select(np.arange(3000))
    public = data.split("PublicTest").select(np.arange(500))
    data = dataclasses.replace(data, splits={"Training": train, "PublicTest": public})
    config = Config(
        name="few",
        network="residual",
        options={"stem": [16, 3], "stages": [[32, 2, 0], [64, 2, 1]]},
        targets=Targets(label_share=0.8),
        augment=Augmentation(flip=True),
        fit=Fit(
            epochs=5, batch=50, optimizer="sgd", learning_rate=0.05, schedule="cosine", ema=0.9
        ),
    )
    fit(config, data, tmp_path / "few", tensorboard=False)
    with (tmp_path / "few" / "history.csv").open(newline="") as text:
        losses = [float(row["val_loss"]) for row in csv.DictReader(text)]
    # Guessing by the classes' shares costs 1.82 nats.
    assert losses[-1] < 1.75
    assert losses[-1] < losses[0] - 0.03
