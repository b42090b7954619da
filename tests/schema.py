"""Validates records against the published JSON Schema."""

from __future__ import annotations

import copy
import json
from importlib import resources
from typing import Any

import jsonschema

SCHEMA = json.loads(
    resources.files("emotion_edge").joinpath("records.schema.json").read_text(encoding="utf-8")
)


def _closed(schema: Any) -> Any:
    """The schema without room for keys that it does not describe."""
    closed = copy.deepcopy(schema)
    for one in closed["$defs"].values():
        if "properties" in one:
            one["additionalProperties"] = False
    return closed


_VALIDATOR = jsonschema.Draft202012Validator(_closed(SCHEMA))


def check_record(record: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError for a wrong value, a missing or an undocumented key."""
    # Against its own type: the errors of a "oneOf" name no key.
    validator = _VALIDATOR.evolve(schema={"$ref": f"#/$defs/{record['type']}", **_defs()})
    validator.validate(record)


def _defs() -> dict[str, Any]:
    return {"$defs": _VALIDATOR.schema["$defs"]}
