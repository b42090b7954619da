"""Compares accuracy with cost for every shipped model and variant, on one clean split.

Predictions come from ``TFLiteClassifier``, the class that runs on the device. The split is clean:
near-duplicates of its faces are removed from Training (``train/README.md``). PublicTest is for
choosing; PrivateTest is scored after all choices are made. Latency is measured in the same run,
with one thread and XNNPACK, the variants in turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import accuracy_plots
from benchmarks.variants import find_variants
from emotion_edge.bench import measure as bench
from emotion_edge.bench import operators
from emotion_edge.bench.measure import Case, Model, Plan, Worker
from emotion_edge.bench.report import add_output_arguments, check_outputs, emit, progress_of
from emotion_edge.errors import UsageError
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.shipped import shipped_models
from train.data import Split, load_fer2013
from train.evaluate import Classifier, of_device, score
from train.targets import majority

HELP = "accuracy, latency, size and MACs of every shipped model and variant; plots"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: every shipped one")
    parser.add_argument("--data", type=Path, required=True, help="fer2013.csv, in any packing")
    parser.add_argument("--split", default="PublicTest", help="default: PublicTest")
    parser.add_argument(
        "--variants", default="int8,float16,float32", metavar="V,..", help="of each model"
    )
    parser.add_argument(
        "--no-latency", action="store_true", help="score only, e.g. on a machine with other work"
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument(
        "--plot", type=Path, metavar="STEM", help="write STEM and STEM-ranking, .png and .svg"
    )
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Score, time, report, draw."""
    check_outputs(options, options.plot)
    progress = progress_of(options)
    data = load_fer2013(options.data)
    split = data.split(options.split)
    names = options.models or list(shipped_models())
    models = find_variants(names, options.variants.split(","), options.data, progress)
    if not models:
        raise UsageError("no model is shipped here: give .tflite files")
    plan = Plan(rounds=options.rounds, restarts=options.restarts)
    settings = bench.settings(plan) | {
        "split": options.split,
        "images": len(split),
        "data_sha256": data.sha256,
    }
    with bench.document("accuracy", settings) as result:
        cases = [Case(model) for model in models]
        timed: Sequence[Mapping[str, Any] | None] = [None] * len(cases)
        if not options.no_latency:
            timed = bench.measure(cases, plan, lambda case: Worker(case, plan), progress)
        answers, scores = [], []
        for model in models:
            progress(f"scoring {model.name} {model.variant}")
            known = classifier(model)
            answers.append(known.predict(split.images))
            scores.append(score(answers[-1], split, known.labels))
        reference = {
            model.name: answer
            for model, answer in zip(models, answers, strict=True)
            if model.variant == "float32"
        }
        result["rows"] = [
            {"model": m.name, "variant": m.variant}
            | row(figures)
            | {"equal to float32 %": agreement(answer, reference.get(m.name))}
            | cost(m, record)
            for m, figures, answer, record in zip(models, scores, answers, timed, strict=True)
        ]
        result["models"] = [
            bench.describe(model)
            | {"recall": {name: _percent(share) for name, share in figures["recall"].items()}}
            for model, figures in zip(models, scores, strict=True)
        ]
    progress("")
    if options.plot:
        points = accuracy_plots.points_of(result["rows"])
        if options.split == "PrivateTest":
            points += accuracy_plots.published()
        accuracy_plots.draw(points, faces_of(split), options.split, options.plot)
    emit(options, result, result["rows"], f"{options.split}, {len(split)} images")
    return 0


def faces_of(split: Split) -> dict[str, int]:
    """How many faces each convention has: without near-duplicates, and with a majority in FER+."""
    voted = 0 if split.votes is None else int(majority(split.votes)[1].sum())
    return {"without_near_duplicates": int((~split.twin).sum()), "ferplus": voted}


def classifier(model: Model) -> Classifier:
    """The device's class over a model file."""
    if model.manifest is None:
        raise UsageError(f"{model.path} has no manifest: python -m convert attach")
    return of_device(TFLiteClassifier(model.flatbuffer, model.manifest), model.path)


def row(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Of ``train.evaluate.score``'s figures those of the table, in percent; macro-F1 is a share.

    The interval is the 95% one of the first column; FER+ is there where its votes are.
    """
    low, high = figures["accuracy_interval"]
    return {
        "accuracy %": _percent(figures["accuracy"]),
        "95%": f"{100 * low:.1f}-{100 * high:.1f}",
        "without twins %": _percent(figures["without_twins"]),
        "twins %": _percent(figures["twins"]),
        "FER+ majority %": _percent(figures.get("ferplus", {}).get("accuracy")),
        "macro-F1": round(figures["macro_f1"], 4),
    }


def agreement(answer: NDArray[np.float32], reference: NDArray[np.float32] | None) -> float | None:
    """Percent of images with the same label; None without a reference."""
    if reference is None:
        return None
    return _percent(float((answer.argmax(axis=1) == reference.argmax(axis=1)).mean()))


def cost(model: Model, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Time, size and work of a model; record: ``bench.measure``'s, None if it was not timed."""
    latency = record["latency_ms"] if record is not None else {}
    return {
        "p50 ms": round(latency["p50"], 3) if latency else None,
        "p95 ms": round(latency["p95"], 3) if latency else None,
        "kB": round(model.size / 1000),
        "MMAC": round(operators.macs(model.flatbuffer) / 1e6, 1),
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)
