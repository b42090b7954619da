"""Recurrent networks: refused in int8, converted in float16."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from convert import conversion, float_model
from convert.__main__ import main
from convert.errors import ConversionError
from emotion_edge.model import manifest as manifests


@pytest.mark.parametrize("layer", ["LSTM", "GRU"])
def test_int8_is_refused_and_float16_converts(
    layer: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = keras.Input((48, 48, 1))
    x = keras.layers.Reshape((48, 48))(image)
    network = keras.Model(image, keras.layers.Dense(7)(getattr(keras.layers, layer)(4)(x)))
    job = conversion.prepare(float_model.from_keras(network, name="loop"), data, scale=1 / 255)
    with pytest.raises(ConversionError, match=r"LSTM, GRU.*--variant float16"):
        conversion.convert(job, "int8")
    made = conversion.convert(job, "float16")
    assert made.comparison.agreement > 90
    path = tmp_path / "loop.tflite"
    path.write_bytes(manifests.attach(made.model, job.manifest("float16")))
    assert main(["inspect", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "3 subgraphs" in line and "LSTM and GRU" in line
