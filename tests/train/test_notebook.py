from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faces import write_subset

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")

make_quickstart = pytest.importorskip(
    "train.notebooks.make_quickstart", reason="nbformat is not installed"
)

ROOT = Path(__file__).parents[2]
NOTEBOOK = make_quickstart.NOTEBOOK
GUIDE = ROOT / "edge" / "README.md"
GIT_CLONE = re.compile(r"git clone (\S+)")


def cells(kind: str) -> list[str]:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def stored() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_holds_no_logic() -> None:
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


def test_what_is_stored_ran_in_order_and_holds_no_image_of_fer2013() -> None:
    notebook = stored()
    assert make_quickstart.problems(notebook) == []
    assert len(make_quickstart.written(notebook)) < 1_500_000
    images = [
        cell.id
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert images == ["plots", "plots", "photo"]
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert "| all | 28,709 | 3,589 | 3,589 |" in printed and "(int8)" in printed
    assert re.search(r"quickstart-int8: \w+, \d+%\nfast: \w+, \d+%", printed)


def put(notebook: Any, cell_id: str, **output: Any) -> None:
    (cell,) = [cell for cell in notebook.cells if cell.get("id") == cell_id]
    cell.outputs = [nbformat.v4.new_output(**output)]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            lambda n: put(n, "data", output_type="display_data", data={"image/png": "iVBORw0="}),
            "without the tag image",
        ),
        (
            lambda n: n.cells[-2].update(source="Image(run / 'data' / 'class-happy.png')"),
            "shows none of",
        ),
        (
            lambda n: put(n, "fit", output_type="stream", name="stderr", text="WARNING: cuda\n"),
            "noise",
        ),
        (
            lambda n: put(n, "data", output_type="stream", name="stdout", text="in /home/me/x\n"),
            "path of this machine",
        ),
        (
            lambda n: put(n, "info", output_type="error", ename="E", evalue="", traceback=[]),
            "a cell failed",
        ),
        (lambda n: n.cells[2].update(execution_count=7), "order"),
        (
            lambda n: put(n, "data", output_type="stream", name="stdout", text="x" * 1_500_000),
            "too large",
        ),
    ],
)
def test_a_notebook_that_breaks_a_rule_is_not_written(
    spoil: Callable[[Any], object], why: str
) -> None:
    notebook = stored()
    spoil(notebook)
    assert any(why in line for line in make_quickstart.problems(notebook))


def test_badge_clone_cell_and_guides_use_the_address_of_pyproject(tmp_path: Path) -> None:
    address = make_quickstart.public_address()
    notebook = stored()
    (first, clone), (guide,) = addresses(notebook), GIT_CLONE.findall(GUIDE.read_text())
    assert first == make_quickstart.badge(address)
    assert clone == address
    assert guide == (address or "URL-OF-THIS-REPOSITORY")

    project = tmp_path / "pyproject.toml"
    project.write_text('[project.urls]\nRepository = "https://github.com/them/emotion-edge.git"\n')
    make_quickstart.set_address(notebook, make_quickstart.public_address(project))
    first, clone = addresses(notebook)
    colab = "https://colab.research.google.com/github/them/emotion-edge/blob/main/"
    assert f"]({colab}{NOTEBOOK.relative_to(ROOT)})" in first
    assert clone == "https://github.com/them/emotion-edge"


def addresses(notebook: Any) -> tuple[str, str]:
    """The badge's cell, and the address that the clone cell starts with."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    (clone,) = re.findall(r'environ\.get\("REPOSITORY", "(.*)"\)', code)
    return notebook.cells[0].source, clone


@pytest.mark.parametrize("inside", ["", "emotion-edge-main/"])
def test_without_a_checkout_an_uploaded_archive_is_used(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding, _, _ = cells("code")[0].partition('os.environ["PATH"]')
    monkeypatch.setenv("REPOSITORY", "")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"put emotion-edge\.zip there"):
        exec(finding, {})
    with zipfile.ZipFile("emotion-edge.zip", "w") as archive:
        archive.writestr(f"{inside}train/configs/quickstart.toml", "")
    for _ in range(2):  # the second time it is unpacked already
        exec(finding, {})
        assert Path.cwd() == tmp_path / "emotion-edge" / inside
        monkeypatch.chdir(tmp_path)


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
    assert re.search(r"fast: \w+, \d+%", printed) and "grace_hopper.jpg" in printed
    images = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(images) == 3
