"""Cameras, detectors and sinks by name: ours, and those of another package."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import emotion_edge
from emotion_edge.cameras import CAMERAS
from emotion_edge.detectors import DETECTORS
from emotion_edge.errors import PluginError, UsageError
from emotion_edge.registry import Registry
from emotion_edge.sinks import SINKS

EDGE = Path(emotion_edge.__file__).parents[1]
TINY = Path(__file__).parent / "tiny.tflite"
REGISTRIES: list[Registry[Any]] = [CAMERAS, DETECTORS, SINKS]

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "shelf"
version = "1.0"

[project.entry-points."emotion_edge.cameras"]
squares = "shelf:SquaresSettings"
broken = "shelf.absent:Anything"

[project.entry-points."emotion_edge.detectors"]
middle = "shelf:MiddleSettings"

[project.entry-points."emotion_edge.sinks"]
tally = "shelf:TallySettings"
wrong = "shelf:Squares"
jsonl = "shelf:TallySettings"

[tool.hatch.build.targets.wheel]
packages = ["shelf"]
"""

SOURCE = '''
"""A camera, a detector and a sink of another package."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from emotion_edge.cameras import CameraSettings
from emotion_edge.detectors import DetectorSettings
from emotion_edge.settings import REQUIRED, key
from emotion_edge.sinks import Sink, SinkSettings
from emotion_edge.values import Box, Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class SquaresSettings(CameraSettings):
    usage: ClassVar[str] = "squares"
    help: ClassVar[str] = "random squares"

    count: int = key(3, "frames until it ends.", ge=1, le=100)

    def open(self, request):
        return Squares(self.count)


class Squares:
    name, live, fps = "squares", False, 10.0

    def __init__(self, count):
        self.count, self.index = count, 0

    def __enter__(self):
        return self

    def read(self, timeout):
        if self.index == self.count:
            return None
        image = np.random.default_rng(self.index).integers(0, 255, (64, 64), np.uint8)
        self.index += 1
        return Frame(image, time.monotonic_ns(), self.index - 1)

    def __exit__(self, *error):
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class MiddleSettings(DetectorSettings):
    help: ClassVar[str] = "whatever is in the middle"

    side: int = key(32, "pixels.", ge=8, le=64)

    def open(self):
        return Middle(self.side)


class Middle:
    def __init__(self, side):
        self.side = side

    def detect(self, image):
        return [Box(4, 4, self.side, self.side)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TallySettings(SinkSettings):
    help: ClassVar[str] = "how many frames and faces"
    metavar: ClassVar[str] = "FILE"
    positional: ClassVar[str] = "path"

    path: Path = key(REQUIRED, "the file.")
    every: int = key(1, "frames per line.", ge=1, le=10)

    def open(self, run):
        return Tally(self)


class Tally(Sink):
    name = "tally"

    def __init__(self, settings):
        self.settings, self.lines = settings, []

    def __enter__(self):
        return self

    def write(self, observation):
        sides = [face.box.width for face in observation.faces]
        if observation.frame.index % self.settings.every == 0:
            self.lines.append(f"{observation.frame.index} {sides}")

    def event(self, event):
        pass

    def __exit__(self, *error):
        self.settings.path.write_text("\\n".join(self.lines))
'''


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the distribution ``shelf`` is installed."""
    pytest.importorskip("hatchling", reason="builds the other package")
    source = tmp_path_factory.mktemp("source")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "shelf").mkdir()
    (source / "shelf" / "__init__.py").write_text(SOURCE)
    target = tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, *offline, str(source)], check=True, capture_output=True)
    return target


def emotion_edge_with(shelf: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "emotion_edge", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{EDGE}:{shelf}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_another_packages_parts_by_flag(shelf: Path, tmp_path: Path) -> None:
    flags = "--camera squares:count=4 --detector middle --sink tally:out.txt --quiet"
    words = [*flags.split(), "--model", str(TINY), "--set", "detectors.middle.side=20"]
    done = emotion_edge_with(shelf, tmp_path, "run", *words, "--set", "tracker.confirm_hits=1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.txt").read_text() == "0 [20]\n1 [20]\n2 [20]\n3 [20]"


def test_another_packages_parts_by_configuration(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "kiosk.toml").write_text(
        f"model = '{TINY}'\ndetector = 'middle'\nquiet = true\n[camera]\nsource = 'squares'\n"
        "[cameras.squares]\ncount = 3\n[tracker]\nconfirm_hits = 1\n"
        "[[sinks.tally]]\npath = 'one.txt'\n[[sinks.tally]]\npath = 'two.txt'\nevery = 2\n"
    )
    done = emotion_edge_with(shelf, tmp_path, "run", "--config", "kiosk.toml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.txt").read_text() == "0 [32]\n1 [32]\n2 [32]"
    assert (tmp_path / "two.txt").read_text() == "0 [32]\n2 [32]"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--camera squares:count=0", "camera squares:count=0: count is 0: use 1 to 100"),
        ("--set sinks.tally.evry=2", "unknown key sinks.tally.evry; did you mean"),
        ("--sink tally:a --set sinks.tally.every=20", "sinks.tally.every is 20: use 1 to 10"),
        ("--set detectors.middle.side=big", "detectors.middle.side is 'big'; expected a whole"),
        ("--camera broken", "the camera 'broken' of the package shelf cannot be imported"),
        ("--sink wrong:a", "must name a subclass of SinkSettings"),
        ("--sink shelves:a", "no sink named 'shelves': use console, "),
    ],
)
def test_another_packages_mistakes_are_one_line(
    shelf: Path, tmp_path: Path, words: str, says: str
) -> None:
    fixed = ["--model", str(TINY), "--detector", "middle", "--camera", "squares"]
    done = emotion_edge_with(shelf, tmp_path, "run", *fixed, *words.split())
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_broken_part_does_not_hide_the_others(shelf: Path, tmp_path: Path) -> None:
    helped = emotion_edge_with(shelf, tmp_path, "run", "--help")
    assert helped.returncode == 0
    for text in ("squares: random squares", "middle: whatever", "tally: how many frames"):
        assert text in " ".join(helped.stdout.split())
    assert helped.stderr.count("\n") == 2  # a line for each broken part
    listed = emotion_edge_with(shelf, tmp_path, "detectors", "list")
    assert listed.returncode == 0
    assert {line.split()[0] for line in listed.stdout.splitlines()} >= {"haar", "middle"}
    clip = ["run", "--camera", "pattern:frames=2", "--set", "camera.paced=false", "--quiet"]
    more = ["--model", str(TINY), "--detector", "haar", "--jsonl", "out.jsonl"]
    done = emotion_edge_with(shelf, tmp_path, *clip, *more)
    assert (done.returncode, "shelf" in done.stderr) == (0, False)
    first, *_ = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(first)["schema"] == 1  # ours, although shelf offers a jsonl too


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.what)
def test_every_part_of_ours_is_described(registry: Registry[Any]) -> None:
    for name, kind in registry.items():
        assert kind.help and not kind.help.endswith("."), name
        assert kind.__dataclass_params__.frozen, name
        assert all(field.metadata["help"] for field in dataclasses.fields(kind)), name


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.what)
def test_every_number_has_a_range(registry: Registry[Any]) -> None:
    for kind in registry.values():
        for name, field in {f.name: f for f in dataclasses.fields(kind)}.items():
            if {"int", "float"} & set(str(field.type).replace("|", " ").split()):
                about = field.metadata
                assert about["le"] is not None, (kind, name)
                assert about["ge"] is not None or about["gt"] is not None, (kind, name)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="no detector named 'mtcnn': use yunet, haar"):
        DETECTORS.require("mtcnn")
    assert DETECTORS.find("mtcnn") is None


def test_a_plugin_error_keeps_its_cause(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(shelf))
    importlib.invalidate_caches()
    with pytest.raises(PluginError, match="ModuleNotFoundError") as caught:
        CAMERAS.require("broken")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
