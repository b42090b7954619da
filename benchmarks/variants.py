"""The files of a model: those shipped, and the variants that can be made of its float source."""

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

    A variant that does not lie beside its int8 file is converted from ``NAME.keras``, which needs
    TensorFlow, and kept in a cache under the hash of its source.
    data: FER2013, for the converter; needed only then.
    A file that is not called ``NAME-int8.tflite`` stands for itself.
    Raises UsageError when the source is missing or the converter fails.
    """
    found = []
    for name in names:
        path = model_path(name)
        stem, _, variant = path.stem.rpartition("-")
        if variant != "int8":
            found.append(Model.read(path))
            continue
        for wanted in variants:
            beside = path.with_name(f"{stem}-{wanted}.tflite")
            found.append(
                Model.read(beside)
                if beside.is_file()
                else _convert(path, stem, wanted, data, progress)
            )
    return found


def _convert(
    path: Path, stem: str, variant: str, data: Path | None, progress: Callable[[str], None]
) -> Model:
    source = path.with_name(f"{stem}.keras")
    if not source.is_file():
        raise UsageError(
            f"no variant {variant} of {path.name}, nor {source} to make it of: leave it out"
        )
    key = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    kept = CACHE.expanduser() / f"{stem}-{variant}-{key}.tflite"
    if not kept.is_file():
        if data is None:
            raise UsageError(f"{variant} of {stem} has to be converted: give --data fer2013.csv")
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
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise UsageError(f"cannot convert {source} to {variant}: {last}")
    return dataclasses.replace(Model.read(kept), path=path.with_name(f"{stem}-{variant}.tflite"))
