"""The command line's frame: help, errors, exit statuses."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from emotion_edge import cli, errors


def fake_command(monkeypatch: pytest.MonkeyPatch, outcome: BaseException | int) -> None:
    """Put a command in place of `info` that ends as told."""

    def run(options: argparse.Namespace) -> int:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    module = types.SimpleNamespace(HELP="x", add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(cli, "COMMANDS", ("info",))
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UsageError("wrong"), 2),
        (errors.ManifestError("wrong"), 2),
        (errors.CameraLost("gone"), 3),
        (errors.SinkError("full"), 4),
    ],
)
def test_an_error_is_one_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: errors.EmotionEdgeError,
    status: int,
) -> None:
    fake_command(monkeypatch, error)
    assert cli.main(["info"]) == status
    assert capsys.readouterr() == ("", f"emotion-edge: {error}\n")


def test_a_name_with_a_line_feed_stays_on_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", str(tmp_path / "a\nb\x1b[31m.tflite")]) == 2
    error = capsys.readouterr().err
    assert "a\\nb\\x1b[31m.tflite" in error and error.count("\n") == 1


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(monkeypatch, errors.UsageError("wrong"))
    with pytest.raises(errors.UsageError):
        cli.main(["info", "--debug"])


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(monkeypatch, KeyError("bug"))
    with pytest.raises(KeyError):
        cli.main(["info"])


def test_interrupt_and_success(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(monkeypatch, KeyboardInterrupt())
    assert cli.main(["info"]) == 130
    fake_command(monkeypatch, 0)
    assert cli.main(["info"]) == 0


@pytest.mark.parametrize("status", [0, 130])
def test_a_thread_left_behind_in_native_code_does_not_abort_the_process(status: int) -> None:
    program = f"""
import sys, threading, types
import cv2, numpy
from emotion_edge import cli

def blur(begun):
    image = numpy.zeros((1000, 1000), numpy.uint8)
    while True:
        cv2.GaussianBlur(image, (31, 31), 5)
        begun.set()

def run(options):
    begun = threading.Event()
    threading.Thread(target=blur, args=(begun,), daemon=True).start()
    begun.wait()
    print("said")
    return {status}

module = types.SimpleNamespace(HELP="x", add_arguments=lambda parser: None, run=run)
cli.importlib = types.SimpleNamespace(import_module=lambda name: module)
sys.argv = ["emotion-edge", "info"]
sys.exit(cli.main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "said\n", "")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(command in text for command in cli.COMMANDS)


def test_a_missing_extra_names_the_pip_command() -> None:
    error = errors.MissingExtra("the web page", "web", "gradio")
    assert "pip install 'emotion-edge[web]'" in str(error)
    assert isinstance(error, ImportError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", [["doctor"], ["info"]])
def test_a_full_disk_behind_standard_output_is_one_line(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-u", "-m", "emotion_edge", *command],
            env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 4, done.stderr
    assert "cannot write to standard output: No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
