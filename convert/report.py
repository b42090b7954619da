"""The verdict for people: a few lines, a folder with JSON, Markdown and plots."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convert import conversion
from convert.conversion import Converted, Job
from convert.gate import Comparison, Score
from emotion_edge.errors import OutputExists
from train import metrics

FLOAT_COLOUR, CONVERTED_COLOUR = "#4c72b0", "#dd8452"


def summary(job: Job, converted: Converted, reported: Sequence[Comparison] = ()) -> str:
    """Every figure of the gate, in a dozen lines."""
    verdict = "passes" if converted.passed else "FAILS"
    lines = [f"{job.model.name}, {converted.variant}: {verdict} the gate"]
    for comparison in (converted.comparison, *reported):
        lines.append(figures(comparison, converted.variant))
    lines += [f"  FAILED: {failure}" for failure in converted.failures]
    return "\n".join(lines)


def figures(result: Comparison, variant: str) -> str:
    """One split's figures as text."""
    first, second = result.float_score, result.converted_score
    label, (points, count) = min(result.recall_change.items(), key=lambda item: item[1][0])
    rows = [
        f"  {result.split}, {result.n} images ({result.protocol})",
        f"    accuracy           float {_share(first)}, {variant} {_share(second)}",
        f"    drop               {result.drop:+.2f} points "
        f"(right only in float: {result.only_float}, only in {variant}: {result.only_converted}; "
        f"McNemar p = {result.p_value:.3g})",
        f"    equal predictions  {result.agreement:.2f}%",
        f"    recall             largest loss {label}: {points:+.2f} points ({count:+d} images)",
        f"    KL divergence      mean {result.divergence_mean:.2g}, worst "
        f"{result.divergence_worst:.2g} (image {result.worst_row})",
        f"    calibration error  float {100 * first.calibration_error:.2f}%, "
        f"{variant} {100 * second.calibration_error:.2f}%",
    ]
    rows += [
        f"    {name:<18} n = {n}: float {100 * a:.2f}%, {variant} {100 * b:.2f}%"
        for name, (n, a, b) in result.subsets.items()
    ]
    return "\n".join(rows)


def remedy(job: Job, converted: Converted, *, recovered: bool) -> str:
    """What to try next after a failure."""
    if converted.variant != "int8":
        return "the converter changed a float model: try --variant float32 and report it"
    if not recovered:
        return "try --recover, and `python -m convert explain` for the layers at fault"
    return (
        "nothing that --recover knows was enough: train with ReLU6 and batch normalisation after "
        "each convolution, or take --variant float16"
    )


def write(
    folder: Path,
    job: Job,
    converted: Converted,
    reported: Sequence[Comparison],
    *,
    overwrite: bool,
) -> list[Path]:
    """JSON, Markdown and three plots. Raises OutputExists when the folder holds a report."""
    if (folder / "report.json").exists() and not overwrite:
        raise OutputExists(folder / "report.json")
    probabilities = job.predict(converted.model, converted.variant, job.judged)
    pictures = {
        "reliability.png": lambda axes: _reliability(axes, job, converted, probabilities),
        "recall.png": lambda axes: _recall(axes, converted),
        "confidence.png": lambda axes: _confidence(axes, job, converted, probabilities),
    }
    written = []
    for name, draw in pictures.items():
        written.append(folder / name)
        conversion.write_bytes(written[-1], picture(draw), overwrite=True)
    comparisons = (converted.comparison, *reported)
    documents = {
        "report.json": json.dumps(
            {
                "model": job.model.name,
                "variant": converted.variant,
                "passed": converted.passed,
                "failures": list(converted.failures),
                "method": dict(converted.method),
                "calibration": dict(job.calibration),
                "keras_difference": job.keras_difference,
                "splits": [comparison.to_dict() for comparison in comparisons],
            },
            indent=2,
            sort_keys=True,
        ),
        "report.md": markdown(job, converted, reported),
    }
    for name, text in documents.items():
        written.append(folder / name)
        conversion.write_bytes(written[-1], f"{text}\n".encode(), overwrite=True)
    return written


