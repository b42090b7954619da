"""One run on several hosts: two processes of this machine, on JAX."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from emotion_edge.errors import UsageError
from train.hosts import Host, parse_host

ROOT = Path(__file__).parents[2]


def configuration(folder: Path) -> Path:
    path = folder / "tiny.toml"
    path.write_text(
        '[network]\nname = "residual"\nstem = [8, 3]\nstages = [[8, 2, 0], [16, 2, 0]]\n'
        "dropout = 0.1\n[augment]\nflip = true\nshift = 0.05\n"
        "[fit]\nepochs = 3\nbatch = 56\nlearning_rate = 3e-3\nema = 0.8\n"
    )
    return path


def start(words: list[object], host: str = "", *more: str) -> subprocess.Popen[str]:
    """``train fit`` on JAX and the processor."""
    given = ["--host", host] if host else []
    return subprocess.Popen(
        [sys.executable, "-m", "train", "fit", *map(str, words), *given, *more],
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def history(folder: Path) -> dict[str, list[float]]:
    with (folder / "history.csv").open() as text:
        rows = list(csv.DictReader(text))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name != "seconds"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def words(small: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    pytest.importorskip("jax", reason="no JAX: pip install '.[jax]'")
    config = configuration(tmp_path_factory.mktemp("hosts"))
    return ["--config", config, "--data", small, "--cache", cache]


@pytest.fixture(scope="module")
def alone(words: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    run = start([*words, "--out", out])
    _, text = run.communicate(timeout=250)
    assert run.returncode == 0, text
    return out


@pytest.mark.timeout(600)
def test_two_hosts_train_as_one_and_continue_after_a_kill(
    words: list[object], alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first, second = _pair(words, out, tmp_path)
    # The second is killed once the first epoch is kept: the first ends with one line.
    while not (out / "checkpoint.npz").exists():
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.02)
    second.send_signal(signal.SIGKILL)
    second.wait()
    _, text = first.communicate(timeout=250)
    kept = len(history(out)["loss"])
    if first.returncode == 0:
        assert kept == 3, "it ended before the kill"
    else:
        assert first.returncode == 2, text
        last = text.strip().splitlines()[-1]
        assert last.startswith("train: lost another host") and "start all hosts again" in last
        assert "Traceback" not in text
        assert not (out / "model.keras").exists()
        first, second = _pair(words, out, tmp_path)
        said = [run.communicate(timeout=250) for run in (first, second)]
        assert (first.returncode, second.returncode) == (0, 0), said
        assert f"continues after epoch {kept}" in said[0][1]
        assert "host 1 of 2: done" in said[1][0]
    assert not (tmp_path / "second").exists(), "only the first host writes"
    one, two = history(alone), history(out)
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=2e-3, atol=2e-3, err_msg=name)
    with np.load(alone / "checkpoint.npz") as a, np.load(out / "checkpoint.npz") as b:
        for name in set(a.files) - {"history"}:
            np.testing.assert_allclose(b[name], a[name], rtol=0.02, atol=2e-3, err_msg=name)


def _pair(
    words: list[object], out: Path, folder: Path
) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    address = f"127.0.0.1:{free_port()}"
    first = start([*words, "--out", out], f"0/2@{address}")
    return first, start([*words, "--out", folder / "second"], f"1/2@{address}")


def test_the_flag() -> None:
    assert parse_host("1/2@10.0.0.1:8476") == Host(1, 2, "10.0.0.1:8476")
    for text in ("2/2@a:1", "0/2", "a/b@c:1", "0/2@host"):
        with pytest.raises(UsageError, match="INDEX/COUNT@ADDRESS:PORT"):
            parse_host(text)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--devices", "2"], "--devices 2, but host 0 has 1"),
        (["--devices", "0"], "--devices is 0"),
    ],
)
def test_too_few_devices_are_one_line(
    more: list[str], said: str, words: list[object], tmp_path: Path
) -> None:
    run = start([*words, "--out", tmp_path / "run"], "", *more)
    _, text = run.communicate(timeout=250)
    assert run.returncode == 2
    assert said in text and "Traceback" not in text
