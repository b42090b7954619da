"""Flags that several commands share."""

from __future__ import annotations

import argparse
import math
from itertools import product
from pathlib import Path

from emotion_edge.archive.recipe import Recipe
from emotion_edge.detectors import names
from emotion_edge.model.backend import RUNTIMES, Backend
from emotion_edge.model.shipped import DEFAULT

BACKEND_HELP = {
    "runtime": f"auto, {', '.join(RUNTIMES)}",
    "threads": "threads for the network",
    "xnnpack": "use the built-in kernels instead of XNNPACK",
    "delegate": "an external TFLite delegate, e.g. libedgetpu.so.1",
}
"""Help of the flag for each field of ``Backend``."""


def add_backend_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --runtime, --threads, --no-xnnpack and --delegate; read them with ``backend``."""
    parser.add_argument("--runtime", default="auto", help=BACKEND_HELP["runtime"])
    parser.add_argument("--threads", type=int, default=1, metavar="N", help=BACKEND_HELP["threads"])
    _add_switches(parser)


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for how single images are labelled; read them with ``recipe``."""
    parser.add_argument("--model", default=DEFAULT, help="a shipped name or a .tflite file")
    parser.add_argument("--detector", default="auto", help=names())
    parser.add_argument(
        "--min-face",
        type=int,
        metavar="PIXELS",
        help="side of the smallest face to find (default: 24); smaller takes longer",
    )
    parser.add_argument(
        "--max-seconds",
        type=finite,
        metavar="S",
        help="stop looking for small faces in an image after S seconds (default: 10)",
    )
    add_backend_arguments(parser)
    parser.add_argument(
        "--precision",
        type=finite,
        metavar="P",
        help="share of the labels shown that should be right, e.g. 0.9; other faces are unsure "
        "(default: the model's own)",
    )
    parser.add_argument(
        "--unsure-below",
        type=finite,
        metavar="P",
        help="a probability instead of a precision; 0 labels every face",
    )


def recipe(options: argparse.Namespace) -> Recipe:
    """How the flags ask to label images. Raises UsageError."""
    return Recipe(
        model=options.model,
        detector=options.detector,
        min_face=options.min_face,
        max_seconds=options.max_seconds,
        backend=backend(options),
        precision=options.precision,
        unsure_below=options.unsure_below,
    )


def backend(options: argparse.Namespace) -> Backend:
    """The backend that the flags describe. Raises UsageError."""
    return Backend(
        runtime=options.runtime,
        threads=options.threads,
        xnnpack=options.xnnpack != "off",
        delegate=options.delegate,
    )


def add_backends_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the same flags for a command that compares: lists of runtimes and of threads.

    Read them with ``backends``.
    """
    parser.add_argument(
        "--runtime", type=words, default=("litert",), metavar="R,..", help=", ".join(RUNTIMES)
    )
    parser.add_argument(
        "--threads",
        "--num_threads",
        type=numbers,
        default=(1,),
        metavar="N,..",
        help="threads for the network, e.g. 1,2,4",
    )
    parser.add_argument(
        "--xnnpack", choices=("on", "off", "both"), default="on", help="XNNPACK's kernels"
    )
    _add_switches(parser)


def backends(options: argparse.Namespace) -> list[Backend]:
    """One backend for each combination of the lists. Raises UsageError."""
    kernels = {"on": (True,), "off": (False,), "both": (True, False)}[options.xnnpack]
    return [
        Backend(runtime=runtime, threads=threads, xnnpack=xnnpack, delegate=options.delegate)
        for runtime, threads, xnnpack in product(options.runtime, options.threads, kernels)
    ]


def named_path(text: str) -> Path:
    """A path that is not empty, as an unset variable of a shell is. Raises ArgumentTypeError."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name: give the name of a file or folder")
    return Path(text)


def words(text: str) -> tuple[str, ...]:
    """``a,b`` as a tuple of at least one. Raises ArgumentTypeError."""
    found = tuple(word for word in text.split(",") if word)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} lists nothing: give one value or more, as a,b")
    return found


def numbers(text: str) -> tuple[int, ...]:
    """``1,2`` as a tuple of at least one. Raises ArgumentTypeError, ValueError."""
    return tuple(int(word) for word in words(text))


def finite(text: str) -> float:
    """A number that is neither infinite nor ``nan``. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def _add_switches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-xnnpack",
        dest="xnnpack",
        action="store_const",
        const="off",
        default="on",
        help=BACKEND_HELP["xnnpack"],
    )
    parser.add_argument("--delegate", type=Path, metavar="FILE.so", help=BACKEND_HELP["delegate"])
