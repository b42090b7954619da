"""``python -m convert explain``: what int8 loses, layer by layer."""

from __future__ import annotations

import argparse
from pathlib import Path

from convert.arguments import add_job_arguments, read_job

HELP = "show what int8 loses, layer by layer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_job_arguments(parser)
    parser.add_argument("--images", type=int, default=64, help="number of images (default 64)")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write table and plot")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(options: argparse.Namespace) -> int:
    """Print the table of layers; write it with ``--report``."""
    from convert import layers

    job = read_job(options)
    found = layers.explain(job, count=options.images)
    print(layers.table(found), flush=True)
    if options.report:
        layers.write(options.report, found, job.model.name, overwrite=options.overwrite)
    return 0
