import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_edge import cli
from emotion_edge.cameras.auto import CameraInfo
from emotion_edge.commands import doctor
from emotion_edge.commands.doctor import Finding
from emotion_edge.kiosk import board
from emotion_edge.kiosk.board import Condition, Throttling
from emotion_edge.model import backend as runtimes
from emotion_edge.model import shipped

PI = dataclasses.replace(
    board.read_board(),
    name="Raspberry Pi 5 Model B",
    os="Debian GNU/Linux 12 (bookworm)",
    machine="aarch64",
)


def lines(findings: object) -> str:
    return "\n".join(str(finding) for finding in findings)  # type: ignore[attr-defined]


@pytest.fixture
def on_a_pi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "machine", lambda: "aarch64")


def test_a_finding_names_its_remedy_below() -> None:
    assert str(Finding("bad", "no x", "apt install x")) == "MISSING  no x\n           apt install x"
    assert str(Finding("ok", "x 1.0")) == "ok       x 1.0"


def test_status_zero_only_when_nothing_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tiny = Path(__file__).parents[1] / "tiny.tflite"
    monkeypatch.setattr(shipped, "shipped_models", lambda: {"fast": tiny})
    monkeypatch.setattr(doctor, "list_cameras", lambda: [])
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "no camera" in out and "Ready, without a camera:" in out
    assert "--camera auto" not in out
    monkeypatch.setattr(doctor, "list_cameras", lambda: [CameraInfo("/dev/video0", "C270")])
    assert cli.main(["doctor"]) == 0
    assert "Ready: emotion-edge run --camera auto" in capsys.readouterr().out
    wrong = tmp_path / "kiosk.toml"
    wrong.write_text("frsmes = 5")
    assert cli.main(["doctor", "--config", str(wrong)]) == 1
    out = capsys.readouterr().out
    assert "did you mean frames?" in out
    assert f"sudo nano {wrong}" in out
    assert "1 missing" in out


def test_no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "installed", lambda: {"tensorflow": "2.21"})
    assert "install ai-edge-litert" in lines(doctor.runtime())


@pytest.mark.usefixtures("on_a_pi")
def test_numpy_2_on_bookworm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "2.4.6")
    found = list(doctor.numpy(PI))
    assert [finding.state for finding in found] == ["bad"]
    assert "'numpy<2' 'opencv-python-headless<4.12'" in found[0].fix
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert [finding.state for finding in doctor.numpy(PI)] == ["ok"]


@pytest.mark.usefixtures("on_a_pi")
@pytest.mark.parametrize(
    ("version", "states"), [("4.11.0", ["ok"]), ("4.14.0", ["note", "ok"]), ("5.0.1", ["bad"])]
)
def test_opencv_on_bookworm(
    monkeypatch: pytest.MonkeyPatch, version: str, states: list[str]
) -> None:
    monkeypatch.setattr(cv2, "__version__", version)
    monkeypatch.setattr(doctor, "_distributions", lambda *names: ["one"])
    assert [finding.state for finding in doctor.opencv(PI)] == states


def test_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "shipped_models", dict)
    assert "contains no model" in lines(doctor.models())


def test_a_corrupt_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "fast-int8.tflite"
    broken.write_bytes(b"\0" * 100)
    monkeypatch.setattr(shipped, "shipped_models", lambda: {"fast": broken})
    found = list(doctor.models())
    assert [finding.state for finding in found] == ["bad"]
    assert "is not a TFLite model" in found[0].what


def test_cameras_and_what_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = [
        CameraInfo("/dev/video0", "C270"),
        CameraInfo("/dev/video2", "C920", "in use by zoom (123)"),
        CameraInfo("/dev/video4", "unknown", "Permission denied"),
    ]
    text = lines(doctor.cameras(board.read_board(), infos))
    assert "ok       camera /dev/video0: C270" in text
    assert "in use by zoom (123)" in text
    assert "usermod -aG video" in text


def test_picamera2_is_named_on_a_pi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "_sees_system_packages", lambda: False)
    text = lines(doctor.cameras(PI, []))
    assert "sudo apt install python3-picamera2, and a venv made with --system-site" in text


def test_missing_extras_name_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.util, "find_spec", absent)
    text = lines(doctor.extras())
    for extra in ("demo", "mqtt", "window", "web"):
        assert f"install 'emotion-edge[{extra}]'" in text


def test_weak_power_and_heat(monkeypatch: pytest.MonkeyPatch) -> None:
    state = Condition("powersave", 600.0, 84.0, Throttling(0x10004))
    monkeypatch.setattr(doctor, "read_condition", lambda: state)
    text = lines(doctor.condition())
    assert "power supply has been too weak" in text
    assert "slowed down now: throttled" in text
    assert "governor is powersave" in text


def test_a_service_that_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "kiosk.toml"
    config.write_text(f"model = '{Path(__file__).parents[1] / 'tiny.tflite'}'")
    monkeypatch.setattr(doctor.Path, "exists", lambda self: True)
    answers = {"is-enabled": "enabled", "is-active": "failed"}
    monkeypatch.setattr(doctor, "_systemctl", answers.__getitem__)
    found = list(doctor.kiosk(str(config)))
    assert [finding.state for finding in found] == ["ok", "ok", "bad"]
    assert "systemctl restart emotion-edge.service" in found[-1].fix
