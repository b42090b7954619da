from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from convert import cards, inspection
from convert.__main__ import main
from convert.conversion import Converted
from emotion_edge.model import manifest as manifests
from emotion_edge.model.classifier import TFLiteClassifier
from tests.convert.conftest import convolutional
from train.data import VOTES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shipped(
    keras_files: dict[str, Path], data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """models/tiny/tiny-int8.tflite, made by the command line, and its report."""
    folder = tmp_path_factory.mktemp("shipped") / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps({"epochs": 0, "by": "hand"}))
    (folder / "tiny.keras").write_bytes(keras_files["tiny"].read_bytes())
    assert (
        main(
            [
                str(folder / "tiny.keras"),
                *("--data", str(data), "--report", str(folder / "report")),
                *("--report-split", "PrivateTest", "--licence", "MIT"),
            ]
        )
        == 0
    )
    return folder / "tiny-int8.tflite"


def test_a_model_is_converted_with_its_manifest_and_report(shipped: Path) -> None:
    classifier = TFLiteClassifier.load(shipped)
    manifest = classifier.manifest
    assert (manifest.name, manifest.variant, manifest.licence) == ("tiny", "int8", "MIT")
    assert set(manifest.accuracy) == {"PublicTest", "PrivateTest"}
    assert manifest.accuracy["PrivateTest"]["converted"]["flip_averaged"] == 1
    assert manifest.training["by"] == "hand"
    half = TFLiteClassifier.load(shipped.with_name("tiny-float16.tflite")).manifest
    assert (half.name, half.variant) == ("tiny", "float16")
    report = shipped.parent / "report" / "int8"
    figures = json.loads((report / "report.json").read_text())
    assert figures["passed"] and len(figures["splits"]) == 2
    page = (report / "report.md").read_text()
    assert "McNemar" in page and "surprise" in page
    for plot in ("reliability", "recall", "confidence"):
        assert (report / f"{plot}.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_gives_the_same_bytes(shipped: Path, data: Path, tmp_path: Path) -> None:
    again = tmp_path / "tiny-int8.tflite"
    words = [str(shipped.parent / "tiny.keras"), "--data", str(data), "--out", str(again)]
    assert main([*words, "--report-split", "PrivateTest", "--licence", "MIT"]) == 0
    assert again.read_bytes() == shipped.read_bytes()


def test_a_model_that_fails_leaves_no_file(
    keras_files: dict[str, Path],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "bad-int8.tflite"
    words = [str(keras_files["unbalanced"]), "--data", str(data), "--out", str(out)]
    assert main(words) == 5
    told = capsys.readouterr()
    assert "FAILS" in told.out and "equal predictions" in told.out
    assert len(told.err.strip().splitlines()) == 1 and "--recover" in told.err
    assert list(tmp_path.iterdir()) == []
    assert main([*words[:-1], str(tmp_path)]) == 5  # the float16 file that passed neither
    assert list(tmp_path.iterdir()) == []
    assert main([*words, "--force"]) == 0
    _, manifest = manifests.load(out)
    assert manifest.gate["forced"] and not manifest.gate["passed"]
    out.unlink()
    assert main([*words, "--recover"]) == 0
    _, manifest = manifests.load(out)
    assert manifest.gate["passed"] and manifest.calibration["equalised"] == "channels"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--variant", "int4"], "int4"),
        (["--scale", "one"], "--scale"),
        (["--input-size", "48x48"], "HxWxC"),
        (["--calibration-split", "PublicTest"], "training images"),
        (["--labels", "a,b"], "2 labels"),
        (["--labels", "angry,Anger,fear,happy,sad,surprise,neutral"], "(angry, Anger)"),
        (["--out", "there-float16.tflite"], "there-int8.tflite"),
        (["--min-agreement", "120"], "bar"),
        (["--calibration-images", "0"], "1 or more"),
    ],
)
def test_bad_input_gets_one_line(
    words: list[str],
    line: str,
    keras_files: dict[str, Path],
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(keras_files["tiny"]), "--data", str(data), *words]) == 2
    told = capsys.readouterr().err.strip()
    assert len(told.splitlines()) == 1 and line in told
    assert not keras_files["tiny"].with_name("tiny-int8.tflite").exists()


