"""Defines shared command-line arguments, and makes a ``Job`` from them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_edge.errors import UsageError
from train.arguments import add_feeding_arguments, feeding
from train.targets import CONVENTIONS

if TYPE_CHECKING:
    from convert.conversion import Job


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, its data, how it is fed, the calibration and the gate."""
    parser.add_argument("model", type=Path, metavar="MODEL", help=".keras or legacy .h5")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="FER2013 (CSV, gzip, zip, Kaggle folder), or a folder SPLIT/LABEL/*.jpg",
    )
    loading = parser.add_argument_group("reading the file")
    loading.add_argument(
        "--architecture",
        metavar="FILE",
        help="the network of a weights file: model.to_json() as FILE.json, or FILE.py:FUNCTION",
    )
    loading.add_argument(
        "--custom-objects",
        metavar="MODULE",
        help="module or FILE.py with the custom layers and functions; it is imported, so it runs",
    )
    loading.add_argument(
        "--allow-lambda",
        action="store_true",
        help="run Python code that is stored in the model file: only if you trust its origin",
    )
    elsewhere = parser.add_argument_group("models from elsewhere")
    add_feeding_arguments(elsewhere)
    elsewhere.add_argument(
        "--input-size", metavar="HxWxC", help="for a model that leaves its input size open"
    )
    elsewhere.add_argument(
        "--colour", choices=("rgb", "bgr"), help="order of three channels (default rgb)"
    )
    elsewhere.add_argument(
        "--mean",
        metavar="VALUES",
        help="input = (pixel * scale + offset - mean) / std: a number, one per channel (a,b,c), "
        "or FILE.npy with one per pixel",
    )
    elsewhere.add_argument("--std", metavar="VALUES", help="as --mean (default 1)")
    elsewhere.add_argument(
        "--preprocess",
        metavar="NAME",
        help="tf, torch or caffe, the modes of keras.applications; or MODULE, whose "
        "preprocess_input is used, e.g. keras.applications.vgg16, or FILE.py:FUNCTION",
    )
    elsewhere.add_argument("--margin", type=float, default=0.0, help="of the face crop (default 0)")
    elsewhere.add_argument(
        "--convention",
        choices=CONVENTIONS,
        help="what counts as correct: FER+'s majority or FER2013's labels "
        "(default: what training.json next to MODEL states, else fer2013)",
    )
    calibration = parser.add_argument_group("calibration")
    calibration.add_argument("--calibration-split", default="Training", metavar="SPLIT")
    calibration.add_argument("--calibration-images", type=int, default=512, metavar="N")
    calibration.add_argument("--seed", type=int, default=0)
    gate = parser.add_argument_group("the gate")
    gate.add_argument("--gate-split", default="PublicTest", metavar="SPLIT")
    gate.add_argument("--max-drop", type=float, default=0.3, metavar="POINTS")
    gate.add_argument("--min-agreement", type=float, default=98.0, metavar="PERCENT")
    gate.add_argument("--max-recall-drop", type=float, default=2.0, metavar="POINTS")


def read_job(options: argparse.Namespace) -> Job:
    """Load the model and the data. Raises UsageError, DataError or ConversionError."""
    from convert import conversion, float_model, keras_file, preprocessing
    from convert.gate import Bar

    labels, scale, offset = feeding(options)
    prepared = preprocessing.read(options.mean, options.std, options.preprocess)
    bar = Bar(options.max_drop, options.min_agreement, options.max_recall_drop)
    if options.allow_lambda:
        print("warning: --allow-lambda runs Python code stored in the model file", file=sys.stderr)
    model = float_model.load(
        options.model,
        input_size=_size(options.input_size),
        architecture=options.architecture,
        custom_objects=keras_file.import_custom_objects(options.custom_objects)
        if options.custom_objects
        else None,
        allow_lambda=options.allow_lambda,
    )
    for note in model.notes:
        print(f"note: {note}", flush=True)
    return conversion.prepare(
        model,
        options.data,
        labels=labels,
        scale=scale,
        offset=offset,
        colour=options.colour,
        margin=options.margin,
        calibration_split=options.calibration_split,
        calibration_count=options.calibration_images,
        seed=options.seed,
        gate_split=options.gate_split,
        report_splits=getattr(options, "report_split", ()),
        bar=bar,
        convention=options.convention or _convention_of(options.model),
        prepared=prepared,
    )


def _convention_of(model: Path) -> str:
    record = model.with_name("training.json")
    return (
        str(read_json_object(record).get("convention", "fer2013"))
        if record.is_file()
        else ("fer2013")
    )


def _size(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        height, width, channels = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise UsageError(f"--input-size {text!r}: expected HxWxC, e.g. 96x96x3") from error
    return height, width, channels


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises UsageError."""
    try:
        return json_object(path.read_bytes(), path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def json_object(text: bytes, path: Path) -> dict[str, Any]:
    """The JSON object that ``text`` holds; ``path`` is for the message. Raises UsageError."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}): give a JSON object") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} contains a {type(value).__name__}: give a JSON object")
    return value
