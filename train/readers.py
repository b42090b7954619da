"""Reads every published form of FER2013 into one table.

CSV with either style of header, plain, gzip or zip; Kaggle's folder or its zip; any folder of
class folders. What a file is decides, not its extension.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_edge.files import IMAGE_SUFFIXES, is_image_name
from emotion_edge.model.labels import EMOTIONS
from train.errors import DataError

SPLITS = ("Training", "PublicTest", "PrivateTest")
WITH_CONTEMPT = (*EMOTIONS, "contempt")
"""FER+'s eight classes in our order; FER2013 itself has no contempt."""
SIDE = 48
"""Every face becomes SIDE x SIDE pixels."""

_SYNONYMS = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}
_SPLIT_FOLDERS = {
    "train": 0,
    "training": 0,
    "val": 1,
    "valid": 1,
    "validation": 1,
    "public": 1,
    "publictest": 1,
    "test": 2,
    "private": 2,
    "privatetest": 2,
}


@dataclass(slots=True)
class Table:
    """Everything in a source, in its order, before any row is dropped.

    ``images`` uint8 (N, 48, 48); ``labels`` int64 (N,), positions in ``classes``; ``usage``
    int64 (N,), positions in ``SPLITS``; ``rows`` int64 (N,), from 0. ``fer_rows`` says that the
    rows are those of ``fer2013.csv``, so that FER+ can be joined.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    usage: NDArray[np.int64]
    rows: NDArray[np.int64]
    classes: tuple[str, ...] = EMOTIONS
    unreadable: tuple[str, ...] = ()
    fer_rows: bool = True


def read(path: Path) -> Table:
    """Read any supported source; raises ``DataError`` with the row or file that is wrong."""
    if path.is_dir():
        found = list(path.glob("fer2013.csv*"))
        return read(found[0]) if found else read_folder(path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic[:2] == b"\x1f\x8b":
            with gzip.open(path, "rt", newline="") as text:
                return read_csv(text, path.name)
        if magic == b"PK\x03\x04":
            return _read_zip(path)
        with path.open(newline="") as text:
            return read_csv(text, path.name)
    except FileNotFoundError:
        raise DataError(
            f"no data at {path}: give fer2013.csv (plain, .gz or .zip), Kaggle's folder or zip, "
            "or a folder of class folders"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not a CSV: byte {error.start} is not text") from error
    except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise DataError(f"{path.name} is cut off or corrupt ({error}): copy it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _read_zip(path: Path) -> Table:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        tables = [name for name in names if name.endswith(".csv")]
        best = [name for name in tables if PurePosixPath(name).name.startswith("fer2013.")]
        if tables:
            name = (best or tables)[0]
            with archive.open(name) as raw:
                return read_csv(io.TextIOWrapper(raw, newline=""), f"{path.name}/{name}")
        images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
        return _read_images(images, archive.read, path.name)


# --- CSV --------------------------------------------------------------------------------------


def _rows(text: IO[str], source: str) -> Iterator[tuple[int, int, NDArray[np.uint8], str]]:
    reader = csv.reader(text)
    # The challenge's later release writes "emotion, Usage, pixels".
    header = [name.strip() for name in next(reader, [])]
    missing = {"emotion", "pixels", "Usage"} - set(header)
    if missing:
        raise DataError(
            f"{source} lacks the column{'s' if len(missing) > 1 else ''} "
            f"{', '.join(sorted(missing))}: found {', '.join(header)[:120] or 'nothing'}; "
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
            raise DataError(f"{where} contains something that is not a number: {error}") from error
        if not 0 <= label < len(EMOTIONS):
            raise DataError(f"{where} has label {label}, expected 0 to {len(EMOTIONS) - 1}")
        if len(values) != SIDE * SIDE:
            raise DataError(f"{where} has {len(values)} pixels, expected 2304 (48x48)")
        if values.min() < 0 or values.max() > 255:
            raise DataError(f"{where} has a pixel outside 0..255")
        yield number, label, values.astype(np.uint8), row[usage].strip()


def read_csv(text: IO[str], source: str) -> Table:
    """``fer2013.csv``, columns in any order."""
    images, labels, usages = [], [], []
    for number, label, pixels, usage in _rows(text, source):
        if usage not in SPLITS:
            raise DataError(
                f"row {number} of {source} has Usage {usage!r}, expected {', '.join(SPLITS)}"
            )
        images.append(pixels)
        labels.append(label)
        usages.append(SPLITS.index(usage))
    if not labels:
        raise DataError(f"{source} has a header and no rows")
    return Table(
        np.stack(images).reshape(-1, SIDE, SIDE),
        np.array(labels, np.int64),
        np.array(usages, np.int64),
        np.arange(len(labels)),
    )


# --- images ---------------------------------------------------------------------------------


def read_folder(path: Path) -> Table:
    """Kaggle's folder, or any folder of class folders, with or without split folders above."""
    names = [file.relative_to(path).as_posix() for file in _entries(path) if is_image_name(file)]
    for folder in _entries(path):
        if folder.is_dir() and not any(folder.iterdir()):
            raise DataError(
                f"the class folder {folder.relative_to(path)} of {path.name} is empty: add "
                "images or remove it"
            )
    return _read_images(names, lambda name: (path / name).read_bytes(), path.name)


