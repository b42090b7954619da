"""Stores results: one file per board and date, and a table generated from them."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from benchmarks.estimation.calibration import estimate_row, kernel_rows
from benchmarks.estimation.stages import as_row
from benchmarks.peers import side_by_side
from emotion_edge.bench.measure import SCHEMA
from emotion_edge.bench.report import table
from emotion_edge.errors import UsageError
from emotion_edge.files import write_whole
from emotion_edge.model.shipped import DEFAULT

HELP = "keep documents under results/, one file per board and date, and renew the table"
RESULTS = Path(__file__).parent / "results"
_BEGIN, _END = "<!-- generated: python -m benchmarks record -->", "<!-- end -->"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="a document that a benchmark wrote with --output",
    )
    parser.add_argument("--note", help="one line about the circumstances, stored with the results")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="default: benchmarks/results")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 when the table is out of date"
    )


def run(options: argparse.Namespace) -> int:
    """Add documents and renew the table."""
    readme = options.folder / "README.md"
    if options.check:
        current = readme.read_text(encoding="utf-8")
        if current == renewed(current, read_results(options.folder)):
            return 0
        print(f"{readme} is out of date: python -m benchmarks record", file=sys.stderr)
        return 1
    for file in options.files:
        print(add(read_document(file), options.folder, options.note))
    return renew(options.folder)


def renew(folder: Path) -> int:
    """Renew the table in a folder's README."""
    readme = folder / "README.md"
    current = readme.read_text(encoding="utf-8")
    write_whole(readme, renewed(current, read_results(folder)))
    return 0


def read_document(path: Path) -> dict[str, Any]:
    """The JSON document in the last line of a file. Raises UsageError when there is none."""
    try:
        lines = path.read_text(encoding="utf-8").strip().splitlines()
        document: dict[str, Any] = json.loads(lines[-1])
        if document["type"] != "benchmark":
            raise ValueError(f"its type is {document['type']!r}, expected 'benchmark'")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UsageError(
            f"cannot take {path} as a benchmark's document ({error}): write one with --output"
        ) from error
    return document


def add(document: Mapping[str, Any], folder: Path, note: str | None = None) -> Path:
    """Put a document into the file of its board and date; one of the same kind is replaced.

    Returns the file.
    """
    machine, date = document["machine"], document["created"][:10]
    path = folder / f"{date}-{slug(machine)}.json"
    results: dict[str, Any] = {"schema": SCHEMA, "type": "results", "date": date, "documents": []}
    if path.is_file():
        results = json.loads(path.read_text(encoding="utf-8"))
    if note is not None:
        results["note"] = note
    kept = [old for old in results["documents"] if _kind(old) != _kind(document)]
    results["documents"] = sorted([*kept, document], key=_kind)
    write_whole(path, json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    return path


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Every results file of a folder, the newest first."""
    files = sorted(folder.glob("*.json"), reverse=True)
    return [json.loads(path.read_text(encoding="utf-8")) for path in files]


def slug(machine: Mapping[str, Any]) -> str:
    """A board as part of a file's name; one that has no name of its own goes by its processor."""
    words = machine["name"]
    if words == machine["machine"]:
        words = f"{machine['machine']} {machine['cpu']} {machine['cores']} cores"
    words = re.sub(r"\((r|tm)\)", "", words.lower())
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")


def renewed(readme: str, results: Sequence[Mapping[str, Any]]) -> str:
    """A README's text with the part between the marks generated from results.

    Raises UsageError when the marks are not there.
    """
    before, begin, rest = readme.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise UsageError(f"the README does not have the marks {_BEGIN} and {_END}: put them back")
    return f"{before}{begin}\n\n{_tables(results)}\n{end}{after}"


def _tables(results: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for title, benchmark, rows_of in _TABLES:
        rows = [
            {"board": _board(document), "date": document["created"][:10]} | row
            for result in results
            for document in result["documents"]
            if document["benchmark"] == benchmark
            for row in rows_of(document)
        ]
        if rows:
            parts.append(f"### {title}\n\n{table(rows, markdown=True)}\n")
    if remarks := _remarks(results):
        parts.append("### Notes and warnings\n\n" + "\n".join(remarks) + "\n")
    return "\n".join(parts) or "No results yet.\n"


def _remarks(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes of the people who measured, then the warnings of their runs."""
    notes = [
        f"- {result['date']}, {_board(result['documents'][0])}: {result['note']}"
        for result in results
        if result.get("note")
    ]
    warnings = {
        f"- {_board(document)}, {document['created'][:10]}, {document['benchmark']}: {warning}"
        for result in results
        for document in result["documents"]
        for warning in document["warnings"]
    }
    return [*notes, *sorted(warnings)]


def _kind(document: Mapping[str, Any]) -> tuple[str, str]:
    """Identifies a measurement among the documents of one board and day."""
    variant = ("rate", "threads", "source", "frames", "backend", "detectors")
    named = {key: document["settings"].get(key) for key in variant}
    return document["benchmark"], json.dumps(named, sort_keys=True)


def _board(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    if machine["name"] == machine["machine"]:
        return f"{machine['cores']} x {machine['cpu']}"
    return str(machine["name"])


def _latency(document: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    rate = document["settings"]["rate"]
    for case in document["cases"]:
        latency = case["latency_ms"]
        yield {
            "model": case["model"],
            "variant": case["variant"],
            "runtime": f"{case['runtime']} {case['runtime_version']}",
            "threads": case["threads"],
            "XNNPACK": "on" if case["xnnpack"] else "off",
            "requests": f"{rate:g} a second" if rate else "back to back",
            "load": round(case["load_ms"]["p50"], 1),
            "first": round(case["first_ms"]["p50"], 2),
            "p50": round(latency["p50"], 3),
            "p95": round(latency["p95"], 3),
            "p99": round(latency["p99"], 3),
            "peak MB": round(case["memory_mb"]["peak"]),
        }


_TABLES = (
    ("Latency of one inference, ms", "latency", _latency),
    ("Camera to label", "pipeline", itemgetter("rows")),
    ("Accuracy and latency", "accuracy", itemgetter("rows")),
    ("Faces found and labelled as most people would", "faces", itemgetter("rows")),
    ("Share of the machine's roof", "roofline", itemgetter("shares")),
    ("Peers, same frames, one run", "peers", itemgetter("rows")),
    (
        "Ratios to the peers, 95% interval",
        "peers",
        lambda document: side_by_side(document["ratios"]),
    ),
    (
        "Estimates for boards that were emulated, not measured, one thread",
        "estimate",
        lambda document: [estimate_row(case) for case in document["estimates"]],
    ),
    (
        "Where the cycles of the estimates go",
        "estimate",
        lambda document: [
            row
            for case in document["estimates"]
            if case["model"] == DEFAULT
            for row in kernel_rows(case)
        ],
    ),
    (
        "Estimates of the whole pipeline: emulated, not measured, one face at 640x480, one thread",
        "estimate-pipeline",
        lambda document: [as_row(case) for case in document["rows"]],
    ),
    ("Soak", "soak", itemgetter("rows")),
    ("Fleets of kiosks, one broker and one Prometheus", "fleet", itemgetter("rows")),
    ("Web page under uploads, MB resident", "web", itemgetter("rows")),
)
