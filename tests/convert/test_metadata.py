"""TFLite's own metadata, read back from the file as other tools read it."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convert import metadata
from convert.__main__ import main
from convert.conversion import Attempt, Converted, Job
from convert.publish import describe, facts, write
from emotion_edge.errors import ModelError, UsageError
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.manifest import LABELS_ENTRY, InputSpec


@pytest.fixture(scope="module")
def written(
    jobs: dict[str, Job], converted: dict[str, Converted], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("metadata") / "tiny-int8.tflite"
    attempt = Attempt("int8", converted["tiny"])
    manifest = describe(jobs["tiny"], attempt, facts(None, {}, licence="MIT"))
    return write(path, converted["tiny"], manifest, overwrite=False)


def test_input_normalisation_and_labels_are_described(written: Path) -> None:
    found = metadata.read(written.read_bytes())
    assert found is not None
    assert (found["name"], found["license"]) == ("tiny", "MIT")
    (graph,) = found["subgraph_metadata"]
    (image,) = graph["input_tensor_metadata"]
    properties = image["content"]["content_properties"]["ImageProperties"]
    assert properties == {"color_space": 2, "default_size": {"width": 48, "height": 48}}
    (answer,) = graph["output_tensor_metadata"]
    (labels,) = answer["associated_files"]
    assert (labels["name"], labels["type"]) == (LABELS_ENTRY, 2)
    with zipfile.ZipFile(io.BytesIO(written.read_bytes())) as archive:
        assert archive.read(labels["name"]).decode().split()[0] == "angry"


@pytest.mark.parametrize(
    ("scale", "offset", "mean", "std"), [(1, 0, 0, 1), (1 / 127.5, -1, 127.5, 127.5)]
)
def test_scale_and_offset_become_mean_and_deviation(
    jobs: dict[str, Job], scale: float, offset: float, mean: float, std: float
) -> None:
    manifest = replace(
        jobs["tiny"].manifest("float32"), input=InputSpec(48, 48, 3, "bgr", scale, offset)
    )
    found = metadata.decode(metadata.encode(metadata.describe(manifest)))
    (image,) = found["subgraph_metadata"][0]["input_tensor_metadata"]
    (unit,) = image["process_units"]
    assert unit["options"]["NormalizationOptions"]["mean"] == [pytest.approx(mean)]
    assert unit["options"]["NormalizationOptions"]["std"] == [pytest.approx(std)]
    # The schema has no BGR.
    assert "color_space" not in image["content"]["content_properties"]["ImageProperties"]


def test_the_network_answers_as_before_and_its_buffers_are_aligned(
    written: Path, jobs: dict[str, Job], converted: dict[str, Converted]
) -> None:
    import ai_edge_litert.schema_py_generated as schema

    faces = jobs["tiny"].judged.faces
    done = converted["tiny"]
    before = TFLiteClassifier(done.model, jobs["tiny"].manifest("int8", done.spec))
    np.testing.assert_array_equal(
        TFLiteClassifier.load(written).predict(faces), before.predict(faces)
    )
    model = schema.Model.GetRootAs(written.read_bytes(), 0)
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0


def test_metadata_is_replaced_not_repeated(written: Path, jobs: dict[str, Job]) -> None:
    other = replace(jobs["tiny"].manifest("int8"), name="other")
    once = metadata.with_metadata(written.read_bytes(), other)
    assert (metadata.read(once) or {})["name"] == "other"
    assert metadata.with_metadata(once, other) == once


def test_damaged_metadata_is_refused() -> None:
    with pytest.raises(ModelError, match="identifier"):
        metadata.decode(b"\x00" * 12)
    with pytest.raises(ModelError, match="damaged"):
        metadata.decode(b"\xff\xff\xff\x00M001")


def test_inspect_shows_manifest_and_metadata(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(written)]) == 0
    text = capsys.readouterr().out
    assert metadata.NAME in text and '"keras_sha256"' in text
    assert main(["inspect", str(written), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["name"] == "tiny"


def test_optional_fields_pass_through() -> None:
    found = facts({"input": {"interpolation": "area"}, "unknown": 1}, {})
    assert found.input_fields == {"interpolation": "area"}
    by_hand = facts({"input": {"interpolation": "x"}}, {"input.interpolation": "area"})
    assert by_hand.input_fields == {"interpolation": "area"}
    with pytest.raises(UsageError, match=r"input\.interpolation"):
        facts(None, {"input.scale": 2})
