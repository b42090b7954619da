"""``python -m train evaluate``: score a model file."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.arguments import (
    add_data_arguments,
    add_feeding_arguments,
    add_overwrite,
    feeding,
    quiet_tensorflow,
    read_data,
)

HELP = "score a .keras, .h5, .hdf5 or .tflite file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument("model", type=Path)
    add_feeding_arguments(parser)
    parser.add_argument(
        "--convention",
        choices=("people", "fer2013"),
        default="",
        help="what counts as correct (default: as the model's manifest states, else fer2013)",
    )
    parser.add_argument("--split", default="PublicTest", help="PublicTest or PrivateTest")
    parser.add_argument("--out", type=Path, help="folder (default: runs/evaluate/MODEL-SPLIT)")
    parser.add_argument("--no-robustness", action="store_true", help="skip the perturbed faces")
    add_overwrite(parser)


def run(options: argparse.Namespace) -> int:
    """Score and print the page. Raises ModelError, DataError, UsageError or OutputExists."""
    labels, scale, offset = feeding(options)
    quiet_tensorflow()
    from train.evaluate import evaluate, markdown

    out = options.out or Path("runs/evaluate") / f"{options.model.stem}-{options.split}"
    figures = evaluate(
        options.model,
        read_data(options),
        options.split,
        out,
        scale=1.0 if scale is None else scale,
        offset=offset,
        convention=options.convention,
        labels=labels,
        overwrite=options.overwrite,
        with_robustness=not options.no_robustness,
    )
    print(f"{markdown(figures)}\nwritten to {out}")
    return 0
