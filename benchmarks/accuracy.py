"""Compares accuracy with cost for every shipped model and variant, on one clean split.

Predictions come from ``TFLiteClassifier``, the class that runs on the device. The split is clean:
near-duplicates of its faces are removed from Training (``train/README.md``). PublicTest is for
choosing; PrivateTest is scored after all choices are made. Latency is measured in the same run,
with one thread and XNNPACK, the variants in turn.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.variants import find_variants
from emotion_edge.bench import measure as bench
from emotion_edge.bench import operators
from emotion_edge.bench.measure import Case, Model, Plan, Worker
from emotion_edge.bench.report import add_output_arguments, check_outputs, emit, progress_of
from emotion_edge.errors import UsageError
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.shipped import shipped_models
from train.data import load_fer2013
from train.evaluate import Classifier, of_device, score

_AREA = 0.4  # of a mark, in square points, for each kB of the file
HELP = "accuracy, latency, size and MACs of every shipped model and variant; Pareto plot"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: every shipped one")
    parser.add_argument("--data", type=Path, required=True, help="fer2013.csv, in any packing")
    parser.add_argument("--split", default="PublicTest", help="default: PublicTest")
    parser.add_argument(
        "--variants", default="int8,float16,float32", metavar="V,..", help="of each model"
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--plot", type=Path, metavar="STEM", help="write STEM.png and STEM.svg")
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
        plot(result["rows"], options.split, options.plot)
    emit(options, result, result["rows"], f"{options.split}, {len(split)} images")
    return 0


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


def cost(model: Model, record: Mapping[str, Any]) -> dict[str, Any]:
    """Time, size and work of a model; record: ``bench.measure``'s."""
    return {
        "p50 ms": round(record["latency_ms"]["p50"], 3),
        "p95 ms": round(record["latency_ms"]["p95"], 3),
        "kB": round(model.size / 1000),
        "MMAC": round(operators.macs(model.flatbuffer) / 1e6, 1),
    }


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (latency, accuracy) that no other point beats in both, by latency."""
    order = sorted(range(len(points)), key=lambda n: (points[n][0], -points[n][1]))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def plot(rows: Sequence[Mapping[str, Any]], split: str, stem: Path) -> None:
    """Accuracy against latency; the area of a mark is the file's size."""
    from matplotlib.ticker import LogLocator, NullFormatter

    from train import plots

    points = [(row["p50 ms"], row["accuracy %"]) for row in rows]
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    with plots.figure(7.0, 4.6) as (page, axes):
        front = [points[index] for index in pareto(points)]
        axes.plot(
            *zip(*front, strict=True),
            color="#777777",
            linestyle="--",
            zorder=1,
            label="Pareto front",
        )
        for number, variant in enumerate(variants):
            chosen = [(p, r) for p, r in zip(points, rows, strict=True) if r["variant"] == variant]
            look = plots.series(number)
            # Later variants are larger files; in front they would hide the earlier ones.
            axes.scatter(
                [p[0] for p, _ in chosen],
                [p[1] for p, _ in chosen],
                s=[_AREA * row["kB"] for _, row in chosen],
                color=look["color"],
                marker=look["marker"],
                edgecolor="white",
                label=variant,
                zorder=3 - number / len(variants),
            )
        low, high = min(p[1] for p in points), max(p[1] for p in points)
        # Less than two points of accuracy are within the interval: do not make them look large.
        axes.set_ylim(low - 1.5, high + 1.5)
        axes.set_xscale("log")
        axes.set_xlim(min(p[0] for p in points) / 2.5, 2.5 * max(p[0] for p in points))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("latency of one face, ms (median, one thread)")
        axes.set_ylabel(f"accuracy on {split}, %")
        axes.set_title("Accuracy against latency; area: file size")
        legend: Any = page.legend(loc="outside lower center", ncols=len(variants) + 1)
        for mark in legend.legend_handles[1:]:
            mark.set_sizes([40])
        page.draw_without_rendering()  # places the axes, so that names can be placed in them
        _name(axes, points, rows)
        plots.save(page, stem)


def _name(
    axes: Any, points: Sequence[tuple[float, float]], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write each model's name next to its mark, inside the axes and over nothing else."""
    from matplotlib.transforms import Bbox

    inch = axes.figure.dpi / 72  # pixels per point
    radii = [math.sqrt(_AREA * row["kB"]) / 2 for row in rows]
    taken = []
    for point, radius in zip(points, radii, strict=True):
        x, y = axes.transData.transform(point)
        reach = inch * radius
        taken.append(Bbox([(x - reach, y - reach), (x + reach, y + reach)]))
    for group in _neighbours(points):
        text = "\n".join(
            f"{rows[i]['model']} {rows[i]['variant']}, {rows[i]['kB']:,} kB" for i in group
        )
        reach = max(radii[i] for i in group) + 4
        taken.append(_place(axes, text, points[group[0]], reach, taken))


def _neighbours(points: Sequence[tuple[float, float]]) -> list[list[int]]:
    """Positions of points, those that almost coincide together."""
    groups: list[list[int]] = []
    for index, (latency, accuracy) in enumerate(points):
        for group in groups:
            x, y = points[group[0]]
            if abs(latency / x - 1) < 0.1 and abs(accuracy - y) < 0.3:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def _place(
    axes: Any, text: str, point: tuple[float, float], reach: float, taken: Sequence[Any]
) -> Any:
    """Write a text around a point, at the first free place or else the last; returns its box.

    reach: points between the text and the point. taken: boxes that other things cover.
    """
    for side, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
        name = axes.annotate(
            text,
            point,
            xytext=(side * reach, up * reach),
            textcoords="offset points",
            ha=("center", "left", "right")[side],
            va=("center", "bottom", "top")[up],
            fontsize=8,
        )
        box = name.get_window_extent()
        inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
        if inside and not any(box.overlaps(other) for other in taken):
            return box
        name.remove()
    axes.add_artist(name)
    return box


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)
