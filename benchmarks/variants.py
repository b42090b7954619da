"""Finds a model's files: the shipped ones, and variants converted from its float source."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from emotion_edge.bench.measure import Model
from emotion_edge.errors import UsageError
from emotion_edge.model.shipped import model_path

CACHE = Path("~/.cache/emotion-edge/variants")


def find_variants(
    names: Sequence[str],
    variants: Sequence[str],
    data: Path | None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Model]:
    """The models of names (shipped, or ``.tflite`` files) in each variant.

    A variant that is not in the folder of its int8 file is converted from ``NAME.keras``, which
    needs TensorFlow, and cached by the hash of its source.
    data: FER2013, for the converter; needed only then.
    A file with another name than ``NAME-int8.tflite`` is used as it is.
    Raises UsageError when the source is missing or the converter fails.
    """
    found = []
    for name in names:
        path = model_path(name)
        stem, _, kind = path.stem.rpartition("-")
        if kind != "int8":
            found.append(Model.read(path))
            continue
        for variant in variants:
            file = path.with_name(f"{stem}-{variant}.tflite")
            found.append(
                Model.read(file)
                if file.is_file()
                else _convert(path, stem, variant, data, progress)
            )
    return found


def _convert(
    path: Path, stem: str, variant: str, data: Path | None, progress: Callable[[str], None]
) -> Model:
    source = path.with_name(f"{stem}.keras")
    if not source.is_file():
        raise UsageError(
            f"no variant {variant} of {path.name}, and no {source} to convert: omit it"
        )
    key = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    kept = CACHE.expanduser() / f"{stem}-{variant}-{key}.tflite"
    if not kept.is_file():
        if data is None:
            raise UsageError(
                f"{variant} of {stem} must be converted first: give --data fer2013.csv"
            )
        progress(f"converting {source.name} to {variant}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "convert", "run", str(source), "--variant", variant]
        done = subprocess.run(
            [*command, "--data", str(data), "--name", stem, "--out", str(kept), "--force"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not kept.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UsageError(f"cannot convert {source} to {variant}: {last}")
    return dataclasses.replace(Model.read(kept), path=path.with_name(f"{stem}-{variant}.tflite"))
