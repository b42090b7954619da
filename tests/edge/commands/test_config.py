"""``emotion-edge config check``."""

from pathlib import Path

import pytest

from emotion_edge import cli
from emotion_edge.kiosk.configuration import load_config


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        ("camera.fps = 5", 0, ""),
        ("camera.fsp = 5", 1, "unknown key camera.fsp; did you mean camera.fps? (ignored)"),
        ("strict = true\ncamera.fsp = 5", 2, "unknown key camera.fsp; did you mean camera.fps?"),
        ("camera.fps = 'x'", 2, "camera.fps is 'x'; expected a number"),
        ("camera.", 2, "is not a TOML file"),
        ("model = 'nope'", 2, "no model named nope"),
    ],
)
def test_status_and_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, status: int, says: str
) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_text(text)
    assert cli.main(["config", "check", str(path)]) == status
    out, err = capsys.readouterr()
    assert says in err and err.count("\n") == bool(says)
    assert ("camera.fps = 5" in out) == (status == 0)
    assert bool(out) == (status < 2)


def test_what_is_printed_is_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_text("quiet = true\n[aggregate]\n[visits]\n[sinks.metrics]\n[cameras.demo]\nfaces=3")
    assert cli.main(["config", "check", str(path)]) == 0
    printed = tmp_path / "printed.toml"
    printed.write_text(capsys.readouterr().out)
    assert load_config(printed) == load_config(path)


def test_quiet_prints_problems_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_text("")
    assert cli.main(["config", "check", "--quiet", str(path)]) == 0
    assert capsys.readouterr().out == ""
