#!/usr/bin/env python3
"""Proves the edge package on the Raspberry Pi's architecture, without a Pi: ``make test-pi``.

For Debian bookworm (Python 3.11) and trixie (3.13), each with its own constraints file: an arm64
root, the wheel and its published arm64 dependencies in it, and the same in an x86-64 root, whose
answers are the reference. See README.md in this folder.

    sudo .venv/bin/python -m tests.pi.prove --wheel dist/emotion_edge-0.1.0-py3-none-any.whl
        [--parts models,pipeline,doctor,installer,tests] [--suites bookworm,trixie]
        [--cpus cortex-a72,cortex-a76]

Ends with a table of every result, and with status 1 when one of them failed.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_edge import Box, read_image
from emotion_edge.cameras.demo import HOPPER, PORTRAIT_FACE, DemoCamera
from emotion_edge.detectors.haar import HaarDetector
from emotion_edge.errors import EmotionEdgeError
from emotion_edge.model import manifest
from emotion_edge.model.preprocessing import crop_face, resize_to_input
from emotion_edge.model.shipped import shipped_models
from emotion_edge.values import Image
from tests.pi import roots
from tests.pi.compare import Difference, compare_frames, compare_outputs
from train.files import table

CHECKOUT = Path(__file__).resolve().parents[2]
SHARED = CHECKOUT.parent / "shared"
LOGS = roots.CACHE / "logs"
INSIDE = "/src/emotion-edge/tests/pi/inside.py"

PARTS = ("models", "pipeline", "doctor", "installer", "tests")
CPUS = ("cortex-a72", "cortex-a76")  # of the Pi 4 and the Pi 5
GENERATED, PHOTOGRAPHED, REAL = 300, 120, 100
CLIP_FRAMES = 60


@dataclass(frozen=True, slots=True)
class Suite:
    """A Debian: its Python, the newest glibc 2.x that wheels may ask for, its constraints."""

    name: str
    python: str
    glibc: int

    @property
    def constraints(self) -> Path:
        """The set under test."""
        return CHECKOUT / f"edge/constraints-{self.name}.txt"


SUITES = {"bookworm": Suite("bookworm", "3.11", 36), "trixie": Suite("trixie", "3.13", 41)}

# runtime, with XNNPACK: LiteRT delegates by itself, tflite-runtime 2.14 no int8 graph.
RUNTIMES = (("litert", True), ("litert", False), ("tflite-runtime", False))
OLD_RUNTIME = "tflite-runtime==2.14.0"
OLD_PYTHON = "3.11"  # it has no wheels for later ones

EXTRAS = ("demo", "metrics", "mqtt", "window")
TOOLS = ("pytest", "pytest-timeout", "hypothesis")
MODEL_HEADS = [
    *("Debian", "processor", "runtime", "model", "inputs"),
    *("unequal bytes", "largest step", "labels that differ", "time"),
]


class ProofError(Exception):
    """A step that could not be done, in one line."""


FAILURES = (
    *(ProofError, roots.RootError, EmotionEdgeError),
    *(OSError, ValueError, subprocess.SubprocessError),
)
"""What a step may raise: it failed, and the next one is tried."""


@dataclass(slots=True)
class Report:
    """What was done, how long it took, what came of it."""

    rows: list[list[str]] = field(default_factory=list)
    models: list[list[str]] = field(default_factory=list)
    failures: int = 0

    def step(self, suite: str, what: str, work: Callable[[], str]) -> bool:
        """Do one thing; whether it went well. ``work`` answers with its result in words."""
        print(f"== {suite}: {what}", flush=True)
        start = time.monotonic()
        try:
            result, good = work(), True
        except FAILURES as error:
            result, good = f"FAILED: {error}", False
            self.failures += 1
        seconds = f"{time.monotonic() - start:.0f} s"
        print(f"-- {suite}: {what}: {result} ({seconds})", flush=True)
        self.rows.append([suite, what, result, seconds])
        return good


@dataclass(slots=True)
class Place:
    """A root with the wheel installed, and the folders that its commands see.

    work: a folder of this machine, writable at /proof in the root. source: a copy of the checkout.
    """

    suite: Suite
    architecture: str
    work: Path
    source: Path
    root: Path = Path()
    wheels: Path = Path()

    def run(
        self,
        command: Sequence[str],
        *,
        cpu: str = CPUS[0],
        log: str,
        keep: bool = False,
        env: dict[str, str] | None = None,
        cwd: str = "/proof",
    ) -> str:
        """Run a command in the root and return what it printed; ProofError when it fails.

        log: names the file under ``LOGS`` that keeps what it printed.
        """
        LOGS.mkdir(parents=True, exist_ok=True)
        path = LOGS / f"{self.suite.name}-{self.architecture}-{log}.log"
        binds = [(self.work, "/proof", True), (self.wheels, "/wheels", False)]
        binds.append((self.source, "/src/emotion-edge", False))
        if SHARED.is_dir():
            binds.append((SHARED, "/src/shared", False))
        everywhere = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/wheels",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "DEBIAN_FRONTEND": "noninteractive",
            "PYTHONUNBUFFERED": "1",
        }
        with path.open("wb") as output:
            status = roots.run(
                self.root,
                command,
                cpu=cpu,
                env={**everywhere, **(env or {})},
                binds=binds,
                cwd=cwd,
                keep=keep,
                stdin=b"",
                output=output.fileno(),
            )
        text = path.read_text(errors="replace")
        if status != 0:
            print(text[-4000:], flush=True)
            raise ProofError(f"status {status} of {' '.join(command)[:80]}: see {path}")
        return text


# ---------------------------------------------------------------------------- what is installed


def platforms(architecture: str, glibc: int) -> list[str]:
    """The wheel platforms that a glibc 2.x runs, as pip's flags."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}[architecture]
    tags = [f"manylinux2014_{machine}"]
    tags += [f"manylinux_2_{minor}_{machine}" for minor in range(17, glibc + 1)]
    return [word for tag in tags for word in ("--platform", tag)]


