"""``python -m train compare``: several runs in one table and plot."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.arguments import add_overwrite

HELP = "several runs in one table and plot"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("runs", type=Path, nargs="+", help="folders of fit or evaluate")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument(
        "--against",
        default="",
        metavar="SECTION.KEY",
        help="also plot accuracy over what the runs differ in, e.g. targets.raw_votes",
    )
    add_overwrite(parser)


def run(options: argparse.Namespace) -> int:
    """Compare. Raises DataError, UsageError or OutputExists."""
    from train.compare import compare

    print(compare(options.runs, options.out, against=options.against, overwrite=options.overwrite))
    return 0
