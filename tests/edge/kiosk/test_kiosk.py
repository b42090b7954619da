"""The unit, the installer and the sample configuration, as far as they can be run without a Pi."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from emotion_edge.kiosk.configuration import build, guide_table, load_config, reference
from emotion_edge.settings import read_toml
from emotion_edge.sinks.jsonl import JsonlSettings
from emotion_edge.sinks.metrics import MetricsSettings
from emotion_edge.sinks.mqtt import CREDENTIAL

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
    del everything["sinks"]["page"]  # shows single faces: not together with [aggregate]
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
        shown = str(value).lower() if isinstance(value, bool) else shown
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
    # systemd would otherwise end ffmpeg before we have handed it the last frames.
    assert "KillMode=mixed" in lines
    assert f"LoadCredential={CREDENTIAL}" in lines
    start = next(line for line in lines if line.startswith("ExecStart="))
    program, *words = start.removeprefix("ExecStart=").split()
    home = Path(program).parents[1]
    installer = INSTALLER.read_text()
    assert f"home={home}\n" in installer
    assert f"config={Path(words[-1]).parent}\n" in installer


def install(
    *words: str,
    codename: str,
    folder: Path,
    architecture: str = "arm64",
    picamera2: bool = True,
    script: Path = INSTALLER,
    dry: bool = True,
    more: Mapping[str, str] = MappingProxyType({}),
) -> str:
    cache = folder / "apt-cache"
    cache.write_text(f"#!/bin/sh\nexit {0 if picamera2 else 100}\n")
    cache.chmod(0o755)
    release = folder / "os-release"
    release.write_text(f"VERSION_CODENAME={codename}\nPRETTY_NAME='Debian {codename}'\n")
    done = subprocess.run(
        ["sh", str(script), *(["--dry-run"] if dry else []), *words],
        env=os.environ
        | {"PYTHONPATH": ""}
        | dict(more)
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
    pip = f"pip install --quiet --constraint {EDGE}/constraints-{codename}.txt"
    assert f"{pip} --upgrade {wheel}[metrics,mqtt]" in said
    # Else pip keeps the code of an equal version.
    assert f"{pip} --force-reinstall --no-deps {wheel}\n" in said
    assert "+ ln -sfn /opt/emotion-edge/bin/emotion-edge /usr/local/bin/emotion-edge" in said
    assert said.rstrip().endswith("Dry run: nothing was changed.")
    assert "running" not in said.lower()
    assert f"install -D -m 644 {UNIT} /etc/systemd/system/emotion-edge.service" in said
    assert said.index("daemon-reload") < said.index("systemctl enable")


def alone(folder: Path, *wheels: str) -> Path:
    """The installer and what it needs in a folder of its own, with some wheels next to it."""
    shutil.copytree(EDGE, folder, ignore=shutil.ignore_patterns("emotion_edge"))
    for name in wheels:
        (folder / name).touch()
    return folder / INSTALLER.name


def test_a_checkout_wins_over_wheels_that_lie_around(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    script = alone(checkout / "edge", "emotion_edge-9.0.0-py3-none-any.whl")
    (checkout / "pyproject.toml").touch()
    (checkout / "dist").mkdir()
    (checkout / "dist/emotion_edge-9.0.0-py3-none-any.whl").touch()
    said = install(codename="trixie", folder=tmp_path, script=script)
    assert f"install-kiosk: installing {checkout}\n" in said
    assert f"--force-reinstall --no-deps {checkout}\n" in said


def test_the_newest_of_several_wheels(tmp_path: Path) -> None:
    names = [f"emotion_edge-{v}-py3-none-any.whl" for v in ("0.9.0", "0.10.0", "0.2.1")]
    script = alone(tmp_path / "usb", *names)
    said = install(codename="trixie", folder=tmp_path, script=script)
    assert f"{tmp_path}/usb/emotion_edge-0.10.0-py3-none-any.whl[metrics,mqtt]" in said
    assert "0.9.0" not in said
    for name in names:
        (tmp_path / "usb" / name).unlink()
    said = install(codename="trixie", folder=tmp_path, script=script)
    assert said.startswith("2\n") and "use --wheel FILE" in said


def little_wheel(folder: Path, word: str) -> Path:
    """A wheel of version 0.1.0 whose command prints a word."""
    folder.mkdir()
    path = folder / "emotion_edge-0.1.0-py3-none-any.whl"
    info = "emotion_edge-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("emotion_edge/__init__.py", f"def main():\n    print({word!r})\n")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: emotion-edge\nVersion: 0.1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        entry = "[console_scripts]\nemotion-edge = emotion_edge:main\n"
        wheel.writestr(f"{info}/entry_points.txt", entry)
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.slow  # it makes a virtual environment, with pip
def test_installing_again_replaces_the_code_of_an_equal_version(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (disk / "usr/local/bin").mkdir(parents=True)
    python = tmp_path / "python3"  # for venv, not the system's, which may lack it
    python.symlink_to(sys.executable)
    for name in ("apt-get", "useradd", "systemctl", "id"):
        (tmp_path / name).write_text(
            "#!/bin/sh\nexit 1\n" if name == "systemctl" else "#!/bin/sh\n"
        )
        (tmp_path / name).chmod(0o755)
    # systemctl is-active answers no, everything else works.
    (tmp_path / "systemctl").write_text('#!/bin/sh\n[ "$1" != is-active ]\n')
    environment = {"DESTDIR": str(disk), "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for word in ("old", "new"):
        wheel = little_wheel(tmp_path / word, word)
        words = ("--wheel", str(wheel))
        said = install(*words, codename="trixie", folder=tmp_path, dry=False, more=environment)
        assert said.startswith("0\n"), said
        assert "The service is running" not in said
        command = disk / "opt/emotion-edge/bin/emotion-edge"
        done = subprocess.run([command], env={}, capture_output=True, text=True, check=True)
        assert done.stdout == f"{word}\n"
    link = disk / "usr/local/bin/emotion-edge"
    assert link.readlink() == Path("/opt/emotion-edge/bin/emotion-edge")
    kept = disk / "etc/emotion-edge/kiosk.toml"
    assert kept.read_text() == (EDGE / "kiosk.toml").read_text()
    said = install("--uninstall", codename="trixie", folder=tmp_path, dry=False, more=environment)
    assert said.startswith("0\n"), said
    assert not os.path.lexists(link) and not (disk / "opt/emotion-edge").exists()
    assert kept.exists()


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
    table = "\n".join(guide_table())
    assert table in guide, "renew it: cd edge && python -m emotion_edge.kiosk.configuration"
    for key, _, _ in reference():
        shared = f"sinks.NAME.{key.rpartition('.')[2]}"
        assert f"| `{key}` |" in table or (key.startswith("sinks.") and f"| `{shared}` |" in table)