def test_a_missing_extra_is_named() -> None:
    code = """
import sys
sys.modules["h5py"] = None
from convert.__main__ import main
sys.exit(main(["any.keras", "--data", "any.csv"]))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "convert: convert run needs the Python module h5py, which is not installed: "
        "pip install 'emotion-edge[train]'"
    )


def test_an_existing_file_is_kept(
    shipped: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = shipped.read_bytes()
    assert main([str(shipped.parent / "tiny.keras"), "--data", str(data)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert shipped.read_bytes() == before


def test_several_variants_at_once(keras_files: dict[str, Path], data: Path, tmp_path: Path) -> None:
    words = [str(keras_files["tiny"]), "--data", str(data), "--out", str(tmp_path)]
    assert main([*words, "--variant", "float16,dynamic,float32"]) == 0
    variants = {TFLiteClassifier.load(path).manifest.variant for path in tmp_path.iterdir()}
    assert variants == {"float16", "dynamic", "float32"}


def test_votes_without_any_majority_are_left_out(
    keras_files: dict[str, Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = len(data.read_text().splitlines()) - 1
    header = ",".join(["Usage", "Image name", *VOTES])
    votes = tmp_path / "fer2013new.csv"
    votes.write_text(f"{header}\n" + "Training,x.png,1,1,1,1,1,1,1,1,1,1\n" * rows)
    copy = tmp_path / data.name
    copy.write_bytes(data.read_bytes())
    out = tmp_path / "tiny-int8.tflite"
    assert main([str(keras_files["tiny"]), "--data", str(copy), "--out", str(out)]) == 0
    assert "FER+" not in capsys.readouterr().out
    assert "ferplus" not in manifests.load(out)[1].accuracy["PublicTest"]["converted"]


def test_a_model_from_elsewhere(data: Path, tmp_path: Path) -> None:
    """RGB, another size, rescaled outside, logits, legacy file."""
    network = convolutional(size=32, channels=3, rescale=None, softmax=False)
    network.save(tmp_path / "other.h5")
    words = [str(tmp_path / "other.h5"), "--data", str(data), "--force"]
    words += ["--scale", "1/127.5", "--offset", "-1"]
    assert main(words) == 0
    manifest = TFLiteClassifier.load(tmp_path / "other-int8.tflite").manifest
    assert (manifest.output, manifest.input.colour, manifest.input.height) == ("logits", "rgb", 32)
    assert manifest.input.scale == pytest.approx(1 / 127.5)


def test_a_manifest_is_attached(
    converted: dict[str, Converted], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare, text = tmp_path / "bare.tflite", tmp_path / "m.json"
    bare.write_bytes(converted["tiny"].model)
    facts = {
        "schema": 1,
        "name": "elsewhere",
        "variant": "int8",
        "labels": list("abcdefg"),
        "input": {"height": 48, "width": 48, "channels": 1, "colour": "gray"},
    }
    text.write_text(json.dumps(facts))
    assert main(["attach", str(bare), "--manifest", str(text)]) == 0
    assert TFLiteClassifier.load(bare).labels == tuple("abcdefg")
    text.write_text(json.dumps({**facts, "labels": ["a", "b"]}))
    assert main(["attach", str(bare), "--manifest", str(text)]) == 2
    assert "(1, 2)" in capsys.readouterr().err
    assert TFLiteClassifier.load(bare).labels == tuple("abcdefg")


def test_a_file_is_inspected(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["inspect", str(shipped)]) == 0
    told = capsys.readouterr().out
    assert "conv_2d" in told and "XNNPACK" in told and '"name": "tiny"' in told
    assert main(["inspect", str(shipped), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["macs"] == 12 * 12 * 4 * 9 + 28
    assert document["manifest"]["name"] == "tiny"
    taken = inspection.xnnpack_takes(manifests.load(shipped)[0])
    assert 0 in taken and len(taken) >= 3
    torn = shipped.parent.parent / "torn.tflite"
    torn.write_bytes(shipped.read_bytes()[:200])
    assert main(["inspect", str(torn)]) == 2
    torn.unlink()


def test_layers_are_explained(
    keras_files: dict[str, Path], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain", str(keras_files["unbalanced"]), "--data", str(data), "--images", "7"]
    assert main(words) == 0
    assert "worst: " in capsys.readouterr().out


def test_cards_are_written_from_the_manifests(shipped: Path) -> None:
    models = shipped.parent.parent
    page = models.parent / "README.md"
    page.write_text("before\n<!-- figures: python -m convert cards -->\n<!-- /figures -->\nafter\n")
    assert main(["cards", str(models)]) == 0
    front = page.read_text()
    assert front.startswith("before\n") and front.endswith("\nafter\n")
    assert "**[tiny](models/tiny/README.md)**" in front
    page.unlink()
    overview = (models / "README.md").read_text()
    assert "[tiny-int8.tflite](tiny/README.md)" in overview and "100.0" in overview
    assert "[tiny-float16.tflite](tiny/README.md)" in overview and "--variant" not in overview
    card = (models / "tiny" / "README.md").read_text()
    for word in ("PrivateTest", "Art. 5(1)(f)", "surprise", "**Passed.**", "FER2013"):
        assert word in card
    empty = models / "empty"
    empty.mkdir()
    assert main(["cards", str(empty)]) == 2


def test_a_card_counts_what_every_stage_of_the_training_cost(shipped: Path) -> None:
    seen = inspection.inspect(shipped)
    assert seen.manifest is not None
    stages = [{"name": f"stage-{i}", "epochs": 10, "hours": 0.25} for i in range(3)]
    training = {
        **{"name": "stage-2", "epochs": 10, "hours": 0.25, "stages": stages, "dropped": {}},
        **{"training_rows": 1000, "data": "x.csv", "hardware": "a computer"},
        **{"finished": "2026-11-21", "keras_sha256": "0"},
    }
    manifest = replace(seen.manifest, training=training)
    card = cards.card(shipped, replace(seen, manifest=manifest), {shipped: seen})
    assert "30 epochs over 1,000 images of x.csv, 0.75 hours on a computer" in card
    assert "`stage-0` 10 epochs in 0.25 hours; `stage-1`" in card
    assert "python -m train fit --config train/configs/stage-2.toml" in card


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*/*.tflite")), ids=lambda p: p.name)
def test_what_is_shipped_was_made_from_the_source_beside_it(path: Path) -> None:
    source = (path.parent / f"{path.parent.name}.keras").read_bytes()
    _, manifest = manifests.load(path)
    assert manifest.training["keras_sha256"] == hashlib.sha256(source).hexdigest()
    assert path.name == f"{manifest.name}-{manifest.variant}.tflite"
    assert manifest.gate["passed"] and manifest.licence
