"""A small FER2013 for tests that run whole programs."""

from __future__ import annotations

import csv
import gzip
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from train.data import VOTE_OF_EMOTION, VOTES

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("EMOTION_EDGE_SHARED", ROOT.parent / "shared"))
"""Images and weights that are not part of the repository; tests that need them skip without."""

REAL = Path(os.environ.get("EMOTION_EDGE_DATA", SHARED / "data" / "fer2013"))
SIZES = {"Training": 280, "PublicTest": 105, "PrivateTest": 105}


def write_subset(path: Path) -> Path:
    """A few rows of every split: FER2013's where it exists, otherwise stripes, one slope per class.

    ``path`` is compressed when it ends in ``.gz``. FER+ votes, most of them for the label, are
    written next to it.
    """
    found = list(_real() if (REAL / "fer2013.csv.gz").is_file() else _drawn())
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        csv.writer(file).writerows([("emotion", "pixels", "Usage"), *found])
    with path.with_name("fer2013new.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["Usage", "Image name", *VOTES])
        for label, _, usage in found:
            votes = np.zeros(len(VOTES), int)
            votes[[VOTE_OF_EMOTION[int(label)], VOTES.index("contempt")]] = 7, 3
            writer.writerow([usage, "x.png", *votes])
    return path


def _real() -> Iterator[tuple[str, str, str]]:
    with gzip.open(REAL / "fer2013.csv.gz", "rt", newline="") as text:
        rows = csv.DictReader(text)
        # The file's splits follow each other.
        for usage, group in itertools.groupby(rows, key=lambda row: row["Usage"]):
            for row in itertools.islice(group, SIZES[usage]):
                yield row["emotion"], row["pixels"], usage


def _drawn() -> Iterator[tuple[str, str, str]]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    for usage, count in SIZES.items():
        for number in range(count):
            slope = number % 7 * np.pi / 7
            wave = np.sin((x * np.cos(slope) + y * np.sin(slope)) / 3 + rng.uniform(0, 6))
            face = np.clip(128 + 80 * wave + rng.normal(0, 20, (48, 48)), 0, 255).astype(int)
            yield str(number % 7), " ".join(map(str, face.ravel())), usage
