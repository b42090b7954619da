"""One JSON record per line, in a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from emotion_edge.records import event_record, observation_record, to_json
from emotion_edge.settings import key
from emotion_edge.sinks import Run
from emotion_edge.sinks.record_file import RecordFile, RecordFileSettings, RecordSink
from emotion_edge.values import Event, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonlSettings(RecordFileSettings):
    """One JSON record per line: observations, events and visits."""

    help: ClassVar[str] = "one JSON record per frame and per event; - is standard output"

    observations: bool = key(True, "false omits frames: the file holds events and visits only.")

    def open(self, run: Run) -> JsonlSink:
        """Nothing is opened yet."""
        return JsonlSink(self)


class JsonlSink(RecordSink):
    """Observations and events as ``emotion_edge.records`` describes them."""

    def __init__(self, settings: JsonlSettings) -> None:
        super().__init__("jsonl", settings, RecordFile(settings, whole=_is_json))
        self._observations = settings.observations

    def record(self, observation: Observation) -> bytes:
        """One line, or nothing."""
        if not self._observations:
            return b""
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
