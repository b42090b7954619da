"""Reads and writes the manifest inside a model file.

A ``.tflite`` is a FlatBuffer, which tolerates bytes after its end; a zip archive is read from its
end. So a zip archive with ``manifest.json`` is appended to the model: every TFLite runtime still
loads the file, and the standard library reads the manifest back. It contains the SHA-256 of the
bytes before the archive, and the device refuses a file that does not match. The archive also holds
``labels.txt``, for tools that read TFLite's own metadata.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_edge.errors import ManifestError, ModelError

SCHEMA = 1
ENTRY = "manifest.json"
LABELS_ENTRY = "labels.txt"
"""The labels again, one per line: TFLite's own metadata names this file."""
_IDENTIFIER = b"TFL3"  # bytes 4..8 of every TFLite FlatBuffer
_ARCHIVE_DATE = (1980, 1, 1, 0, 0, 0)  # zip's earliest: the same input must give the same bytes


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The network's input.

    height, width: pixels. channels: 1 or 3. colour: ``gray``, ``rgb`` or ``bgr``.
    scale, offset: the network's real-valued input is ``pixel * scale + offset``; 1 and 0 where
        the rescaling is part of the graph.
    margin: of ``preprocessing.crop_face``.
    interpolation: ``area``: shrink by area, enlarge bilinearly (``preprocessing.resize_to_input``).
    alignment: ``eyes``: level a tilted face if the detector finds its landmarks
        (``preprocessing.face_input``); ``none``: never. A manifest without it means ``eyes``.
    """

    height: int
    width: int
    channels: int
    colour: str
    scale: float = 1.0
    offset: float = 0.0
    margin: float = 0.0
    interpolation: str = "area"
    alignment: str = "eyes"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ManifestError(f"manifest: input size {self.height}x{self.width} is not positive")
        if (self.channels, self.colour) not in {(1, "gray"), (3, "rgb"), (3, "bgr")}:
            raise ManifestError(
                f"manifest: {self.channels} channels with colour {self.colour!r}; "
                "expected 1 and 'gray', or 3 and 'rgb' or 'bgr'"
            )
        if self.interpolation != "area":
            raise ManifestError(
                f"manifest: interpolation {self.interpolation!r}; this version supports 'area'"
            )
        if self.alignment not in ("eyes", "none"):
            raise ManifestError(
                f"manifest: alignment {self.alignment!r}; this version supports 'eyes' and 'none'"
            )


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model file contains about itself.

    name: e.g. ``fast``. variant: ``int8``, ``mixed``, ``dynamic``, ``float16`` or ``float32``.
    model_sha256: hexadecimal, of the bytes before the archive.
    labels: one for each output, in order.
    output: ``probabilities`` (softmax inside) or ``logits``.
    convention: ``people`` (the label most people give: FER+'s majority), ``fer2013`` (FER2013's
        original labels), or empty where it is not stated.
    certainty: ``curve`` of (threshold, precision, coverage), and ``unsure_below``, the threshold
        used by default (``model.certainty``).
    prior: class shares under which the probabilities hold, one for each label, or empty
        (``emotion_edge.shares``).
    accuracy, calibration, training, versions, gate: facts written by the converter for people
        and for the cards; the device shows them but does not depend on them.
    """

    name: str
    variant: str
    model_sha256: str
    labels: tuple[str, ...]
    input: InputSpec
    output: str = "probabilities"
    licence: str = ""
    convention: str = ""
    certainty: Mapping[str, Any] = field(default_factory=dict)
    prior: tuple[float, ...] = ()
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    gate: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ManifestError(
                f"manifest: labels {list(self.labels)}; expected two or more, all different"
            )
        if self.output not in ("probabilities", "logits"):
            raise ManifestError(
                f"manifest: output {self.output!r}; expected 'probabilities' or 'logits'"
            )
        if self.prior and len(self.prior) != len(self.labels):
            raise ManifestError(
                f"manifest: prior has {len(self.prior)} shares for {len(self.labels)} labels"
            )
        for name in ("certainty", "accuracy", "calibration", "training", "versions", "gate"):
            if not isinstance(facts := getattr(self, name), Mapping):
                raise ManifestError(f"manifest: {name} is {facts!r}; expected an object of facts")

    @property
    def unsure_below(self) -> float | None:
        """The probability below which ``unsure`` is shown by default; None: never."""
        threshold = self.certainty.get("unsure_below")
        return None if threshold is None else float(threshold)

    def to_json(self) -> str:
        """The manifest as JSON, keys sorted: the same manifest gives the same text."""
        content = dataclasses.asdict(self)
        if self.input.alignment == "eyes":  # the default; older versions refuse the key
            del content["input"]["alignment"]
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read a manifest back.

        Raises ManifestError for invalid JSON, another schema, a missing or an unknown key.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ManifestError(f"manifest: not JSON ({error}); convert the model again") from error
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise ManifestError(
                f"manifest: schema {schema!r}; this version of emotion-edge reads {SCHEMA}: "
                "install the version that wrote the model, or convert it again"
            )
        try:
            data["input"] = InputSpec(**data["input"])
            data["labels"] = tuple(data["labels"])
            data["prior"] = tuple(data.get("prior", ()))
            return cls(**data)
        except (KeyError, TypeError) as error:
            raise ManifestError(f"manifest: {error}; convert the model again") from error


