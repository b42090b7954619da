"""Rows for a spreadsheet, in a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from emotion_edge.errors import UsageError
from emotion_edge.model.labels import UNSURE
from emotion_edge.records import observation_record, wall_clock
from emotion_edge.settings import key
from emotion_edge.sinks import Run
from emotion_edge.sinks.aggregate import AGGREGATE
from emotion_edge.sinks.record_file import RecordFile, RecordFileSettings, RecordSink
from emotion_edge.values import VISIT, Event, Observation

_FACE = ("time", "frame", "track", "x", "y", "width", "height", "score", "label", "confidence")
_FILE = ("source", "media_time_s")  # empty for a live camera, whose rows have a time
_VISIT = (
    "visit",
    "start",
    "end",
    "dwell_s",
    "label",
    "unsure_share",
    "facing_share",
    "zone",
    "ended",
)
_VISITS = ("count", "dwell_s")
_COUNT = ("time", "seconds", "frames", "people", "most_at_once")


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvSettings(RecordFileSettings):
    """One row per face, or one per visit, without events."""

    help: ClassVar[str] = "one row per face, for a spreadsheet"

    rows: Literal["faces", "visits"] = key(
        "faces",
        "`faces` (one row per face and frame) or `visits` (one row per visit; needs `[visits]`). "
        "In aggregate mode there is one row per period.",
    )

    def open(self, run: Run) -> RecordSink:
        """Nothing is opened yet. Raises UsageError where no single visit may be shown."""
        if self.rows == "visits":
            if run.aggregate:
                raise UsageError(
                    f"csv {self.path}: rows are visits, which aggregate mode counts and does not "
                    "show: omit one of them"
                )
            if not run.visits:
                raise UsageError(
                    f"csv {self.path}: rows are visits, and visits are not followed: add [visits]"
                )
            return VisitCsvSink(self, run.labels)
        if run.aggregate:
            return AggregateCsvSink(self, run.labels, visits=run.visits)
        return CsvSink(self, run.labels)


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


class VisitCsvSink(RecordSink):
    """One row per visit: the columns of its record, then the share of each label."""

    def __init__(self, settings: CsvSettings, labels: Sequence[str]) -> None:
        """labels: the classifier's, in its order."""
        self._labels = tuple(labels)
        header = _rows([[*_VISIT, *(f"share_{label}" for label in labels), *_FILE]])
        super().__init__("csv", settings, RecordFile(settings, header=header))

    def record(self, observation: Observation) -> bytes:
        """Write nothing: a visit is an event."""
        return b""

    def event(self, event: Event) -> None:
        """Append the row of a visit. Raises SinkError when it cannot."""
        if event.kind != VISIT:
            return
        visit = event.details
        columns = [visit.get(column, "") for column in _VISIT]
        shares = [visit["shares"].get(label, 0) for label in self._labels]
        self._file.write(_rows([[*columns, *shares, *(visit.get(name, "") for name in _FILE)]]))


class AggregateCsvSink(RecordSink):
    """One row per period, in aggregate mode: how many people, and how many had each label.

    A withheld period has a row without counts.
    """

    def __init__(
        self, settings: CsvSettings, labels: Sequence[str], *, visits: bool = False
    ) -> None:
        """labels: the classifier's, in its order. visits: whether visits are counted too."""
        self._labels = tuple(dict.fromkeys((*labels, UNSURE)))
        self._visits = _VISITS if visits else ()
        header = _rows([[*_COUNT, *self._labels, *(f"visits_{name}" for name in self._visits)]])
        super().__init__("csv", settings, RecordFile(settings, header=header))

    def record(self, observation: Observation) -> bytes:
        """Write nothing: aggregate mode stores no single observation."""
        return b""

    def event(self, event: Event) -> None:
        """Append the row of a count. Raises SinkError when it cannot."""
        if event.kind != AGGREGATE:
            return
        count = event.details
        missing = "" if count.get("withheld") else 0
        worn = [count.get("labels", {}).get(label, missing) for label in self._labels]
        visits = count.get("visits", {})
        missing = "" if count.get("withheld") or visits.get("withheld") else 0
        row = [wall_clock(event.at_ns), *(count.get(column, "") for column in _COUNT[1:]), *worn]
        row += [visits.get(name, missing) for name in self._visits]
        self._file.write(_rows([row]))


def _rows(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # A file name that is not UTF-8 holds surrogates, which cannot be encoded.
    return text.getvalue().encode(errors="backslashreplace")
