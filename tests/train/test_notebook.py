from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faces import write_subset

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "train" / "notebooks" / "quickstart.ipynb"


def cells(kind: str) -> list[str]:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def test_it_holds_no_logic_and_no_output() -> None:
    code = "\n".join(cells("code"))
    assert not re.search(r"^\s*(def|class|import keras|import tensorflow)\b", code, re.MULTILINE)
    for command in (
        "train data",
        "train fit",
        "convert",
        "emotion_edge info",
        "emotion_edge image",
    ):
        assert f"python -m {command}" in code
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells)


@pytest.mark.parametrize(
    ("words", "epochs"),
    [([], 25), (["--fast-run"], 4), (["--fast-run", "--set", "fit.epochs=2"], 2)],
)
def test_a_fast_run_takes_few_epochs(
    words: list[str], epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow", reason="the [train] extra is not installed")
    from train import export
    from train.__main__ import main

    seen = []
    monkeypatch.setattr(export, "train", lambda config, *_, **__: seen.append(config.fit.epochs))
    words = [*words, "--config", str(ROOT / "train/configs/simple.toml"), "--cache", str(tmp_path)]
    assert main(["fit", *words, "--data", str(write_subset(tmp_path / "fer2013.csv"))]) == 0
    assert seen == [epochs]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_it_runs_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow", reason="the [train] extra is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    monkeypatch.setenv("DATA", str(write_subset(tmp_path / "fer2013.csv")))
    monkeypatch.setenv("RUN", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path))  # the cache of decoded data
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    )
    client.execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert (tmp_path / "run" / "quickstart-int8.tflite").is_file()
    assert "(int8)" in printed
    assert re.search(r"grace_hopper\.jpg: .*\d+%", printed)
    images = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(images) >= 3
