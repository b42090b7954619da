"""Several runs side by side: a table, their curves, and both columns of accuracy in one plane."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from train import plots
from train.errors import DataError
from train.evaluate import percent
from train.files import refuse_existing, table, write_text
from train.finish import read_history


def read_record(folder: Path) -> dict[str, Any]:
    """``training.json`` of a run, or ``evaluation.json``."""
    for name in ("training.json", "evaluation.json"):
        if (folder / name).is_file():
            record: dict[str, Any] = json.loads((folder / name).read_text())
            return record
    raise DataError(
        f"{folder} holds neither training.json nor evaluation.json: give folders that "
        "python -m train fit or evaluate wrote"
    )


def compare(folders: list[Path], out: Path, *, overwrite: bool = False) -> str:
    """Write ``compare.md`` and pictures into ``out`` and return the table."""
    refuse_existing(out / "compare.md", overwrite)
    records = [read_record(folder) for folder in folders]
    names = [folder.name for folder in folders]
    scores = [record.get("PublicTest", record) for record in records]
    rows = []
    for name, record, score in zip(names, records, scores, strict=True):
        if "accuracy" not in score:
            raise DataError(f"{name} has no figures: its data had no PublicTest")
        rows.append(
            [
                name,
                f"{record['parameters'] / 1e3:,.0f} k" if "parameters" in record else "–",
                f"{record['macs'] / 1e6:.1f}" if "macs" in record else "–",
                str(record.get("epochs", "–")),
                f"{record['hours']:.2f}" if "hours" in record else "–",
                score["split"],
                percent(score["accuracy"]),
                percent(score["without_twins"]),
                percent(score.get("ferplus", {}).get("accuracy")),
                percent(score["macro_f1"]),
                percent(score["calibration_error"]),
            ]
        )
    text = table(
        [
            "run",
            "parameters",
            "MMAC",
            "epochs",
            "hours",
            "split",
            "original",
            "without twins",
            "FER+",
            "macro-F1",
            "ECE",
        ],
        rows,
    )
    _draw(folders, names, scores, out)
    write_text(out / "compare.md", "# Runs compared\n\n" + text)
    return text


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
