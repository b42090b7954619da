"""Writes TFLite's own metadata, which Task Library, Android Studio and others read.

The manifest says more and is what this project reads. Other tools look for a FlatBuffer named
``TFLITE_METADATA`` inside the model, of the schema ``metadata_schema.fbs`` of the TFLite Support
project (file identifier ``M001``), and for the label file that it names in the zip archive at the
end of the file. ``emotion_edge.model.manifest.attach`` writes that label file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

from emotion_edge.errors import ModelError
from emotion_edge.model.graph import aligned_builder, tools
from emotion_edge.model.manifest import LABELS_ENTRY, InputSpec, Manifest

NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
PARSER = "1.0.0"
"""The first version of the schema: it has every field that is written here."""

TENSOR_AXIS_LABELS = 2
COLOUR_SPACES = {"gray": 2, "rgb": 1}
"""The schema has no BGR: such an input is declared UNKNOWN, which is 0."""

_UNIONS = {
    "ContentProperties": {1: "FeatureProperties", 2: "ImageProperties"},
    "ProcessUnitOptions": {1: "NormalizationOptions"},
}
# Table: {field: (slot, kind)}. Kinds: a scalar or "string", "floats" for [float], the name of a
# table, or that name in brackets for a vector of tables. A union takes two slots: the type's and
# the value's, the one given and the next.
_SCHEMA: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "ModelMetadata": {
        "name": (0, "string"),
        "description": (1, "string"),
        "version": (2, "string"),
        "subgraph_metadata": (3, "[SubGraphMetadata]"),
        "author": (4, "string"),
        "license": (5, "string"),
        "min_parser_version": (7, "string"),
    },
    "SubGraphMetadata": {
        "name": (0, "string"),
        "description": (1, "string"),
        "input_tensor_metadata": (2, "[TensorMetadata]"),
        "output_tensor_metadata": (3, "[TensorMetadata]"),
    },
    "TensorMetadata": {
        "name": (0, "string"),
        "description": (1, "string"),
        "content": (3, "Content"),
        "process_units": (4, "[ProcessUnit]"),
        "stats": (5, "Stats"),
        "associated_files": (6, "[AssociatedFile]"),
    },
    "Content": {"content_properties": (0, "ContentProperties")},
    "FeatureProperties": {},
    "ImageProperties": {"color_space": (0, "int8"), "default_size": (1, "ImageSize")},
    "ImageSize": {"width": (0, "uint32"), "height": (1, "uint32")},
    "ProcessUnit": {"options": (0, "ProcessUnitOptions")},
    "NormalizationOptions": {"mean": (0, "floats"), "std": (1, "floats")},
    "Stats": {"max": (0, "floats"), "min": (1, "floats")},
    "AssociatedFile": {
        "name": (0, "string"),
        "description": (1, "string"),
        "type": (2, "int8"),
    },
}


def with_metadata(model: bytes, manifest: Manifest) -> bytes:
    """A ``.tflite`` FlatBuffer with metadata made from its manifest; earlier metadata is replaced.

    Raises ModelError when the FlatBuffer is damaged.
    """
    content = _unpacked(model)
    buffer = type(content.buffers[0])()
    buffer.data = np.frombuffer(encode(describe(manifest)), np.uint8)
    entries = list(content.metadata or [])
    found = [entry for entry in entries if entry.name == NAME.encode()]
    if found:
        content.buffers[found[0].buffer] = buffer
    else:
        content.buffers.append(buffer)
        entry = tools().schema_fb.MetadataT()
        entry.name, entry.buffer = NAME.encode(), len(content.buffers) - 1
        content.metadata = [*entries, entry]
    builder = aligned_builder()
    builder.Finish(content.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def read(model: bytes) -> dict[str, Any] | None:
    """The metadata of a FlatBuffer as plain values; None where there is none.

    Raises ModelError when it is damaged.
    """
    content = _unpacked(model)
    for entry in content.metadata or []:
        if entry.name == NAME.encode():
            return decode(bytes(content.buffers[entry.buffer].data))
    return None


def _unpacked(model: bytes) -> Any:
    try:
        return tools().read_model_from_bytearray(bytearray(model))
    except Exception as error:  # the generated reader raises anything, depending on the bytes
        raise ModelError(f"the model's FlatBuffer is damaged ({error}): copy it again") from error


def describe(manifest: Manifest) -> dict[str, Any]:
    """The metadata of a classifier as plain values, named as in the schema."""
    spec = manifest.input
    return {
        "name": manifest.name,
        "description": f"Classifies a face image as one of: {', '.join(manifest.labels)}.",
        "subgraph_metadata": [
            {
                "name": manifest.name,
                "input_tensor_metadata": [_input(spec)],
                "output_tensor_metadata": [_output(manifest)],
            }
        ],
        **({"license": manifest.licence} if manifest.licence else {}),
        "min_parser_version": PARSER,
    }


def _input(spec: InputSpec) -> dict[str, Any]:
    # The network's input is pixel * scale + offset, which the schema writes (pixel - mean) / std.
    image = {"default_size": {"width": spec.width, "height": spec.height}}
    colour = COLOUR_SPACES.get(spec.colour)
    return {
        "name": "image",
        "description": f"A face, {spec.height}x{spec.width} pixels, {spec.colour}.",
        "content": {
            "content_properties": {
                "ImageProperties": {**({"color_space": colour} if colour else {}), **image}
            }
        },
        "process_units": [
            {
                "options": {
                    "NormalizationOptions": {
                        "mean": [-spec.offset / spec.scale + 0.0],
                        "std": [1 / spec.scale],
                    }
                }
            }
        ],
        "stats": {"max": [255 * spec.scale + spec.offset], "min": [spec.offset]},
    }


def _output(manifest: Manifest) -> dict[str, Any]:
    probabilities = manifest.output == "probabilities"
    return {
        "name": "probability" if probabilities else "logit",
        "description": f"The {manifest.output} of the labels, in their order.",
        "content": {"content_properties": {"FeatureProperties": {}}},
        **({"stats": {"max": [1.0], "min": [0.0]}} if probabilities else {}),
        "associated_files": [
            {
                "name": LABELS_ENTRY,
                "description": "One label per line.",
                "type": TENSOR_AXIS_LABELS,
            }
        ],
    }


def encode(metadata: Mapping[str, Any]) -> bytes:
    """The FlatBuffer of a ``ModelMetadata`` given as plain values."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, "ModelMetadata", metadata), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def decode(data: bytes) -> dict[str, Any]:
    """A ``ModelMetadata`` FlatBuffer as plain values; fields that are not set are absent.

    Raises ModelError when it is of another schema or damaged.
    """
    if data[4:8] != IDENTIFIER:
        raise ModelError(
            f"{NAME} has the identifier {data[4:8]!r}, expected {IDENTIFIER!r}: convert again"
        )
    try:
        start = flatbuffers.encode.Get(number_types.UOffsetTFlags.packer_type, data, 0)
        return _read(Table(bytearray(data), start), "ModelMetadata")
    except Exception as error:  # damaged offsets raise whatever they lead to
        raise ModelError(f"{NAME} is damaged ({error}): convert the model again") from error


