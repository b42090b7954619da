"""FER2013 as a TensorFlow Datasets builder, since TFDS has none. Optional: needs
``tensorflow_datasets``.

>>> import tensorflow_datasets as tfds
>>> import train.fer2013_tfds
>>> builder = train.fer2013_tfds.Fer2013(csv="fer2013.csv.gz")
>>> builder.download_and_prepare()
>>> builder.as_dataset(split="public_test")
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emotion_edge.errors import MissingExtra
from emotion_edge.model.labels import EMOTIONS
from train.data import load_fer2013

try:
    import tensorflow_datasets as tfds
except ModuleNotFoundError as error:
    raise MissingExtra("the FER2013 builder", "tfds", "tensorflow_datasets") from error

SPLITS = {"train": "Training", "public_test": "PublicTest", "private_test": "PrivateTest"}


class Fer2013(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]  # TFDS is untyped
    """35,887 faces of 48x48 gray with their label and row; all rows, the leaking ones too."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Pass csv=, the path of fer2013.csv (plain, .gz or .zip)."

    def __init__(self, *, csv: str | Path, **keywords: Any) -> None:
        self._csv = Path(csv)
        super().__init__(**keywords)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="FER2013 (ICML 2013 challenge), in its own splits and order.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(48, 48, 1)),
                    "label": tfds.features.ClassLabel(names=list(EMOTIONS)),
                    "row": tfds.features.Scalar(np.int64),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://www.kaggle.com/c/challenges-in-representation-learning-"
            "facial-expression-recognition-challenge",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {name: self._generate_examples(split) for name, split in SPLITS.items()}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        part = load_fer2013(self._csv, clean=False).split(split)
        for image, label, row in zip(part.images, part.labels, part.rows, strict=True):
            yield int(row), {"image": image[..., None], "label": int(label), "row": int(row)}
