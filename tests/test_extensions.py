"""Adding a part touches only the files that CONTRIBUTING.md names: each is added to a copy here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emotion_edge.cameras import CAMERAS
from emotion_edge.detectors import DETECTORS
from emotion_edge.registry import Registry
from emotion_edge.sinks import SINKS

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests/edge/tiny.tflite"

CAMERA = """
from dataclasses import dataclass
from typing import ClassVar

from emotion_edge.cameras import CameraSettings
from emotion_edge.cameras.pattern import PatternCamera


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSettings(CameraSettings):
    usage: ClassVar[str] = "new"
    help: ClassVar[str] = "a new camera"

    def open(self, request):
        return PatternCamera(frames=3, paced=False)
"""

DETECTOR = """
from dataclasses import dataclass
from typing import ClassVar

from emotion_edge.detectors import DetectorSettings
from emotion_edge.values import Box


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSettings(DetectorSettings):
    help: ClassVar[str] = "a new detector"

    def open(self):
        return self

    def detect(self, image):
        return [Box(10, 10, 50, 50)]
"""

SINK = """
from dataclasses import dataclass
from typing import ClassVar

from emotion_edge.sinks import Sink, SinkSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSettings(SinkSettings):
    help: ClassVar[str] = "a new sink"

    def open(self, run):
        return NewSink()


class NewSink(Sink):
    name = "new"

    def __enter__(self):
        return self

    def write(self, observation):
        print("new sink:", len(observation.faces))

    def event(self, event):
        pass

    def __exit__(self, *error):
        pass
"""

BENCHMARK = """
HELP = "a new benchmark"


def add_arguments(parser):
    pass


def run(options):
    print("new benchmark")
    return 0
"""

NETWORK = """


def new(x, units):
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(units)(x)


NETWORKS["new"] = new
"""


def named(what: str) -> list[str]:
    """The files that CONTRIBUTING.md names for a new camera, detector, ..."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (row,) = re.findall(rf"^\| {what} \|(.*)$", text, re.M)
    return re.findall(r"`([\w/]+\.(?:py|toml))`", row)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the code that may be changed."""
    for folder in ("edge/emotion_edge", "benchmarks", "train"):
        ignored = shutil.ignore_patterns("__pycache__", "results", "soft_labels", "*.tflite")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    return tmp_path


def run(copy: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": f"{copy / 'edge'}:{copy}", "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("what", "source", "flag", "shown"),
    [
        ("camera", CAMERA, ("--camera", "new"), ""),
        ("detector", DETECTOR, ("--detector", "new"), ""),
        ("sink", SINK, ("--new",), "new sink: 0\nnew sink: 0\nnew sink: 0\n"),
    ],
)
def test_a_new_part_of_a_run(
    copy: Path, what: str, source: str, flag: tuple[str, ...], shown: str
) -> None:
    file, registry = named(what)
    (copy / file.replace("NAME", "new")).write_text(source)
    table = (copy / registry).read_text()
    module = file.removeprefix("edge/").replace("/", ".").replace("NAME.py", "new")
    line = f'    {{\n        "new": "{module}:NewSettings",\n'
    (copy / registry).write_text(table.replace("    {\n", line, 1))
    source_flags = ["--camera", "pattern:frames=3", "--set", "camera.paced=false", "--quiet"]
    fixed = ["run", *source_flags, "--detector", "haar", "--model", str(TINY)]
    out = run(copy, "-m", "emotion_edge", *fixed, *flag)
    assert out == shown
    helped = " ".join(run(copy, "-m", "emotion_edge", "run", "--help").split())
    assert {"camera": "new, /dev", "detector": "new, ", "sink": "a new sink"}[what] in helped


def test_a_new_benchmark(copy: Path) -> None:
    file, registry = named("benchmark")
    (copy / file.replace("NAME", "new")).write_text(BENCHMARK)
    table = (copy / registry).read_text()
    (copy / registry).write_text(table.replace("COMMANDS = (\n", 'COMMANDS = (\n    "new",\n', 1))
    assert run(copy, "-m", "benchmarks", "new") == "new benchmark\n"


@pytest.mark.slow
def test_a_new_network(copy: Path) -> None:
    pytest.importorskip("keras", reason="builds a network")
    file, config = named("network")
    source = (copy / file).read_text()
    (copy / file).write_text(source + NETWORK)
    (copy / config.replace("NAME", "new")).write_text('[network]\nname = "new"\n')
    program = (
        "from train.config import load_config; from train.networks import build;"
        f"config = load_config('{config.replace('NAME', 'new')}');"
        "print(build(config.network, **config.options).count_params() > 0)"
    )
    assert run(copy, "-c", program).endswith("True\n")


def test_a_delegate_needs_no_file() -> None:
    assert named("delegate") == []


@pytest.mark.parametrize("registry", [CAMERAS, DETECTORS, SINKS], ids=lambda each: each.what)
def test_no_other_module_names_a_parts_settings(registry: Registry[Any]) -> None:
    """So there is no chain of ``isinstance`` or ``if name ==`` to extend."""
    allowed = {"MetricsSettings": {"status.py"}}  # which asks the metrics output
    for kind in registry.values():
        own = Path(sys.modules[kind.__module__].__file__ or "")
        for path in (ROOT / "edge/emotion_edge").rglob("*.py"):
            if path == own or path.name in allowed.get(kind.__name__, ()):
                continue
            lines = [line for line in path.read_text().splitlines() if kind.__name__ in line]
            assert all(f":{kind.__name__}" in line for line in lines), path
