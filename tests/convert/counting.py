"""Converts a set of models with ``--recover`` and counts what passes."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from convert import checks, conversion, finetune, quantize, recover
from convert.gate import Comparison

Row = dict[str, Any]
_RESULTS = "results.jsonl"


def measure(
    job: conversion.Job,
    variant: str = "int8",
    held: Callable[[conversion.Converted], Comparison] | None = None,
) -> Row:
    """Convert one model, recover it if it fails, and compare it on PrivateTest.

    held: compares the converted model on further images that took no part.
    """
    started = time.monotonic()
    accuracy = float((job.expected.argmax(axis=1) == job.judged.truth).mean())
    plain = conversion.convert(job, variant)
    made, steps = plain, []
    if not plain.passed:

        def say(line: str) -> None:
            steps.append(line.strip())
            print(line, flush=True)

        made = recover.recover(job, plain, say=say)
    others = {"private": conversion.report_on(job, made, "PrivateTest")}
    if held is not None:
        others["held"] = held(made)
    failures = {key: tuple(found.failures(job.bar)) for key, found in others.items()}
    return {
        "float": round(100 * accuracy, 2),
        "images": len(job.judged),
        "problems": list(checks.problems(job)),
        "plain": short(plain.comparison, plain.passed),
        "variant": made.variant,
        "method": dict(made.method),
        "gate": short(made.comparison, made.passed),
        **{key: short(found, not failures[key]) for key, found in others.items()},
        "failures": {"plain": plain.failures, "gate": made.failures, **failures},
        "steps": steps,
        "seconds": round(time.monotonic() - started),
    }


def fine_tuned(job: conversion.Job) -> Row | None:
    """Plain int8, corrected biases and fine-tuning compared; None if it cannot be fine-tuned."""
    calibrated = job.calibrator().calibrated()
    if finetune.unsupported(calibrated.model):
        return None
    spec, faces = job.spec_of(calibrated), job.calibration_images.faces[: recover.MEASURED]
    tuned = finetune.finetune(calibrated, job.calibration_faces(finetune.IMAGES))
    row: Row = {}
    for key, model in (
        ("plain", quantize.quantize(calibrated.model)),
        ("biases", recover.correct_biases(job, calibrated, spec, faces)),
        ("tuned", quantize.quantize(tuned.model)),
    ):
        made = conversion.judge(job, model, "int8", spec=spec)
        private = conversion.report_on(job, made, "PrivateTest")
        row[key] = {
            "public": short(made.comparison, made.passed),
            "private": short(private, not private.failures(job.bar)),
        }
    return row


def short(comparison: Comparison, passed: bool) -> Row:
    """The figures of a comparison that the table shows."""
    return {
        "drop": round(comparison.drop, 2),
        "equal": round(comparison.agreement, 2),
        "divergence": round(comparison.divergence_mean, 5),
        "clear": round(comparison.clear_agreement, 2),
        "passes": passed,
    }


def count(folder: Path, names: Iterable[str], work: Callable[[str], Row]) -> None:
    """Call ``work`` for every model; the rows are ``results`` of the folder from then on."""
    each(names, folder / _RESULTS, work)


def results(folder: Path) -> list[Row]:
    """What ``count`` has found so far."""
    return read(folder / _RESULTS)


def tune(folder: Path, names: Collection[str], job_of: Callable[[str], conversion.Job]) -> None:
    """Fine-tune each model that ``count`` saw fail as plain int8, into ``tuned.jsonl``."""
    failing = [
        row["name"]
        for row in results(folder)
        if "plain" in row and not row["plain"]["passes"] and row["name"] in names
    ]
    each(failing, folder / "tuned.jsonl", lambda name: fine_tuned(job_of(name)))


def each(names: Iterable[str], log: Path, work: Callable[[str], Row | None]) -> None:
    """Call ``work`` for the names that ``log`` lacks; one JSON line each, errors too."""
    done = {row["name"] for row in read(log)}
    for name in names:
        if name in done:
            continue
        try:
            found = work(name)
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        if found is None:
            continue
        row = {"name": name, **found}
        print(json.dumps(row), flush=True)
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read(log: Path) -> list[Row]:
    """The results so far."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def table(rows: list[Row]) -> str:
    """One line per model that was converted, and the counts."""
    splits = [("private", "PrivateTest")]
    if any("held" in row for row in rows):
        splits.append(("held", "held"))
    columns = ["model", "file", "float, %", "int8 alone", "after --recover", "PublicTest"]
    columns += [title for _, title in splits]
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for row in rows:
        cells = [row["name"], row.get("format", "")]
        if "error" in row:
            cells += [row["error"]]
        elif "float" in row:
            made = f"{row['variant']}, {method(row)}" if row["gate"]["passes"] else "fails"
            cells += [
                str(row["float"]),
                f"{'passes' if row['plain']['passes'] else 'fails'}, {row['plain']['equal']}",
                made,
                verdict(row["gate"]),
                *(verdict(row[key]) for key, _ in splits),
            ]
        else:
            cells += [row.get("note", "loads")]
        cells += [""] * (len(columns) - len(cells))
        lines.append(f"| {' | '.join(cells)} |")
    loaded = [row for row in rows if "error" not in row]
    failing = [row for row in loaded if "plain" in row and not row["plain"]["passes"]]
    good = [row for row in failing if row["variant"] == "int8" and row["gate"]["passes"]]
    counts = (
        f"{len(loaded)} of {len(rows)} load; {len(failing)} fail as plain int8, of which "
        f"--recover makes {len(good)} pure int8 that pass"
    )
    for key, title in splits:
        counts += f"; {sum(row[key]['passes'] for row in good)} of these pass on {title} too"
    return "\n".join([*lines, "", counts])


def verdict(figures: Row) -> str:
    """Whether a comparison passes, points lost, and percent of equal predictions."""
    return (
        f"{'passes' if figures['passes'] else 'fails'}, {figures['drop']:+.2f}, {figures['equal']}"
    )


def method(row: Row) -> str:
    """The last thing that ``--recover`` changed."""
    facts = row["method"]
    for key, text in (
        ("float operators", "{} operators in float"),
        ("fine-tuned", "fine-tuned"),
        ("biases", "biases"),
        ("equalised", "equalised"),
        ("images", "{} images"),
    ):
        if key in facts:
            return text.format(facts[key])
    return str(facts.get("ranges", "-"))
