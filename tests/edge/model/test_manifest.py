"""The manifest inside the model file."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import pytest

from emotion_edge.errors import ManifestError, ModelError
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.model.manifest import (
    ENTRY,
    LABELS_ENTRY,
    InputSpec,
    Manifest,
    attach,
    load,
    split,
)

MODELS = Path(__file__).parents[3] / "models"
MODEL = b"\x1c\x00\x00\x00TFL3" + bytes(range(256)) * 8
MANIFEST = Manifest(
    name="tiny",
    variant="int8",
    model_sha256="",
    labels=EMOTIONS,
    input=InputSpec(48, 48, 1, "gray"),
    accuracy={"int8": {"PublicTest": 0.5}},
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(attach(MODEL, MANIFEST))
    model, manifest = load(path)
    assert model == MODEL
    assert manifest == dataclasses.replace(MANIFEST, model_sha256=manifest.model_sha256)


def test_the_same_input_gives_the_same_bytes() -> None:
    assert attach(MODEL, MANIFEST) == attach(MODEL, MANIFEST)


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*.tflite")), ids=lambda path: path.name)
def test_the_shipped_files_get_the_same_manifest_again(path: Path) -> None:
    shipped = path.read_bytes()
    assert attach(shipped, load(path)[1]) == shipped


def test_alignment_is_written_only_if_it_is_not_the_default() -> None:
    assert "alignment" not in MANIFEST.to_json()
    level = dataclasses.replace(
        MANIFEST, input=dataclasses.replace(MANIFEST.input, alignment="none")
    )
    assert Manifest.from_json(level.to_json()) == level


def test_attaching_again_replaces() -> None:
    renamed = dataclasses.replace(MANIFEST, name="other")
    assert attach(attach(MODEL, MANIFEST), renamed) == attach(MODEL, renamed)


def test_no_tflite_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"PK not a model")
    with pytest.raises(ModelError, match="not a TFLite model"):
        load(path)
    with pytest.raises(ModelError, match="No such file"):
        load(tmp_path / "absent.tflite")


def test_a_file_cut_off_has_lost_its_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(attach(MODEL, MANIFEST)[:-30])
    with pytest.raises(ManifestError, match="has no manifest"):
        load(path)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    data = bytearray(attach(MODEL, MANIFEST))
    data[40] ^= 1
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    with pytest.raises(ManifestError, match="differs from the manifest"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2"),
        ({"schema": None}, "schema None"),
        ({"surprise": 1}, "surprise"),
        ({"labels": ["a", "a"]}, "all different"),
        ({"output": "votes"}, "'votes'"),
        ({"input": {"height": 48, "width": 48, "channels": 3, "colour": "gray"}}, "3 channels"),
        ({"input": {"height": 0, "width": 48, "channels": 1, "colour": "gray"}}, "0x48"),
        ({"input": {"height": 48}}, "missing"),
        ({"accuracy": 67.8}, "accuracy is 67.8"),
    ],
)
def test_odd_manifests_are_refused(change: dict[str, object], message: str) -> None:
    data = json.loads(MANIFEST.to_json()) | change
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(json.dumps(data))


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ManifestError, match="not JSON"):
        Manifest.from_json("{")
    with pytest.raises(ManifestError, match="schema None"):
        Manifest.from_json("[]")


def test_the_entry_is_an_ordinary_zip() -> None:
    with zipfile.ZipFile(io.BytesIO(attach(MODEL, MANIFEST))) as archive:
        assert archive.namelist() == [LABELS_ENTRY, ENTRY]
        assert archive.testzip() is None
        assert archive.read(LABELS_ENTRY).decode().split() == list(EMOTIONS)
        # TFLite's Task Library refuses compressed entries.
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_other_files_in_the_archive_are_kept() -> None:
    buffer = io.BytesIO(MODEL)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("vocabulary.txt", "one")
        archive.writestr(LABELS_ENTRY, "stale")
    assert split(buffer.getvalue()) == (MODEL, None)
    with zipfile.ZipFile(io.BytesIO(attach(buffer.getvalue(), MANIFEST))) as archive:
        assert archive.read("vocabulary.txt") == b"one"
        assert archive.read(LABELS_ENTRY).decode().split() == list(EMOTIONS)


def test_split_without_a_manifest() -> None:
    assert split(MODEL) == (MODEL, None)
