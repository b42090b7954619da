"""Joins the chunks of a finished job to one file, and lists the images that could not be read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_edge.archive.job import Job
from emotion_edge.archive.recipe import Result
from emotion_edge.errors import MissingExtra, SinkError
from emotion_edge.records import to_json

_ROWS = 4096  # of a Parquet row group: a few MB of memory


@dataclass(slots=True)
class Summary:
    """What an output holds. Counts of images, images that could not be read, and faces."""

    images: int = 0
    unreadable: int = 0
    faces: int = 0
    unsearched: int = 0
    """Images in which small faces were not looked for everywhere, for want of time."""


def unreadable_file(out: Path) -> Path:
    """The list of the images that could not be read."""
    return out.with_name(f"{out.name}.unreadable.jsonl")


def manifest_file(out: Path) -> Path:
    """The settings that an output was made with."""
    return out.with_name(f"{out.name}.manifest.json")


def require_parquet() -> Any:
    """The module ``pyarrow``. Raises MissingExtra."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet output", "parquet", "pyarrow") from error
    return pyarrow


def write(job: Job) -> Summary:
    """Write the output, the list of unreadable images and the manifest, and end the job.

    Raises SinkError; the job can then be continued.
    """
    summary = Summary()
    joined = job.joined
    rejected = job.folder / "unreadable"
    try:
        with rejected.open("w", encoding="utf-8", newline="\n") as others:
            records = _split(job, summary, others)
            if job.out.suffix == ".parquet":
                _parquet(job, records, joined)
            else:
                with joined.open("w", encoding="utf-8", newline="\n") as file:
                    file.writelines(f"{to_json(record)}\n" for record in records)
                    file.flush()
                    os.fsync(file.fileno())
    except OSError as error:
        raise SinkError(
            f"cannot write {job.out}: {error.strerror or error}: repeat the command to continue"
        ) from error
    manifest = {**job.manifest, "unreadable": summary.unreadable, "faces": summary.faces}
    about = job.store("about", [json.dumps(manifest, indent=1)])
    files = {manifest_file(job.out): about}
    if summary.unreadable:
        files[unreadable_file(job.out)] = rejected
    else:
        unreadable_file(job.out).unlink(missing_ok=True)  # of the output that is replaced
    job.place({**files, job.out: joined})
    return summary


def _split(job: Job, summary: Summary, others: Any) -> Iterator[Result]:
    """The records; what is not one goes to the file ``others``."""
    for result in job.results():
        summary.images += 1
        if "unreadable" in result:
            summary.unreadable += 1
            line = {"file": result["unreadable"], "reason": result["reason"]}
            others.write(f"{to_json(line)}\n")
            continue
        summary.faces += len(result["faces"])
        summary.unsearched += "unsearched" in result
        yield result


def schema(labels: list[str], metadata: dict[str, str]) -> Any:
    """The Arrow schema: one row per image, with the keys of ``records.schema.json``."""
    pa = require_parquet()
    face = pa.struct(
        [
            ("box", pa.list_(pa.int32())),
            ("score", pa.float32()),
            ("label", pa.string()),
            ("confidence", pa.float32()),
            ("probabilities", pa.struct([(name, pa.float32()) for name in labels])),
            ("landmarks", pa.list_(pa.list_(pa.float32()))),
            ("tilt", pa.int16()),
            ("yaw", pa.int16()),
            ("facing", pa.bool_()),
        ]
    )
    fields = [
        ("file", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("unsearched", pa.float32()),
        ("faces", pa.list_(face)),
    ]
    return pa.schema(fields, metadata=metadata)


def _parquet(job: Job, records: Iterator[Result], path: Path) -> None:
    pa = require_parquet()
    about = {"emotion_edge": json.dumps(job.manifest)}
    form = schema(job.manifest["labels"], about)
    with pa.parquet.ParquetWriter(path, form, compression="zstd") as writer:
        rows: list[Result] = []
        for record in records:
            # Parquet's text is UTF-8, which a file name need not be.
            record["file"] = record["file"].encode(errors="backslashreplace").decode()
            rows.append(record)
            if len(rows) == _ROWS:
                writer.write_table(pa.Table.from_pylist(rows, form))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, form))
