"""The benchmark of the web page's memory."""

import json
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

pytest.importorskip("gradio", reason="the [web] extra is not installed")

from benchmarks import web
from benchmarks.__main__ import main

SCHEMA = json.loads((Path(web.__file__).parent / "schema.json").read_text(encoding="utf-8"))
TINY = Path(__file__).parents[1] / "edge" / "tiny.tflite"


def test_the_images_are_of_the_size_asked_for_and_all_different() -> None:
    files = web.phone_images(2.0, 3)
    assert len(set(files)) == 3
    for data in files:
        height, width = cv2.imdecode(np.frombuffer(data, np.uint8), 0).shape
        assert height * width == pytest.approx(2e6, rel=0.01)


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--uploads", "0"], "--uploads 0"), (["--uploads", "9", "--sessions", "5"], "at least 10")],
)
def test_wrong_flags_are_one_line(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["web", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_server_is_watched_and_its_growth_is_judged(tmp_path: Path) -> None:
    out = tmp_path / "web.json"
    words = ["web", "--uploads", "6", "--sessions", "2", "--megapixels", "1", "--quiet"]
    words += ["--model", str(TINY), "--output", str(out)]
    assert main(words) == 0
    document = json.loads(out.read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMA)
    assert len(document["course"]["rss_mb"]) == 6
    assert main([*words, "--overwrite", "--max-growth", "1"]) == 1  # opening a model takes more
