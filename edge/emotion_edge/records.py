"""Turns observations and events into JSON: the format of files, MQTT and the web page.

``records.schema.json`` in this package describes every key. A record, ``schema`` 1 (one line of a
JSONL file; numbers are rounded)::

    {"schema": 1, "type": "observation", "time": "2026-11-20T12:00:00.123+00:00",
     "frame": 17, "skipped": 0, "width": 640, "height": 480,
     "timings_ms": {"detect": 6.1, "classify": 0.3, "track": 0.0, "age": 9.9},
     "faces": [{"track": 1, "box": [x, y, width, height], "score": 0.97, "label": "happy",
                "confidence": 0.91, "probabilities": {"angry": 0.01, ...},
                "raw": {"label": "happy", "confidence": 0.88},
                "landmarks": [[x, y], ...], "tilt": 3, "yaw": -12, "facing": true}]}

    {"schema": 1, "type": "event", "time": "...", "kind": "camera.lost", "message": "...",
     "details": {}}

    {"schema": 1, "type": "visit", "visit": 3, "start": "...", "end": "...", "dwell_s": 12.4,
     "label": "happy", "shares": {"happy": 0.62, "neutral": 0.2}, "unsure_share": 0.18,
     "facing_share": 0.7, "zone": "door", "ended": "left"}

From a file, ``source`` and ``media_time_s`` (seconds from its start, 0 for an image) replace
``time`` (``start`` and ``end`` of a visit), and ``timings_ms`` has no ``age``. ``time`` is the wall
clock (UTC) of the capture.
``probabilities`` and ``confidence`` are the ones behind ``label``; ``raw`` is this frame alone.
Without a tracker ``track`` and ``raw`` are absent. ``landmarks`` and the direction of the head, in
degrees, are there if the detector finds landmarks; it is not the direction of the gaze.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from emotion_edge.head import is_facing, tilt, yaw
from emotion_edge.values import VISIT, Event, Face, Observation

SCHEMA = 1


def observation_record(observation: Observation) -> dict[str, Any]:
    """An observation as values for JSON."""
    frame = observation.frame
    height, width = frame.image.shape[:2]
    origin: dict[str, Any] = {"time": wall_clock(frame.captured_ns)}
    if frame.media_time_s is not None:
        origin = {"source": frame.source, "media_time_s": round(frame.media_time_s, 3)}
    return {
        "schema": SCHEMA,
        "type": "observation",
        **origin,
        "frame": frame.index,
        "skipped": observation.skipped,
        "width": width,
        "height": height,
        "timings_ms": {name: round(ms, 3) for name, ms in observation.timings.items()},
        "faces": [face_record(face) for face in observation.faces],
    }


def image_record(faces: Iterable[Face], width: int, height: int, **about: Any) -> dict[str, Any]:
    """The faces of one image as values for JSON.

    width, height: of the image, in pixels. about: further keys, such as ``file``.
    """
    return {
        "schema": SCHEMA,
        "type": "image",
        **about,
        "width": width,
        "height": height,
        "faces": [face_record(face) for face in faces],
    }


def face_record(face: Face) -> dict[str, Any]:
    """A face as values for JSON."""
    box, shown = face.box, face.shown
    record: dict[str, Any] = {
        "box": [box.x, box.y, box.width, box.height],
        "score": round(box.score, 3),
        "label": face.label,
        "confidence": round(shown.confidence, 4),
        "probabilities": {
            label: round(p, 4) for label, p in zip(shown.labels, shown.probabilities, strict=True)
        },
    }
    if face.track_id is not None:
        record["track"] = face.track_id
        record["raw"] = {
            "label": face.emotion.label,
            "confidence": round(face.emotion.confidence, 4),
        }
    if box.landmarks:
        record["landmarks"] = [[round(x, 1), round(y, 1)] for x, y in box.landmarks]
        record["tilt"] = round(tilt(box.landmarks))
        record["yaw"] = round(yaw(box.landmarks))
        record["facing"] = is_facing(box.landmarks)
    if face.zone:
        record["zone"] = face.zone
    return record


def event_record(event: Event) -> dict[str, Any]:
    """An event as values for JSON; a visit is a record of its own type."""
    if event.kind == VISIT:
        return {"schema": SCHEMA, "type": "visit", **event.details}
    return {
        "schema": SCHEMA,
        "type": "event",
        "time": wall_clock(event.at_ns),
        "kind": event.kind,
        "message": event.message,
        "details": dict(event.details),
    }


def to_json(record: dict[str, Any]) -> str:
    """A record on one line, without spaces. NumPy numbers become plain ones, paths text.

    Raises ValueError for a number that JSON does not have (NaN, infinity).
    """
    text = json.dumps(
        record, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
    )
    # A file name that is not UTF-8 holds surrogates, which UTF-8 lacks and JSON writes as \udcff.
    return text.encode(errors="backslashreplace").decode()


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else str(value)


def wall_clock(monotonic_ns: int) -> str:
    """ISO 8601 time in UTC, milliseconds, of an instant on the monotonic clock."""
    seconds = time.time() - (time.monotonic_ns() - monotonic_ns) / 1e9
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
