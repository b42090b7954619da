"""``emotion-edge run`` from its flags to its exit status; whole processes where that matters."""

import argparse
import json
import os
import pwd
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_edge import cli
from emotion_edge.commands import run
from emotion_edge.errors import UsageError
from emotion_edge.kiosk.configuration import Config, keys
from emotion_edge.sinks.aggregate import AggregateSettings
from emotion_edge.sinks.console import ConsoleSettings
from emotion_edge.sinks.csv import CsvSettings
from emotion_edge.sinks.jsonl import JsonlSettings
from emotion_edge.sinks.metrics import MetricsSettings
from emotion_edge.sinks.mqtt import MqttSettings
from emotion_edge.sinks.page import PageSettings
from emotion_edge.sinks.video import VideoSettings
from emotion_edge.sinks.window import WindowSettings
from tests.edge.cameras.fakes import truncate_jpegs, write_video

TINY = str(Path(__file__).parents[1] / "tiny.tflite")


def configured(*words: str) -> Config:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return run.read(parser.parse_args(words))


def test_every_flag_has_its_key() -> None:
    for flag in run.FLAGS:
        key = flag.key.rstrip(".")
        assert key in keys() or any(known.startswith(f"{key}.") for known in keys()), flag


def test_flags_and_file_build_the_same(tmp_path: Path) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_text(
        "model='m'\nframes=5\n[camera]\nsource='demo'\nfps=10\n[sinks.console]\n"
        "[sinks.jsonl]\npath='a.jsonl'\n[sinks.page]\nhost='0.0.0.0'\nport=81\n[aggregate]\n"
    )
    words = "--model m --frames 5 --camera demo --fps 10 --jsonl a.jsonl --page 0.0.0.0:81"
    by_flags = configured(*words.split(), "--aggregate")
    by_file = configured("--config", str(path))
    assert set(by_flags.sinks) == set(by_file.sinks)
    assert by_flags.aggregate == by_file.aggregate == AggregateSettings()
    assert (by_flags.camera, by_flags.model) == (by_file.camera, by_file.model)


def test_a_flag_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_text("backend.threads = 2\n[camera]\nsource='picamera2'\nfps=10\n")
    config = configured("--config", str(path), "--camera", "demo", "--set", "backend.threads=3")
    assert (config.backend.threads, config.camera.source, config.camera.fps) == (3, "demo", 10.0)


