"""One JSON record a line, in a file."""

from __future__ import annotations

import json
from typing import Self

from emotion_edge.records import event_record, observation_record, to_json
from emotion_edge.sinks import Sink
from emotion_edge.sinks.record_file import RecordFile
from emotion_edge.sinks.settings import JsonlSettings
from emotion_edge.values import Event, Observation


class JsonlSink(Sink):
    """Observations and events as ``emotion_edge.records`` describes them.

    Each line is whole when ``write`` returns, and stays so after ``kill -9``.
    """

    name = "jsonl"

    def __init__(self, settings: JsonlSettings) -> None:
        self.name = f"jsonl {settings.path}"
        self._file = RecordFile(settings, whole=_is_json)
        self._interval_ns = settings.interval_s * 1e9
        self._due_ns = 0.0

    def __enter__(self) -> Self:
        """Open the file. Raises SinkError or OutputExists."""
        self._file.open()
        return self

    def write(self, observation: Observation) -> None:
        """Append one line. Raises SinkError when it cannot; the file then holds no part of it."""
        now = observation.frame.captured_ns
        if now < self._due_ns:
            return
        self._file.write(f"{to_json(observation_record(observation))}\n".encode())
        self._due_ns = now + self._interval_ns

    def event(self, event: Event) -> None:
        """Append one line. Raises SinkError when it cannot; the file then holds no part of it."""
        self._file.write(f"{to_json(event_record(event))}\n".encode())

    def __exit__(self, *error: object) -> None:
        """Ask the disk to write through, and close. Raises SinkError."""
        self._file.close()


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
