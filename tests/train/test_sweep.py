"""``train sweep``: Optuna chooses, ``fit`` trains, and a killed sweep continues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emotion_edge.errors import UsageError
from train import sweep as sweeps
from train.data import Dataset, load_fer2013
from train.errors import ConfigError, TrainingError
from train.files import read_history, write_history
from train.sweep import Range, parse_space, sweep

pytest.importorskip("optuna", reason="the extra [sweep] is not installed")


@pytest.fixture(scope="module")
def data(small: Path, cache: Path) -> Dataset:
    return load_fer2013(small / "fer2013.csv", cache=cache)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(
        '[network]\nname = "residual"\nstem = [8, 3]\nstages = [[8, 2, 0], [16, 2, 0]]\n'
        "[fit]\nepochs = 5\nbatch = 56\n"
    )
    return path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Path]]:
    """A ``fit`` that is best at a learning rate of 0.1; killed once if ``dies`` is its rate."""
    seen: list[tuple[float, Path]] = []

    def fit(config: Any, data: Dataset, folder: Path, *, on_epoch: Any, **_: Any) -> None:
        rate = config.fit.learning_rate
        seen.append((rate, folder))
        folder.mkdir(parents=True, exist_ok=True)
        if rate == 0.666 and sum(each == rate for each, _ in seen) < 3:
            raise KeyboardInterrupt
        if rate == 0.999:
            raise TrainingError("the loss is nan")
        history = []
        for epoch in range(1, config.fit.epochs + 1):
            row = {"epoch": epoch, "val_accuracy": epoch * (0.1 - abs(rate - 0.1))}
            history.append(row)
            write_history(folder, history)
            on_epoch(row)

    monkeypatch.setattr(sweeps, "fit", fit)
    return seen


def test_the_space() -> None:
    space = parse_space(["fit.batch=64,128", "fit.learning_rate=1e-3..0.3:log", "fit.seed=0..5"])
    assert space == {
        "fit.batch": [64, 128],
        "fit.learning_rate": Range(0.001, 0.3, True),
        "fit.seed": Range(0, 5),
    }


@pytest.mark.parametrize(
    "text",
    ["fit.batch", "fit.seed=", "fit.seed=3..1", "fit.learning_rate=0..1:log", "fit.seed=1..2:x"],
)
def test_a_space_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="--vary"):
        parse_space([text])
    with pytest.raises(UsageError, match=r"did you mean fit\.batch"):
        parse_space(["fit.bach=1,2"])


def test_lists_are_tried_in_every_combination(
    config: Path, data: Dataset, tmp_path: Path, runs: list[tuple[float, Path]]
) -> None:
    space = parse_space(["fit.learning_rate=0.05,0.1,0.4", "fit.seed=1,2"])
    best = sweep(config, data, tmp_path / "out", space, prune=False)
    assert best["fit.learning_rate"] == 0.1
    assert len(runs) == len({folder for _, folder in runs}) == 6
    page = (tmp_path / "out" / "sweep.md").read_text()
    assert page.count("complete") == 6
    assert "0.5000" in page.splitlines()[4], "the best is first"
    assert sweep(config, data, tmp_path / "out", space, prune=False) == best
    assert len(runs) == 6, "a finished sweep is not repeated"


def test_a_range_is_searched(
    config: Path, data: Dataset, tmp_path: Path, runs: list[tuple[float, Path]]
) -> None:
    space = parse_space(["fit.learning_rate=0.001..1.0:log"])
    best = sweep(config, data, tmp_path / "out", space, trials=10)
    assert len(runs) == 10
    assert best["fit.learning_rate"] == pytest.approx(0.1, abs=0.09)
    assert "pruned" in (tmp_path / "out" / "sweep.md").read_text()
    cut = [folder for _, folder in runs if len(read_history(folder)) < 5]
    assert cut, "a hopeless trial is stopped early"


def test_a_killed_sweep_continues_with_the_trial_that_was_cut(
    config: Path, data: Dataset, tmp_path: Path, runs: list[tuple[float, Path]]
) -> None:
    space = parse_space(["fit.learning_rate=0.666,0.1"])
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sweep(config, data, tmp_path / "out", space, prune=False)
    sweep(config, data, tmp_path / "out", space, prune=False)
    rates = [rate for rate, _ in runs]
    assert rates.count(0.1) == 1 and rates.count(0.666) == 3
    assert len({folder for rate, folder in runs if rate == 0.666}) == 1, "its folder is the same"


def test_a_trial_that_fails_does_not_stop_the_sweep(
    config: Path, data: Dataset, tmp_path: Path, runs: list[tuple[float, Path]]
) -> None:
    space = parse_space(["fit.learning_rate=0.999,0.1"])
    assert sweep(config, data, tmp_path / "out", space)["fit.learning_rate"] == 0.1
    with pytest.raises(TrainingError, match="no trial"):
        sweep(config, data, tmp_path / "bad", parse_space(["fit.learning_rate=0.999"]))


def test_wrong_sweeps_are_one_line(
    config: Path, data: Dataset, tmp_path: Path, runs: list[tuple[float, Path]]
) -> None:
    space = parse_space(["fit.learning_rate=0.1"])
    with pytest.raises(UsageError, match="--metric val_x is not a column"):
        sweep(config, data, tmp_path / "a", space, metric="val_x")
    with pytest.raises(UsageError, match="--trials is -1"):
        sweep(config, data, tmp_path / "a", space, trials=-1)
    sweep(config, data, tmp_path / "b", space)
    with pytest.raises(TrainingError, match="another --out"):
        sweep(config, data, tmp_path / "b", parse_space(["fit.learning_rate=0.2"]))
    with pytest.raises(ConfigError, match=r"fit.learning_rate is -1"):
        sweep(config, data, tmp_path / "c", parse_space(["fit.learning_rate=-1,2"]))


def test_the_command(
    config: Path,
    small: Path,
    cache: Path,
    tmp_path: Path,
    run_train: Callable[..., tuple[int, str, str]],
) -> None:
    words = ["sweep", "--config", config, "--data", small, "--cache", cache]
    words += ["--vary", "fit.learning_rate=0.003,0.01", "--set", "fit.epochs=1"]
    status, out, err = run_train(*words, "--out", tmp_path / "out")
    assert status == 0, err
    assert "best: {'fit.learning_rate':" in out
    assert (tmp_path / "out" / "sweep.md").read_text().count("trial-") == 2
