from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert import images
from emotion_edge.errors import UsageError
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.model.manifest import InputSpec
from tests.convert.conftest import COUNTS
from train.errors import DataError

GRAY = InputSpec(48, 48, 1, "gray")


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    count=st.integers(1, 200),
    seed=st.integers(0, 9),
)
def test_a_stratified_set_has_every_class_in_its_share(
    sizes: list[int], count: int, seed: int
) -> None:
    truth = np.repeat(np.arange(len(sizes)), sizes)
    chosen = images.stratified(truth, count, seed)
    assert len(set(chosen.tolist())) == len(chosen) >= min(count, len(truth))
    found = np.bincount(truth[chosen], minlength=len(sizes))
    assert (found >= 1).all()
    exact = np.array(sizes) * min(count, len(truth)) / len(truth)
    assert (np.abs(found - exact) <= 1).all()
    np.testing.assert_array_equal(chosen, images.stratified(truth, count, seed))


def test_fer2013_comes_in_the_size_and_colours_of_the_model(data: Path) -> None:
    found = images.read(data, "PublicTest", InputSpec(96, 80, 3, "rgb"), EMOTIONS)
    assert found.faces.shape == (7 * COUNTS["PublicTest"], 96, 80, 3)
    assert found.faces.dtype == np.uint8


@pytest.mark.parametrize("split", ["PublicTest", "PrivateTest", "test", "my-validation"])
def test_calibrating_on_a_test_split_is_an_error(data: Path, split: str) -> None:
    with pytest.raises(UsageError, match="training images"):
        images.calibration_set(data, split, GRAY, EMOTIONS, judged=())


def test_calibrating_on_the_judging_split_is_an_error(data: Path) -> None:
    with pytest.raises(UsageError, match="training images"):
        images.calibration_set(data, "Training", GRAY, EMOTIONS, judged=("Training",))


def folder(path: Path, labels: tuple[str, ...]) -> Path:
    for split in ("train", "test"):
        for at, label in enumerate(labels):
            (path / split / label).mkdir(parents=True)
            for number in range(3):
                image = np.full((20, 30, 3), (10, 20, 200 - 50 * at), np.uint8)
                cv2.imwrite(str(path / split / label / f"{number}.png"), image)
    return path


def test_a_folder_of_classes_keeps_its_colours(tmp_path: Path) -> None:
    root = folder(tmp_path, ("cat", "dog"))
    assert images.default_labels(2, root, "test") == ("cat", "dog")
    found = images.read(root, "train", InputSpec(10, 15, 3, "rgb"), ("dog", "cat"))
    assert found.truth.tolist() == [1, 1, 1, 0, 0, 0]
    assert found.faces[0, 0, 0].tolist() == [200, 20, 10]
    swapped = images.read(root, "train", InputSpec(10, 15, 3, "bgr"), ("dog", "cat"))
    assert swapped.faces[0, 0, 0].tolist() == [10, 20, 200]


def test_folders_and_labels_have_to_match(tmp_path: Path, data: Path) -> None:
    root = folder(tmp_path, ("cat", "dog"))
    with pytest.raises(DataError, match="cat, dog"):
        images.read(root, "train", GRAY, ("cat", "cow"))
    for file in (root / "train" / "cat").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="contains no images"):
        images.read(root, "train", GRAY, ("cat", "dog"))
    with pytest.raises(DataError, match="labelled"):
        images.read(data, "PublicTest", GRAY, ("a", "b"))
    with pytest.raises(UsageError, match="--labels"):
        images.default_labels(5, data, "PublicTest")


def test_labels_of_the_data_are_matched_by_name(data: Path) -> None:
    found = images.read(data, "PublicTest", GRAY, EMOTIONS)
    order = ("Neutral", "Surprised", "sadness", "happiness", "fear", "disgust", "Anger")
    other = images.read(data, "PublicTest", GRAY, order)
    assert len(other) == len(found)
    assert [EMOTIONS[6 - i] for i in other.truth] == [EMOTIONS[i] for i in found.truth]
    four = images.read(data, "PublicTest", GRAY, ("happy", "sad", "angry", "neutral"))
    assert len(four) == 4 * COUNTS["PublicTest"] and set(four.truth.tolist()) == {0, 1, 2, 3}
    assert four.protocol.endswith("without disgust, fear, surprise")
    eight = images.read(data, "PublicTest", GRAY, images.default_labels(8, data, "PublicTest"))
    assert eight.labels[-1] == "contempt" and eight.truth.max() == 6


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    root = folder(tmp_path / "real", ("cat", "dog"))
    linked = tmp_path / "linked"
    (linked / "train").mkdir(parents=True)
    for label in ("cat", "dog"):
        (linked / "train" / label).symlink_to(root / "train" / label)
    assert len(images.read(linked, "train", GRAY, ("cat", "dog"))) == 6
    # Class folders without splits are read by train.
    plain = tmp_path / "plain"
    plain.mkdir()
    for label in ("cat", "dog"):
        (plain / label).symlink_to(root / "train" / label)
    assert images.default_labels(2, plain, "PublicTest") == ("cat", "dog")


def test_class_folders_without_splits_name_the_labels_and_hold_out_a_tenth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # the cache of decoded data
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for number in range(20):
            image = random.integers(0, 256, (48, 48), np.uint8)
            cv2.imwrite(str(tmp_path / "pets" / label / f"{number}.png"), image)
    labels = images.default_labels(2, tmp_path / "pets", "PublicTest")
    assert labels == ("cat", "dog")
    assert len(images.read(tmp_path / "pets", "PublicTest", GRAY, labels)) == 4
    assert len(images.read(tmp_path / "pets", "Training", GRAY, labels)) == 36
