"""``python -m train soften``: a teacher's averaged predictions, for a student."""

from __future__ import annotations

import argparse
from pathlib import Path

from emotion_edge.errors import UsageError
from train.arguments import add_data_arguments, add_overwrite, quiet_tensorflow, read_data

HELP = "write a teacher's averaged predictions, to train students on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="folders that fit wrote, or models/NAME",
    )
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--views", type=int, default=8, help="augmented views of each face")
    add_overwrite(parser)


def run(options: argparse.Namespace) -> int:
    """Predict and average. Raises UsageError, DataError, TrainingError or OutputExists."""
    from train.files import refuse_existing

    if options.views < 1:
        raise UsageError(f"--views {options.views}: give 1 or more")
    refuse_existing(options.out, options.overwrite)
    data = read_data(options)
    quiet_tensorflow()
    from train.export import soften

    soften(options.runs, data, options.out, views=options.views)
    print(options.out)
    return 0
