"""The rule for near-duplicates, and what the clean protocol drops by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from train.data import load_fer2013
from train.data_report import twin_counts
from train.near_duplicates import find_pairs, normalised
from train.readers import Table

from .conftest import faces, write_csv


def test_pairs_equal_brute_force() -> None:
    rng = np.random.default_rng(3)
    smooth = rng.normal(0, 1, (60, 6, 6)).repeat(8, axis=1).repeat(8, axis=2)
    base = np.clip(128 + 40 * smooth, 0, 255)
    copies = base[:25] + rng.normal(0, 1, (25, 48, 48)) * rng.uniform(0, 40, (25, 1, 1))
    images = np.clip(np.concatenate([base, copies, base[:3]]), 0, 255).astype(np.uint8)
    flat = normalised(images)
    near = np.triu(flat @ flat.T > 0.9, k=1)
    found = find_pairs(images, frequencies=4)
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == set(
        zip(*(side.tolist() for side in np.nonzero(near)), strict=True)
    )
    assert 5 < len(found.first) < 60
    assert found.identical.sum() == 3


def test_flat_images_have_no_near_duplicates() -> None:
    assert len(find_pairs(np.full((5, 48, 48), 77, np.uint8)).first) == 0


def test_clean_drops_leaking_rows_and_keeps_private_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    labels = np.tile(np.arange(7), 10)
    images = faces(labels, rng, noise=60)
    usage = ["Training"] * 50 + ["PublicTest"] * 10 + ["PrivateTest"] * 10
    images[50] = images[0]  # PublicTest 50 shows Training 0
    images[61] = np.clip(images[1].astype(int) // 2 + 30, 0, 255)  # another contrast
    images[51] = images[62]  # PublicTest 51 shows PrivateTest 62
    path = write_csv(tmp_path / "fer2013.csv", images, labels, usage)
    data = load_fer2013(path, cache=tmp_path)
    assert list(data.dropped.values()) == [2, 1]
    assert 0 not in data.split("Training").rows
    assert 1 not in data.split("Training").rows
    assert 51 not in data.split("PublicTest").rows
    private = data.split("PrivateTest")
    assert len(private) == 10
    assert private.rows[private.twin].tolist() == [61]
    assert len(load_fer2013(path, cache=tmp_path, clean=False).split("Training")) == 50


def test_the_report_counts_twins_by_split_and_equal_pixels_apart() -> None:
    rng = np.random.default_rng(5)
    one, two = rng.integers(0, 256, (2, 48, 48), np.uint8)
    black = np.zeros((48, 48), np.uint8)
    lighter = (one // 2 + 60).astype(np.uint8)
    images = np.stack([one, two, black, lighter, two, black])
    labels = np.array([0, 1, 2, 0, 3, 2])
    table = Table(images, labels, np.array([0, 0, 0, 1, 1, 2]), np.arange(6))
    counts = twin_counts(table, find_pairs(images))
    assert (counts["pairs"], counts["conflicting_pairs"]) == (2, 1)
    assert (counts["identical_pairs"], counts["conflicting_identical_pairs"]) == (2, 1)
    rows = {(row["images_of"], row["with_a_twin_in"]): row for row in counts["table"]}
    across = rows["PublicTest", "Training"]
    assert (across["near"], across["near_same_label"]) == (2, 1)
    assert (across["identical"], across["identical_same_label"]) == (1, 0)
    # Flat images have no correlation, but the same pixels.
    flat = rows["PrivateTest", "Training"]
    assert (flat["near"], flat["identical"], flat["identical_same_label"]) == (0, 1, 1)
