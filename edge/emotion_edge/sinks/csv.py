"""Rows for a spreadsheet, in a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from emotion_edge.model.labels import UNSURE
from emotion_edge.records import observation_record, wall_clock
from emotion_edge.sinks import Run
from emotion_edge.sinks.aggregate import AGGREGATE
from emotion_edge.sinks.record_file import RecordFile, RecordFileSettings, RecordSink
from emotion_edge.values import Event, Observation

_FACE = ("time", "frame", "track", "x", "y", "width", "height", "score", "label", "confidence")
_FILE = ("source", "media_time_s")  # empty for a live camera, whose rows have a time
_COUNT = ("time", "seconds", "frames", "people", "most_at_once")


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvSettings(RecordFileSettings):
    """One row per face, without events."""

    help: ClassVar[str] = "one row per face, for a spreadsheet"

    def open(self, run: Run) -> CsvSink | AggregateCsvSink:
        """Nothing is opened yet."""
        return AggregateCsvSink(self, run.labels) if run.aggregate else CsvSink(self, run.labels)


class CsvSink(RecordSink):
    """One row per face: the columns of a record, then a probability for each label.

    A frame without a face has no row, events neither.
    """

    def __init__(self, settings: CsvSettings, labels: Sequence[str]) -> None:
        """labels: the classifier's, in its order."""
        self._labels = tuple(labels)
        header = _rows([[*_FACE, *(f"p_{label}" for label in labels), *_FILE, "zone"]])
        super().__init__("csv", settings, RecordFile(settings, header=header))

    def record(self, observation: Observation) -> bytes:
        """A row for each face."""
        record = observation_record(observation)
        return _rows(
            [
                [
                    record.get("time", ""),
                    record["frame"],
                    face.get("track", ""),
                    *face["box"],
                    face["score"],
                    face["label"],
                    face["confidence"],
                    *(face["probabilities"].get(label, "") for label in self._labels),
                    *(record.get(column, "") for column in _FILE),
                    face.get("zone", ""),
                ]
                for face in record["faces"]
            ]
        )

    def event(self, event: Event) -> None:
        """Ignore it: an event has no columns."""


class AggregateCsvSink(RecordSink):
    """One row per period, in aggregate mode: how many people, and how many had each label."""

    def __init__(self, settings: CsvSettings, labels: Sequence[str]) -> None:
        """labels: the classifier's, in its order."""
        self._labels = tuple(dict.fromkeys((*labels, UNSURE)))
        header = _rows([[*_COUNT, *self._labels]])
        super().__init__("csv", settings, RecordFile(settings, header=header))

    def record(self, observation: Observation) -> bytes:
        """Write nothing: aggregate mode stores no single observation."""
        return b""

    def event(self, event: Event) -> None:
        """Append the row of a count. Raises SinkError when it cannot."""
        if event.kind != AGGREGATE:
            return
        count = event.details
        worn = [count["labels"].get(label, 0) for label in self._labels]
        row = [wall_clock(event.at_ns), *(count[column] for column in _COUNT[1:]), *worn]
        self._file.write(_rows([row]))


def _rows(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # A file name that is not UTF-8 holds surrogates, which cannot be encoded.
    return text.getvalue().encode(errors="backslashreplace")
