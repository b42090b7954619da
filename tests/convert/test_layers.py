from __future__ import annotations

import math
from pathlib import Path

from convert import layers
from convert.conversion import Job
from convert.flatbuffer import Graph


def test_the_layer_that_was_spoilt_is_named(jobs: dict[str, Job]) -> None:
    found = layers.explain(jobs["unbalanced"], count=14)
    assert [layer.operator for layer in found] == [
        "conv_2d",
        "mean",
        "fully_connected",
        "softmax",
    ]
    convolution = found[0]
    assert convolution.spread > 100
    sound = layers.explain(jobs["tiny"], count=14)
    assert sound[0].spread < 2
    # The wide channel alone is the signal of the spoilt activation, so its noise shows behind it.
    assert max(layer.lost for layer in found[1:]) > max(layer.lost for layer in sound[1:]) + 5
    text = layers.table(found)
    assert text.splitlines()[-1].startswith("worst: ")
    assert f"{layers.worst(found)[0].index} " in text.splitlines()[-1]


def test_ranges_and_ratios_are_those_of_the_networks(jobs: dict[str, Job]) -> None:
    job = jobs["tiny"]
    convolution, mean, dense, softmax = layers.explain(job, count=14)
    assert 0 <= convolution.low < convolution.high <= 1.1
    assert convolution.q_low <= 0 and convolution.q_high >= 0.9 * convolution.high
    assert convolution.clipped < 1 and mean.shape == (1, 4)
    assert 25 < convolution.sqnr < 70
    assert math.isfinite(dense.lost) and softmax.high <= 1


def test_a_table_and_a_plot_are_written(jobs: dict[str, Job], tmp_path: Path) -> None:
    found = layers.explain(jobs["tiny"], count=7)
    paths = layers.write(tmp_path, found, "tiny", overwrite=False)
    assert {path.suffix for path in paths} == {".json", ".txt", ".png", ".svg"}
    assert all(path.stat().st_size > 100 for path in paths)
    assert len(found) == len(Graph(jobs["tiny"].reference).operators)