def constraints(suite: Suite) -> str:
    """The suite's constraints, and the developers' for the test tools."""
    text = suite.constraints.read_text()
    developers = (CHECKOUT / f".ci/constraints-{suite.python}.txt").read_text().splitlines()
    return text + "".join(f"{line}\n" for line in developers if name(line) in TOOLS)


def name(line: str) -> str:
    """The normal form of the distribution that a line of a constraints file pins, or nothing."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def fetch(suite: Suite, architecture: str, wheel: Path, *, old: bool = False) -> Path:
    """The folder of the published wheels, from the cache if they are there.

    old: those of the environment with tflite-runtime instead.
    """
    if old:
        wanted = [OLD_RUNTIME, "numpy", "opencv-python-headless"]
    else:
        wanted = [f"{wheel}[{','.join(EXTRAS)}]", *TOOLS]
    pinned = constraints(suite)
    needs = wheel_needs(wheel)
    key = hashlib.sha256("\n".join([pinned, *needs, *wanted[1:]]).encode()).hexdigest()[:8]
    folder = roots.CACHE / "wheels" / f"{suite.name}-{architecture}-{key}{'-old' * old}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=roots.CACHE) as work:
        Path(work, "constraints.txt").write_text(pinned)
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--quiet", "--dest", f"{work}/wheels", "--only-binary=:all:"]
        command += ["--python-version", suite.python, *platforms(architecture, suite.glibc)]
        command += ["--constraint", f"{work}/constraints.txt", *wanted]
        roots.check(command)
        for own in Path(work, "wheels").glob("emotion_edge-*"):
            own.unlink()  # it changes from run to run, and lies in dist
        shutil.copy(f"{work}/constraints.txt", f"{work}/wheels")
        folder.parent.mkdir(parents=True, exist_ok=True)
        Path(work, "wheels").rename(folder)
    return folder


def wheel_needs(wheel: Path) -> list[str]:
    """The ``Requires-Dist`` lines of a wheel, those of other extras than ``EXTRAS`` left out."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [path for path in archive.namelist() if path.endswith(".dist-info/METADATA")]
        lines = archive.read(path).decode().splitlines()
    others = re.compile(rf"extra == '(?!({'|'.join(EXTRAS)})')")
    return [line for line in lines if line.startswith("Requires-Dist:") and not others.search(line)]


