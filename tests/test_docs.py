"""What the documentation tells people to type runs, or is marked; its Python runs."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import emotion_edge
from emotion_edge.cameras import open_camera
from emotion_edge.model import manifest as manifests
from emotion_edge.model.shipped import model_path
from tests import documentation
from tests.documentation import PAGES, ROOT, SLOW, Block, Place, blocks
from tests.faces import write_subset

PROGRAMS = {
    "emotion-edge": "emotion_edge.cli",
    "train": "train.__main__",
    "convert": "convert.__main__",
    "benchmarks": "benchmarks.__main__",
}
BLOCKS = list(blocks())


def ours() -> Iterator[tuple[Block, str, list[str]]]:
    """Block, program and words of every command that is one of ours."""
    for block in BLOCKS:
        for command in block.commands:
            for part in re.split(r"&&|\|", command):
                words = shlex.split(part, comments=True)
                while words and "=" in words[0] and not words[0].startswith("-"):
                    words = words[1:]  # NAME=VALUE before a program
                if words and words[0].rpartition("/")[2] == "emotion-edge":
                    yield block, "emotion-edge", words[1:]
                elif words[:2] == ["python", "-m"] and words[2] in PROGRAMS:
                    yield block, words[2], words[3:]


# --- what a reader has -------------------------------------------------------------------------

KERAS = """
import sys, keras
name, path = sys.argv[1:]
size, channels, labels, scale = {
    "pets.keras": (96, 3, 2, True),
    "open.keras": (None, 3, 7, True),
    "mine.h5": (48, 1, 7, False),
    "centred.h5": (48, 1, 7, False),
    "colour.h5": (48, 3, 7, False),
    "vgg.h5": (48, 3, 7, False),
    "five.h5": (48, 1, 5, False),
    "emotion_model.hdf5": (64, 1, 7, False),
}.get(name, (48, 1, 7, True))
image = x = keras.Input((size, size, channels))
if scale:
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(x)
x = keras.layers.Conv2D(8, 3, strides=4, activation="relu")(x)
x = keras.layers.GlobalAveragePooling2D()(x)
x = keras.layers.Dense(labels, "softmax", bias_initializer="normal")(x)
keras.Model(image, x).save(path)
"""


def keras_model(path: Path) -> None:
    """A network without training, of the kind its name tells."""
    command = [sys.executable, "-c", KERAS, path.name, str(path)]
    subprocess.run(command, check=True, capture_output=True)


def portrait(path: Path) -> None:
    """The public-domain portrait that comes with matplotlib."""
    from matplotlib.cbook import get_sample_data

    with get_sample_data("grace_hopper.jpg") as source:
        shutil.copy(source.name, path)


def film(path: Path) -> None:
    """Twelve frames of the demo camera."""
    with open_camera("demo:frames=12", paced=False) as camera:
        frames = iter(lambda: camera.read(5.0), None)
        first = next(frames).image
        size = first.shape[1::-1]
        video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 15, size)
        for image in (first, *(frame.image for frame in frames)):
            video.write(image)
        video.release()


def photos(path: Path) -> None:
    """A folder with two."""
    path.mkdir()
    for name in ("a.jpg", "b.jpg"):
        portrait(path / name)


def pets(path: Path) -> None:
    """Class folders of two splits, dark and bright."""
    random = np.random.default_rng(0)
    for split, label, number in itertools.product(("train", "holdout"), ("cat", "dog"), range(6)):
        folder = path / split / label
        folder.mkdir(parents=True, exist_ok=True)
        image = random.normal(60 if label == "cat" else 180, 20, (120, 120, 3))
        cv2.imwrite(str(folder / f"{number}.jpg"), np.clip(image, 0, 255))


def shipped(path: Path) -> None:
    """The shipped model under the reader's name."""
    shutil.copy(model_path(), path)


def bare(path: Path) -> None:
    """The same without its manifest."""
    path.write_bytes(manifests.split(model_path().read_bytes(), path.name)[0])


def manifest(path: Path) -> None:
    """What ``bare`` lacks."""
    text = manifests.split(model_path().read_bytes(), path.name)[1]
    assert text is not None
    path.write_bytes(text)


def of_each_pixel(path: Path) -> None:
    """A mean or a standard deviation of each pixel."""
    np.save(path, np.random.default_rng(0).uniform(60, 70, (48, 48)))


