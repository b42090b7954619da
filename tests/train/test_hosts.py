"""One run on several hosts: two processes of this machine, on JAX."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_edge.errors import UsageError
from train.errors import TrainingError
from train.hosts import Host, parse_host

ROOT = Path(__file__).parents[2]


FIT = """
import os, signal, sys, time

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tensorboard"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTensorFlow())
from train.__main__ import main
from train.fit import Run

watch, in_second_epoch = Run.watch, sys.argv[1]

def watched(self, done, loss):
    if (self.batches.epoch, done) == (1, 2):
        if in_second_epoch == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if in_second_epoch == "wait":  # outside any exchange with the other host
            time.sleep(200)
    watch(self, done, loss)

Run.watch = watched
sys.exit(main(["fit", *sys.argv[2:]]))
"""


def configuration(folder: Path) -> Path:
    path = folder / "tiny.toml"
    path.write_text(
        '[network]\nname = "residual"\nstem = [4, 3]\nstages = [[4, 2, 0]]\n'
        "dropout = 0.1\n[augment]\nflip = true\nshift = 0.05\n"
        "[fit]\nepochs = 3\nbatch = 56\nlearning_rate = 3e-3\nema = 0.8\n"
    )
    return path


@dataclass(frozen=True)
class Ended:
    """What a process returned and printed."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JAX's cache of compiled functions: most of a tiny run is compilation."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """The processes of a test, which end with it."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def start(compiled: Path, started: list[subprocess.Popen[str]]) -> Callable[..., Any]:
    """Start ``train fit`` on JAX and the processor, without TensorFlow."""

    def call(*words: object, host: str = "", second_epoch: str = "") -> subprocess.Popen[str]:
        given = ["--host", host] if host else []
        process = subprocess.Popen(
            [sys.executable, "-c", FIT, second_epoch, *map(str, words), *given],
            env=os.environ
            | {
                "KERAS_BACKEND": "jax",
                "JAX_PLATFORMS": "cpu",
                "JAX_COMPILATION_CACHE_DIR": str(compiled),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        started.append(process)
        return process

    return call


def ended(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=450)  # two processes on a busy machine
    return Ended(process.returncode, out, err)


def two_hosts(
    start: Callable[..., subprocess.Popen[str]],
    words: list[object],
    folder: Path,
    first: str = "",
    second: str = "",
) -> tuple[Ended, Ended]:
    """Run both hosts to their ends; first, second: what each does in its second epoch."""
    address = f"127.0.0.1:{free_port()}"
    one = start(*words, "--out", folder / "run", host=f"0/2@{address}", second_epoch=first)
    two = start(*words, "--out", folder / "second", host=f"1/2@{address}", second_epoch=second)
    return ended(one), ended(two)


def assert_one_line(host: Ended) -> None:
    """The host ended with an error of one line and no dump."""
    assert host.status == TrainingError.exit_code, host
    last = host.err.strip().splitlines()[-1]
    assert last.startswith("train: lost another host")
    assert "start all hosts again to continue after the last finished epoch" in last
    assert host.err.count("lost another host") == 1
    assert not re.search(r"Traceback|coordination|^[EF]\d{4} ", host.err, re.MULTILINE), host.err


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


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_two_hosts_train_as_one_and_continue_after_a_kill(
    start: Callable[..., subprocess.Popen[str]], words: list[object], tmp_path: Path
) -> None:
    first, second = two_hosts(start, words, tmp_path, second="kill")
    assert second.status == -signal.SIGKILL
    assert_one_line(first)
    assert len(history(tmp_path / "run")["loss"]) == 1
    assert not (tmp_path / "run" / "model.keras").exists()

    first, second = two_hosts(start, words, tmp_path)
    assert (first.status, second.status) == (0, 0), (first, second)
    assert "continues after epoch 1" in first.err
    assert "host 1 of 2: done" in second.out
    assert not (tmp_path / "second").exists(), "only the first host writes"

    undisturbed = ended(start(*words, "--out", tmp_path / "alone"))
    assert undisturbed.status == 0, undisturbed.err
    one, two = history(tmp_path / "alone"), history(tmp_path / "run")
    assert len(two["loss"]) == 3
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-4, err_msg=name)
    with (
        np.load(tmp_path / "alone" / "checkpoint.npz") as a,
        np.load(tmp_path / "run" / "checkpoint.npz") as b,
    ):
        for name in set(a.files) - {"history"}:
            np.testing.assert_allclose(b[name], a[name], rtol=0.02, atol=2e-3, err_msg=name)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_lost_first_host_is_one_line_outside_a_step_too(
    start: Callable[..., subprocess.Popen[str]], words: list[object], tmp_path: Path
) -> None:
    first, second = two_hosts(start, words, tmp_path, first="kill", second="wait")
    assert first.status == -signal.SIGKILL
    assert_one_line(second)


def test_a_native_abort_for_another_reason_keeps_its_message() -> None:
    code = (
        "import os\nfrom train.hosts import _Log\nlog = _Log()\nlog.start()\n"
        "os.write(2, b'out of memory\\n')\nos.abort()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGABRT
    assert done.stderr == "out of memory\n"


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
    more: list[str],
    said: str,
    start: Callable[..., subprocess.Popen[str]],
    words: list[object],
    tmp_path: Path,
) -> None:
    run = ended(start(*words, "--out", tmp_path / "run", *more))
    assert run.status == 2
    assert said in run.err and "Traceback" not in run.err
