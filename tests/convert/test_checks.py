"""Wrong label orders and scalings are found; so are models without skill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from convert import checks, conversion, float_model
from convert.__main__ import main
from convert.conversion import Job
from emotion_edge.model.labels import EMOTIONS
from tests.convert import tiny


@pytest.fixture(scope="module")
def alphabetical(data: Path) -> Job:
    """The tiny network with its outputs in alphabetical order, converted without saying it."""
    network = tiny.network()
    layer = network.get_layer("nearest")
    order = [EMOTIONS.index(label) for label in sorted(EMOTIONS)]
    layer.set_weights([w[..., order] for w in layer.get_weights()])
    return conversion.prepare(float_model.from_keras(network, name="sorted"), data)


def test_a_wrong_label_order_is_found(alphabetical: Job) -> None:
    (problem,) = checks.problems(alphabetical)
    assert f"--labels {','.join(sorted(EMOTIONS))}" in problem and "alphabetical" in problem
    assert "100.0%" in problem and "57.1%" in problem


def test_a_wrong_scaling_is_found(data: Path) -> None:
    network = tiny.network()
    image = keras.Input((48, 48, 1))
    x = image
    for layer in network.layers[2:]:
        x = layer(x)
    model = float_model.from_keras(keras.Model(image, x), name="bare")
    (problem,) = checks.problems(conversion.prepare(model, data, scale=1.0))
    assert "--scale 1/255" in problem
    assert list(checks.problems(conversion.prepare(model, data, scale=1 / 255))) == []


def test_a_right_model_has_no_problems(jobs: dict[str, Job]) -> None:
    assert list(checks.problems(jobs["tiny"])) == []


def test_a_model_without_skill_is_found(jobs: dict[str, Job]) -> None:
    job = jobs["tiny"]
    constant = np.zeros_like(job.expected)
    constant[:, 2] = 1
    assert "'fear' for all 70" in (checks.no_skill(replace(job, expected=constant)) or "")
    shifted = np.roll(job.expected, 1, axis=1)
    assert "no better than" in (checks.no_skill(replace(job, expected=shifted)) or "")


def test_the_command_stops_unless_forced(
    alphabetical: Job, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "sorted.keras", tmp_path / "sorted-int8.tflite"
    alphabetical.model.network.save(path)
    words = [str(path), "--data", str(data), "--out", str(out)]
    assert main(words) == 2
    text = capsys.readouterr().err
    assert "--labels angry,disgust" in text and len(text.strip().splitlines()) == 1
    assert not out.exists()
    assert main([*words, "--force"]) == 0 and out.exists()
    assert "warning: " in capsys.readouterr().out
    fixed = ["--labels", ",".join(sorted(EMOTIONS)), "--overwrite"]
    assert main([*words, *fixed]) == 0
