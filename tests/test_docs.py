"""What the documentation tells people to type is understood, and its Python runs."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import emotion_edge

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
)
PROGRAMS = {
    "emotion-edge": "emotion_edge.cli",
    "train": "train.__main__",
    "convert": "convert.__main__",
    "benchmarks": "benchmarks.__main__",
}


def commands() -> Iterator[tuple[str, str]]:
    """Page and command: lines after a prompt, and all lines of a script."""
    for page in PAGES:
        blocks = re.findall(r"```(console|sh|bash)\n(.*?)```", page.read_text(), re.DOTALL)
        for kind, block in blocks:
            for line in map(str.strip, block.replace("\\\n", " ").splitlines()):
                if kind != "console" or line.startswith("$ "):
                    yield str(page.relative_to(ROOT)), line.removeprefix("$ ")


def ours() -> Iterator[tuple[str, str, list[str]]]:
    """Page, program and words of every command that is one of ours."""
    for page, command in commands():
        for part in re.split(r"&&|\|", command):
            words = shlex.split(part, comments=True)
            while words and "=" in words[0] and not words[0].startswith("-"):
                words = words[1:]  # NAME=VALUE before a program
            if words and words[0].rpartition("/")[2] == "emotion-edge":
                yield page, "emotion-edge", words[1:]
            elif words[:2] == ["python", "-m"] and words[2] in PROGRAMS:
                yield page, words[2], words[3:]


class Understood(Exception):
    """Raised in place of the command's work."""


@pytest.mark.parametrize(
    ("page", "program", "words"),
    [pytest.param(*entry, id=f"{entry[0]}: {entry[1]} {shlex.join(entry[2])}") for entry in ours()],
)
def test_every_command_is_understood(
    page: str, program: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self: argparse.ArgumentParser, *arguments: object) -> None:
        parse(self, *arguments)  # type: ignore[call-overload]
        raise Understood

    module = importlib.import_module(PROGRAMS[program])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    with pytest.raises(Understood):
        module.main(words)


def test_make_has_every_target_that_is_named() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for page in PAGES
        for target in re.findall(r"\bmake ([a-z][a-z-]+)\b", page.read_text())
        if f"make {target}" in " ".join(command for _, command in commands())
    }
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("number", [0, 1])
def test_python_of_the_front_page_runs(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from matplotlib.cbook import get_sample_data

    block = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[number]
    with get_sample_data("grace_hopper.jpg") as portrait:
        shutil.copy(portrait.name, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    open_camera = emotion_edge.open_camera
    monkeypatch.setattr(
        emotion_edge, "open_camera", lambda spec: open_camera("demo:frames=12", paced=False)
    )
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert any(label in printed for label in emotion_edge.EMOTIONS)
