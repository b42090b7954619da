"""The unit, the installer and the sample configuration, as far as they can be run without a Pi."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from emotion_edge.kiosk.configuration import build, load_config, reference
from emotion_edge.settings import read_toml
from emotion_edge.sinks.jsonl import JsonlSettings
from emotion_edge.sinks.metrics import MetricsSettings

EDGE = Path(__file__).parents[3] / "edge"  # the package itself may be an installed wheel's
UNIT = EDGE / "systemd" / "emotion-edge.service"
INSTALLER = EDGE / "install-kiosk.sh"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def test_the_sample_configuration_is_valid_and_private() -> None:
    config = load_config(EDGE / "kiosk.toml")
    assert config.camera.wait
    assert config.aggregate is not None
    jsonl, metrics = config.sinks
    assert isinstance(jsonl, JsonlSettings) and jsonl.existing == "append"
    assert isinstance(metrics, MetricsSettings) and metrics.host == "127.0.0.1"


def test_what_the_sample_leaves_out_are_defaults() -> None:
    text = (EDGE / "kiosk.toml").read_text()
    everything = tomllib.loads(re.sub(r"^# (?=\w+ = |\[)", "", text, flags=re.MULTILINE))
    del everything["sinks"]["page"]  # shows single faces: not beside [aggregate]
    build(everything)
    active = read_toml(EDGE / "kiosk.toml")
    commented = [
        (f"{table}.{key}", value)
        for table in ("camera", "thermal", "tracker")
        for key, value in everything[table].items()
        if key not in active[table]
    ]
    assert len(commented) > 8
    defaults = {key: default for key, default, _ in reference()}
    for key, value in commented:
        shown = f"[{', '.join(map(str, value))}]" if isinstance(value, list) else f"{value:g}"
        assert defaults[key] in (shown, "unset"), key


@needs_systemd
def test_the_unit_verifies(tmp_path: Path) -> None:
    # The program it starts is not installed here.
    unit = tmp_path / UNIT.name
    text = UNIT.read_text()
    unit.write_text(text.replace("/opt/emotion-edge/bin/emotion-edge", shutil.which("true") or ""))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_the_unit_is_hardened() -> None:
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--no-pager",
            "--threshold=30",
            str(UNIT),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    level = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) <= 3.0


def test_the_unit_notifies_restarts_and_runs_what_is_installed() -> None:
    lines = UNIT.read_text().splitlines()
    for line in ("Type=notify", "WatchdogSec=60", "Restart=on-failure", "User=emotion-edge"):
        assert line in lines
    start = next(line for line in lines if line.startswith("ExecStart="))
    program, *words = start.removeprefix("ExecStart=").split()
    home = Path(program).parents[1]
    installer = INSTALLER.read_text()
    assert f"home={home}\n" in installer
    assert f"config={Path(words[-1]).parent}\n" in installer


def install(
    *words: str, codename: str, folder: Path, architecture: str = "arm64", picamera2: bool = True
) -> str:
    cache = folder / "apt-cache"
    cache.write_text(f"#!/bin/sh\nexit {0 if picamera2 else 100}\n")
    cache.chmod(0o755)
    release = folder / "os-release"
    release.write_text(f"VERSION_CODENAME={codename}\nPRETTY_NAME='Debian {codename}'\n")
    done = subprocess.run(
        ["sh", str(INSTALLER), "--dry-run", *words],
        env=os.environ
        | {
            "OS_RELEASE": str(release),
            "ARCHITECTURE": architecture,
            "PATH": f"{folder}:{os.environ['PATH']}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return f"{done.returncode}\n{done.stdout}"


@pytest.fixture
def wheel(tmp_path: Path) -> str:
    path = tmp_path / "emotion_edge-0.1.0-py3-none-any.whl"
    path.touch()
    return str(path)


@pytest.mark.parametrize("codename", ["bookworm", "trixie"])
def test_the_installer(tmp_path: Path, codename: str, wheel: str) -> None:
    said = install("--wheel", wheel, codename=codename, folder=tmp_path)
    assert said.startswith("0\n")
    assert "venv --system-site-packages /opt/emotion-edge" in said
    assert f"--constraint {EDGE}/constraints-{codename}.txt {wheel}[mqtt]" in said
    assert f"install -m 644 {UNIT} /etc/systemd/system/emotion-edge.service" in said
    assert said.index("daemon-reload") < said.index("systemctl enable")


def test_picamera2_is_looked_for_in_fresh_lists(tmp_path: Path, wheel: str) -> None:
    said = install("--wheel", wheel, codename="trixie", folder=tmp_path)
    assert "apt-get install -q -y --no-install-recommends python3-venv python3-picamera2" in said
    said = install("--wheel", wheel, codename="trixie", folder=tmp_path, picamera2=False)
    assert said.index("apt-get update") < said.index("apt has no python3-picamera2")
    assert "--no-install-recommends python3-venv\n" in said


@pytest.mark.parametrize(
    ("codename", "architecture", "says"),
    [
        ("bullseye", "arm64", "use Raspberry Pi OS Bookworm or Trixie"),
        ("bookworm", "armhf", "install the 64-bit Raspberry Pi OS"),
    ],
)
def test_the_installer_refuses(
    tmp_path: Path, codename: str, architecture: str, says: str, wheel: str
) -> None:
    said = install("--wheel", wheel, codename=codename, folder=tmp_path, architecture=architecture)
    assert said.startswith("2\n")
    assert says in said
    assert "+ " not in said


def test_the_uninstaller_keeps_what_was_recorded(tmp_path: Path) -> None:
    kept = install("--uninstall", codename="bookworm", folder=tmp_path)
    assert "rm -rf /etc/systemd/system/emotion-edge.service /opt/emotion-edge" in kept
    assert "/var/lib/emotion-edge" not in kept.partition("Kept")[0]
    purged = install("--uninstall", "--purge", codename="bookworm", folder=tmp_path)
    assert "rm -rf /etc/emotion-edge /var/lib/emotion-edge" in purged


def test_bookworm_keeps_numpy_1() -> None:
    pins = dict(
        line.split("==")
        for line in (EDGE / "constraints-bookworm.txt").read_text().splitlines()
        if "==" in line
    )
    assert pins["numpy"].startswith("1.")
    assert tuple(map(int, pins["opencv-python-headless"].split(".")[:2])) < (4, 12)


def test_trixie_has_the_versions_that_are_tested() -> None:
    tested = (EDGE.parent / ".ci" / "constraints-3.13.txt").read_text().splitlines()
    for line in (EDGE / "constraints-trixie.txt").read_text().splitlines():
        assert line.startswith("#") or line in tested


def test_the_guide_has_every_key() -> None:
    guide = (EDGE / "README.md").read_text()
    for key, default, meaning in reference():
        row = f"| `{key}` | `{default}` | {meaning.replace('``', '`')} |"
        assert row in guide, "renew it: cd edge && python -m emotion_edge.kiosk.configuration"
