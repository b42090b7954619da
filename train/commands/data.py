"""``python -m train data``: report on a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.arguments import add_data_arguments, add_overwrite

HELP = "report on a data set: counts, near-duplicates, conflicts, contact sheets"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/data"))
    add_overwrite(parser)


def run(options: argparse.Namespace) -> int:
    """Read and report. Raises DataError or OutputExists."""
    from train.data_report import report

    page = report(
        options.data,
        options.out,
        votes=options.votes,
        cache=options.cache,
        overwrite=options.overwrite,
    )
    print(f"{page}\nwritten to {options.out}")
    return 0
