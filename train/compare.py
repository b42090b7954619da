"""Compares runs: a table, their learning curves, and a plot of both accuracies."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from train import plots
from train.errors import DataError
from train.evaluate import percent
from train.files import read_history, refuse_existing, table, write_text


def read_record(folder: Path) -> dict[str, Any]:
    """``training.json`` of a run, or ``evaluation.json``."""
    for name in ("training.json", "evaluation.json"):
        if (folder / name).is_file():
            record: dict[str, Any] = json.loads((folder / name).read_text())
            return record
    raise DataError(
        f"{folder} contains neither training.json nor evaluation.json: give folders that "
        "python -m train fit or evaluate wrote"
    )


def compare(folders: list[Path], out: Path, *, against: str = "", overwrite: bool = False) -> str:
    """Write ``compare.md`` and plots into ``out`` and return the table.

    A run that was scored on PrivateTest too (``RUN/PrivateTest/evaluation.json``) shows it.
    ``against`` names a key of the configuration (``targets.raw_votes``) that the runs differ in:
    ``sweep`` draws both accuracies over its values.
    """
    refuse_existing(out / "compare.md", overwrite)
    records = [read_record(folder) for folder in folders]
    names = [folder.name for folder in folders]
    scores = [record.get("PublicTest", record) for record in records]
    # Before anything is written: the key may be wrong.
    swept = [_value(r, against, name) for r, name in zip(records, names, strict=True) if against]
    privates = [_private(folder) for folder in folders]
    head = ["run", "parameters", "MMAC", "epochs", "minutes", "split"]
    head += ["original", "without near-duplicates", "FER+", "macro-F1", "ECE"]
    if any(privates):
        head += [
            f"PrivateTest: {name}"
            for name in ("original", "without near-duplicates", "near-duplicates", "FER+")
        ]
    rows = []
    for name, record, score, private in zip(names, records, scores, privates, strict=True):
        if "accuracy" not in score:
            raise DataError(f"{name} has no figures: its data had no PublicTest")
        row = [
            name,
            f"{record['parameters']:,}" if "parameters" in record else "–",
            f"{record['macs'] / 1e6:.1f}" if "macs" in record else "–",
            str(record.get("epochs", "–")),
            f"{60 * record['hours']:.0f}" if "hours" in record else "–",
            score["split"],
            *_columns(score),
            percent(score["macro_f1"]),
            percent(score["calibration_error"]),
        ]
        if any(privates):
            original, without, plus = _columns(private) if private else ("–",) * 3
            row += [original, without, percent(private.get("twins")), plus]
        rows.append(row)
    text = table(head, rows)
    _draw(folders, names, scores, out)
    if swept:
        _sweep(swept, scores, out / "sweep", against)
    write_text(out / "compare.md", "# Runs compared\n\n" + text)
    return text


def _columns(score: dict[str, Any]) -> tuple[str, str, str]:
    plus = score.get("ferplus", {}).get("accuracy")
    return percent(score["accuracy"]), percent(score["without_twins"]), percent(plus)


def _private(folder: Path) -> dict[str, Any]:
    path = folder / "PrivateTest" / "evaluation.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _value(record: dict[str, Any], key: str, name: str) -> float:
    """A number of a run's configuration."""
    section, _, item = key.partition(".")
    value = record.get("config", {}).get(section, {})
    value = value.get(item) if isinstance(value, dict) else None
    if not isinstance(value, int | float):
        raise DataError(
            f"the configuration of {name} has no number {key!r}: "
            "give SECTION.KEY, e.g. targets.raw_votes"
        )
    return float(value)


def _sweep(values: list[float], scores: list[dict[str, Any]], stem: Path, key: str) -> None:
    """Both accuracies over what was swept, with one standard error."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = {"original labels": scores}
    if all("ferplus" in score for score in scores):
        found["FER+ majority"] = [score["ferplus"] for score in scores]
    with plots.figure(6.4, 4.2) as (page, axes):
        for index, (label, of) in enumerate(found.items()):
            shares = [of[i]["accuracy"] for i in order]
            errors = [
                100 * math.sqrt(p * (1 - p) / of[i]["images"])
                for p, i in zip(shares, order, strict=True)
            ]
            axes.errorbar(
                [values[i] for i in order],
                [100 * share for share in shares],
                errors,
                capsize=3,
                label=label,
                **plots.series(index),
            )
        axes.set(
            xlabel=key,
            ylabel="accuracy on PublicTest, %",
            title=f"Accuracy over {key}, with one standard error",
        )
        axes.legend()
        plots.save(page, stem)


def _draw(folders: list[Path], names: list[str], scores: list[dict[str, Any]], out: Path) -> None:
    histories = [read_history(folder) for folder in folders]
    if any("val_accuracy" in history[0] for history in histories if history):
        with plots.figure(7.5, 4.4) as (page, axes):
            for index, (name, history) in enumerate(zip(names, histories, strict=True)):
                if history and "val_accuracy" in history[0]:
                    axes.plot(
                        [row["epoch"] for row in history],
                        [100 * row["val_accuracy"] for row in history],
                        label=name,
                        markevery=max(1, len(history) // 8),
                        **plots.series(index),
                    )
            axes.set(xlabel="epoch", ylabel="accuracy on PublicTest, %", title="Original labels")
            axes.legend(fontsize=8)
            plots.save(page, out / "curves")
    if all("ferplus" in score for score in scores):
        with plots.figure(6.0, 4.6) as (page, axes):
            for index, (name, score) in enumerate(zip(names, scores, strict=True)):
                look = plots.series(index) | {"linestyle": "", "markersize": 7}
                x, y = 100 * score["accuracy"], 100 * score["ferplus"]["accuracy"]
                axes.plot([x], [y], **look)
                axes.annotate(name, (x, y), textcoords="offset points", xytext=(7, 4), fontsize=8)
            axes.margins(0.15)
            axes.set(xlabel="original labels, %", ylabel="FER+ majority, %", title="The two truths")
            plots.save(page, out / "truths")
