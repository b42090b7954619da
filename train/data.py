"""Read FER2013, in every form it goes by, and FER+ beside it.

>>> data = load_fer2013("fer2013.csv")          # clean: leaking rows are dropped
>>> data.split("PrivateTest").images.shape
(3589, 48, 48)

Nothing here needs TensorFlow or Keras. What was read is kept as ``.npz`` in a cache outside the
repository (``~/.cache/emotion-edge``), so the second start takes a second.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from emotion_edge.labels import EMOTIONS
from train.errors import DataError
from train.twins import Pairs, find_pairs, in_other

SPLITS = ("Training", "PublicTest", "PrivateTest")
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
_CACHE_VERSION = 2


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
    """A data set in up to three parts, with what was left out of it and why."""

    source: str
    labels: tuple[str, ...]
    splits: Mapping[str, Split]
    sha256: str
    """Of all images, labels and splits as read, before anything was dropped."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""
    unreadable: tuple[str, ...] = ()

    def split(self, name: str) -> Split:
        """The part called ``name`` (Training, PublicTest or PrivateTest)."""
        if name not in self.splits:
            raise DataError(f"no split {name!r} in {self.source}: it has {', '.join(self.splits)}")
        return self.splits[name]


@dataclass(slots=True)
class _Table:
    """Everything a source holds, in its order, before any row is dropped."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    usage: NDArray[np.int64]  # positions in SPLITS
    rows: NDArray[np.int64]
    classes: tuple[str, ...] = EMOTIONS
    unreadable: tuple[str, ...] = ()


# --- FER2013 as CSV ---------------------------------------------------------------------------


def _csv_rows(text: IO[str], source: str) -> Iterator[tuple[int, int, NDArray[np.uint8], str]]:
    reader = csv.reader(text)
    header = [name.strip() for name in next(reader, [])]
    missing = {"emotion", "pixels", "Usage"} - set(header)
    if missing:
        raise DataError(
            f"{source} lacks the column{'s' if len(missing) > 1 else ''} "
            f"{', '.join(sorted(missing))}: found {', '.join(header) or 'nothing'}; "
            "expected emotion, pixels, Usage in any order"
        )
    emotion, pixels, usage = (header.index(name) for name in ("emotion", "pixels", "Usage"))
    for number, row in enumerate(reader):
        where = f"row {number} of {source} (line {reader.line_num})"
        if len(row) != len(header):
            raise DataError(f"{where} has {len(row)} columns, expected {len(header)}")
        try:
            label = int(row[emotion])
            values = np.array(row[pixels].split(), np.int64)
        except ValueError as error:
            raise DataError(f"{where} holds something that is no number: {error}") from error
        if not 0 <= label < len(EMOTIONS):
            raise DataError(f"{where} has label {label}, expected 0 to {len(EMOTIONS) - 1}")
        if len(values) != 48 * 48:
            raise DataError(f"{where} has {len(values)} pixels, expected 2304 (48x48)")
        if values.min() < 0 or values.max() > 255:
            raise DataError(f"{where} has a pixel outside 0..255")
        yield number, label, values.astype(np.uint8), row[usage].strip()


def _read_csv(text: IO[str], source: str) -> _Table:
    images, labels, usages, rows = [], [], [], []
    for number, label, pixels, usage in _csv_rows(text, source):
        if usage not in SPLITS:
            raise DataError(
                f"row {number} of {source} has Usage {usage!r}, expected {', '.join(SPLITS)}"
            )
        rows.append(number)
        images.append(pixels)
        labels.append(label)
        usages.append(SPLITS.index(usage))
    if not rows:
        raise DataError(f"{source} has a header and no rows")
    return _Table(
        np.stack(images).reshape(-1, 48, 48),
        np.array(labels, np.int64),
        np.array(usages, np.int64),
        np.array(rows, np.int64),
    )


def _read(path: Path) -> _Table:
    """Any supported source, told apart by what it is, not by its extension alone."""
    if not path.exists():
        raise DataError(
            f"no data at {path}: give fer2013.csv (plain, .gz or .zip), or a folder of classes"
        )
    with path.open("rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        with gzip.open(path, "rt", newline="") as text:
            return _read_csv(text, path.name)
    if magic == b"PK\x03\x04":
        with zipfile.ZipFile(path) as archive:
            tables = [name for name in archive.namelist() if name.endswith(".csv")]
            wanted = [
                name for name in tables if Path(name).name in ("fer2013.csv", "icml_face_data.csv")
            ] or tables
            with archive.open(wanted[0]) as raw:
                return _read_csv(io.TextIOWrapper(raw, newline=""), f"{path.name}/{wanted[0]}")
    with path.open(newline="") as text:
        return _read_csv(text, path.name)


# --- FER+ -------------------------------------------------------------------------------------


def find_votes(path: Path) -> Path | None:
    """``fer2013new.csv`` beside the data, if it lies there."""
    candidate = (path if path.is_dir() else path.parent) / "fer2013new.csv"
    return candidate if candidate.is_file() else None


def read_votes(path: Path) -> NDArray[np.uint8]:
    """All rows of FER+, uint8 (35887, 10), in the row order of ``fer2013.csv``."""
    with path.open(newline="") as text:
        reader = csv.DictReader(text)
        missing = set(VOTES) - set(reader.fieldnames or ())
        if missing:
            raise DataError(f"{path.name} is not FER+: it lacks {', '.join(sorted(missing))}")
        return np.array([[int(row[name]) for name in VOTES] for row in reader], np.uint8)


# --- the one entry point ----------------------------------------------------------------------


def _digest(path: Path) -> str:
    sha = hashlib.sha256(f"v{_CACHE_VERSION}".encode())
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            sha.update(chunk)
    return sha.hexdigest()


def _cached(path: Path, cache: Path) -> tuple[_Table, Pairs, str]:
    key = _digest(path)
    kept = cache.expanduser() / f"{key[:24]}.npz"
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as store:
            table = _Table(
                store["images"],
                store["labels"],
                store["usage"],
                store["rows"],
                tuple(store["classes"].tolist()),
                tuple(store["unreadable"].tolist()),
            )
            pairs = Pairs(*(store[name] for name in ("first", "second", "correlation", "same")))
            return table, pairs, str(store["sha256"])
    table = _read(path)
    pairs = find_pairs(table.images)
    sha = hashlib.sha256(table.images.tobytes())
    sha.update(table.labels.tobytes())
    sha.update(table.usage.tobytes())
    kept.parent.mkdir(parents=True, exist_ok=True)
    beside = kept.with_suffix(f".{os.getpid()}.tmp")
    with beside.open("wb") as file:
        np.savez(
            file,
            images=table.images,
            labels=table.labels,
            usage=table.usage,
            rows=table.rows,
            classes=np.array(table.classes),
            unreadable=np.array(table.unreadable, dtype=np.str_),
            first=pairs.first,
            second=pairs.second,
            correlation=pairs.correlation,
            same=pairs.identical,
            sha256=np.array(sha.hexdigest()),
        )
    beside.replace(kept)
    return table, pairs, sha.hexdigest()


def load_fer2013(
    path: str | Path,
    *,
    votes: str | Path | None = None,
    clean: bool = True,
    cache: str | Path = CACHE,
) -> Dataset:
    """Read a data set, join FER+ by row, and drop the rows that leak.

    ``votes`` names FER+'s ``fer2013new.csv``; without it, the file is looked for beside the
    data. With ``clean``, Training loses every twin of a PublicTest or PrivateTest face and
    PublicTest every twin of a PrivateTest face; PrivateTest stays whole, and ``twin`` marks its
    faces that have a twin in Training.
    """
    path = Path(path)
    table, pairs, sha = _cached(path, Path(cache))
    where = {name: table.usage == code for code, name in enumerate(SPLITS)}
    train, public, private = (where[name] for name in SPLITS)
    twin = in_other(pairs, train, public | private) | in_other(pairs, public | private, train)

    all_votes: NDArray[np.uint8] | None = None
    found = Path(votes) if votes is not None else find_votes(path)
    if found is not None:
        whole = read_votes(found)
        if table.rows.max() >= len(whole):
            raise DataError(
                f"{found.name} has {len(whole)} rows and {path.name} a row {table.rows.max()}: "
                "FER+ joins fer2013.csv by row number"
            )
        all_votes = whole[table.rows]

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