def install(place: Place, wheel: Path) -> str:
    """Environment /opt/edge in the root: the wheel, its extras, pytest. Kept between runs."""
    state = place.root / "opt" / "state"
    wanted = place.wheels.name
    sha = hashlib.sha256(wheel.read_bytes()).hexdigest()
    have = state.read_text().split() if state.exists() else []
    shutil.copy(wheel, place.work)
    target = f"/proof/{wheel.name}[{','.join(EXTRAS)}]"
    pip = "/opt/edge/bin/python -m pip install --quiet --no-compile -c /wheels/constraints.txt"
    if have[:1] != [wanted]:
        state.unlink(missing_ok=True)
        script = (
            f"rm -rf /opt/edge && python3 -m venv /opt/edge && {pip} '{target}' {' '.join(TOOLS)}"
        )
        did = "dependencies and wheel installed"
    elif have[1:] != [sha]:
        script = f"{pip} --force-reinstall --no-deps '{target}' && {pip} '{target}'"
        did = "wheel installed, dependencies from the last run"
    else:
        return "as installed by the last run"
    # What every later process imports is compiled once, and kept.
    warm = (
        "import emotion_edge.cli, emotion_edge.commands.run, emotion_edge.bench.measure, cv2, "
        "pytest, _pytest.assertion.rewrite, hypothesis, PIL.Image, "
        "paho.mqtt.client, prometheus_client"
    )
    place.run(
        ["sh", "-ec", f"{script} && /opt/edge/bin/python -c '{warm}'"], keep=True, log="install"
    )
    listing = place.run(["/opt/edge/bin/python", "-m", "pip", "freeze"], log="freeze")
    wrong = unpinned(listing, place.suite.constraints.read_text())
    if wrong:
        raise ProofError(f"not the constraints' versions: {', '.join(wrong)}")
    state.write_text(f"{wanted} {sha}\n")
    return did


def install_old(place: Place, wheel: Path) -> str:
    """Environment /opt/old: tflite-runtime instead of LiteRT. Kept between runs."""
    place.wheels = fetch(place.suite, place.architecture, wheel, old=True)
    state = place.root / "opt" / "state-old"
    wanted = f"{place.wheels.name} {hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    if state.exists() and state.read_text() == wanted:
        return "as installed by the last run"
    shutil.copy(wheel, place.work)
    pip = "/opt/old/bin/python -m pip install --quiet --no-compile -c /wheels/constraints.txt"
    place.run(
        [
            "sh",
            "-ec",
            f"rm -rf /opt/old && python3 -m venv /opt/old && {pip} {OLD_RUNTIME} numpy "
            f"opencv-python-headless && {pip} --no-deps /proof/{wheel.name} && "
            "/opt/old/bin/python -c 'import emotion_edge, tflite_runtime.interpreter'",
        ],
        keep=True,
        log="install-old",
    )
    state.write_text(wanted)
    return "installed"


def unpinned(listing: str, pinned: str) -> list[str]:
    """Lines of ``pip freeze`` that are at another version than a constraints file says."""
    wanted = {name(line): line.strip() for line in pinned.splitlines() if "==" in line}
    found = {name(line): line.strip() for line in listing.splitlines() if "==" in line}
    return [
        f"{line} (wanted {wanted[key]})"
        for key, line in found.items()
        if key in wanted and line.split("==")[1] != wanted[key].split("==")[1]
    ]


def emulator() -> str:
    """QEMU's version."""
    if roots.HOST == "arm64":
        return "not needed: this machine is arm64"
    return roots.check([roots.qemu(), "--version"]).splitlines()[0]


# --------------------------------------------------------------------------- what is put before it


