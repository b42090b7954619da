"""``python -m convert run``: convert a model, measure what it lost, write it if it passes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convert.arguments import add_job_arguments, read_job, read_json_object
from emotion_edge.errors import UsageError

if TYPE_CHECKING:
    from convert.conversion import Attempt, Job

HELP = "convert a Keras model, measure it, refuse it if it lost too much"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_job_arguments(parser)
    parser.add_argument(
        "--variant",
        metavar="NAMES",
        help="int8, dynamic, float16, float32; several with commas "
        "(default: int8,float16, or int8 if --out names a file)",
    )
    parser.add_argument(
        "--out", type=Path, help="file or folder (default: NAME-VARIANT.tflite next to MODEL)"
    )
    parser.add_argument("--name", help="the model's name in its manifest (default: MODEL's stem)")
    parser.add_argument("--licence", default="", help="of the weights, for the manifest")
    parser.add_argument(
        "--training",
        type=Path,
        metavar="JSON",
        help="the training run's record (default: training.json next to MODEL)",
    )
    parser.add_argument(
        "--manifest-field",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set an optional field of the manifest, e.g. input.interpolation=area; the value is "
        "JSON or text (default: what the training record has)",
    )
    parser.add_argument(
        "--report-split",
        action="append",
        default=[],
        metavar="SPLIT",
        help="also score this split, once, without judging by it (e.g. PrivateTest)",
    )
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write JSON, Markdown, plots")
    parser.add_argument(
        "--recover", action="store_true", help="if the gate fails, try ways to fix it"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="write the file even if the gate fails, or the labels, scaling or skill look wrong",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(options: argparse.Namespace) -> int:
    """Convert each variant; write all of them, or none if one fails. Raises GateFailed."""
    from convert import checks, conversion, publish, recommend, report
    from convert.errors import GateFailed

    variants = _variants(options)
    name = options.name or options.model.stem
    places = {variant: _place(options, name, variant, len(variants)) for variant in variants}
    facts = publish.facts(
        _training_record(options), _fields(options.manifest_field), licence=options.licence
    )
    if not options.overwrite:
        for variant, path in places.items():
            publish.require_absent(path, variant)
    job = read_job(options)
    for problem in checks.problems(job):
        if not options.force:
            raise UsageError(f"{problem}, or --force to convert it as it is")
        _say(f"warning: {problem}")
    attempts = []
    for variant in variants:
        attempt = conversion.attempt(
            job,
            variant,
            recovering=options.recover,
            report_splits=options.report_split,
            forced=options.force,
            say=_say,
        )
        _say(report.summary(job, attempt))
        if options.report:
            report.write(options.report, job, attempt, overwrite=options.overwrite)
        attempts.append(attempt)
    compared = [*attempts, *_float16_to_compare(job, attempts)]
    if len(compared) > 1:
        _say(recommend.table(job, compared))
    refused = [attempt for attempt in attempts if not (attempt.passed or options.force)]
    if refused:
        raise GateFailed(" | ".join(report.refusal(job, attempt) for attempt in refused))
    for attempt in attempts:
        manifest = publish.describe(job, attempt, facts, name=name)
        path = publish.final_place(places[attempt.variant], attempt)
        publish.write(path, attempt.converted, manifest, overwrite=options.overwrite)
        _say(publish.written(path, attempt.converted))
    return 0


def _float16_to_compare(job: Job, attempts: list[Attempt]) -> list[Attempt]:
    """float16, where int8 needed recovery: it may be smaller than mixed and as fast."""
    from convert import conversion

    made = {attempt.variant for attempt in attempts}
    recovered = any(attempt.recovered for attempt in attempts)
    return [conversion.attempt(job, "float16")] if recovered and "float16" not in made else []


def _variants(options: argparse.Namespace) -> list[str]:
    one_file = options.out is not None and not options.out.is_dir()
    variants: list[str] = (options.variant or ("int8" if one_file else "int8,float16")).split(",")
    known = ("int8", "dynamic", "float16", "float32")
    unknown = [variant for variant in variants if variant not in known]
    if unknown:
        raise UsageError(
            f"--variant {options.variant}: no variant {unknown[0]!r}; expected {', '.join(known)}"
        )
    return variants


def _place(options: argparse.Namespace, name: str, variant: str, count: int) -> Path:
    if options.out is None:
        return Path(options.model.parent / f"{name}-{variant}.tflite")
    if count > 1 or options.out.is_dir():
        return Path(options.out / f"{name}-{variant}.tflite")
    return Path(options.out)


def _training_record(options: argparse.Namespace) -> dict[str, Any] | None:
    # `python -m train` writes it next to the model.
    default = options.model.with_name("training.json")
    path = options.training or (default if default.is_file() else None)
    return None if path is None else read_json_object(path)


def _fields(pairs: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"--manifest-field {pair}: expected NAME=VALUE")
        try:
            fields[name] = json.loads(text)
        except ValueError:
            fields[name] = text
    return fields


def _say(text: str) -> None:
    print(text, flush=True)
