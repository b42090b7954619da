"""The stored plots are drawn from the figures in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from emotion_edge.errors import UsageError
from train import plots
from train.figures import make_baselines
from train.metrics import wilson_interval


def test_the_baselines_are_those_of_the_table() -> None:
    found = make_baselines.baselines(make_baselines.TABLE.read_text())
    assert len(found) == 6
    assert found["three-block"] == (64.2, 75.9)
    assert found["varying-filters"] == (54.1, 66.5)
    with pytest.raises(UsageError, match="no table with figures below"):
        make_baselines.baselines("# Experiments\n")


def test_the_stored_plot_has_the_figures_of_the_table(tmp_path: Path) -> None:
    found = make_baselines.baselines(make_baselines.TABLE.read_text())
    drawn = make_baselines.draw(found, tmp_path / "baselines")
    assert [path.suffix for path in drawn] == [".png", ".svg"]
    stored = make_baselines.STEM.with_suffix(".svg").read_text()
    for name, figures in found.items():
        assert f"<!-- {name} -->" in stored  # matplotlib writes each text as a comment too
        assert all(f"<!-- {figure} -->" in stored for figure in figures)


def test_an_interval_is_wilsons() -> None:
    below, above = plots.interval(90.0, 100)
    low, high = wilson_interval(90, 100)
    assert (below, above) == pytest.approx((90 - 100 * low, 100 * high - 90))
    assert plots.interval(100.0, 10)[1] == 0.0
