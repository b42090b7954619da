"""Writes outputs whole or not at all, and keeps existing files unless asked to replace them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

from emotion_edge import files
from emotion_edge.errors import OutputExists
from train.errors import DataError


def replacing(path: Path) -> contextlib.AbstractContextManager[Path]:
    """``files.replacing`` of the edge package. Raises DataError when it cannot be written."""
    return files.replacing(path, DataError)


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` whole or not at all. Raises DataError."""
    return files.write_whole(path, text, DataError)


def write_json(path: Path, value: Any) -> Path:
    """Write ``value`` as indented JSON, whole or not at all."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_history(folder: Path, rows: list[dict[str, float]]) -> None:
    """The epochs of a run as its ``history.csv``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "history.csv", text.getvalue())


def read_history(folder: Path) -> list[dict[str, float]]:
    """The epochs of a run, rows of its ``history.csv``, or none."""
    path = folder / "history.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as text:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(text)]


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise ``OutputExists`` for a file or a folder with something in it, unless overwriting."""
    if overwrite or not path.exists():
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    raise OutputExists(path)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"
