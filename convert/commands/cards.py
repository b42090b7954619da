"""``python -m convert cards``: write the model cards."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write models/README.md and a card per model from the files' manifests"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", type=Path, nargs="?", default=Path("models"))


def run(options: argparse.Namespace) -> int:
    """Write the cards and print their paths."""
    from convert import cards

    for path in cards.write(options.folder):
        print(path)
    return 0
