"""The TFDS builder holds what the CSV holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from train.data import load_fer2013


def test_the_builder_agrees_with_the_csv(
    small: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow_datasets", reason="no TFDS: pip install '.[tfds]'")
    from tensorflow_datasets.core.utils import gcs_utils

    from train.fer2013_tfds import SPLITS, Fer2013

    # Else it waits for a bucket that an offline machine cannot reach.
    monkeypatch.setattr(gcs_utils, "_is_gcs_disabled", True)
    builder = Fer2013(csv=small / "fer2013.csv", data_dir=tmp_path)
    builder.download_and_prepare()
    data = load_fer2013(small / "fer2013.csv", cache=cache, clean=False)
    for name, ours in SPLITS.items():
        split = data.split(ours)
        rows = sorted(builder.as_dataset(split=name).as_numpy_iterator(), key=lambda r: r["row"])
        np.testing.assert_array_equal([row["row"] for row in rows], split.rows)
        np.testing.assert_array_equal([row["label"] for row in rows], split.labels)
        np.testing.assert_array_equal(
            np.stack([row["image"][..., 0] for row in rows]), split.images
        )
