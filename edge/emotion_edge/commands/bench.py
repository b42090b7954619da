"""Measures how fast a model runs on this machine."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion_edge.bench import measure as bench
from emotion_edge.bench import operators
from emotion_edge.bench.measure import Case, Model, Plan, Worker
from emotion_edge.bench.report import (
    add_output_arguments,
    check_outputs,
    emit,
    progress_of,
    table,
    to_json,
)
from emotion_edge.bench.share import shareable
from emotion_edge.commands.flags import add_backends_arguments, backends, finite, numbers, words
from emotion_edge.errors import ImageError, UsageError
from emotion_edge.files import is_image_name, write_whole
from emotion_edge.kiosk.board import read_board
from emotion_edge.model.backend import RUNTIMES, installed
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.preprocessing import read_image, resize_to_input
from emotion_edge.model.shipped import DEFAULT, model_path

HELP = "measure a model's latency and memory on this machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "models", nargs="*", default=[DEFAULT], metavar="MODEL", help="a shipped name or a file"
    )
    parser.add_argument(
        "--variants", type=words, default=(), metavar="V,..", help="int8,float16,float32"
    )
    add_backends_arguments(parser)
    parser.add_argument(
        "--warmup",
        "--warmup_runs",
        type=int,
        default=50,
        metavar="N",
        help="inferences before the measured ones (default 50)",
    )
    parser.add_argument("--rounds", type=int, default=10, help="turns per process (default 10)")
    parser.add_argument("--runs", type=int, default=20, help="inferences per turn (default 20)")
    parser.add_argument(
        "--num_runs", type=int, metavar="N", help="at least N inferences per process, over --rounds"
    )
    parser.add_argument("--restarts", type=int, default=3, help="processes per case (default 3)")
    parser.add_argument(
        "--rate", type=finite, metavar="HZ", help="a request every 1/HZ s instead of back to back"
    )
    parser.add_argument(
        "--cpus", type=numbers, default=(), metavar="N,..", help="use only these processors"
    )
    parser.add_argument(
        "--inputs", type=Path, metavar="PATH", help="an image of a face, or a folder of them"
    )
    parser.add_argument("--seed", type=int, default=0, help="for random inputs and the order")
    parser.add_argument("--operators", action="store_true", help="also time each operator")
    parser.add_argument(
        "--share",
        type=Path,
        metavar="FILE",
        help="also write a file for a pull request: the board and its figures, nothing personal",
    )
    add_output_arguments(parser)


def installed_python(runtime: str) -> str:
    """This interpreter. Raises UsageError unless it has the runtime."""
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime {runtime!r}: use {', '.join(RUNTIMES)}")
    if runtime not in installed():
        raise UsageError(
            f"{runtime} is not installed: pip install {RUNTIMES[runtime][1]}; or, in a checkout, "
            "python -m benchmarks latency makes an environment for it"
        )
    return sys.executable


def run(options: argparse.Namespace, python_for: Callable[[str], str] = installed_python) -> int:
    """Measure, print, write; 0.

    python_for: gives the interpreter of an environment that has a runtime.
    """
    check_outputs(options, share=options.share)
    plan = _plan(options)
    progress = progress_of(options)
    chosen = backends(options)
    pythons = {runtime: python_for(runtime) for runtime in options.runtime}
    files = models(options.models, options.variants)
    cases = [Case(model, backend) for model in files for backend in chosen]
    settings = bench.settings(plan) | {"inputs": "images" if options.inputs else "random"}
    with (
        bench.document("latency", settings) as result,
        tempfile.TemporaryDirectory() as folder,
    ):
        inputs = _inputs(files, options.inputs, Path(folder)) if options.inputs else {}

        def worker(case: Case) -> Worker:
            path = inputs.get(case.model.sha256)
            return Worker(case, plan, path, pythons[case.backend.runtime])

        result["cases"] = bench.measure(cases, plan, worker, progress)
        if options.operators:
            unique = {model.sha256: model for model in files}.values()
            result["operators"] = [operator_profile(model, plan, progress) for model in unique]
    progress("")
    notes = [str(read_board())]
    notes += [operator_table(part) for part in result.get("operators", ())]
    if options.share is not None:
        write_whole(options.share, to_json(shareable(result)) + "\n")
        notes.append(
            f"{options.share} holds the board's model, software versions, state and latencies; "
            "no names of people, computers or files."
        )
    emit(options, result, [row(record) for record in result["cases"]], "\n\n".join(notes))
    return 0


def _plan(options: argparse.Namespace) -> Plan:
    runs = options.runs
    if options.num_runs is not None:
        if options.num_runs < 1:
            raise UsageError(f"--num_runs {options.num_runs}: use 1 or more")
        runs = -(-options.num_runs // max(1, options.rounds))  # Plan refuses 0 rounds
    return Plan(
        warmup=options.warmup,
        rounds=options.rounds,
        runs=runs,
        restarts=options.restarts,
        rate=options.rate,
        cpus=options.cpus,
        seed=options.seed,
    )


def _inputs(files: Sequence[Model], source: Path, folder: Path) -> dict[str, Path]:
    """Write each model's input tensors to the folder; their files by the model's SHA-256."""
    paths = {}
    for model in files:
        paths[model.sha256] = folder / f"{model.sha256}.npy"
        np.save(paths[model.sha256], input_tensors(model, source))
    return paths


def models(names: Sequence[str], variants: Sequence[str]) -> list[Model]:
    """The files of names and variants.

    A variant of ``NAME-int8.tflite`` is ``NAME-VARIANT.tflite`` in the same folder.
    Raises UsageError when that file does not exist.
    """
    found = []
    for name in names:
        path = model_path(name)
        if not variants:
            found.append(Model.read(path))
        for variant in variants:
            stem = path.stem.rpartition("-")[0] or path.stem
            file = path.with_name(f"{stem}-{variant}.tflite")
            if not file.is_file():
                raise UsageError(
                    f"no variant {variant} of {name}: {file} does not exist; "
                    "make it on a workstation with python -m convert, or omit it"
                )
            found.append(Model.read(file))
    return found


def input_tensors(model: Model, source: Path) -> Any:
    """Images of faces as input tensors ``(n, 1, height, width, channels)``.

    source: an image, or a folder of them; each whole image is used as a face crop.
    Raises ImageError if there is none, UsageError for a model without a manifest.
    """
    if model.manifest is None:
        raise UsageError(
            f"{model.path} has no manifest, which --inputs requires: "
            "omit --inputs, or add one with python -m convert attach"
        )
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    images = [path for path in files if is_image_name(path)]
    if not images:
        raise ImageError(f"{source} has no images: give a file or a folder of face crops")
    spec = model.manifest.input
    classifier = TFLiteClassifier(model.flatbuffer, model.manifest)
    return np.stack([classifier.tensor(resize_to_input(read_image(path), spec)) for path in images])


def row(record: dict[str, Any]) -> dict[str, Any]:
    """A case as a row of the table; durations in ms, memory in MB (10^6 bytes)."""
    latency = record["latency_ms"]
    return {
        "model": record["model"],
        "variant": record["variant"],
        "runtime": f"{record['runtime']} {record['runtime_version']}",
        "threads": record["threads"],
        "xnnpack": "on" if record["xnnpack"] else "off",
        **({"delegate": record["delegate"]} if record["delegate"] else {}),
        "load": round(record["load_ms"]["p50"], 2),
        "first": round(record["first_ms"]["p50"], 3),
        "count": latency["count"],
        **{name: round(latency[name], 3) for name in ("min", "mean", "std", "p50", "p90", "p95")},
        "p99": round(latency["p99"], 3),
        "max": round(latency["max"], 3),
        "response p95": round(record["response_ms"]["p95"], 3) if record["response_ms"] else None,
        "steady MB": round(record["memory_mb"]["steady"], 1),
        "peak MB": round(record["memory_mb"]["peak"], 1),
    }


def operator_profile(model: Model, plan: Plan, progress: Callable[[str], None]) -> dict[str, Any]:
    """Where a model's time goes, with LiteRT and one thread, as a record."""
    shares = operators.profile(model.flatbuffer, seed=plan.seed, progress=progress)
    return bench.describe(model) | {
        "integer": operators.is_integer(model.flatbuffer),
        "operators": [
            {
                "operator": share.operator.name,
                "shape": list(share.shape),
                "macs": share.macs,
                "ms": round(share.ms, 5),
                "total_ms": round(share.total_ms, 5),
            }
            for share in shares
        ],
    }


def operator_table(part: Mapping[str, Any], roofs: Mapping[str, float] | None = None) -> str:
    """A profile as text. roofs: attainable GMAC/s by ``int8`` and ``float32``, to compare with."""
    whole = part["operators"][-1]["total_ms"]
    roof = (roofs or {}).get("int8" if part["integer"] else "float32")
    lines = []
    for number, record in enumerate(part["operators"], 1):
        rate = None
        if record["macs"] and record["ms"] > 0.01 * whole:  # below, the difference is noise
            rate = record["macs"] / record["ms"] / 1e6
        line = {
            "#": number,
            "operator": record["operator"],
            "output": "x".join(map(str, record["shape"])),
            "MMAC": round(record["macs"] / 1e6, 3),
            "ms": round(record["ms"], 4),
            "share %": round(100 * record["ms"] / whole, 1),
            "GMAC/s": rate and round(rate, 1),
        }
        if roof:
            line["of roof %"] = rate and round(100 * rate / roof, 1)
        lines.append(line)
    title = f"{part['model']} {part['variant'] or ''}".strip()
    return f"{title}, LiteRT, one thread:\n{table(lines)}"
