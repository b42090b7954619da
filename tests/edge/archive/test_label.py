"""``emotion-edge label``: the same answers as ``image``, and nothing lost when it is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_edge.archive.run import Progress
from emotion_edge.cameras.demo import HOPPER
from emotion_edge.cli import main
from tests.schema import check_record

TINY = str(Path(__file__).parents[1] / "tiny.tflite")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images, half of them with a face, and some that cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    face = cv2.imread(str(HOPPER))
    for i in range(40):
        image = face if i % 2 else np.full_like(face, 90)
        (folder / f"{i % 4}").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{i % 4}" / f"{i:02}.jpg"), cv2.resize(image, (120 + i, 140 + i)))
    (folder / "text.jpg").write_text("plain text")
    (folder / "empty.png").touch()
    (folder / "gone.jpg").symlink_to("nothing")
    (folder / "again").symlink_to(folder)
    os.mkfifo(folder / "pipe.jpg")
    return folder


def command(photos: Path, out: Path, *more: str) -> list[str]:
    words = [str(photos), "--out", str(out), "--model", TINY, "--detector", "haar", *more]
    return [sys.executable, "-m", "emotion_edge", "label", *words]


def records(out: Path) -> dict[str, dict[str, object]]:
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    found = {line["file"]: line for line in lines}
    assert len(found) == len(lines), "an image is there twice"
    return found


@pytest.fixture(scope="module")
def expected(photos: Path) -> dict[str, dict[str, object]]:
    """What ``emotion-edge image`` says."""
    files = sorted(str(path) for path in photos.glob("[0-9]/*.jpg"))
    words = ["image", *files, "--model", TINY, "--detector", "haar", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "emotion_edge", *words], capture_output=True, text=True, check=True
    )
    return {one["file"]: one for one in map(json.loads, done.stdout.splitlines())}


def test_it_answers_as_image_does(
    photos: Path, expected: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    done = subprocess.run(command(photos, out), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout == f"{out}\n"
    found = records(out)
    assert found == expected
    assert sum(len(one["faces"]) for one in found.values()) >= 20
    for one in found.values():
        check_record(one)
    bad = records(tmp_path / "out.jsonl.unreadable.jsonl")
    assert {Path(name).name for name in bad} == {"text.jpg", "empty.png", "gone.jpg", "pipe.jpg"}
    assert "44 images" in done.stderr and "4 images could not be read" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.jsonl",
        "out.jsonl.manifest.json",
        "out.jsonl.unreadable.jsonl",
    ]


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_after_kill_9_it_continues(
    photos: Path, expected: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    parts = tmp_path / "out.jsonl.parts"
    run = subprocess.Popen(command(photos, out, "--workers", "2"), stderr=subprocess.DEVNULL)
    while not (done_before := len(list(parts.glob("0*.jsonl")))):
        assert run.poll() is None
        time.sleep(0.005)
    workers = children(run.pid)
    run.kill()
    run.wait()
    assert workers and not out.exists()
    deadline = time.monotonic() + 60
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "a worker outlives the run"
        time.sleep(0.05)
    done_before = len(list(parts.glob("0*.jsonl")))
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("0*.jsonl")}
    again = subprocess.Popen(
        command(photos, out, "--workers", "2"), stderr=subprocess.PIPE, text=True
    )
    while again.poll() is None and parts.exists():
        for path, when in kept.items():
            try:
                assert path.stat().st_mtime_ns == when, "a finished chunk was done again"
            except FileNotFoundError:
                break
        time.sleep(0.01)
    _, text = again.communicate()
    assert again.returncode == 1
    assert "continues the run" in text
    assert records(out) == expected
    assert done_before


def test_an_image_that_kills_its_process_is_listed(photos: Path, tmp_path: Path) -> None:
    """With a detector of another package that ends the process at one image."""
    plugin = tmp_path / "plugin"
    (plugin / "deadly-1.0.dist-info").mkdir(parents=True)
    (plugin / "deadly-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: deadly\nVersion: 1.0\n"
    )
    (plugin / "deadly-1.0.dist-info" / "entry_points.txt").write_text(
        "[emotion_edge.detectors]\ndeadly = deadly:DeadlySettings\n"
    )
    (plugin / "deadly.py").write_text(
        "import os, signal\n"
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from emotion_edge.detectors import DetectorSettings\n"
        "class Deadly:\n"
        "    def detect(self, image):\n"
        "        if image.shape[1] == 133:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return []\n"
        "@dataclass(frozen=True, slots=True, kw_only=True)\n"
        "class DeadlySettings(DetectorSettings):\n"
        "    help: ClassVar[str] = 'ends the process'\n"
        "    def open(self):\n"
        "        return Deadly()\n"
    )
    out = tmp_path / "out.jsonl"
    words = command(photos, out, "--workers", "2")
    words[words.index("haar")] = "deadly"
    path = os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        words,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    bad = records(tmp_path / "out.jsonl.unreadable.jsonl")
    assert "died" in str(bad[str(photos / "1" / "13.jpg")]["reason"])
    assert len(records(out)) == 39


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{photos}", "--out", "x.csv"], ".parquet"),
        (["{photos}", "--out", "new/folder/x.txt"], ".parquet"),
        (["nothing", "--out", "new/folder/x.jsonl"], "cannot read nothing"),
        (["{photos}", "--out", "x.jsonl", "--workers", "0"], "--workers is 0"),
        (["{photos}", "--out", "x.jsonl", "--workers", "99999999999"], "use 1 to 1024"),
        (["{photos}", "--out", "x.jsonl", "--workers", "2", "--ray"], "exclude each other"),
        (["{photos}/1/01.jpg", "--out", "x.jsonl"], "emotion-edge image"),
        (["nothing", "--out", "x.jsonl"], "cannot read nothing"),
        (["{photos}", "--out", "x.jsonl", "--model", "none"], "no model named none"),
        (["{photos}", "--out", "x.jsonl", "--precision", "7"], "precision"),
    ],
)
def test_a_wrong_command_is_one_line_and_leaves_nothing(
    words: Sequence[str],
    said: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["label", *(word.format(photos=photos) for word in words)]) == 2
    text = capsys.readouterr().err
    assert said in text and text.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_an_existing_output_is_kept_unless_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    words = ["label", str(photos / "1"), "--out", str(out), "--model", TINY, "--detector", "haar"]
    assert main(words) == 2
    assert out.read_text() == "mine"
    assert main([*words, "--overwrite", "--workers", "1"]) == 0
    assert len(records(out)) == 10


def test_ctrl_c_says_how_to_continue(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run = subprocess.Popen(
        command(photos, out, "--workers", "1"), stderr=subprocess.PIPE, text=True
    )
    while not list((tmp_path / "out.jsonl.parts").glob("0*.jsonl")):
        assert run.poll() is None
        time.sleep(0.005)
    run.send_signal(signal.SIGINT)
    _, text = run.communicate(timeout=120)
    if run.returncode == 1:
        pytest.skip("the run ended before the signal came")
    assert run.returncode == 130
    assert "repeat the command to continue" in text and "Traceback" not in text


def test_progress_is_one_line_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    now = 0.0
    progress = Progress(clock=lambda: now)
    progress.begin(0, 100)
    now = 1.0
    progress.add(50, 0)
    progress.end()
    text = capsys.readouterr().err
    assert "50 of 100 images" in text and "\n" not in text


@pytest.mark.timeout(600)
def test_a_ray_worker_is_killed_and_every_image_is_labelled_once(
    photos: Path, expected: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    script = Path(__file__).with_name("two_workers.py")
    out = tmp_path / "out.jsonl"
    shutil.copytree(photos, source := tmp_path / "photos", symlinks=True, ignore=_pipes)
    words = ["2", "2", "--model", TINY, "--detector", "haar"]
    done = subprocess.run(
        [sys.executable, str(script), str(source), str(out), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    if done.returncode == 75:
        pytest.skip("this machine is too busy: Ray did not start within its 30 seconds")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["killed_after"] >= 2, done.stderr
    assert said["status"] == 1, done.stderr
    moved = {name.replace(str(photos), str(source)): one for name, one in expected.items()}
    assert records(out) == {name: {**one, "file": name} for name, one in moved.items()}


def _pipes(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "pipe.jpg"]


def test_a_ray_address_where_nothing_listens(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = subprocess.run(
        command(photos, tmp_path / "out.jsonl", "--ray", f"127.0.0.1:{port}"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"127.0.0.1:{port}" in done.stderr and "Connection refused" in done.stderr


def test_no_ray_cluster_is_one_line(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    out = tmp_path / "out.jsonl"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        command(photos, out, "--ray"),
        env={**environment, "RAY_TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "ray start --head" in done.stderr and "Traceback" not in done.stderr
    assert not out.exists()
