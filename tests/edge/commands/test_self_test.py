import dataclasses
import json
from pathlib import Path

import pytest

from emotion_edge.commands import self_test
from emotion_edge.kiosk.configuration import build
from emotion_edge.model import manifest
from emotion_edge.model.shipped import model_path


def test_this_installation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "kiosk.toml"
    config.write_text('model = "fast"\ndetector = "haar"\n[camera]\nsource = "/dev/video99"\n')
    assert self_test.main(["--config", str(config)]) == 0
    assert capsys.readouterr().out.startswith("50 frames, ")  # and the camera was not opened
    config.write_text('model = "none"\n')
    assert self_test.main(["--config", str(config)]) == 1
    assert capsys.readouterr().err.startswith("self-test: no model named none")


def altered(path: Path, accuracy: float | None = None, **changes: object) -> Path:
    """The shipped model with another manifest."""
    data, facts = manifest.load(model_path("fast"))
    if accuracy is not None:
        split = json.loads(facts.to_json())["accuracy"]
        split["PublicTest"]["converted"]["accuracy"] = accuracy
        changes["accuracy"] = split
    path.write_bytes(manifest.attach(data, dataclasses.replace(facts, **changes)))  # type: ignore[arg-type]
    return path


def test_a_model_is_compared_with_the_active_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.tflite"
    config = build({"model": "fast"})
    own = manifest.load(model_path("fast"))[1].accuracy["PublicTest"]["converted"]["accuracy"]
    name, text = self_test.compare(altered(file, own + 0.01), config)
    assert name == "fast" and "on PublicTest, the active model" in text
    assert self_test.compare(altered(file, own - 0.002), config)  # within the gate's 0.3 points
    for changes, says in (
        ({"accuracy": own - 0.01}, "on PublicTest it loses 1.0 points"),
        ({"convention": "fer2013"}, "its convention is fer2013, not people"),
        ({"gate": {"passed": False}}, "has not passed the converter's gate"),
        ({"labels": tuple("abcdefg"), "certainty": {}, "prior": ()}, "its labels are a, b"),
    ):
        altered(file, **changes)  # type: ignore[arg-type]
        with pytest.raises(Exception, match="not installed without --force") as error:
            self_test.compare(file, config)
        assert says in str(error.value)
        assert says in self_test.compare(file, config, force=True)[1]
    file.write_bytes(file.read_bytes()[:-40000])
    with pytest.raises(Exception, match=r"manifest|SHA-256"):
        self_test.compare(file, config, force=True)
    with pytest.raises(Exception, match="replace that file"):
        self_test.compare(altered(file), build({"model": str(file)}))


def test_a_model_that_an_update_installed_takes_the_shipped_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emotion_edge.model import shipped

    file = altered(tmp_path / "fast-int8.tflite", 0.9)
    monkeypatch.setattr(shipped, "_UPDATED", tmp_path)
    assert shipped.model_path("fast") == file
    assert shipped.model_path("accurate").parent != tmp_path
