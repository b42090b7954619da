from __future__ import annotations

from pathlib import Path

import pytest

from emotion_edge.cli import main
from emotion_edge.commands import web


def test_wrong_flags_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for flags, said in (
        (["--password-file", str(tmp_path / "absent")], "cannot read"),
        (["--password-file", str(empty)], "is empty"),
        (["--certificate", str(tmp_path / "absent")], "no file"),
        (["--certificate", str(empty)], "both --certificate and --key"),
        (["--visitors", "0"], "--visitors 0"),
        (["--max-megabytes", "-1"], "--max-megabytes"),
        (["--port", "70000"], "--port 70000"),
    ):
        assert main(["web", *flags]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_the_password_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    web.add_arguments(parser)
    secret = tmp_path / "secret"
    secret.write_text("one two\n")
    monkeypatch.setenv(web.PASSWORD, "three")
    assert web._password(parser.parse_args(["--password-file", str(secret)])) == "one two"
    assert web._password(parser.parse_args([])) == "three"
    monkeypatch.delenv(web.PASSWORD)
    assert web._password(parser.parse_args([])) is None
    assert parser.parse_args([]).host == "127.0.0.1"