def generated(rng: np.random.Generator, size: tuple[int, int]) -> Image:
    """An image without a face: noise, plain, gradients, textures, edges; at random contrast."""
    height, width = size
    kind = rng.integers(5)
    image: NDArray[Any]
    if kind == 0:
        image = rng.uniform(-1, 1, size)
    elif kind == 1:
        image = np.zeros(size)
    elif kind == 2:
        down, across = rng.normal(size=2)
        image = down * np.linspace(-1, 1, height)[:, None] + across * np.linspace(-1, 1, width)
    elif kind == 3:
        coarse = rng.uniform(-1, 1, (rng.integers(2, 13), rng.integers(2, 13)))
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    else:
        period = rng.integers(2, 17)
        rows, columns = np.indices(size)
        image = 2.0 * ((rows // period + columns // period) % 2) - 1
    level, contrast = rng.uniform(0, 255), rng.uniform(0, 160)
    return np.clip(np.rint(level + contrast * image), 0, 255).astype(np.uint8)


def photographed(rng: np.random.Generator, count: int) -> Iterable[Image]:
    """Crops around the faces of the demo's photographs: shifted, scaled, mirrored, relit."""
    hopper = read_image(HOPPER)
    demo = read_image(CHECKOUT / "edge/images/demo.jpg")
    faces = [(hopper, PORTRAIT_FACE), *((demo, box) for box in HaarDetector().detect(demo))]
    for index in range(count):
        image, box = faces[index % len(faces)]
        side = box.width * rng.uniform(0.7, 1.4)
        x = box.x + box.width * rng.uniform(0.35, 0.65) - side / 2
        y = box.y + box.height * rng.uniform(0.35, 0.65) - side / 2
        cut = crop_face(image, Box(round(x), round(y), round(side), round(side)))
        light = np.clip(cut * rng.uniform(0.5, 1.4) + rng.uniform(-30, 30), 0, 255)
        yield np.ascontiguousarray(light.astype(np.uint8)[:, :: rng.choice((-1, 1))])


def fer2013(count: int) -> list[Image]:
    """The first faces of FER2013 next to the checkout; empty if it is absent."""
    # Not by train.readers, which reads and checks all 35,887.
    path = SHARED / "data/fer2013/fer2013.csv.gz"
    faces: list[Image] = []
    if path.is_file():
        with gzip.open(path, "rt", newline="") as file:
            for row in csv.DictReader(file):
                faces.append(np.array(row["pixels"].split(), np.uint8).reshape(48, 48))
                if len(faces) == count:
                    break
    return faces


def make_inputs(folder: Path) -> str:
    """``inputs.npz``: the fixed images, in the size and colours of every shipped model."""
    specs = {manifest.load(path)[1].input for path in shipped_models().values()}
    arrays: dict[str, NDArray[np.uint8]] = {}
    real = fer2013(REAL)
    for spec in sorted(specs, key=str):
        rng = np.random.default_rng(8)
        count = GENERATED + REAL - len(real)
        images = [generated(rng, (spec.height, spec.width)) for _ in range(count)]
        images += [*photographed(rng, PHOTOGRAPHED), *real]
        arrays[f"{spec.height}x{spec.width}x{spec.channels}"] = np.stack(
            [resize_to_input(image, spec) for image in images]
        )
    np.savez(folder / "inputs.npz", allow_pickle=False, **arrays)
    return (
        f"{GENERATED + REAL - len(real)} generated, {PHOTOGRAPHED} cuts of the demo's photographs, "
        f"{len(real)} of FER2013" + " (it is not next to the checkout)" * (not real)
    )


def make_source(folder: Path) -> str:
    """A copy of what the edge tests read, so that work in the checkout does not disturb them."""
    for part in ("edge", "tests", "models", ".ci"):
        shutil.copytree(
            CHECKOUT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(CHECKOUT / "pyproject.toml", folder)
    return "copied"


def make_scenes(folder: Path) -> str:
    """Photographs with faces, and the demo as a clip.

    One image per frame, because FFmpeg's conversion of a video's colours depends on the processor.
    """
    photographs = folder / "photographs"
    photographs.mkdir()
    found = [HOPPER, CHECKOUT / "edge/images/demo.jpg", *sorted(SHARED.glob("media/*.jpg"))]
    for path in found:
        shutil.copy(path, photographs)
    clip = folder / "clip"
    clip.mkdir()
    with DemoCamera(faces=2, frames=CLIP_FRAMES, paced=False) as camera:
        while (frame := camera.read(1.0)) is not None:
            cv2.imwrite(str(clip / f"frame-{frame.index:03}.png"), frame.image)
    return f"{len(found)} photographs, a clip of {CLIP_FRAMES} frames with two faces"


# ---------------------------------------------------------------------------------- what is proven


def answers(place: Place, cpu: str, runtime: str, xnnpack: bool) -> dict[str, Any]:
    """The outputs of every model in a root; ProofError when another kernel ran than was asked."""
    label = f"{cpu}-{runtime}{'-xnnpack' * xnnpack}"
    environment = "old" if runtime == "tflite-runtime" else "edge"
    command = [f"/opt/{environment}/bin/python", INSIDE, "models"]
    command += ["--inputs", "/proof/inputs.npz", "--runtime", runtime]
    command += ["--out", f"/proof/{label}.npz", *(["--no-xnnpack"] if not xnnpack else [])]
    place.run(command, cpu=cpu, log=label)
    with np.load(place.work / f"{label}.npz") as file:
        found = dict(file)
    for model in shipped_models():
        if model not in found:
            raise ProofError(f"the wheel has no model {model}: make wheel")
        if bool(found[f"{model}/delegated"]) != xnnpack:
            raise ProofError(f"{model}: XNNPACK {'stayed out' if xnnpack else 'ran'}: see {LOGS}")
    return found


def prove_models(
    report: Report, place: Place, reference: dict[str, Any], cpu: str, runtime: str, xnnpack: bool
) -> str:
    """Compare each model's outputs with the reference's; a row of the table for each."""
    found = answers(place, cpu, runtime, xnnpack)
    version = json.loads(str(found["versions"])).get(runtime, "?")
    said, good = [], True
    for model in shipped_models():
        difference = compare_outputs(reference[model], found[model])
        good &= difference.accepted if xnnpack else difference.agrees
        said.append(f"{model}: {said_of(difference)}")
        report.models.append(
            [
                place.suite.name,
                cpu,
                f"{runtime} {version}, {'XNNPACK' if xnnpack else 'built-in kernels'}",
                model,
                str(difference.inputs),
                f"{difference.unequal} of {found[model].size}",
                str(difference.largest),
                str(difference.labels),
                f"{float(found[f'{model}/seconds']):.0f} s",
            ]
        )
    if not good:
        raise ProofError("; ".join(said))
    return "; ".join(said)


def said_of(difference: Difference) -> str:
    """A difference in words."""
    return (
        f"{difference.unequal} bytes unequal over {difference.inputs} inputs, at most "
        f"{difference.largest} step{'s' * (difference.largest != 1)}, "
        f"{difference.labels} labels differ"
    )


def records(place: Place, cpu: str) -> dict[str, Any]:
    """What the whole pipeline says of the scenes in a root."""
    label = f"{cpu}-pipeline"
    command = ["/opt/edge/bin/python", INSIDE, "pipeline", "--scenes", "/proof"]
    place.run([*command, "--out", f"/proof/{label}.json"], cpu=cpu, log=label)
    found: dict[str, Any] = json.loads((place.work / f"{label}.json").read_text())
    return found


def prove_pipeline(place: Place, reference: dict[str, Any], cpu: str) -> str:
    """Compare boxes, labels and tracks, frame by frame."""
    found = records(place, cpu)
    differences, faces, frames = [], 0, 0
    for model in shipped_models():
        for source, expected in reference[model].items():
            frames += len(expected)
            faces += sum(len(record["faces"]) for record in expected)
            differences += [
                f"{model}, {source}: {line}"
                for line in compare_frames(expected, found[model][source])
            ]
    if differences:
        print("\n".join(differences[:20]))
        raise ProofError(f"{len(differences)} of {frames} frames differ; {differences[0]}")
    if not faces:
        raise ProofError("no face was found on x86-64 either: this proves nothing")
    return f"{faces} faces in {frames} frames of {len(shipped_models())} models: all equal"


def prove_doctor(place: Place, cpu: str) -> str:
    """The doctor finds nothing missing, and nothing of the wrong architecture."""
    text = place.run(["/opt/edge/bin/emotion-edge", "doctor"], cpu=cpu, log=f"doctor-{cpu}")
    if "aarch64" not in text:
        raise ProofError("the doctor does not say aarch64")
    return f"{text.count('ok  ')} ok, {text.count('note  ')} notes, nothing missing"


_INSTALLER = """
set -eux
cp -r /src/emotion-edge/edge /tmp/edge && cp /proof/*.whl /tmp/edge/
export SYSTEMD_OFFLINE=1
sh /tmp/edge/install-kiosk.sh
test -x /opt/emotion-edge/current/bin/emotion-edge
id emotion-edge | grep -q video
cmp /tmp/edge/kiosk.toml /etc/emotion-edge/kiosk.toml
test "$(systemctl is-enabled emotion-edge.service)" = enabled
/opt/emotion-edge/current/bin/emotion-edge info
/opt/emotion-edge/current/bin/python -m pip freeze >/proof/installed.txt
echo '# mine' >>/etc/emotion-edge/kiosk.toml
sh /tmp/edge/install-kiosk.sh
grep -q '# mine' /etc/emotion-edge/kiosk.toml
sh /tmp/edge/install-kiosk.sh --uninstall --purge
test ! -e /opt/emotion-edge && test ! -e /etc/emotion-edge && ! id emotion-edge
test ! -e /etc/systemd/system/emotion-edge.service
"""


def prove_installer(place: Place, cpu: str) -> str:
    """Installed, installed again over a changed configuration, taken away; systemd is offline."""
    place.run(["sh", "-c", _INSTALLER], cpu=cpu, log=f"installer-{cpu}")
    listing = (place.work / "installed.txt").read_text()
    wrong = unpinned(listing, place.suite.constraints.read_text())
    if wrong:
        raise ProofError(f"not the constraints' versions: {', '.join(wrong)}")
    return "installed, updated, uninstalled; versions as constrained"


def prove_tests(place: Place, cpu: str) -> str:
    """tests/edge against the installed wheel; emulation gets more time."""
    command = ["/opt/edge/bin/python", "-m", "pytest", "tests/edge", "-m", "not slow"]
    command += ["-o", "pythonpath=", "-o", "timeout=3000", "-p", "no:cacheprovider"]
    command += [f"--junitxml=/proof/tests-{cpu}.xml", "--durations=15"]
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    counts = place.work / f"tests-{cpu}.xml"
    try:
        place.run(command, cpu=cpu, log=f"tests-{cpu}", env=env, cwd="/src/emotion-edge")
    except ProofError as error:
        if counts.exists():
            raise ProofError(f"{tests_counted(counts)}; {error}") from error
        raise
    return tests_counted(counts)


def tests_counted(path: Path) -> str:
    """A JUnit file in words, with the reasons for skipping."""
    if not path.exists():
        raise ProofError(f"pytest wrote no {path.name}")
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    bad = [
        case for case in cases if case.find("failure") is not None or case.find("error") is not None
    ]
    skips = [skip for case in cases if (skip := case.find("skipped")) is not None]
    passed = len(cases) - len(bad) - len(skips)
    reasons = sorted({skip.get("message", "") for skip in skips})
    words = f"{passed} passed, {len(skips)} skipped, {len(bad)} failed"
    return words + (f" (skipped: {'; '.join(reasons)})" if reasons else "")


# ------------------------------------------------------------------------------------- the command


def prepare(place: Place, wheel: Path) -> str:
    """Find or build the root, and the wheels that go into it."""
    packages = ["python3-venv"] + ["systemd"] * (place.architecture == "arm64")
    place.root = roots.build(place.suite.name, place.architecture, packages)
    place.wheels = fetch(place.suite, place.architecture, wheel)
    return f"{place.root.name}, {len(list(place.wheels.glob('*.whl')))} wheels"


def prove_all_models(
    report: Report, x86: Place, arm: Place, wheel: Path, cpus: Sequence[str]
) -> None:
    """The reference, then every runtime on every processor."""
    suite = arm.suite
    reference: dict[str, Any] = {}

    def refer() -> str:
        reference.update(answers(x86, "x86-64", "litert", True))
        return f"LiteRT {json.loads(str(reference['versions']))['litert']} with XNNPACK"

    if not report.step(suite.name, "models on x86-64, the reference", refer):
        return
    builtin = partial(prove_models, report, x86, reference, "x86-64", "litert", False)
    report.step(suite.name, "models on x86-64, built-in kernels", builtin)
    for runtime, xnnpack in RUNTIMES:
        place = arm
        if runtime == "tflite-runtime":
            if suite.python != OLD_PYTHON:
                continue
            place = replace(arm, wheels=Path())
            if not report.step(
                suite.name, "install tflite-runtime, arm64", partial(install_old, place, wheel)
            ):
                continue
        for cpu in cpus:
            what = f"models, {cpu}, {runtime} {'with' if xnnpack else 'without'} XNNPACK"
            work = partial(prove_models, report, place, reference, cpu, runtime, xnnpack)
            report.step(suite.name, what, work)


def prove_all_pipelines(report: Report, x86: Place, arm: Place, cpus: Sequence[str]) -> None:
    """The reference, then every processor."""
    reference: dict[str, Any] = {}

    def refer() -> str:
        reference.update(records(x86, "x86-64"))
        return f"{len(reference)} models"

    if report.step(arm.suite.name, "pipeline on x86-64, the reference", refer):
        for cpu in cpus:
            work = partial(prove_pipeline, arm, reference, cpu)
            report.step(arm.suite.name, f"pipeline, {cpu}", work)


def prove(
    report: Report,
    suite: Suite,
    wheel: Path,
    parts: Sequence[str],
    cpus: Sequence[str],
    folder: Path,
) -> None:
    """Everything about one Debian; a step that fails leaves out what needs it.

    folder: has ``inputs`` and ``source``.
    """
    compared = {"models", "pipeline"} & set(parts)
    places = {}
    for architecture in ("amd64", "arm64") if compared else ("arm64",):
        work = folder / f"{suite.name}-{architecture}"
        shutil.copytree(folder / "inputs", work)
        place = Place(suite, architecture, work, folder / "source")
        if not report.step(
            suite.name, f"root and wheels, {architecture}", partial(prepare, place, wheel)
        ) or not report.step(
            suite.name, f"install, {architecture}", partial(install, place, wheel)
        ):
            return
        places[architecture] = place
    arm = places["arm64"]
    if "models" in parts:
        prove_all_models(report, places["amd64"], arm, wheel, cpus)
    if "pipeline" in parts:
        prove_all_pipelines(report, places["amd64"], arm, cpus)
    if "doctor" in parts:
        for cpu in cpus:
            report.step(suite.name, f"doctor, {cpu}", partial(prove_doctor, arm, cpu))
    if "installer" in parts:
        last = cpus[-1]  # nothing in a script depends on which of the processors it is
        report.step(suite.name, f"installer, {last}", partial(prove_installer, arm, last))
    if "tests" in parts:
        for cpu in cpus:
            report.step(suite.name, f"tests/edge, {cpu}", partial(prove_tests, arm, cpu))


def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """A type for argparse: some of the known words, with commas between them."""

    def words(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [word for word in found if word not in known]:
            raise argparse.ArgumentTypeError(
                f"{', '.join(unknown)!r}; expected some of {','.join(known)}"
            )
        return found

    return words


def main() -> int:
    """See this file's head."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True)
    for flag, known in (("--parts", PARTS), ("--suites", tuple(SUITES)), ("--cpus", CPUS)):
        parser.add_argument(
            flag, type=some_of(known), default=known, help=f"some of {','.join(known)}"
        )
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("prove: this mounts file systems: run it with sudo", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report()
    start = time.monotonic()
    with roots.scratch_folder() as work:
        (work / "inputs").mkdir()
        (work / "source").mkdir()
        made = [
            report.step("both", "QEMU", emulator),
            report.step("both", "inputs", partial(make_inputs, work / "inputs")),
            report.step("both", "scenes", partial(make_scenes, work / "inputs")),
            report.step("both", "source", partial(make_source, work / "source")),
        ]
        wheel = Path(shutil.copy(options.wheel, work))  # the next make wheel takes dist away
        for suite in options.suites if all(made) else ():
            prove(report, SUITES[suite], wheel, options.parts, options.cpus, work)
    if report.models:
        print("\n" + table(MODEL_HEADS, report.models))
    print("\n" + table(["Debian", "what", "result", "time"], report.rows))
    minutes = (time.monotonic() - start) / 60
    verdict = f"{report.failures} FAILED" if report.failures else "all passed"
    print(f"{verdict}, {minutes:.0f} minutes")
    return 1 if report.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
