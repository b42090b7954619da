"""Defines shared command-line arguments, and reads the data that they name."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_edge.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from train.data import Dataset


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the data, the votes and the cache."""
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="fer2013.csv (plain, .gz, .zip), Kaggle's folder or zip, or class folders",
    )
    parser.add_argument(
        "--votes", type=Path, help="FER+'s fer2013new.csv (default: next to the data)"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("~/.cache/emotion-edge"),
        help="folder for decoded data (default: %(default)s)",
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``."""
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def add_feeding_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the labels and the scaling of a Keras file from elsewhere; read with ``feeding``."""
    parser.add_argument(
        "--labels", help="a,b,c in the order of a Keras file's outputs (default: the data's)"
    )
    parser.add_argument(
        "--scale",
        help="for a Keras file without a Rescaling layer: input = pixel * scale + offset, "
        "e.g. 1/127.5",
    )
    parser.add_argument("--offset", default="0", help="e.g. -1 (default 0)")


def feeding(options: argparse.Namespace) -> tuple[list[str] | None, float | None, float]:
    """Labels, scale and offset; None where they were not given. Raises UsageError."""
    return (
        None if options.labels is None else label_list(options.labels),
        None if options.scale is None else number(options.scale, "--scale"),
        number(options.offset, "--offset"),
    )


def label_list(text: str) -> list[str]:
    """The labels of ``a,b,c``. Raises UsageError for an empty or a repeated one."""
    from train.readers import plain_label

    labels = [label.strip() for label in text.split(",")]
    if not all(labels):
        raise UsageError(f"--labels {text!r} has an empty name: give them as a,b,c")
    plain = [plain_label(label) for label in labels]
    if repeated := [label for label in labels if plain.count(plain_label(label)) > 1]:
        raise UsageError(
            f"--labels {text!r} names one label more than once ({', '.join(repeated)}): "
            "give one name per output"
        )
    return labels


def read_data(options: argparse.Namespace, *, clean: bool = True) -> Dataset:
    """The data set that the options name. Raises DataError."""
    from train.data import load_fer2013

    return load_fer2013(options.data, votes=options.votes, clean=clean, cache=options.cache)


def quiet_tensorflow() -> None:
    """Switch off TensorFlow's messages, which it decides on once, when it is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def run_command(program: str, options: argparse.Namespace) -> int:
    """Run a command and return its exit status.

    Raises MissingExtra for a module that is not installed, and what the command raises.
    """
    try:
        status: int = options.run(options)
    except ModuleNotFoundError as error:
        ours = ("emotion_edge", "train", "convert", "benchmarks")
        if error.name is None or error.name.partition(".")[0] in ours:
            raise
        name = options.run.__module__.rpartition(".")[2]
        raise MissingExtra(f"{program} {name}", "train", error.name) from error
    return status


def number(text: str, option: str) -> float:
    """The value of an option: a number or a fraction. Raises UsageError."""
    try:
        above, _, below = text.partition("/")
        value = float(above) / float(below or 1)
        if not math.isfinite(value):
            raise ValueError(f"{value} is not finite")
        return value
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"{option} {text!r}: give a number or a fraction like 1/255") from error
