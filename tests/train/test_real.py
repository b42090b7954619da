"""What is known of the real FER2013, where it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from train.augment import Augmentation
from train.config import Config, Fit, Targets
from train.data import load_fer2013
from train.readers import SPLITS
from train.targets import majority
from train.twins import find_pairs, in_other


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
    data = load_fer2013(real / "fer2013.csv.gz", clean=False)
    assert [int(data.split(name).twin.sum()) for name in SPLITS] == [1429, 488, 514]
    # Identical pixels, counted from the leaking rows alone: seconds in place of a minute.
    train, public, private = (data.split(name) for name in SPLITS)
    for split, total, agreeing in ((public, 280, 273), (private, 288, 279)):
        pixels: dict[bytes, set[int]] = {}
        for image, label in zip(train.images, train.labels, strict=True):
            pixels.setdefault(image.tobytes(), set()).add(int(label))
        hits = [
            int(label) in pixels[image.tobytes()]
            for image, label in zip(split.images, split.labels, strict=True)
            if image.tobytes() in pixels
        ]
        assert (len(hits), sum(hits)) == (total, agreeing)
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


@pytest.mark.slow
def test_kaggle_zip_agrees_with_the_csv(real: Path) -> None:
    plain = load_fer2013(real / "fer2013.csv.gz", clean=False)
    kaggle = load_fer2013(real / "archive.zip", clean=False)
    assert kaggle.labels == plain.labels
    for name in SPLITS:
        a, b = plain.split(name), kaggle.split(name)
        np.testing.assert_array_equal(np.bincount(a.labels), np.bincount(b.labels))
        # JPEG moves pixels by a few steps: the mean picture of each class must stay.
        for label in range(7):
            one, two = (s.images[s.labels == label].mean(axis=0) for s in (a, b))
            assert np.abs(one - two).max() < 0.6


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
