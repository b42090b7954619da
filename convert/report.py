"""Reports a conversion to people: a few lines of text, or a folder of JSON, Markdown and plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convert import gate
from convert.conversion import Attempt, Converted, Job
from convert.gate import Comparison
from train import metrics, plots
from train.files import refuse_existing, table, write_json, write_text


def summary(job: Job, attempt: Attempt) -> str:
    """Every figure of the gate, in a dozen lines."""
    converted = attempt.converted
    verdict = "passes" if attempt.passed else "FAILS"
    lines = [f"{job.model.name}, {converted.variant}: {verdict} the gate"]
    for comparison in comparisons(converted, attempt.reported):
        lines.append(figures(comparison, converted.variant))
    lines += [f"  FAILED: {failure}" for failure in converted.failures]
    return "\n".join(lines)


def comparisons(converted: Converted, reported: Sequence[Comparison]) -> list[Comparison]:
    """What decided, what chose the method if it was recovered, and further splits."""
    chose = [] if converted.selection is None else [converted.selection]
    return [converted.comparison, *chose, *reported]


def figures(result: Comparison, variant: str) -> str:
    """One split's figures as text."""
    first, second = result.float_figures, result.converted_figures
    label, (points, count) = min(result.recall_change.items(), key=lambda item: item[1][0])
    rows = [
        f"  {result.split}, {result.n} images ({result.protocol})",
        f"    accuracy           float {with_interval(first)}, {variant} {with_interval(second)}",
        f"    drop               {result.drop:+.2f} points "
        f"(right only in float: {result.only_float}, only in {variant}: {result.only_converted}; "
        f"McNemar p = {result.p_value:.3g})",
        f"    equal predictions  {result.agreement:.2f}%; without near ties "
        f"{result.clear_agreement:.2f}% (n = {result.clear})",
        f"    recall             largest loss {label}: {points:+.2f} points ({count:+d} images)",
        f"    KL divergence      mean {result.divergence_mean:.2g}, worst "
        f"{result.divergence_worst:.2g} (image {result.worst_row})",
        f"    calibration error  float / {variant} {_both(result, 'calibration_error')}",
        f"    macro-F1           float / {variant} {_both(result, 'macro_f1')}",
    ]
    for key, name in (("without_twins", "without near-duplicates"), ("twins", "near-duplicates")):
        if second.get("twins") is not None:
            rows.append(
                f"    {name:<18} float / {variant} {_both(result, key)} "
                f"(n = {second[f'{key}_images']})"
            )
    if "flip_averaged" in second:
        rows.append(f"    flip-averaged      float / {variant} {_both(result, 'flip_averaged')}")
    if second.get("ferplus", {}).get("images"):
        pair = " / ".join(f"{100 * f['ferplus']['accuracy']:.2f}%" for f in (first, second))
        rows.append(
            f"    FER+ majority      float / {variant} {pair} (n = {second['ferplus']['images']})"
        )
    return "\n".join(rows)


def refusal(job: Job, attempt: Attempt) -> str:
    """Why a variant is not written and what to try next, one line."""
    return f"{attempt.variant}: {'; '.join(attempt.converted.failures)}; {advice(attempt)}"


def advice(attempt: Attempt) -> str:
    """What to try after a variant failed."""
    if attempt.variant == "int8" and not attempt.recovered:
        return "try --recover, or see the layers at fault with `python -m convert explain`"
    if attempt.variant == "int8":
        return (
            "no step of --recover was enough: use --variant float16, or train with ReLU6 and batch "
            "normalisation after each convolution"
        )
    if attempt.variant == "dynamic":
        return "use --variant float16"
    return "float arithmetic should not lose accuracy: report this with the model"


def write(folder: Path, job: Job, attempt: Attempt, *, overwrite: bool) -> list[Path]:
    """Write JSON, Markdown and three plots to ``folder/VARIANT``.

    Raises OutputExists when it contains a report.
    """
    converted = attempt.converted
    folder = folder / converted.variant
    refuse_existing(folder / "report.json", overwrite)
    probabilities = gate.predict(
        converted.model, job.manifest(converted.variant, converted.spec), job.judged
    )
    document = {
        "model": job.model.name,
        "variant": converted.variant,
        "passed": converted.passed,
        "failures": list(converted.failures),
        "method": dict(converted.method),
        "calibration": dict(job.calibration),
        "preprocessing": dict(job.model.preprocessing),
        "keras_difference": job.keras_difference,
        "splits": [comparison.to_dict() for comparison in comparisons(converted, attempt.reported)],
    }
    return [
        write_json(folder / "report.json", document),
        write_text(folder / "report.md", markdown(job, converted, attempt.reported)),
        *_reliability(folder / "reliability", job, converted, probabilities),
        *_recall(folder / "recall", converted),
        *_confidence(folder / "confidence", job, converted, probabilities),
    ]