def _write(builder: Any, table: str, value: Mapping[str, Any]) -> int:
    """Write a table, its children first, as FlatBuffers require; returns its offset."""
    fields = _SCHEMA[table]
    unknown = set(value) - set(fields)
    if unknown:
        raise KeyError(f"{table} has no field {', '.join(sorted(unknown))}")
    made: dict[int, tuple[str, Any]] = {}
    for name, item in value.items():
        slot, kind = fields[name]
        if kind == "string":
            made[slot] = "offset", builder.CreateString(item)
        elif kind == "floats":
            builder.StartVector(4, len(item), 4)
            for number in reversed(item):
                builder.PrependFloat32(number)
            made[slot] = "offset", builder.EndVector()
        elif kind in _UNIONS:
            ((member, content),) = item.items()
            number = next(n for n, other in _UNIONS[kind].items() if other == member)
            made[slot] = "uint8", number
            made[slot + 1] = "offset", _write(builder, member, content)
        elif kind.startswith("["):
            children = [_write(builder, kind[1:-1], child) for child in item]
            builder.StartVector(4, len(children), 4)
            for child in reversed(children):
                builder.PrependUOffsetTRelative(child)
            made[slot] = "offset", builder.EndVector()
        elif kind in _SCHEMA:
            made[slot] = "offset", _write(builder, kind, item)
        else:
            made[slot] = kind, item
    builder.StartObject(max((slot for slot, _ in fields.values()), default=-1) + 2)
    put = {
        "offset": builder.PrependUOffsetTRelativeSlot,
        "uint8": builder.PrependUint8Slot,
        "int8": builder.PrependInt8Slot,
        "uint32": builder.PrependUint32Slot,
    }
    for slot, (kind, item) in made.items():
        put[kind](slot, item, 0)
    offset: int = builder.EndObject()
    return offset


def _read(table: Table, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, (slot, kind) in _SCHEMA[name].items():
        at = table.Offset(4 + 2 * slot)
        if at == 0:
            continue
        at += table.Pos
        if kind == "string":
            found[field] = table.String(at).decode()
        elif kind == "floats":
            start = table.Vector(at - table.Pos)
            count = table.VectorLen(at - table.Pos)
            found[field] = [
                table.Get(number_types.Float32Flags, start + 4 * i) for i in range(count)
            ]
        elif kind in _UNIONS:
            member = _UNIONS[kind].get(table.Get(number_types.Uint8Flags, at))
            where = table.Offset(4 + 2 * (slot + 1))
            if member is not None and where:
                child = Table(table.Bytes, table.Indirect(table.Pos + where))
                found[field] = {member: _read(child, member)}
        elif kind.startswith("["):
            start = table.Vector(at - table.Pos)
            count = table.VectorLen(at - table.Pos)
            found[field] = [
                _read(Table(table.Bytes, table.Indirect(start + 4 * i)), kind[1:-1])
                for i in range(count)
            ]
        elif kind in _SCHEMA:
            found[field] = _read(Table(table.Bytes, table.Indirect(at)), kind)
        else:
            flags = {"int8": number_types.Int8Flags, "uint32": number_types.Uint32Flags}
            found[field] = int(table.Get(flags[kind], at))
    return found