def _natural(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _entries(path: Path) -> list[Path]:
    """Everything below a folder, sorted; links to folders are followed, each folder once."""
    found, waiting, seen = [], [path], set()
    while waiting:
        folder = waiting.pop()
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        entries = list(folder.iterdir())
        found += entries
        waiting += [entry for entry in entries if entry.is_dir()]
    return sorted(found)


def plain_label(name: str) -> str:
    """The label that a folder or model means by a name: ``happy`` for ``Happiness``."""
    return _SYNONYMS.get(name.lower(), name.lower())


def class_order(names: set[str]) -> dict[str, tuple[int, str]]:
    """Position and label of each folder name.

    Emotions take FER2013's order, whatever the alphabet says, with contempt after them; any
    other set of classes is sorted.
    """
    plain = {name: plain_label(name) for name in names}
    if set(plain.values()) <= set(WITH_CONTEMPT):
        order = [label for label in WITH_CONTEMPT if label in plain.values()]
        return {name: (order.index(label), label) for name, label in plain.items()}
    return {name: (i, name) for i, name in enumerate(sorted(names))}


def _read_images(names: list[str], load: Callable[[str], bytes], source: str) -> Table:
    if not names:
        raise DataError(
            f"{source} contains neither a CSV nor images ({', '.join(IMAGE_SUFFIXES)}): expected "
            "fer2013.csv, or folders named after the classes"
        )
    names = sorted(names, key=_natural)
    paths = [PurePosixPath(name) for name in names]
    if any(len(path.parts) < 2 for path in paths):
        lone = next(path for path in paths if len(path.parts) < 2)
        raise DataError(f"{lone} of {source} is not in a class folder: expected CLASS/{lone.name}")
    order = class_order({path.parent.name for path in paths})
    images, labels, usage, unreadable = [], [], [], []
    for name, path in zip(names, paths, strict=True):
        face = cv2.imdecode(np.frombuffer(load(name), np.uint8), cv2.IMREAD_GRAYSCALE)
        if face is None:
            unreadable.append(name)
            continue
        if face.shape != (SIDE, SIDE):
            shrinks = min(face.shape) >= SIDE
            how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            face = cv2.resize(face, (SIDE, SIDE), interpolation=how)
        images.append(np.asarray(face, np.uint8))
        labels.append(order[path.parent.name][0])
        usage.append(_usage(path))
    if not images:
        raise DataError(f"none of the {len(names)} images of {source} can be decoded")
    labels_array, usage_array = np.array(labels, np.int64), np.array(usage, np.int64)
    _hold_out(labels_array, usage_array)
    return Table(
        np.stack(images),
        labels_array,
        usage_array,
        np.arange(len(images)),
        tuple(label for _, label in sorted(set(order.values()))),
        tuple(unreadable),
        fer_rows=False,
    )


def _usage(path: PurePosixPath) -> int:
    # Kaggle keeps both test sets in one folder; the file's name says which.
    for code, split in enumerate(SPLITS):
        if path.name.startswith(f"{split}_"):
            return code
    for part in path.parts[:-2]:
        if part.lower() in _SPLIT_FOLDERS:
            return _SPLIT_FOLDERS[part.lower()]
    return 0


def _hold_out(labels: NDArray[np.int64], usage: NDArray[np.int64], seed: int = 0) -> None:
    """Without a validation split, make a stratified tenth of Training into PublicTest."""
    if (usage == 1).any():
        return
    rng = np.random.default_rng(seed)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero((labels == label) & (usage == 0)))
        usage[rows[: round(len(rows) / 10)]] = 1