OWN: dict[str, Callable[[Path], None]] = {
    "photo.jpg": portrait,
    "photos": photos,
    "faces": photos,
    "party.mp4": film,
    "clip.mp4": film,
    "pets": pets,
    "pets.keras": keras_model,
    "centred.h5": keras_model,
    "colour.h5": keras_model,
    "vgg.h5": keras_model,
    "five.h5": keras_model,
    "mean.npy": of_each_pixel,
    "std.npy": of_each_pixel,
    "open.keras": keras_model,
    "yours.keras": keras_model,
    "mine.keras": keras_model,
    "mine.h5": keras_model,
    "emotion_model.hdf5": keras_model,
    "mine.tflite": shipped,
    "FILE.tflite": bare,
    "M.json": manifest,
    "fer2013.csv": write_subset,
    "fer2013.csv.gz": write_subset,
}
"""What a reader has before typing: name to maker."""


# --- every block -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(
            block,
            id=str(block),
            marks=[pytest.mark.slow, pytest.mark.timeout(1800)]
            if any(SLOW.search(command) for command in block.run)
            else [],
        )
        for block in BLOCKS
        if block.run
    ],
)
def test_what_is_documented_runs(block: Block, tmp_path: Path) -> None:
    if any("python -m" in command for command in block.run):
        pytest.importorskip("tensorflow", reason="the [train] extra is not installed")
    if any("emotion-edge web" in command for command in block.run):
        pytest.importorskip("gradio", reason="the [web] extra is not installed")
    with Place(tmp_path, OWN) as place:
        for command in block.run:
            place.type(command)


def test_a_mark_that_marks_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setattr(documentation, "PAGES", [page])
    page.write_text("<!-- not run: a camera: `--far` -->\n```sh\nrun --far\nrun\n```\n")
    (block,) = blocks()
    assert block.run == ("run",) and block.kept_back == {"run --far": "a camera: `--far`"}
    for wrong in ("`--near` -->\n```sh\nrun\n```\n", "why -->\n\ntext\n\n```sh\nrun\n```\n"):
        page.write_text(f"<!-- not run: {wrong}")
        with pytest.raises(ValueError, match=r"not run|--near"):
            list(blocks())


def test_a_command_that_fails_is_noticed(tmp_path: Path) -> None:
    with Place(tmp_path, {}) as place:
        assert "usage: emotion-edge" in place.type("emotion-edge --help | cat")
        for wrong in ("emotion-edge info absent.tflite | cat", "emotion-edge web --threads 0"):
            with pytest.raises(pytest.fail.Exception, match="exit status 2"):
                place.type(wrong)


class Understood(Exception):
    """Raised in place of the command's work."""


@pytest.mark.parametrize(
    ("program", "words"),
    [pytest.param(*rest, id=f"{block}: {shlex.join(rest[1])}") for block, *rest in ours()],
)
def test_every_command_is_understood(
    program: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are not run, too."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self: argparse.ArgumentParser, *arguments: object) -> None:
        parse(self, *arguments)  # type: ignore[call-overload]
        raise Understood

    module = importlib.import_module(PROGRAMS[program])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    with pytest.raises(Understood):
        module.main(words)


MENTIONED = sorted(
    {
        (program.removeprefix("python -m "), words)
        for page in PAGES
        for program, words in re.findall(
            r"`(emotion-edge|python -m (?:train|convert|benchmarks)) (\w[^`|]*)`",
            re.sub(r"\s+", " ", page.read_text()),
        )
    }
)


@pytest.mark.parametrize(("program", "words"), MENTIONED)
def test_what_the_text_mentions_exists(
    program: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands within sentences, often cut short: the command and its options."""
    command, *rest = words.split()
    module = importlib.import_module(PROGRAMS[program])
    if program == "convert" and command not in module.COMMANDS:
        command = "run"
    action = rest[:1] if command == "detectors" else []  # "get" has options of its own
    with pytest.raises(SystemExit) as end:
        module.main([command, *action, "--help"])
    assert end.value.code == 0
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known


def test_make_has_every_target_that_is_named() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for page in PAGES
        for target in re.findall(r"(?:`|^ *\$ )make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


PYTHON = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}: {number}")
    for page in PAGES
    for number, code in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), start=1
    )
]


@pytest.mark.parametrize("code", PYTHON)
def test_its_python_runs(
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "train" in code:
        pytest.importorskip("sklearn", reason="the [train] extra is not installed")
    for name, make in OWN.items():
        if f'"{name}"' in code:
            make(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    open_camera = emotion_edge.open_camera
    monkeypatch.setattr(
        emotion_edge, "open_camera", lambda spec: open_camera("demo:frames=12", paced=False)
    )
    exec(compile(code, "documentation", "exec"), {})
    if "print(" in code:
        printed = capsys.readouterr().out
        assert any(label in printed for label in emotion_edge.EMOTIONS)


def test_the_least_manifest_is_one() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", (ROOT / "convert/README.md").read_text(), re.DOTALL)
    least = manifests.Manifest.from_json(json.dumps({"model_sha256": "", **json.loads(text)}))
    assert least.labels == ("cat", "dog") and least.input.height == 96
