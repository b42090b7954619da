"""The unit, the installer and the sample configuration, as far as they can be run without a Pi."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from emotion_edge.kiosk.configuration import build, guide_table, load_config, reference
from emotion_edge.settings import read_toml
from emotion_edge.sinks.jsonl import JsonlSettings
from emotion_edge.sinks.metrics import MetricsSettings
from emotion_edge.sinks.mqtt import CREDENTIAL
from tests.edge.kiosk.kiosk_standin import UNTESTED, Kiosk
from tests.edge.kiosk.kiosk_standin import wheel as release_wheel

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
    program = "/opt/emotion-edge/current/bin/emotion-edge"
    assert program in text
    unit.write_text(text.replace(program, shutil.which("true") or ""))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_the_units_that_resume_an_update_verify(tmp_path: Path) -> None:
    for kind in ("service", "timer"):
        name = f"emotion-edge-update.{kind}"
        text = (EDGE / "systemd" / name).read_text()
        programs = re.sub(r"/opt/emotion-edge/\w+/bin/emotion-edge", "/bin/true", text)
        (tmp_path / name).write_text(programs)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "emotion-edge-update.timer")],
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
    home = Path(program).parents[2]
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
            "PATH": f"{folder}:{more.get('PATH', os.environ['PATH'])}",
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
    said = install("--wheel", wheel, "--", "--force", codename=codename, folder=tmp_path)
    assert said.startswith("0\n")
    assert re.search(rf"^\+ python3 \S+ --wheel {wheel} --force$", said, re.MULTILINE)
    assert said.index("useradd") < said.index("+ python3")  # which runs parts as that user
    assert said.rstrip().endswith("Dry run: nothing was changed.")
    assert "running" not in said.lower()


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
    updater = "edge/emotion_edge/kiosk/update.py"
    assert f"+ python3 {checkout}/{updater} --checkout {checkout}\n" in said


def test_the_newest_of_several_wheels(tmp_path: Path) -> None:
    names = [f"emotion_edge-{v}-py3-none-any.whl" for v in ("0.9.0", "0.10.0", "0.2.1")]
    script = alone(tmp_path / "usb", *names)
    said = install(codename="trixie", folder=tmp_path, script=script)
    assert f"--wheel {tmp_path}/usb/emotion_edge-0.10.0-py3-none-any.whl\n" in said
    assert "0.9.0" not in said
    for name in names:
        (tmp_path / "usb" / name).unlink()
    said = install(codename="trixie", folder=tmp_path, script=script)
    assert said.startswith("2\n") and "use --wheel FILE" in said


def test_installing_updating_and_uninstalling(tmp_path: Path) -> None:
    """On a disk in a folder, with stand-ins for the system's programs."""
    kiosk = Kiosk(tmp_path / "kiosk")
    kiosk.config.unlink()
    for name in ("apt-get", "useradd", "id"):
        (kiosk.programs / name).write_text("#!/bin/sh\n")
        (kiosk.programs / name).chmod(0o755)
    environment = kiosk.environment | {"PATH": f"{kiosk.programs}:{os.environ['PATH']}"}

    def installed(version: str) -> str:
        words = ("--wheel", str(release_wheel(tmp_path, version)), "--", "--trial", "0")
        return install(*words, codename="trixie", folder=tmp_path, dry=False, more=environment)

    for version in ("1.0", "1.1"):
        said = installed(version)
        assert said.startswith("0\n"), said
        assert "The service is running" in said
        assert kiosk.version() == kiosk.running == version
    assert kiosk.config.read_text() == (EDGE / "kiosk.toml").read_text()
    kiosk.config.write_text("# mine\n")
    said = install(
        *("--wheel", str(release_wheel(tmp_path, "1.2", UNTESTED))),
        codename="trixie",
        folder=tmp_path,
        dry=False,
        more=environment,
    )
    assert said.startswith("1\n") and "failed its self-test" in said
    said = install("--uninstall", codename="trixie", folder=tmp_path, dry=False, more=environment)
    assert said.startswith("0\n"), said
    assert not os.path.lexists(kiosk.root / "usr/local/bin/emotion-edge")
    assert not kiosk.home.exists()
    assert not list((kiosk.root / "etc/systemd/system").iterdir())
    assert kiosk.config.read_text() == "# mine\n"


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
    assert "rm -rf /etc/systemd/system/emotion-edge.service\n" in kept
    assert "rm -rf /opt/emotion-edge\n" in kept
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
