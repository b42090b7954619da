"""``emotion-edge doctor``: checks the installation and names the command that fixes each gap."""

from __future__ import annotations

import argparse
import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from emotion_edge.cameras import CAMERAS, CameraInfo, list_cameras
from emotion_edge.commands.detectors import get_optional_weights
from emotion_edge.detectors import DETECTORS
from emotion_edge.errors import EmotionEdgeError
from emotion_edge.files import size_text
from emotion_edge.kiosk.board import Board, read_board, read_condition
from emotion_edge.kiosk.configuration import load_config
from emotion_edge.model import backend as runtimes
from emotion_edge.model import shipped
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.registry import Registry
from emotion_edge.sinks import SINKS
from emotion_edge.values import Image
from emotion_edge.version import __version__

HELP = "check what is installed and name the command for what is missing"
SERVICE = "emotion-edge.service"

_EXTRAS = (
    # extra, a module of it, what it gives
    ("demo", "imageio_ffmpeg", "an ffmpeg for H.264, which browsers play"),
    ("metrics", "prometheus_client", "the metrics output and emotion-edge status"),
    ("mqtt", "paho.mqtt", "the MQTT output"),
    ("window", "PIL", "the window output"),
    ("sign", "reportlab", "the printable notice"),
    ("web", "gradio", "the web page"),
)
_MARKS = {"ok": "ok     ", "note": "note   ", "bad": "MISSING"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    state: ``ok``; ``note`` for what only some need; ``bad`` for what stops the main job.
    fix: the command or the action that fixes it.
    """

    state: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{_MARKS[self.state]}  {self.what}" + (f"\n           {self.fix}" * bool(self.fix))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--config", metavar="FILE", help="check this kiosk.toml too")
    parser.add_argument(
        "--fix", action="store_true", help="download missing detector weights (0.2 MB)"
    )


def run(options: argparse.Namespace) -> int:
    """Print the findings; 0 when faces can be classified, else 1."""
    board = read_board()
    found = list_cameras()
    bad = 0
    for finding in chain(
        system(board),
        runtime(),
        opencv(board),
        numpy(board),
        models(),
        detectors(download=options.fix),
        cameras(board, found),
        plugins(),
        extras(),
        condition(),
        kiosk(options.config),
    ):
        print(finding, flush=True)
        bad += finding.state == "bad"
    print(f"\n{bad} missing." if bad else f"\n{_ready(found)}")
    return 1 if bad else 0


def _ready(found: list[CameraInfo]) -> str:
    """What to run now, with what is here."""
    if any(not camera.trouble for camera in found):
        return "Ready: emotion-edge run --camera auto"
    return "Ready, without a camera: emotion-edge run --camera demo"


def system(board: Board) -> Iterator[Finding]:
    """Python, the board, the word size."""
    yield Finding("ok", f"emotion-edge {__version__}, Python {board.python} ({sys.prefix})")
    if sys.maxsize > 2**32:
        yield Finding("ok", f"{board}, {board.machine}")
    else:
        yield Finding(
            "bad", f"{board} is a 32-bit system", "install the 64-bit Raspberry Pi OS on the card"
        )


def runtime() -> Iterator[Finding]:
    """The TFLite runtime."""
    found = runtimes.installed()
    light = [f"{name} {version}" for name, version in found.items() if name != "tensorflow"]
    if light:
        yield Finding("ok", f"runtime: {', '.join(light)}")
    else:
        yield Finding("bad", "no TFLite runtime", f"{_pip()} install ai-edge-litert")


def opencv(board: Board) -> Iterator[Finding]:
    """OpenCV, and Haar's cascade."""
    numbers = tuple(int(part) for part in cv2.__version__.split(".")[:2])
    if numbers >= (5, 0):
        yield Finding(
            "bad",
            f"OpenCV {cv2.__version__} has no Haar cascades",
            f"{_pip()} install 'opencv-python-headless<5'",
        )
        return
    if _bookworm(board) and numbers >= (4, 12):
        yield Finding(
            "note",
            f"OpenCV {cv2.__version__} requires NumPy 2, which apt's picamera2 cannot use",
            f"{_pip()} install 'opencv-python-headless<4.12' 'numpy<2'",
        )
    if len(_distributions("opencv-python", "opencv-python-headless", "opencv-contrib-python")) > 1:
        yield Finding(
            "note",
            "two OpenCV packages are installed over each other",
            f"{_pip()} uninstall -y opencv-python opencv-contrib-python && "
            f"{_pip()} install --force-reinstall --no-deps opencv-python-headless",
        )
    yield Finding("ok", f"OpenCV {cv2.__version__}")


def numpy(board: Board) -> Iterator[Finding]:
    """NumPy 1 where apt's picamera2 was compiled for it."""
    if _bookworm(board) and int(np.__version__.split(".")[0]) >= 2:
        yield Finding(
            "note" if not board.is_pi else "bad",
            f"NumPy {np.__version__}: apt's picamera2 on Bookworm was compiled for NumPy 1",
            f"{_pip()} install 'numpy<2' 'opencv-python-headless<4.12'",
        )
    else:
        yield Finding("ok", f"NumPy {np.__version__}")


def models() -> Iterator[Finding]:
    """Whether every shipped model loads and runs."""
    found = shipped.shipped_models()
    if not found:
        yield Finding(
            "bad",
            "this installation contains no model",
            f"{_pip()} install --force-reinstall --no-deps emotion-edge",
        )
    for name, path in found.items():
        try:
            classifier = TFLiteClassifier.load(path)
            spec = classifier.manifest.input
            shape = (spec.height, spec.width) + ((3,) if spec.channels == 3 else ())
            blank: Image = np.zeros(shape, np.uint8)
            classifier.emotion(blank)
        except EmotionEdgeError as error:
            yield Finding(
                "bad",
                f"model {name}: {error}",
                f"{_pip()} install --force-reinstall --no-deps emotion-edge",
            )
        else:
            convention = classifier.manifest.convention or "not stated"
            size = size_text(path.stat().st_size)
            yield Finding("ok", f"model {name}: {path} ({size}), convention {convention}")


def detectors(*, download: bool = False) -> Iterator[Finding]:
    """Every detector of ours opens; one whose weights are absent is only noted.

    download: whether absent weights are downloaded first.
    """
    for name, kind in DETECTORS.items():
        if not kind.installed():
            fix = f"emotion-edge detectors get {name}"
            if download:
                fix = get_optional_weights(name)
        if not kind.installed():
            yield Finding("note", f"detector {name} ({kind.help}) is not installed", fix)
            continue
        try:
            kind().open()
            yield Finding("ok", f"detector {name}")
        except EmotionEdgeError as error:
            fix = f"emotion-edge detectors get {name} --overwrite" if kind.weights else ""
            yield Finding("bad", f"detector {name}: {error}", fix)


def plugins() -> Iterator[Finding]:
    """Cameras, detectors and sinks of other packages."""
    registries: tuple[Registry[Any], ...] = (CAMERAS, DETECTORS, SINKS)
    for registry in registries:
        found, troubles = registry.others()
        for name, part in found.items():
            yield Finding("ok", f"{registry.what} {name}: {part.help} ({part.__module__})")
        for trouble in troubles:
            yield Finding("note", trouble)


def cameras(board: Board, found: list[CameraInfo]) -> Iterator[Finding]:
    """Each camera, and why it cannot be opened; found: as ``list_cameras`` returns them."""
    if board.is_pi and importlib.util.find_spec("picamera2") is None:
        within = "" if _sees_system_packages() else ", and a venv made with --system-site-packages"
        yield Finding(
            "note",
            "picamera2 (for the ribbon-cable camera) is absent",
            f"sudo apt install python3-picamera2{within}",
        )
    for camera in found:
        if not camera.trouble:
            yield Finding("ok", f"camera {camera.spec}: {camera.model}")
        elif "ermission" in camera.trouble:
            fix = "sudo usermod -aG video $USER, then log in again"
            yield Finding("note", f"camera {camera.spec}: {camera.trouble}", fix)
        else:
            yield Finding("note", f"camera {camera.spec}: {camera.model}, {camera.trouble}")
    if not found:
        fix = "plug one in (rpicam-hello --list-cameras shows a ribbon-cable one); or --camera demo"
        yield Finding("note", "no camera", fix)


def extras() -> Iterator[Finding]:
    """Optional parts."""
    for extra, module, purpose in _EXTRAS:
        try:
            present = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:  # the parent package is absent
            present = False
        if present:
            yield Finding("ok", f"extra {extra}: {purpose}")
        else:
            fix = f"{_pip()} install 'emotion-edge[{extra}]'"
            yield Finding("note", f"extra {extra} ({purpose}) is absent", fix)


def condition() -> Iterator[Finding]:
    """Heat and power."""
    state = read_condition()
    now = state.throttling.now if state.throttling else ()
    before = state.throttling.since_boot if state.throttling else ()
    if "under-voltage" in (*now, *before):
        fix = "use the board's own power supply and a short cable"
        yield Finding("note", "the power supply has been too weak since boot", fix)
    if now:
        fix = "add a heat sink or a fan"
        yield Finding("note", f"the board is slowed down now: {', '.join(now)}", fix)
    if state.governor == "powersave":
        fix = "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding("note", "the CPU governor is powersave: everything is slow", fix)
    yield Finding("ok", f"board: {state}")


def kiosk(path: str | None) -> Iterator[Finding]:
    """The service, if it is installed, and its configuration."""
    installed = Path("/etc/systemd/system", SERVICE).exists()
    if path is None and installed:
        path = "/etc/emotion-edge/kiosk.toml"
    if path is not None:
        try:
            config = load_config(path)
            shipped.model_path(config.model)
            for line in config.ignored:
                yield Finding("bad", f"{line} (ignored)", f"sudo nano {path}")
            if not config.ignored:
                yield Finding("ok", f"configuration {path}")
        except EmotionEdgeError as error:
            yield Finding("bad", str(error), f"sudo nano {path}")
    if not installed:
        yield Finding("note", "no kiosk service (only for unattended use)", "edge/install-kiosk.sh")
        return
    for word, fix in (("is-enabled", "enable"), ("is-active", "restart")):
        answer = _systemctl(word)
        if answer in ("enabled", "active"):
            yield Finding("ok", f"service {answer}")
        else:
            command = f"sudo systemctl {fix} {SERVICE}; journalctl -u emotion-edge shows why"
            yield Finding("bad", f"service: {answer or 'unknown'}", command)


def _systemctl(word: str) -> str:
    try:
        done = subprocess.run(
            ["systemctl", word, SERVICE], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return done.stdout.strip()


def _bookworm(board: Board) -> bool:
    return "bookworm" in board.os.lower() and platform.machine() == "aarch64"


def _distributions(*names: str) -> list[str]:
    present = []
    for name in names:
        try:
            present.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return present


def _sees_system_packages() -> bool:
    config = Path(sys.prefix, "pyvenv.cfg")
    if not config.is_file():
        return True
    return "include-system-site-packages = true" in config.read_text().lower()


def _pip() -> str:
    """The pip of this environment."""
    pip = Path(sys.executable).parent / "pip"
    return str(pip) if pip.exists() and shutil.which("pip") != str(pip) else "pip"
