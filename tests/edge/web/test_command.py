from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from emotion_edge.cli import main
from emotion_edge.commands import web

from .conftest import TINY


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


@pytest.mark.parametrize(
    ("host", "password", "encrypted", "warning"),
    [("127.0.0.1", None, False, ""), ("localhost", "x", False, ""),
     ("0.0.0.0", None, True, "anyone on the network can use this page"),
     ("0.0.0.0", "x", False, "unencrypted"), ("::", "x", True, "")],
)  # fmt: skip
def test_what_the_network_can_see_is_said(
    host: str, password: str | None, encrypted: bool, warning: str
) -> None:
    said = web.exposure(host, password, encrypted=encrypted)
    assert warning in said and bool(said) == bool(warning)


@pytest.mark.slow
def test_it_serves_until_it_is_stopped_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the [web] extra is not installed")
    edge = Path(web.__file__).parents[2]
    server = subprocess.Popen(
        [sys.executable, "-m", "emotion_edge", "web", "--port", "0", "--model", str(TINY)],
        env={**os.environ, "PYTHONPATH": str(edge), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[1]
            assert address.startswith("http://localhost:")
            with urlopen(f"{address}/") as page:
                assert b"emotion-edge" in page.read()
            assert [path.name.startswith("emotion-edge-web-") for path in tmp_path.iterdir()]
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
        finally:
            server.kill()
    assert list(tmp_path.iterdir()) == []
