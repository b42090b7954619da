"""One JSON record a line, in a file."""

from __future__ import annotations

import json

from emotion_edge.records import event_record, observation_record, to_json
from emotion_edge.sinks.record_file import RecordFile, RecordSink
from emotion_edge.sinks.settings import JsonlSettings
from emotion_edge.values import Event, Observation


class JsonlSink(RecordSink):
    """Observations and events as ``emotion_edge.records`` describes them."""

    def __init__(self, settings: JsonlSettings) -> None:
        super().__init__(settings, RecordFile(settings, whole=_is_json))

    def record(self, observation: Observation) -> bytes:
        """One line."""
        return f"{to_json(observation_record(observation))}\n".encode()

    def event(self, event: Event) -> None:
        """Append one line. Raises SinkError when it cannot; the file then holds no part of it."""
        self._file.write(f"{to_json(event_record(event))}\n".encode())


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
