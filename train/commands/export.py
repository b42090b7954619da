"""``python -m train export``: another point between the two conventions, without training."""

from __future__ import annotations

import argparse
from pathlib import Path

from emotion_edge.errors import UsageError
from train.arguments import add_data_arguments, add_overwrite, quiet_tensorflow, read_data

HELP = "export another point between the two conventions, without training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument(
        "model", type=Path, help="a run's folder, or an exported .keras with heads.npz next to it"
    )
    parser.add_argument(
        "--mix",
        type=float,
        help="share of the votes head, 0 to 1 (default: the best on PublicTest by the rule)",
    )
    parser.add_argument("--tau", type=float, help="part of the votes' class shares to remove")
    parser.add_argument(
        "--classes", type=int, choices=(7, 8), default=7, help="8 adds contempt (default 7)"
    )
    parser.add_argument(
        "--convention",
        choices=("people", "fer2013"),
        default="people",
        help="what the model answers: decides the rule, the temperature and the score",
    )
    parser.add_argument("--out", type=Path, help="the .keras to write (default: the run's own)")
    add_overwrite(parser)


def run(options: argparse.Namespace) -> int:
    """Export and print the curve. Raises ConfigError, DataError, UsageError or OutputExists."""
    from train.files import refuse_existing

    in_run = options.model.is_dir()
    source = options.model / "model.keras" if in_run else options.model
    if options.out is None and not in_run:
        raise UsageError("export of a .keras file needs --out: the .keras to write")
    out = options.out or source
    if options.out is not None:
        refuse_existing(out, options.overwrite)
    data = read_data(options)
    quiet_tensorflow()
    from train.export import export_again, export_run
    from train.heads import describe

    if in_run and not source.is_file():
        export_run(options.model, data)
    record = export_again(
        source,
        data,
        out,
        mix=options.mix,
        tau=options.tau,
        classes=options.classes,
        convention=options.convention,
    )
    print(f"{describe(record)}\n{out}")
    return 0
