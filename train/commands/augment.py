"""``python -m train augment``: an image of augmented faces."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.arguments import add_data_arguments, read_data

HELP = "write an image of augmented faces"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument("--config", type=Path, required=True, help="train/configs/NAME.toml")
    parser.add_argument("--out", type=Path, default=Path("runs/augment"), help="path and name")


def run(options: argparse.Namespace) -> int:
    """Draw. Raises ConfigError or DataError."""
    from train.config import load_config
    from train.data_report import augmentation_figure

    augmentation_figure(read_data(options), load_config(options.config).augment, options.out)
    print(options.out.with_suffix(".png"))
    return 0
