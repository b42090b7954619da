"""Reads labelled images in the model's size and colours, with the device's own preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_edge.errors import UsageError
from emotion_edge.files import IMAGE_SUFFIXES, is_image_name
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.model.manifest import InputSpec
from emotion_edge.model.preprocessing import read_image, resize_to_input
from emotion_edge.values import Image
from train import targets
from train.data import Split, load_fer2013
from train.errors import DataError
from train.readers import WITH_CONTEMPT

CLEAN = "clean: no row with a twin in a split judged later"
TRAINING, GATE, REPORT = "Training", "PublicTest", "PrivateTest"
_HELD_OUT = ("test", "val", "public", "private", "eval", "holdout")


@dataclass(frozen=True, slots=True)
class Images:
    """One split, ready for ``TFLiteClassifier.predict``.

    faces: uint8 ``(n, height, width)`` or ``(n, height, width, 3)``.
    truth: int64 ``(n,)``, positions in ``labels``.
    twin: bool ``(n,)``, whether a face has a twin in Training; None where that is not known.
    votes: uint8 ``(n, 10)`` of FER+, or None.
    source: the data's name. protocol: how the rows were chosen.
    """

    split: str
    labels: tuple[str, ...]
    faces: Image
    truth: NDArray[np.int64]
    source: str
    protocol: str
    twin: NDArray[np.bool_] | None = None
    votes: NDArray[np.uint8] | None = None
    convention: str = "fer2013"

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def sha256(self) -> str:
        """Of the pixels and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.faces).tobytes())
        digest.update(self.truth.tobytes())
        return digest.hexdigest()

    @property
    def mirrored(self) -> Images:
        """Every face flipped left to right."""
        return replace(self, faces=np.ascontiguousarray(self.faces[:, :, ::-1]))

    def as_split(self) -> Split:
        """For ``train.evaluate.score``, which looks at labels, twins and votes, not at pixels."""
        count = len(self)
        return Split(
            self.split,
            np.zeros((count, 1, 1), np.uint8),
            self.truth,
            np.arange(count),
            self.votes,
            np.zeros(count, np.bool_) if self.twin is None else self.twin,
        )

    def at(self, positions: NDArray[np.int64]) -> Images:
        """Only the rows at these positions."""
        return replace(
            self,
            faces=self.faces[positions],
            truth=self.truth[positions],
            twin=None if self.twin is None else self.twin[positions],
            votes=None if self.votes is None else self.votes[positions],
        )


def read(
    path: str | Path,
    split: str,
    spec: InputSpec,
    labels: Sequence[str],
    convention: str = "fer2013",
) -> Images:
    """One split of FER2013 in any of its formats, or of a folder ``PATH/SPLIT/LABEL/*.jpg``.

    convention: what counts as correct, ``fer2013`` or ``people`` (``train.targets.judged``).
    labels: the model's. Those of FER2013 are matched by name, in any order; rows whose label the
    model does not have are left out, and a label without rows is allowed.
    Raises DataError when there is nothing to read or fewer than two labels match.
    """
    path, labels = Path(path), tuple(labels)
    if (path / split).is_dir():
        return _folder(path, split, spec, labels)
    data = load_fer2013(path)
    targets.require_convention(convention, labels)
    data, absent = data.for_labels(labels)
    part = data.split(split)
    protocol = "clean: all rows" if split == REPORT else CLEAN
    return Images(
        split,
        labels,
        np.stack([resize_to_input(face, spec) for face in part.images]),
        part.labels,
        data.source,
        protocol + (f", without {', '.join(absent)}" if absent else ""),
        part.twin,
        part.votes,
        convention,
    )


def stratified(truth: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Positions of ``count`` rows, each class in its share and at least once, in a seeded order.

    The calibration set should look like the data; a class that is left out may reach ranges that
    no other reaches. Rests are given to the largest remainders.
    """
    classes, sizes = np.unique(truth, return_counts=True)
    count = min(count, len(truth))
    exact = sizes * count / len(truth)
    shares = np.maximum(np.floor(exact).astype(int), 1)
    for at in np.argsort(shares - exact, kind="stable"):
        if shares.sum() >= count:
            break
        shares[at] = min(shares[at] + 1, sizes[at])
    random = np.random.default_rng(seed)
    chosen = [
        random.permutation(np.flatnonzero(truth == label))[:share]
        for label, share in zip(classes, shares, strict=True)
    ]
    return random.permutation(np.concatenate(chosen)).astype(np.int64)


def calibration_set(
    path: str | Path,
    split: str,
    spec: InputSpec,
    labels: Sequence[str],
    *,
    judged: Sequence[str],
    convention: str = "fer2013",
) -> Images:
    """The images that ranges may be taken from.

    judged: the splits that scores are reported on.
    Raises UsageError when ``split`` is one of them, or a test split by its name: ranges fitted to
    the images that judge the model flatter it.
    """
    if split in judged or any(mark in split.lower() for mark in _HELD_OUT):
        raise UsageError(
            f"--calibration-split {split}: calibration takes its ranges from training images "
            f"only, {split} is for judging; use {TRAINING}, or the name of your training split"
        )
    images = read(path, split, spec, labels, convention)
    if len(images) == 0:
        raise DataError(f"the calibration split {split} of {path} is empty: give images to train")
    return images


def default_labels(outputs: int, path: str | Path | None, split: str) -> tuple[str, ...]:
    """Labels for a model without any: those of the folder, FER2013's seven, or with contempt.

    Raises UsageError when none has as many as the model has outputs.
    """
    if path is not None and Path(path).is_dir():
        folder = Path(path) / split
        names = (
            tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
            if folder.is_dir()
            else load_fer2013(path).labels  # class folders without splits
        )
        if len(names) == outputs and set(names) != set(EMOTIONS):
            return names
    if outputs == len(EMOTIONS):
        return EMOTIONS
    if outputs == len(WITH_CONTEMPT):
        return WITH_CONTEMPT
    raise UsageError(
        f"the model has {outputs} outputs, FER2013 has {len(EMOTIONS)} labels: "
        "name them in the order of the outputs with --labels a,b,c"
    )


def _folder(path: Path, split: str, spec: InputSpec, labels: tuple[str, ...]) -> Images:
    classes = sorted(entry for entry in (path / split).iterdir() if entry.is_dir())
    unknown = [entry.name for entry in classes if entry.name not in labels]
    absent = [label for label in labels if not (path / split / label).is_dir()]
    if unknown or absent:
        raise DataError(
            f"{path / split} has the folders {', '.join(entry.name for entry in classes)}; "
            f"the model's labels are {', '.join(labels)}: name the folders after them, or --labels "
            "after the folders"
        )
    faces, truth = [], []
    for folder in classes:
        files = sorted(file for file in folder.iterdir() if is_image_name(file))
        if not files:
            raise DataError(f"{folder} contains no images ({', '.join(IMAGE_SUFFIXES)}): add some")
        for file in files:
            faces.append(resize_to_input(read_image(file), spec))
            truth.append(labels.index(folder.name))
    return Images(split, labels, np.stack(faces), np.array(truth, np.int64), path.name, "all rows")