def attach(model: bytes, manifest: Manifest) -> bytes:
    """Append a manifest and the label file to a ``.tflite``; earlier ones are replaced.

    The manifest's ``model_sha256`` is set from the bytes. Other files that the model carries, as
    TFLite's metadata allows, are kept.
    Raises ModelError when the bytes are not a TFLite model.
    """
    network, _ = split(model)
    manifest = dataclasses.replace(manifest, model_sha256=hashlib.sha256(network).hexdigest())
    files = {
        **_archived(model),
        LABELS_ENTRY: ("\n".join(manifest.labels) + "\n").encode(),
        ENTRY: manifest.to_json().encode(),
    }
    buffer = io.BytesIO(network)
    # Uncompressed: TFLite's Task Library refuses a model with a compressed entry.
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _ARCHIVE_DATE), content)
    return buffer.getvalue()


def split(data: bytes, name: str = "the model") -> tuple[bytes, bytes | None]:
    """The FlatBuffer and the manifest's text (None where there is none).

    Raises ModelError when the bytes are not a TFLite model.
    """
    if data[4:8] != _IDENTIFIER:
        raise ModelError(
            f"{name} is not a TFLite model ({len(data):,} bytes, no TFL3 identifier): "
            "give a .tflite file, or copy it again if the transfer was cut off"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            starts = [entry.header_offset for entry in archive.infolist()]
            text = archive.read(ENTRY) if ENTRY in archive.namelist() else None
            return data[: min(starts, default=len(data))], text
    except zipfile.BadZipFile:
        return data, None


def _archived(data: bytes) -> dict[str, bytes]:
    """The files in the archive at the end of a model; empty where there is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile:
        return {}


def read(data: bytes, name: str) -> tuple[bytes, Manifest | None]:
    """The FlatBuffer and the manifest that matches it (None where there is none).

    Raises ModelError when the bytes are not a TFLite model, ManifestError when the manifest is
    unknown or contains another hash.
    """
    model, text = split(data, name)
    if text is None:
        return model, None
    manifest = Manifest.from_json(text)
    actual = hashlib.sha256(model).hexdigest()
    if actual != manifest.model_sha256:
        raise ManifestError(
            f"{name}: SHA-256 {actual[:12]}… differs from the manifest's "
            f"{manifest.model_sha256[:12]}…: the file was changed or damaged; copy it again"
        )
    return model, manifest


def load(path: str | Path) -> tuple[bytes, Manifest]:
    """Read a model file and check it against its manifest.

    Returns the FlatBuffer's bytes and the manifest.
    Raises ModelError when the file is missing or not a TFLite model, ManifestError when the
    manifest is missing, unknown, or contains another hash.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror or error}") from error
    model, manifest = read(data, str(path))
    if manifest is None:
        raise ManifestError(
            f"{path} has no manifest (or was cut off): "
            "add one with python -m convert attach FILE.tflite --manifest M.json"
        )
    return model, manifest
