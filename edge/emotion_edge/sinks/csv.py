"""Rows for a spreadsheet, in a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Self

from emotion_edge.labels import UNSURE
from emotion_edge.records import observation_record, wall_clock
from emotion_edge.sinks import Sink
from emotion_edge.sinks.aggregate import AGGREGATE
from emotion_edge.sinks.record_file import RecordFile
from emotion_edge.sinks.settings import CsvSettings
from emotion_edge.values import Event, Observation

_FACE = ("time", "frame", "track", "x", "y", "width", "height", "score", "label", "confidence")
_COUNT = ("time", "seconds", "frames", "people", "most_at_once")


class CsvSink(Sink):
    """One row a face: the columns of a record, then a probability for each label.

    A frame without a face has no row, events neither. The rows of a frame are written together,
    whole when ``write`` returns.
    """

    name = "csv"

    def __init__(self, settings: CsvSettings, labels: Sequence[str]) -> None:
        """labels: the classifier's, in its order."""
        self.name = f"csv {settings.path}"
        self._labels = tuple(labels)
        header = _rows([[*_FACE, *(f"p_{label}" for label in labels)]])
        self._file = RecordFile(settings, header=header)
        self._interval_ns = settings.interval_s * 1e9
        self._due_ns = 0.0

    def __enter__(self) -> Self:
        """Open the file. Raises SinkError or OutputExists."""
        self._file.open()
        return self

    def write(self, observation: Observation) -> None:
        """Append a row for each face. Raises SinkError when it cannot; no part is then written."""
        now = observation.frame.captured_ns
        if now < self._due_ns or not observation.faces:
            return
        record = observation_record(observation)
        rows = [
            [
                record["time"],
                record["frame"],
                face.get("track", ""),
                *face["box"],
                face["score"],
                face["label"],
                face["confidence"],
                *(face["probabilities"].get(label, "") for label in self._labels),
            ]
            for face in record["faces"]
        ]
        self._file.write(_rows(rows))
        self._due_ns = now + self._interval_ns

    def event(self, event: Event) -> None:
        """Nothing: an event has no columns."""

    def __exit__(self, *error: object) -> None:
        """Ask the disk to write through, and close. Raises SinkError."""
        self._file.close()


class AggregateCsvSink(CsvSink):
    """One row a period, in aggregate mode: how many people, and how many wore each label."""

    def __init__(self, settings: CsvSettings, labels: Sequence[str]) -> None:
        """labels: the classifier's, in its order."""
        super().__init__(settings, labels)
        self._labels = tuple(dict.fromkeys((*labels, UNSURE)))
        self._file = RecordFile(settings, header=_rows([[*_COUNT, *self._labels]]))

    def write(self, observation: Observation) -> None:
        """Nothing: a single observation is what aggregate mode keeps back."""

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
    return text.getvalue().encode()
