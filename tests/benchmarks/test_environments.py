"""Environments for runtimes and peers; nothing is fetched."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import environments
from benchmarks.environments import Environment
from emotion_edge.errors import UsageError


def test_an_unknown_runtime_names_the_known():
    with pytest.raises(UsageError, match="litert, tflite-runtime, tensorflow"):
        environments.python_for("onnx")


def test_a_runtime_that_is_not_installed_gets_an_environment(tmp_path, monkeypatch):
    made = []

    def fake_make(folder, environment, progress):
        made.append((folder, environment.packages))
        return folder / "bin" / "python"

    monkeypatch.setattr(environments, "_FOLDER", tmp_path)
    monkeypatch.setattr(environments, "make", fake_make)
    monkeypatch.setattr(environments, "installed", lambda: {"litert": "2.3"})
    assert environments.python_for("litert") == sys.executable
    python = environments.python_for("tflite-runtime")
    assert python == str(tmp_path / "tflite-runtime" / "bin" / "python")
    assert made == [(tmp_path / "tflite-runtime", ("tflite-runtime==2.14.0", "numpy==1.26.4"))]


def test_a_missing_python_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"needs Python 2\.9"):
        environments.make(tmp_path / "old", Environment("2.9", ()))


def test_an_environment_is_made_once_and_made_again_for_other_packages(tmp_path, monkeypatch):
    commands = []

    def fake_run(command, **_):
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir()
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(environments.subprocess, "run", fake_run)
    folder = tmp_path / "env"
    python = environments.make(folder, Environment(None, ("a==1",)))
    assert python == folder / "bin" / "python"
    assert commands[1][0] == str(python) and commands[1][-1] == "a==1"
    environments.make(folder, Environment(None, ("a==1",)))
    assert len(commands) == 2
    environments.make(folder, Environment(None, ("a==2",)))
    assert len(commands) == 4


def test_a_failed_environment_is_not_taken_for_a_whole_one(tmp_path, monkeypatch):
    def fake_run(command, **_):
        if "venv" in command:
            Path(command[-1]).mkdir()
            return SimpleNamespace(returncode=0, stderr="")
        return SimpleNamespace(returncode=1, stderr="no network\n")

    monkeypatch.setattr(environments.subprocess, "run", fake_run)
    for _ in range(2):
        with pytest.raises(UsageError, match="no network"):
            environments.make(tmp_path / "env", Environment(None, ("a==1",)))
