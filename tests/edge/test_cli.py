"""The command line's frame: help, errors, exit statuses."""

from __future__ import annotations

import argparse
import types

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


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(command in text for command in cli.COMMANDS)


def test_a_missing_extra_names_the_pip_command() -> None:
    error = errors.MissingExtra("the web page", "web", "gradio")
    assert "pip install 'emotion-edge[web]'" in str(error)
    assert isinstance(error, ImportError)
