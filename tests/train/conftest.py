"""Generated faces for the tests of ``train``, and the real ones where they lie."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from train.data import VOTES

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Keras 3.15 saves through an __array__ that lacks NumPy 2's copy keyword.
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(
                pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
            )


def faces(
    labels: NDArray[np.int64], rng: np.random.Generator, *, noise: float = 25
) -> NDArray[np.uint8]:
    """Noise with a bright square whose place tells the class: learnable in a few steps."""
    images = rng.normal(90, noise, (len(labels), 48, 48))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 3)
        image[4 + 15 * row : 16 + 15 * row, 3 + 15 * column : 15 + 15 * column] += 120
    return np.clip(images, 0, 255).astype(np.uint8)


def write_csv(
    path: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    usage: list[str],
    *,
    header: tuple[str, str, str] = ("emotion", "pixels", "Usage"),
) -> Path:
    """``fer2013.csv`` with these columns, in the order of ``header``."""
    with path.open("w", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(header)
        for image, label, split in zip(images, labels, usage, strict=True):
            cells = {
                "emotion": str(label),
                "pixels": " ".join(map(str, image.ravel())),
                "Usage": split,
            }
            writer.writerow([cells[name.strip()] for name in header])
    return path


def write_votes(path: Path, labels: NDArray[np.int64], rng: np.random.Generator) -> Path:
    """``fer2013new.csv``: most of ten votes for the label, the rest anywhere."""
    column = [4, 5, 6, 1, 3, 2, 0]
    with path.open("w", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["Usage", "Image name", *VOTES])
        for label in labels:
            votes = np.bincount(rng.integers(0, 8, 3), minlength=10)
            votes[column[label]] += 7
            writer.writerow(["Training", "x.png", *votes])
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generated ``fer2013.csv`` (280 + 70 + 70 faces) and its FER+ votes."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(7)
    labels = np.tile(np.arange(7), 60)
    usage = ["Training"] * 280 + ["PublicTest"] * 70 + ["PrivateTest"] * 70
    write_csv(folder / "fer2013.csv", faces(labels, rng), labels, usage)
    write_votes(folder / "fer2013new.csv", labels, rng)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this session only."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder with the real data, from EMOTION_EDGE_DATA or next to the repository."""
    folder = Path(os.environ.get("EMOTION_EDGE_DATA", ROOT.parent / "shared/data/fer2013"))
    if not (folder / "fer2013.csv.gz").is_file():
        pytest.skip(f"no fer2013.csv.gz in {folder}: set EMOTION_EDGE_DATA to FER2013's folder")
    return folder


@pytest.fixture
def run_train(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call ``python -m train`` in this process: exit status, standard output, standard error."""
    from train.__main__ import main

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, out, err

    return call
