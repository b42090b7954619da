"""``python -m convert``: convert and prove a model, explain a loss, look into a file.

Exit status: 0 done; 2 bad input; 5 the gate failed; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emotion_edge.cli import carry_out
from emotion_edge.errors import ManifestError, UsageError
from emotion_edge.model import manifest as manifests
from emotion_edge.model.backend import LITERT
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.manifest import Manifest
from train.__main__ import number

COMMANDS = ("run", "explain", "inspect", "attach", "cards")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] not in COMMANDS and not words[0].startswith("-"):
        words.insert(0, "run")
    options = _parser().parse_args(words)
    return carry_out("convert", lambda: options.command(options), debug=options.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description="Float Keras classifier in, proven .tflite out. "
        "`python -m convert MODEL` is `python -m convert run MODEL`.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = _add(commands, "run", "convert a Keras model, measure it, refuse it if it lost too much")
    _add_job(run)
    run.add_argument(
        "--variant",
        metavar="NAMES",
        help="int8, dynamic, float16, float32; several with commas "
        "(default: int8,float16, or int8 where --out names a file)",
    )
    run.add_argument("--out", type=Path, help="file (default: NAME-VARIANT.tflite beside MODEL)")
    run.add_argument("--name", help="the model's name in its manifest (default: MODEL's stem)")
    run.add_argument("--licence", default="", help="of the weights, for the manifest")
    run.add_argument(
        "--training",
        type=Path,
        metavar="JSON",
        help="the training run's record (default: training.json beside MODEL)",
    )
    run.add_argument(
        "--report-split",
        action="append",
        default=[],
        metavar="SPLIT",
        help="score this split too, once, without judging by it (e.g. PrivateTest)",
    )
    run.add_argument("--report", type=Path, metavar="FOLDER", help="write JSON, Markdown and plots")
    run.add_argument(
        "--recover", action="store_true", help="where the gate fails, try what may mend it"
    )
    run.add_argument("--force", action="store_true", help="write the file even if the gate fails")
    run.add_argument("--overwrite", action="store_true", help="replace existing files")
    run.set_defaults(command=_run)

    explain = _add(commands, "explain", "layer by layer: what int8 loses, and where")
    _add_job(explain)
    explain.add_argument("--images", type=int, default=64, help="to measure on (default 64)")
    explain.add_argument("--report", type=Path, metavar="FOLDER", help="write table and plot")
    explain.add_argument("--overwrite", action="store_true", help="replace existing files")
    explain.set_defaults(command=_explain)

    inspect = _add(commands, "inspect", "operators, tensors, cost, manifest, XNNPACK's share")
    inspect.add_argument("file", type=Path, metavar="FILE.tflite")
    inspect.add_argument("--json", action="store_true", help="one JSON document, with every tensor")
    inspect.set_defaults(command=_inspect)

    attach = _add(commands, "attach", "give a manifest to a .tflite made elsewhere")
    attach.add_argument("file", type=Path, metavar="FILE.tflite")
    attach.add_argument("--manifest", type=Path, required=True, metavar="M.json")
    attach.add_argument("--out", type=Path, help="write there instead of changing FILE")
    attach.add_argument("--overwrite", action="store_true", help="replace OUT")
    attach.set_defaults(command=_attach)

    cards = _add(commands, "cards", "write models/README.md and the cards from the manifests")
    cards.add_argument("folder", type=Path, nargs="?", default=Path("models"))
    cards.set_defaults(command=_cards)
    return parser


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _add_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help=".keras or legacy .h5")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="FER2013 (CSV, gzip, zip, Kaggle folder), or a folder of SPLIT/LABEL/pictures",
    )
    feeding = parser.add_argument_group("models from elsewhere")
    feeding.add_argument("--labels", help="a,b,c in the order of the outputs")
    feeding.add_argument("--input-size", metavar="HxWxC", help="where the model leaves it open")
    feeding.add_argument("--colour", choices=("rgb", "bgr"), help="of three channels (default rgb)")
    feeding.add_argument("--scale", help="input = pixel * scale + offset, e.g. 1/255")
    feeding.add_argument("--offset", default="0", help="e.g. -1 (default 0)")
    feeding.add_argument("--margin", type=float, default=0.0, help="of the face crop (default 0)")
    calibration = parser.add_argument_group("calibration")
    calibration.add_argument("--calibration-split", default="Training", metavar="SPLIT")
    calibration.add_argument("--calibration-images", type=int, default=512, metavar="N")
    calibration.add_argument("--seed", type=int, default=0)
    gate = parser.add_argument_group("the gate")
    gate.add_argument("--gate-split", default="PublicTest", metavar="SPLIT")
    gate.add_argument("--max-drop", type=float, default=0.3, metavar="POINTS")
    gate.add_argument("--min-agreement", type=float, default=98.0, metavar="PERCENT")
    gate.add_argument("--max-recall-drop", type=float, default=2.0, metavar="POINTS")


def _size(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        height, width, channels = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise UsageError(f"--input-size {text!r}: expected HxWxC, e.g. 96x96x3") from error
    return height, width, channels


def _job(options: argparse.Namespace) -> Any:
    from convert import conversion, float_model
    from convert.gate import Bar

    bar = Bar(options.max_drop, options.min_agreement, options.max_recall_drop)
    model = float_model.load(options.model, input_size=_size(options.input_size))
    return conversion.prepare(
        model,
        options.data,
        labels=options.labels.split(",") if options.labels else None,
        scale=None if options.scale is None else number(options.scale, "--scale"),
        offset=number(options.offset, "--offset"),
        colour=options.colour,
        margin=options.margin,
        calibration_split=options.calibration_split,
        calibration_count=options.calibration_images,
        seed=options.seed,
        gate_split=options.gate_split,
        report_splits=getattr(options, "report_split", ()),
        bar=bar,
    )


def _run(options: argparse.Namespace) -> int:
    from convert import conversion, quantize, report
    from convert.errors import GateFailed

    one_file = options.out is not None and not options.out.is_dir()
    variants = (options.variant or ("int8" if one_file else "int8,float16")).split(",")
    unknown = set(variants) - {"int8", "dynamic", "float16", "float32"}
    if unknown:
        raise UsageError(
            f"--variant {options.variant}: no variant {sorted(unknown)[0]!r}; "
            "expected int8, dynamic, float16 or float32"
        )
    name = options.name or options.model.stem
    beside = options.model.with_name("training.json")  # where `python -m train` puts it
    facts = options.training or (beside if beside.is_file() else None)
    training = None if facts is None else conversion.training_facts(_read_json(facts))

    def place(variant: str) -> Path:
        if options.out is None:
            return Path(options.model.parent / f"{name}-{variant}.tflite")
        if len(variants) > 1 or options.out.is_dir():
            return Path(options.out / f"{name}-{variant}.tflite")
        return Path(options.out)

    if not options.overwrite:
        for variant in variants:
            conversion.require_absent(place(variant), variant)
    job = _job(options)
    done, failed = [], []
    for variant in variants:
        converted = conversion.convert(job, variant)
        if not converted.passed and options.recover and variant == "int8":
            from convert import recover

            converted = recover.recover(job, converted, say=_say)
        reported = [
            conversion.report_on(job, converted, options.data, split)
            for split in (options.report_split if converted.passed or options.force else ())
        ]
        _say(report.summary(job, converted, reported))
        if options.report:
            report.write(
                options.report / converted.variant,
                job,
                converted,
                reported,
                overwrite=options.overwrite,
            )
        if not converted.passed and not options.force:
            failed.append(
                f"{variant}: {'; '.join(converted.failures)}; "
                f"{report.remedy(job, converted, recovered=options.recover)}"
            )
            continue
        manifest = conversion.describe(
            job,
            converted,
            reported,
            name=name,
            training=training,
            licence=options.licence,
            forced=not converted.passed,
        )
        out = place(variant)
        if converted.variant != variant:
            out = out.with_name(out.name.replace(variant, converted.variant))
        done.append((out, converted, manifest))
    if failed:
        raise GateFailed(" | ".join(failed))
    for out, converted, manifest in done:
        path = conversion.write(out, converted, manifest, overwrite=options.overwrite)
        size = path.stat().st_size
        _say(f"{path}: {size:,} bytes, {quantize.VARIANTS[converted.variant]}")
    return 0


def _explain(options: argparse.Namespace) -> int:
    from convert import layers

    job = _job(options)
    found = layers.explain(job, count=options.images)
    _say(layers.table(found))
    if options.report:
        layers.write(options.report, found, job.model.name, overwrite=options.overwrite)
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from convert import inspection

    found = inspection.inspect(options.file)
    _say(json.dumps(found.to_dict(), ensure_ascii=False) if options.json else found.to_text())
    return 0


def _attach(options: argparse.Namespace) -> int:
    from convert import conversion, inspection

    try:
        text = options.manifest.read_bytes()
        data = options.file.read_bytes()
    except OSError as error:
        raise ManifestError(
            f"cannot read {error.filename}: {error.strerror}; give a .tflite and a manifest"
        ) from error
    model, _ = manifests.split(data, str(options.file))
    # The hash is ours to write: whoever makes a manifest by hand need not know it.
    manifest = Manifest.from_json(
        json.dumps({"model_sha256": "", **_object(text, options.manifest)})
    )
    if manifest.variant == "int8":
        inspection.require_integer(model, options.file.name)
    TFLiteClassifier(model, replace(manifest, model_sha256=""), LITERT)
    out = options.out or options.file
    conversion.write_bytes(
        out,
        manifests.attach(model, manifest),
        overwrite=options.overwrite or options.out is None,
    )
    _say(f"{out}: manifest of {manifest.name} ({manifest.variant}) attached")
    return 0


def _cards(options: argparse.Namespace) -> int:
    from convert import cards

    for path in cards.write(options.folder):
        _say(str(path))
    return 0


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return _object(path.read_bytes(), path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def _object(text: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}): give a JSON object") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds {type(value).__name__}: give a JSON object")
    return value


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