def markdown(job: Job, converted: Converted, reported: Sequence[Comparison]) -> str:
    """The report as a page."""
    variant = converted.variant
    lines = [
        f"# {job.model.name}: {variant} against float",
        "",
        f"**{'Passes' if converted.passed else 'Fails'} the gate** (at most {job.bar.drop:g} "
        f"points lost, at least {job.bar.agreement:g}% equal predictions, no class's recall down "
        f"by more than the larger of {job.bar.recall_points:g} points and "
        f"{job.bar.recall_images} images). Both models were run on the same images by the "
        "classifier that runs on the device (LiteRT with XNNPACK).",
        "",
        *(f"- {failure}" for failure in converted.failures),
        *([""] if converted.failures else []),
    ]
    results = comparisons(converted, reported)
    rows: list[tuple[str, Callable[[Comparison], str]]] = [
        ("accuracy, float", lambda r: with_interval(r.float_figures)),
        (f"accuracy, {variant}", lambda r: with_interval(r.converted_figures)),
        ("drop, points", lambda r: f"{r.drop:+.2f}"),
        (f"right only in float / {variant}", lambda r: f"{r.only_float} / {r.only_converted}"),
        ("McNemar's p, exact", lambda r: f"{r.p_value:.3g}"),
        ("equal predictions", lambda r: f"{r.agreement:.2f}%"),
        ("equal without near ties", lambda r: f"{r.clear_agreement:.2f}% of {r.clear}"),
        (f"macro-F1, float / {variant}", lambda r: _both(r, "macro_f1")),
        (
            "KL divergence, mean / worst",
            lambda r: f"{r.divergence_mean:.2g} / {r.divergence_worst:.2g}",
        ),
        (f"calibration error, float / {variant}", lambda r: _both(r, "calibration_error")),
    ]
    lines.append(
        table(
            ["", *(_heading(result) for result in results)],
            [[name, *(show(result) for result in results)] for name, show in rows],
        )
    )
    first = converted.comparison
    lines += [
        f"Recall on {first.split}:\n",
        table(
            ["class", "float", variant, "change, points", "images"],
            [
                [
                    label,
                    f"{100 * first.float_figures['recall'][label]:.1f}%",
                    f"{100 * first.converted_figures['recall'][label]:.1f}%",
                    f"{points:+.2f}",
                    f"{count:+d}",
                ]
                for label, (points, count) in first.recall_change.items()
            ],
        ),
    ]
    if job.model.preprocessing:
        known = (f"{key} {value}" for key, value in job.model.preprocessing.items())
        lines.append(f"Preprocessing: {', '.join(known)}.\n")
    lines += [
        f"Calibration: {', '.join(f'{key} {value}' for key, value in job.calibration.items())}.",
        f"Method: {', '.join(f'{k} {v}' for k, v in converted.method.items()) or 'plain'}. "
        f"The float32 `.tflite` is within {job.keras_difference:.1e} of Keras.",
        "",
        "![reliability of both](reliability.png)",
        "![recall of each class](recall.png)",
        "![confidence of float and converted](confidence.png)",
    ]
    return "\n".join(lines)


def _heading(result: Comparison) -> str:
    half = result.protocol.rpartition("; ")[2] if "; " in result.protocol else ""
    return f"{result.split} ({result.n}{', ' if half else ''}{half})"


def _reliability(stem: Path, job: Job, converted: Converted, probabilities: Any) -> list[Path]:
    with plots.figure(5.2, 4.8) as (page, axes):
        axes.plot([0, 1], [0, 1], color="#999999", linestyle=":")
        for at, (name, values) in enumerate(
            (("float", job.expected), (converted.variant, probabilities))
        ):
            confidence, accuracy, _ = metrics.equal_mass_bins(values, job.judged.truth)
            axes.plot(confidence, accuracy, label=name, **plots.series(at))
        axes.set(
            xlabel="confidence",
            ylabel="accuracy",
            xlim=(0, 1),
            ylim=(0, 1),
            title=f"Reliability on {job.judged.split}, bins of equal mass",
        )
        axes.legend(loc="upper left")
        return plots.save(page, stem)


def _recall(stem: Path, converted: Converted) -> list[Path]:
    result = converted.comparison
    return plots.bars(
        [f"{label}\n{points:+.1f}" for label, (points, _) in result.recall_change.items()],
        {
            name: [100 * value for value in figures["recall"].values()]
            for name, figures in (
                ("float", result.float_figures),
                (converted.variant, result.converted_figures),
            )
        },
        stem,
        title=f"Recall on {result.split}, change in points",
    )


def _confidence(stem: Path, job: Job, converted: Converted, probabilities: Any) -> list[Path]:
    equal = job.expected.argmax(axis=1) == probabilities.argmax(axis=1)
    first, second = job.expected.max(axis=1), probabilities.max(axis=1)
    with plots.figure(5.2, 4.8) as (page, axes):
        axes.plot([0, 1], [0, 1], color="#999999", linestyle=":")
        for at, (name, mask) in enumerate((("the same label", equal), ("another label", ~equal))):
            axes.scatter(
                first[mask],
                second[mask],
                s=6 + 8 * at,
                marker=plots.MARKERS[at],
                color=plots.COLOURS[at],
                alpha=0.5,
                linewidths=0,
                label=f"{name} ({int(mask.sum())})",
                rasterized=True,
            )
        axes.set(
            xlabel="confidence, float",
            ylabel=f"confidence, {converted.variant}",
            xlim=(0, 1),
            ylim=(0, 1),
            title=f"The same {len(equal)} images of {job.judged.split}",
        )
        axes.legend(markerscale=2, loc="upper left")
        return plots.save(page, stem)


def with_interval(figures: Mapping[str, Any]) -> str:
    """The accuracy with its 95% interval, e.g. ``88.16% [86.9, 89.3]``."""
    low, high = figures["accuracy_interval"]
    return f"{100 * figures['accuracy']:.2f}% [{100 * low:.1f}, {100 * high:.1f}]"


def _both(result: Comparison, key: str) -> str:
    pair = result.float_figures[key], result.converted_figures[key]
    return " / ".join(f"{100 * value:.2f}%" for value in pair)