def markdown(job: Job, converted: Converted, reported: Sequence[Comparison]) -> str:
    """The report as a page."""
    variant = converted.variant
    lines = [
        f"# {job.model.name}: {variant} against float",
        "",
        f"**{'Passes' if converted.passed else 'Fails'} the gate** (at most {job.bar.drop:g} "
        f"points lost, at least {job.bar.agreement:g}% equal predictions, no class's recall down "
        f"by more than the larger of {job.bar.recall_points:g} points and "
        f"{job.bar.recall_images} images). Both models answered the same images through the "
        "classifier that runs on the device (LiteRT with XNNPACK).",
        "",
        *(f"- {failure}" for failure in converted.failures),
        *([""] if converted.failures else []),
    ]
    results = (converted.comparison, *reported)
    header = ["", *(f"{result.split} ({result.n})" for result in results)]
    lines += [_row(header), _row(["---"] * len(header))]
    rows: list[tuple[str, Callable[[Comparison], str]]] = [
        ("accuracy, float", lambda r: _share(r.float_score)),
        (f"accuracy, {variant}", lambda r: _share(r.converted_score)),
        ("drop, points", lambda r: f"{r.drop:+.2f}"),
        ("right only in float / converted", lambda r: f"{r.only_float} / {r.only_converted}"),
        ("McNemar's p, exact", lambda r: f"{r.p_value:.3g}"),
        ("equal predictions", lambda r: f"{r.agreement:.2f}%"),
        (
            "macro-F1, float / converted",
            lambda r: (
                f"{100 * r.float_score.macro_f1:.2f} / {100 * r.converted_score.macro_f1:.2f}"
            ),
        ),
        (
            "KL divergence, mean / worst",
            lambda r: f"{r.divergence_mean:.2g} / {r.divergence_worst:.2g}",
        ),
        (
            "calibration error, float / converted",
            lambda r: (
                f"{100 * r.float_score.calibration_error:.2f}% / "
                f"{100 * r.converted_score.calibration_error:.2f}%"
            ),
        ),
    ]
    lines += [_row([name, *(show(result) for result in results)]) for name, show in rows]
    lines += [
        "",
        f"Recall on {converted.comparison.split}:",
        "",
        "| class | float | converted | change, points | images |",
        "| --- | --- | --- | --- | --- |",
    ]
    first = converted.comparison
    for label, (points, count) in first.recall_change.items():
        lines.append(
            f"| {label} | {100 * first.float_score.recall[label]:.1f} | "
            f"{100 * first.converted_score.recall[label]:.1f} | {points:+.2f} | {count:+d} |"
        )
    lines += [
        "",
        f"Calibration: {', '.join(f'{key} {value}' for key, value in job.calibration.items())}.",
        f"Method: {', '.join(f'{k} {v}' for k, v in converted.method.items()) or 'plain'}. "
        f"The float32 `.tflite` is within {job.keras_difference:.1e} of Keras.",
        "",
        "![reliability of both](reliability.png)",
        "![recall of each class](recall.png)",
        "![confidence of float and converted](confidence.png)",
    ]
    return "\n".join(lines)


def picture(draw: Callable[[Axes], Any], size: tuple[float, float] = (6, 4.5)) -> bytes:
    """A PNG of one plot; no clock time in it, so that the same figures give the same bytes."""
    figure = Figure(figsize=size, layout="constrained")
    draw(figure.add_subplot())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _reliability(axes: Axes, job: Job, converted: Converted, probabilities: Any) -> None:
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, values, colour, mark in (
        ("float", job.expected, FLOAT_COLOUR, "o"),
        (converted.variant, probabilities, CONVERTED_COLOUR, "s"),
    ):
        confidence, accuracy, _ = metrics.equal_mass_bins(values, job.judged.truth)
        axes.plot(confidence, accuracy, marker=mark, markersize=4, color=colour, label=name)
    axes.set(
        xlabel="confidence",
        ylabel="share correct",
        xlim=(0, 1),
        ylim=(0, 1),
        title=f"Reliability on {job.judged.split} (15 bins of equal mass)",
    )
    axes.legend()


def _recall(axes: Axes, converted: Converted) -> None:
    result = converted.comparison
    labels = list(result.recall_change)
    places = np.arange(len(labels))
    for shift, name, score, colour in (
        (-0.2, "float", result.float_score, FLOAT_COLOUR),
        (0.2, converted.variant, result.converted_score, CONVERTED_COLOUR),
    ):
        values = [100 * score.recall[label] for label in labels]
        axes.bar(places + shift, values, 0.38, label=name, color=colour)
    for place, label in zip(places, labels, strict=True):
        points, _ = result.recall_change[label]
        top = 100 * max(result.float_score.recall[label], result.converted_score.recall[label])
        axes.text(place, top + 1.5, f"{points:+.1f}", ha="center", fontsize=8)
    axes.set_xticks(places, labels, rotation=20)
    axes.set(ylabel="recall, %", ylim=(0, 108), title=f"Recall on {result.split}, change in points")
    axes.legend(loc="upper right")


def _confidence(axes: Axes, job: Job, converted: Converted, probabilities: Any) -> None:
    equal = job.expected.argmax(axis=1) == probabilities.argmax(axis=1)
    first, second = job.expected.max(axis=1), probabilities.max(axis=1)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, mask, colour in (
        (f"same label ({int(equal.sum())})", equal, FLOAT_COLOUR),
        (f"another label ({int((~equal).sum())})", ~equal, CONVERTED_COLOUR),
    ):
        axes.scatter(first[mask], second[mask], s=5, alpha=0.5, color=colour, label=name)
    axes.set(
        xlabel="confidence, float",
        ylabel=f"confidence, {converted.variant}",
        xlim=(0, 1),
        ylim=(0, 1),
        title=f"The same images of {job.judged.split}",
    )
    axes.legend(markerscale=3)


def _share(score: Score) -> str:
    return f"{100 * score.accuracy:.2f}% [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