@pytest.mark.parametrize(
    ("words", "sink"),
    [
        ("--jsonl a", JsonlSettings(path=Path("a"))),
        ("--csv a --overwrite", CsvSettings(path=Path("a"), existing="overwrite")),
        ("--record a.mp4", VideoSettings(path=Path("a.mp4"))),
        ("--window", WindowSettings()),
        ("--page", PageSettings()),
        ("--page 81", PageSettings(port=81)),
        ("--page [::1]:81", PageSettings(host="::1", port=81)),
        ("--mqtt broker", MqttSettings(host="broker")),
        ("--mqtt 10.0.0.9:1884", MqttSettings(host="10.0.0.9", port=1884)),
        ("--metrics 0.0.0.0:99", MetricsSettings(host="0.0.0.0", port=99)),
        ("--sink jsonl:a", JsonlSettings(path=Path("a"))),
        ("--mqtt --set sinks.mqtt.topic='shop'", MqttSettings(topic="shop")),
        (
            "--set sinks.jsonl.path=a --set sinks.jsonl.keep=2",
            JsonlSettings(path=Path("a"), keep=2),
        ),
    ],
)
def test_flags_of_outputs(words: str, sink: object) -> None:
    assert configured(*words.split()).sinks == (ConsoleSettings(), sink)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--frames many", "frames is 'many'; expected a whole number"),
        ("--page a:b", "sinks.page.port is 'b'; expected a whole number"),
        ("--set frames", "expected KEY=VALUE"),
        ("--fps inf", "camera.fps is inf: use 0 to 1,000"),
        ("--camera=", "camera.source is empty"),
        ("--jsonl a --set sinks.jsonl.keep=99999999999", "keep is 99999999999: use 0 to 1,000"),
        ("--window yes", "--window: it takes no value, got 'yes'"),
        ("--jsonl", "[sinks.jsonl] needs path"),
        ("--sink shelf:a", "no sink named 'shelf'"),
        ("--set framse=1", "did you mean frames?"),
        ("--aggregate=-1", "period_s is -1"),
        ("--detector hog", "detector is 'hog'; expected one of auto, yunet, haar"),
        ("--record a.gif", ".mp4 or .avi"),
    ],
)
def test_flags_that_cannot_be_used(words: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        configured(*words.split())
    assert says in str(caught.value)


def test_quotes_in_set_are_not_part_of_the_text() -> None:
    _, mqtt = configured("--set", 'sinks.mqtt.topic="shop floor"').sinks
    assert isinstance(mqtt, MqttSettings) and mqtt.topic == "shop floor"


def test_a_second_flag_of_a_kind_adds_an_output(tmp_path: Path) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_text("quiet = true\n[sinks.mqtt]\nhost = 'one'\n")
    words = ["--config", str(path), "--mqtt", "two", "--sink", "mqtt:three"]
    first, second = configured(*words).sinks
    assert (first, second) == (MqttSettings(host="two"), MqttSettings(host="three"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (60, 80, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), noise)
    return folder


def main(*words: str) -> int:
    return cli.main(["run", "--model", TINY, "--detector", "haar", *words])


def test_a_folder_of_photos(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    assert main("--camera", str(photo), "--jsonl", str(out)) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["frame"] for record in records] == [0, 1, 2]
    assert [record["source"] for record in records] == [str(photo / f"{i}.png") for i in range(3)]
    assert all("time" not in r and "age" not in r["timings_ms"] for r in records)
    assert f"written: {out}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "photos"]


def test_damaged_frames_are_in_the_summary_and_a_cut_clip_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "whole.avi", frames=40)
    truncate_jpegs(tmp_path / "clip.avi", tmp_path / "whole.avi", every=5)
    out = tmp_path / "out.jsonl"
    assert main("--camera", str(tmp_path / "clip.avi"), "--jsonl", str(out), "--quiet") == 0
    err = capsys.readouterr().err
    assert "32 frames" in err and ", 8 damaged and omitted\n" in err
    assert "frame 4 is cut off and left out" in err
    kinds = [json.loads(line)["type"] for line in out.read_text().splitlines()]
    assert (kinds.count("observation"), kinds.count("event")) == (32, 8)
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    assert main("--camera", str(tmp_path / "cut.avi"), "--quiet") == 3
    assert "and the file is cut off\n" in capsys.readouterr().err


def test_records_on_standard_output(photo: Path) -> None:
    words = [sys.executable, "-m", "emotion_edge", "run", "--camera", str(photo), "--model", TINY]
    done = subprocess.run(
        [*words, "--jsonl", "-"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(record["source"]).name for record in records] == ["0.png", "1.png", "2.png"]
    head = subprocess.run(
        f"{shlex.join(words)} --jsonl - | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert head.stdout.count("\n") == 1 and "cannot write" not in head.stderr


@pytest.mark.parametrize("words", [["doctor"], ["detectors"], ["run"], ["image"]])
def test_a_user_without_a_home(words: list[str], photo: Path, tmp_path: Path) -> None:
    if words == ["run"]:
        words = ["run", "--camera", str(photo), "--model", TINY]
    elif words == ["image"]:
        words = ["image", str(photo / "0.png"), "--model", TINY]
    # The user is in no list of users, as in some containers, and HOME is not set.
    script = (
        "import pwd, runpy, sys; pwd.getpwuid = {}.__getitem__; "
        "sys.argv[0] = 'emotion-edge'; runpy.run_module('emotion_edge', run_name='__main__')"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_DATA_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr


def test_a_path_below_a_missing_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(UsageError, match="this user has none: give the whole path"):
        configured("--camera", "pattern", "--jsonl", "~/a.jsonl")


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--camera", "/dev/video97"], 3, "/dev/video97"),
        (["--camera", "no such file"], 3, "no such file"),
        (["--model", "no-such-model", "--camera", "pattern"], 2, "no model named no-such-model"),
        (["--camera", "pattern:framse=5"], 2, "framse"),
        (["--config", "/no/such/kiosk.toml"], 2, "cannot read the configuration"),
        (["--camera", "pattern:frames=1", "--jsonl", "/no/such/folder/a"], 4, "/no/such/folder"),
    ],
)
def test_what_bad_input_gets(
    words: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(*words) == status
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err


def test_a_corrupt_model_at_restart(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(Path(TINY).read_bytes())
    out = tmp_path / "out.jsonl"
    words = ["--camera", str(photo), "--model", str(model), "--jsonl", str(out)]
    words += ["--set", "sinks.jsonl.existing=append"]
    assert main(*words) == 0
    before = out.read_bytes()
    damaged = bytearray(model.read_bytes())
    damaged[len(damaged) // 3] ^= 0xFF
    for broken in (bytes(damaged), model.read_bytes()[:1000], b""):
        model.write_bytes(broken)
        capsys.readouterr()
        assert main(*words) == 2
        error = capsys.readouterr().err
        assert str(model) in error
        assert error.count("\n") == 1
    assert out.read_bytes() == before


def test_handlers_are_given_back(photo: Path) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    assert main("--camera", str(photo)) == 0
    after = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    assert after == before


def start(
    folder: Path, *words: str, before: tuple[str, ...] = (), stdin: int | None = None
) -> subprocess.Popen[str]:
    """A process of its own that films the test pattern indefinitely.

    before: a command that runs it.
    """
    edge = Path(cli.__file__).parents[1]
    command = [sys.executable, "-m", "emotion_edge", "run", "--model", TINY, "--camera", "pattern"]
    return subprocess.Popen(
        [*before, *command, "--jsonl", str(folder / "out.jsonl"), *words],
        env=os.environ | {"PYTHONPATH": str(edge)},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_lines(path: Path, n: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < n):
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
)
def test_a_signal_ends_it_in_good_order(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    # A test runner in the background ignores SIGINT, and hands that on.
    before = ("env", "--default-signal=INT,HUP,TERM")
    video = tmp_path / "out.avi"
    process = start(tmp_path, "--record", str(video), before=before)
    wait_for_lines(tmp_path / "out.jsonl", 40, process)  # a busy machine records not every frame
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert "RECORDING" in out
    assert (tmp_path / "out.jsonl").read_text().endswith("}\n")
    capture = cv2.VideoCapture(str(video))
    assert capture.read()[0]
    capture.release()


def kiosk(folder: Path, text: str) -> subprocess.Popen[str]:
    """A process with a configuration file and without a terminal, like a service."""
    (folder / "kiosk.toml").write_text(text)
    words = ("--quiet", "--config", str(folder / "kiosk.toml"))
    return start(folder, *words, before=("env", "--default-signal=HUP"), stdin=subprocess.DEVNULL)


def said(process: subprocess.Popen[str], words: str) -> str:
    """Read standard error up to a line with these words."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"it ended without saying {words!r}")


def test_sighup_reads_the_configuration_again(tmp_path: Path) -> None:
    process = kiosk(tmp_path, "")
    wait_for_lines(tmp_path / "out.jsonl", 5, process)
    for wrong, why in (
        ("strict = true\nnonsense = 1", "unknown key"),
        ("detector = 'no-such'", "no-such"),
    ):
        (tmp_path / "kiosk.toml").write_text(wrong)
        process.send_signal(signal.SIGHUP)
        line = said(process, "reload rejected")
        assert why in line and "the previous configuration stays active" in line
    before = (tmp_path / "out.jsonl").read_bytes().count(b"\n")
    wait_for_lines(tmp_path / "out.jsonl", before + 5, process)  # it still runs
    (tmp_path / "kiosk.toml").write_text(f"[sinks.csv]\npath = '{tmp_path / 'new.csv'}'")
    process.send_signal(signal.SIGHUP)
    said(process, "reload: the new configuration is valid")
    wait_for_lines(tmp_path / "new.csv", 1, process)
    before = (tmp_path / "out.jsonl").read_bytes().count(b"\n")
    wait_for_lines(tmp_path / "out.jsonl", before + 5, process)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    for line in (tmp_path / "out.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_reload_whose_outputs_cannot_be_opened_returns_to_the_previous(tmp_path: Path) -> None:
    process = kiosk(tmp_path, "")
    wait_for_lines(tmp_path / "out.jsonl", 5, process)
    (tmp_path / "kiosk.toml").write_text("[sinks.csv]\npath = '/no/such/folder/a.csv'")
    process.send_signal(signal.SIGHUP)
    line = said(process, "reload failed")
    assert "/no/such/folder" in line and "the previous configuration runs again" in line
    before = (tmp_path / "out.jsonl").read_bytes().count(b"\n")
    wait_for_lines(tmp_path / "out.jsonl", before + 5, process)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


@pytest.mark.slow
def test_sigterm_takes_less_than_two_seconds(tmp_path: Path) -> None:
    process = start(tmp_path, "--record", str(tmp_path / "out.mp4"), "--metrics", "0")
    wait_for_lines(tmp_path / "out.jsonl", 10, process)
    asked = time.monotonic()
    process.terminate()
    process.communicate(timeout=60)
    assert time.monotonic() - asked < 2.0


def test_kill_9_leaves_readable_files(tmp_path: Path) -> None:
    process = start(tmp_path, "--csv", str(tmp_path / "out.csv"))
    wait_for_lines(tmp_path / "out.jsonl", 10, process)
    process.kill()
    process.communicate(timeout=60)
    *complete, rest = (tmp_path / "out.jsonl").read_text().split("\n")
    assert [json.loads(line)["schema"] for line in complete] == [1] * len(complete)
    assert len(complete) >= 10
    assert rest == "" or not rest.endswith("}")


def test_a_full_disk_ends_a_run_over_files_in_one_line(tmp_path: Path) -> None:
    # A limit of eight blocks of 512 bytes for each file, told as an error, not as a signal.
    small_disk = ("sh", "-c", 'trap "" XFSZ; ulimit -f 8; exec "$@"', "sh")
    words = ["--camera", "pattern:frames=200", "--set", "camera.paced=false"]
    process = start(tmp_path, *words, before=small_disk)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert "Traceback" not in err
    assert str(tmp_path / "out.jsonl") in err
    *complete, _ = (tmp_path / "out.jsonl").read_text().split("\n")
    assert [json.loads(line)["schema"] for line in complete] == [1] * len(complete)


def last_frame(folder: Path) -> int:
    records = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return max(record["frame"] for record in records if record["type"] == "observation")


def test_files_continue_when_the_console_has_no_reader(tmp_path: Path) -> None:
    process = start(tmp_path, "--camera", "pattern:frames=40", "--page", "0")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # the announcement of the page meets a closed pipe
    with process.stderr:
        err = process.stderr.read()
    assert process.wait(60) == 0, err
    assert "nothing reads console any more: it is closed, other outputs continue" in err
    assert last_frame(tmp_path) == 39
    assert "Traceback" not in err and "Exception" not in err


def test_closed_standard_streams(tmp_path: Path) -> None:
    closed = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    process = start(tmp_path, "--camera", "pattern:frames=20", "--page", "0", before=closed)
    process.communicate(timeout=60)
    assert process.returncode == 0
    # Nothing that was printed went into the file that was opened next: it would not be JSON.
    assert last_frame(tmp_path) == 19


def test_status_is_degraded_while_the_disk_is_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("prometheus_client", reason="the [metrics] extra is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    small_disk = ("sh", "-c", 'trap "" XFSZ; ulimit -f 8; exec "$@"', "sh")
    process = start(tmp_path, "--quiet", "--metrics", str(port), before=small_disk)
    status = ["status", "--url", f"http://127.0.0.1:{port}"]
    deadline = time.monotonic() + 60
    out = ""
    while not out.startswith("degraded") and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
        assert cli.main(status) in (0, 1, 3)
        out = capsys.readouterr().out
    assert f"degraded: cannot write {tmp_path / 'out.jsonl'}: File too large" in out
    assert "camera  ok" in out
    process.terminate()
    process.communicate(timeout=60)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_live_run_that_ends_on_a_full_disk_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "out.csv"
    words = ["--camera", "pattern", "--frames", "3", "--jsonl", "/dev/full", "--csv", str(kept)]
    assert main(*words) == 4
    said = capsys.readouterr().err
    assert "incomplete at the end: cannot write /dev/full: No space left" in said
    assert "written: /dev/full" not in said
    assert f"written: {kept}" in said
