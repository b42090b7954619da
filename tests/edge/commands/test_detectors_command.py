"""``emotion-edge detectors``."""

from __future__ import annotations

from pathlib import Path

import pytest

from emotion_edge.cli import main
from emotion_edge.detectors import yunet


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / yunet.FILE
    path.write_bytes(b"weights")
    monkeypatch.setattr(yunet, "weights_path", lambda: path)
    monkeypatch.setattr(yunet, "verify", lambda data, name: None)
    return path


def test_without_a_word_it_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detectors"]) == 0
    listed = capsys.readouterr().out
    assert {"yunet", "haar", "auto"} == {line.split()[0] for line in listed.splitlines()}
    assert main(["detectors", "list"]) == 0
    assert capsys.readouterr().out == listed


def test_an_absent_source_is_an_error_even_when_the_weights_are_installed(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detectors", "get", "yunet", "--from", str(tmp_path / "nonexistent")]) == 2
    output = capsys.readouterr()
    assert "nonexistent: No such file" in output.err and output.out == ""
    assert main(["detectors", "get", "yunet"]) == 0
    assert f"{installed} was already installed" in capsys.readouterr().out


def test_a_user_without_a_home_has_a_place_for_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert yunet.weights_path().parent == Path("/usr/local/share/emotion-edge")
