"""``python -m train evaluate``: score a model file."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.arguments import (
    add_data_arguments,
    add_overwrite,
    number,
    quiet_tensorflow,
    read_data,
)

HELP = "score a .keras, .h5, .hdf5 or .tflite file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "--scale",
        default="1",
        help="for a Keras file without a Rescaling layer: input = pixel * scale + offset, "
        "e.g. 1/127.5 (default 1)",
    )
    parser.add_argument("--offset", default="0", help="e.g. -1 (default 0)")
    parser.add_argument(
        "--labels",
        help="a,b,c in the order of a Keras file's outputs (default: the data's); they are matched "
        "with the data's by name, and images of other labels are left out",
    )
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
    quiet_tensorflow()
    from train.evaluate import evaluate, markdown

    out = options.out or Path("runs/evaluate") / f"{options.model.stem}-{options.split}"
    figures = evaluate(
        options.model,
        read_data(options),
        options.split,
        out,
        scale=number(options.scale, "--scale"),
        offset=number(options.offset, "--offset"),
        convention=options.convention,
        labels=options.labels.split(",") if options.labels else None,
        overwrite=options.overwrite,
        with_robustness=not options.no_robustness,
    )
    print(f"{markdown(figures)}\nwritten to {out}")
    return 0
