"""Reports a benchmark's result: a table, a CSV file, and JSON as the last line."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emotion_edge.errors import OutputExists, UsageError
from emotion_edge.files import write_whole

Row = Mapping[str, Any]


def to_json(value: Any) -> str:
    """One line of JSON; a value that is not a number, such as the mean of nothing, is null."""
    plain = json.loads(json.dumps(value), parse_constant=lambda _: None)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every benchmark shares."""
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print only the JSON document")
    output.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV")
    output.add_argument("--output", type=Path, metavar="FILE", help="write the JSON document")
    output.add_argument("--overwrite", action="store_true", help="replace files that exist")
    output.add_argument("--quiet", action="store_true", help="no progress on standard error")


def check_outputs(
    options: argparse.Namespace, plot: Path | None = None, share: Path | None = None
) -> None:
    """Check at the start that the results can be written at the end.

    plot: the STEM of STEM.png and STEM.svg. share: a file of the command's own.
    Raises OutputExists, or UsageError when two results would be written to the same file.
    """
    plots = [plot.with_name(f"{plot.name}.{kind}") for kind in ("png", "svg")] if plot else []
    files = [path for path in (options.csv, options.output, share, *plots) if path is not None]
    for index, path in enumerate(files):
        if path.exists() and not options.overwrite:
            raise OutputExists(path)
        if path.resolve() in (other.resolve() for other in files[:index]):
            raise UsageError(f"two results would be written to {path}: give each its own file")


def emit(
    options: argparse.Namespace, result: Mapping[str, Any], rows: Sequence[Row], notes: str = ""
) -> None:
    """Print the table and, as the last line, the JSON document; write the requested files.

    rows: with the same keys, and values formatted for people. notes: lines below the table.
    """
    line = to_json(result)
    if options.csv is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(options.csv, text.getvalue())
    if options.output is not None:
        write_whole(options.output, line + "\n")
    for warning in result.get("warnings", ()):
        print(f"warning: {warning}", file=sys.stderr)
    if not options.json:
        print(table(rows))
        if notes:
            print(f"\n{notes}")
        print()
    print(line)


def table(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """Rows as aligned columns, numbers to the right. None and missing values are shown as ``-``."""
    if not rows:
        return "(nothing)"
    heads = list(dict.fromkeys(head for row in rows for head in row))
    cells = [
        ["-" if (one := row.get(head)) is None else str(one) for head in heads] for row in rows
    ]
    right = [all(isinstance(row.get(head), int | float | None) for row in rows) for head in heads]
    widths = [max(len(head), *(len(line[n]) for line in cells)) for n, head in enumerate(heads)]

    def show(line: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    rules = [
        "-" * (width - 1) + (":" if to_right else "-")
        for width, to_right in zip(widths, right, strict=True)
    ]
    return "\n".join([show(heads), *([show(rules)] if markdown else []), *map(show, cells)])


def progress_of(options: argparse.Namespace) -> Any:
    """A function that shows one line of progress, on a terminal only."""

    def show(message: str) -> None:
        print(f"\r\033[K{message}", end="", file=sys.stderr, flush=True)

    silent = options.quiet or not sys.stderr.isatty()
    return (lambda _: None) if silent else show
