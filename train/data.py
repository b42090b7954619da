"""Reads FER2013 in every published form, and FER+'s votes next to it.

>>> data = load_fer2013("fer2013.csv")          # clean: leaking rows are dropped
>>> data.split("PrivateTest").images.shape
(3589, 48, 48)

Nothing here needs TensorFlow or Keras. What was read is kept as ``.npz`` in a cache outside the
repository (``~/.cache/emotion-edge``), so the second start takes a second.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_edge.model.labels import EMOTIONS
from train.errors import DataError
from train.files import replacing
from train.near_duplicates import Pairs, find_pairs, in_other
from train.readers import SPLITS, Table, plain_label, read

VOTES = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "NF",
)
"""Columns of FER+; NF is "not a face"."""

VOTE_OF_EMOTION = (4, 5, 6, 1, 3, 2, 0)
"""Position in :data:`VOTES` of each of ``EMOTIONS``."""

CACHE = Path("~/.cache/emotion-edge")
_CACHE_VERSION = 3


@dataclass(frozen=True, slots=True)
class Split:
    """One part of a data set.

    ``images`` uint8 (N, 48, 48), gray; ``labels`` int64 (N,), positions in ``Dataset.labels``;
    ``rows`` int64 (N,), row numbers in the source, from 0; ``votes`` uint8 (N, 10) in the order
    of :data:`VOTES`, or None without FER+; ``twin`` bool (N,), whether the face has a twin in
    Training (for Training itself: in PublicTest or PrivateTest).
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    votes: NDArray[np.uint8] | None
    twin: NDArray[np.bool_]

    def __post_init__(self) -> None:
        count = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 3:
            raise DataError(
                f"images of {self.name} must be uint8 (N, height, width), "
                f"got {self.images.dtype} {self.images.shape}"
            )
        for name in ("labels", "rows", "votes", "twin"):
            value = getattr(self, name)
            if value is not None and len(value) != count:
                raise DataError(f"{self.name} has {count} images and {len(value)} {name}")

    def __len__(self) -> int:
        return len(self.images)

    def select(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Split:
        """The same split with only the rows that ``keep`` (mask or positions) names."""
        return Split(
            self.name,
            self.images[keep],
            self.labels[keep],
            self.rows[keep],
            None if self.votes is None else self.votes[keep],
            self.twin[keep],
        )


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set in up to three parts, with what was dropped and why."""

    source: str
    labels: tuple[str, ...]
    splits: Mapping[str, Split]
    sha256: str
    """Of all images, labels and splits as read, before anything was dropped."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows dropped, by reason."""
    unreadable: tuple[str, ...] = ()

    def split(self, name: str) -> Split:
        """The part called ``name`` (Training, PublicTest or PrivateTest)."""
        if name not in self.splits:
            raise DataError(f"no split {name!r} in {self.source}: it has {', '.join(self.splits)}")
        return self.splits[name]

    def for_labels(self, labels: Sequence[str]) -> tuple[Dataset, tuple[str, ...]]:
        """The data as a model with these labels is judged on it, and the labels it does not have.

        Labels are matched by name, in any order (``Happiness`` is ``happy``). Rows whose label the
        model does not have are left out; a label of the model without rows is allowed. FER+'s
        votes remain if the model's labels begin with the emotions, which is their order.
        Raises DataError when fewer than two labels match.
        """
        labels = tuple(labels)
        places = {plain_label(label): at for at, label in enumerate(labels)}
        position = np.array([places.get(plain_label(label), -1) for label in self.labels], np.int64)
        if (position >= 0).sum() < 2:
            raise DataError(
                f"{self.source} is labelled {', '.join(self.labels)}; the model's labels are "
                f"{', '.join(labels)}, fewer than two match: name them with --labels as in the "
                "data, or use data with its labels (folders named after them)"
            )
        splits = {}
        for name, part in self.splits.items():
            kept = part.select(position[part.labels] >= 0)
            votes = kept.votes if labels[: len(EMOTIONS)] == EMOTIONS else None
            splits[name] = replace(kept, labels=position[kept.labels], votes=votes)
        absent = (label for at, label in enumerate(self.labels) if position[at] < 0)
        return replace(self, labels=labels, splits=splits), tuple(absent)


# --- FER+ -------------------------------------------------------------------------------------


def find_votes(path: Path) -> Path | None:
    """``fer2013new.csv`` next to the data, if it exists."""
    candidate = (path if path.is_dir() else path.parent) / "fer2013new.csv"
    return candidate if candidate.is_file() else None


def read_votes(path: Path) -> NDArray[np.uint8]:
    """All rows of FER+, uint8 (35887, 10), in the row order of ``fer2013.csv``."""
    if not path.is_file():
        raise DataError(f"no FER+ votes at {path}: give microsoft/FERPlus's fer2013new.csv")
    with path.open(newline="") as text:
        reader = csv.DictReader(text)
        missing = set(VOTES) - set(reader.fieldnames or ())
        if missing:
            raise DataError(f"{path.name} is not FER+: it lacks {', '.join(sorted(missing))}")
        return np.array([[int(row[name]) for name in VOTES] for row in reader], np.uint8)


# --- the one entry point ----------------------------------------------------------------------


def _digest(path: Path) -> str:
    sha = hashlib.sha256(f"v{_CACHE_VERSION}".encode())
    if path.is_dir():
        # Names, sizes and times stand for the contents: reading all would cost what a cache saves.
        for file in sorted(path.rglob("*")):
            status = file.stat()
            sha.update(f"{file.relative_to(path)}|{status.st_size}|{status.st_mtime_ns}\n".encode())
        return sha.hexdigest()
    if not path.is_file():
        raise DataError(
            f"no data at {path}: give fer2013.csv (plain, .gz or .zip), Kaggle's folder or zip, "
            "or a folder of class folders"
        )
    with path.open("rb") as source:
        while chunk := source.read(1 << 22):
            sha.update(chunk)
    return sha.hexdigest()


def read_cached(path: Path, cache: Path) -> tuple[Table, Pairs, str]:
    """Everything in a source, its pairs of twins (positions in the table), and its SHA-256."""
    key = _digest(path)
    kept = cache.expanduser() / f"{key[:24]}.npz"
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as store:
            table = Table(
                store["images"],
                store["labels"],
                store["usage"],
                store["rows"],
                tuple(store["classes"].tolist()),
                tuple(store["unreadable"].tolist()),
                bool(store["fer_rows"]),
            )
            pairs = Pairs(*(store[name] for name in ("first", "second", "correlation", "same")))
            return table, pairs, str(store["sha256"])
    table = read(path)
    pairs = find_pairs(table.images)
    sha = hashlib.sha256(table.images.tobytes())
    sha.update(table.labels.tobytes())
    sha.update(table.usage.tobytes())
    with replacing(kept) as part:
        np.savez(
            part,
            images=table.images,
            labels=table.labels,
            usage=table.usage,
            rows=table.rows,
            classes=np.array(table.classes),
            unreadable=np.array(table.unreadable, dtype=np.str_),
            fer_rows=np.array(table.fer_rows),
            first=pairs.first,
            second=pairs.second,
            correlation=pairs.correlation,
            same=pairs.identical,
            sha256=np.array(sha.hexdigest()),
        )
    return table, pairs, sha.hexdigest()


def load_fer2013(
    path: str | Path,
    *,
    votes: str | Path | None = None,
    clean: bool = True,
    cache: str | Path = CACHE,
) -> Dataset:
    """Read a data set, join FER+ by row, and drop the rows that leak.

    ``votes`` names FER+'s ``fer2013new.csv``; without it, the file is looked for next to the
    data. With ``clean``, Training loses every twin of a PublicTest or PrivateTest face and
    PublicTest every twin of a PrivateTest face; PrivateTest stays whole, and ``twin`` marks its
    faces that have a twin in Training.
    """
    path = Path(path)
    table, pairs, sha = read_cached(path, Path(cache))
    where = {name: table.usage == code for code, name in enumerate(SPLITS)}
    train, public, private = (where[name] for name in SPLITS)
    twin = in_other(pairs, train, public | private) | in_other(pairs, public | private, train)

    all_votes: NDArray[np.uint8] | None = None
    found = Path(votes) if votes is not None else find_votes(path)
    if votes is not None and not table.fer_rows:
        raise DataError(
            f"{path.name} has no row numbers to join FER+ by: give fer2013.csv, or omit the votes"
        )
    if found is not None and table.fer_rows:
        whole = read_votes(found)
        if table.rows.max() >= len(whole):
            raise DataError(
                f"{found.name} has {len(whole)} rows and {path.name} a row {table.rows.max()}: "
                "FER+ joins fer2013.csv by row number"
            )
        all_votes = whole[table.rows]

    if clean and not train.any():
        raise DataError(f"{path.name} has no Training rows")
    drop = np.zeros(len(table.labels), np.bool_)
    dropped: dict[str, int] = {}
    if clean:
        leaking = train & twin
        public_twin = in_other(pairs, public, private)
        dropped["Training rows with a twin in PublicTest or PrivateTest"] = int(leaking.sum())
        dropped["PublicTest rows with a twin in PrivateTest"] = int(public_twin.sum())
        drop = leaking | public_twin
    splits = {}
    for name, mask in where.items():
        keep = np.flatnonzero(mask & ~drop)
        if len(keep):
            splits[name] = Split(
                name,
                table.images[keep],
                table.labels[keep],
                table.rows[keep],
                None if all_votes is None else all_votes[keep],
                twin[keep],
            )
    return Dataset(path.name, table.classes, splits, sha, dropped, table.unreadable)
