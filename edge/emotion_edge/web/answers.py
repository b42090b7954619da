"""What the API answers."""

from __future__ import annotations

from typing import Any

from emotion_edge.records import SCHEMA, face_record
from emotion_edge.values import Face, Observation
from emotion_edge.web.images import Limits, Picture, read_picture
from emotion_edge.web.models import Installed, Models


def image_record(
    models: Models, data: bytes, limits: Limits, model: str | None = None
) -> dict[str, Any]:
    """A file's bytes as the answer of ``POST /api/faces``.

    Raises ImageError for what is no picture or too large, UsageError for an unknown model.
    """
    name = models.find(model).name
    picture = read_picture(data, limits)
    return picture_record(picture, models.look(picture.image, name), name)


def picture_record(picture: Picture, observation: Observation, model: str) -> dict[str, Any]:
    """What a picture showed, as JSON; boxes are in pixels of the original, upright."""
    timings = {
        k: round(v, 3) for k, v in observation.timings.items() if k in ("detect", "classify")
    }
    return {
        "schema": SCHEMA,
        "type": "image",
        "model": model,
        "width": picture.width,
        "height": picture.height,
        "notes": list(picture.notes),
        "timings_ms": timings,
        "faces": [
            face_record(Face(picture.to_original(face.box), face.emotion, face.label))
            for face in observation.faces
        ],
    }


def model_record(one: Installed) -> dict[str, Any]:
    """A line of ``GET /api/models``."""
    return {
        "name": one.name,
        "bytes": one.size,
        "labels": list(one.manifest.labels),
        "accuracy": dict(one.manifest.accuracy),
    }
