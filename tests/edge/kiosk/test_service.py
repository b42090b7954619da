"""The fault list, each injected into a whole run; signals and kill -9 are in test_run.py."""

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_edge.cameras.auto import AutoCamera
from emotion_edge.commands.status import read_health
from emotion_edge.errors import (
    CameraBusy,
    CameraLost,
    CameraNotFound,
    FrameTimeout,
    OutputExists,
    SinkError,
)
from emotion_edge.kiosk.board import Condition
from emotion_edge.kiosk.configuration import Config, build
from emotion_edge.kiosk.service import Service, to_stderr
from emotion_edge.kiosk.watchdog import Watchdog
from emotion_edge.pipeline import Pipeline
from emotion_edge.sinks import Run, Sink
from emotion_edge.sinks.console import ConsoleSettings
from emotion_edge.values import Event, Frame, Observation
from tests.edge.parts import Classifier, Detector

COOL = Condition(None, None, 40.0, None)
_noise = np.random.default_rng(0)


class FakeCamera:
    """Plays a script for each opening: an error refuses it; else frames, then the error."""

    name = "fake"
    fps = 0.0

    def __init__(self, script: Iterator[tuple[int, Exception | None]], live: bool) -> None:
        self.live = live
        self._script = script
        self._index = -1
        self._left = 0
        self._end: Exception | None = None

    def __enter__(self) -> "FakeCamera":
        self._left, self._end = next(self._script)
        if self._left == 0 and self._end is not None:
            raise self._end
        return self

    def read(self, timeout: float) -> Frame | None:
        if self._left == 0:
            if self._end is not None:
                raise self._end
            return None
        self._left -= 1
        self._index += 1
        image = _noise.integers(0, 255, (16, 16), np.uint8)
        return Frame(image, time.monotonic_ns(), self._index)

    def __exit__(self, *_: object) -> None:
        pass


def camera(*script: tuple[int, Exception | None], live: bool = True) -> Callable[[], FakeCamera]:
    openings = iter(script)
    return lambda: FakeCamera(openings, live)


def config(folder: Path, **more: Any) -> Config:
    tables = {"quiet": True, "sinks": {"jsonl": {"path": str(folder / "out.jsonl")}}}
    return build(tables | more)


def service(config: Config, camera: Callable[[], FakeCamera], **more: Any) -> Service:
    more = {"condition": lambda: COOL, "watchdog": Watchdog({}), "tell": lambda line: None} | more
    return Service(config, camera=camera, pipeline=Pipeline(Detector(), Classifier()), **more)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def kinds(folder: Path) -> list[str]:
    return [record["kind"] for record in records(folder) if record["type"] == "event"]


def frames(folder: Path) -> list[int]:
    return [record["frame"] for record in records(folder) if record["type"] == "observation"]


def test_a_source_that_ends(tmp_path: Path) -> None:
    summary = service(config(tmp_path), camera((5, None), live=False)).run()
    assert (summary.frames, summary.faces, summary.stuck) == (5, 5, False)
    assert frames(tmp_path) == [0, 1, 2, 3, 4]


def test_a_recording_has_the_cameras_frame_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Run] = []

    def open_console(settings: ConsoleSettings, run: Run) -> Sink:
        runs.append(run)
        return Broken()

    monkeypatch.setattr(ConsoleSettings, "open", open_console)
    opened = AutoCamera()
    monkeypatch.setattr(opened, "_candidates", lambda tried: [camera((2, None), live=False)()])
    monkeypatch.setattr(FakeCamera, "fps", 30.0)
    service(with_console(tmp_path, required=False), lambda: opened).run()
    assert runs[0].fps == 30.0


def test_a_message_for_the_user_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    to_stderr("cannot listen on a\nb\x1b[31m")
    assert capsys.readouterr().err == "emotion-edge: cannot listen on a\\nb\\x1b[31m\n"


def test_so_many_frames(tmp_path: Path) -> None:
    summary = service(config(tmp_path, frames=3), camera((10, None))).run()
    assert (summary.frames, frames(tmp_path)) == (3, [0, 1, 2])


def test_so_many_seconds(tmp_path: Path) -> None:
    never = camera(*[(0, CameraNotFound("nothing there"))] * 9)
    waiting = config(tmp_path, seconds=0.2, camera={"wait": True})
    assert service(waiting, never).run().frames == 0


def test_stop_ends_a_run_that_would_wait_for_ever(tmp_path: Path) -> None:
    stop = threading.Event()
    told = []

    def tell(line: str) -> None:
        told.append(line)
        stop.set()

    never = camera(*[(0, CameraNotFound("nothing there"))] * 99)
    waiting = config(tmp_path, camera={"wait": True, "give_up_s": 0})
    assert service(waiting, never, stop=stop, tell=tell).run().frames == 0
    assert told[0].startswith("nothing there")


def test_camera_absent(tmp_path: Path) -> None:
    with pytest.raises(CameraNotFound, match="nothing there"):
        service(config(tmp_path), camera((0, CameraNotFound("nothing there")))).run()
    assert not (tmp_path / "out.jsonl").exists()


def test_a_source_that_is_waited_for_and_that_nothing_has_is_reported(tmp_path: Path) -> None:
    for source, reported in (("picamra2", True), ("/dev/video7", False), ("auto", False)):
        told: list[str] = []
        set_up = config(tmp_path, camera={"source": source, "wait": True})
        Service(set_up, pipeline=Pipeline(Detector(), Classifier()), tell=told.append)
        assert (told != []) == reported
        if reported:
            assert "there is no camera, file or folder picamra2: give one of" in told[0]
            assert told[0].endswith("waiting for it (camera.wait)")


@pytest.mark.parametrize(
    ("error", "reason"), [(CameraNotFound("none"), "absent"), (CameraBusy("held"), "busy")]
)
def test_a_camera_that_comes_later(tmp_path: Path, error: Exception, reason: str) -> None:
    script = camera((0, error), (4, None))
    assert service(config(tmp_path, camera={"wait": True}), script).run().frames == 4
    assert kinds(tmp_path) == ["camera.lost", "camera.recovered"]
    assert records(tmp_path)[0]["details"]["reason"] == reason


def test_camera_lost_and_found(tmp_path: Path) -> None:
    script = camera((3, CameraLost("unplugged")), (0, CameraBusy("held")), (2, None))
    assert service(config(tmp_path), script).run().frames == 5
    assert kinds(tmp_path) == ["camera.lost", "camera.retry", "camera.recovered"]
    assert frames(tmp_path) == [0, 1, 2, 3, 4]


def test_camera_frozen(tmp_path: Path) -> None:
    script = camera((2, FrameTimeout("no frame")), (2, None))
    assert service(config(tmp_path, camera={"frozen_s": 0.1}), script).run().frames == 4
    assert kinds(tmp_path) == ["camera.lost", "camera.recovered"]
    lost = next(record for record in records(tmp_path) if record["type"] == "event")
    assert lost["details"]["reason"] == "frozen"


def test_a_camera_that_stays_away_ends_the_run(tmp_path: Path) -> None:
    script = camera((2, CameraLost("unplugged")), *[(0, CameraNotFound("gone"))] * 99)
    with pytest.raises(CameraLost, match="check the camera"):
        service(config(tmp_path, camera={"give_up_s": 0.6}), script).run()
    assert kinds(tmp_path)[0] == "camera.lost"
    assert kinds(tmp_path)[-1] == "camera.gave_up"
    assert frames(tmp_path) == [0, 1]


def test_health_while_the_camera_is_gone(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client", reason="the [metrics] extra is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    health: dict[str, Any] = {}
    stop = threading.Event()

    def tell(line: str) -> None:
        if "unplugged" in line:
            deadline = time.monotonic() + 30
            while health.get("status") != "failing" and time.monotonic() < deadline:
                health.update(read_health(f"http://127.0.0.1:{port}"))
            stop.set()

    script = camera((3, CameraLost("unplugged")), *[(0, CameraNotFound("gone"))] * 99)
    tables = {"quiet": True, "sinks": {"metrics": {"port": port}}}
    asker: list[threading.Thread] = []

    def ask(line: str) -> None:
        asker.append(threading.Thread(target=tell, args=(line,)))
        asker[-1].start()

    service(build(tables), script, stop=stop, tell=ask).run()
    for thread in asker:
        thread.join()
    assert (health["status"], health["faces"]) == ("failing", None)
    assert health["reason"].startswith(("camera lost: ", "camera absent: "))


class Broken(Sink):
    name = "broken"

    def __enter__(self) -> "Broken":
        return self

    def write(self, observation: Observation) -> None:
        raise ZeroDivisionError("a fault in the sink")

    def event(self, event: Event) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def broken_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConsoleSettings, "open", lambda settings, run: Broken())


def with_console(folder: Path, **console: Any) -> Config:
    outputs = {"jsonl": {"path": str(folder / "out.jsonl")}, "console": console}
    return build({"sinks": outputs})


@pytest.mark.usefixtures("broken_console")
def test_a_sink_that_raises_stops_nobody(tmp_path: Path) -> None:
    summary = service(with_console(tmp_path), camera((50, None))).run()
    assert summary.frames == 50
    assert len(frames(tmp_path)) == 50
    # It may fail only after the last frame: then no sink is left to report it.
    assert set(kinds(tmp_path)) <= {"sink.failed"}


@pytest.mark.usefixtures("broken_console")
def test_a_required_sink_that_raises_ends_the_run(tmp_path: Path) -> None:
    endless = camera((10**9, None))
    with pytest.raises(SinkError, match="a fault in the sink") as caught:
        service(with_console(tmp_path, required=True), endless).run()
    assert caught.value.exit_code == 4
    assert len(frames(tmp_path)) > 0


def test_an_output_that_exists(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("{}\n")
    with pytest.raises(OutputExists):
        service(config(tmp_path), camera((5, None))).run()
    assert (tmp_path / "out.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize("jump", [-1e9, 1e9, -3600.0])
def test_the_wall_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    true_time, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: true_time() + (jump if next(calls) > 5 else 0.0))
    summary = service(config(tmp_path), camera((30, None), live=False)).run()
    assert summary.frames == 30
    assert frames(tmp_path) == list(range(30))
    assert kinds(tmp_path) == []
    assert len({record["time"][:4] for record in records(tmp_path)}) <= 2
    for record in records(tmp_path):
        assert all(0 <= ms < math.inf for ms in record["timings_ms"].values())


def test_a_hot_board_slows_the_loop_and_says_so(tmp_path: Path) -> None:
    read = threading.Event()

    def hot() -> Condition:
        read.set()
        return Condition(None, None, 90.0, None)

    class AfterReading(FakeCamera):
        def read(self, timeout: float) -> Frame | None:
            assert read.wait(30)
            return super().read(timeout)

    openings = iter([(6, None)])
    thermal = {"steps_fps": [50.0], "check_s": 1000.0}
    run = service(
        config(tmp_path, thermal=thermal), lambda: AfterReading(openings, True), condition=hot
    )
    summary = run.run()
    assert kinds(tmp_path) == ["thermal.slower"]
    assert summary.frames == 6
    stamps = [r["time"] for r in records(tmp_path) if r["type"] == "observation"]
    assert stamps == sorted(stamps)
    assert summary.seconds >= 4 / 50  # the first frame, or the second, still came at full speed


def test_systemd_hears_of_frames_and_of_honest_waiting(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.setblocking(False)
        dog = Watchdog({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2"})
        never = camera(*[(0, CameraNotFound("none"))] * 9)
        waiting = config(tmp_path, seconds=0.1, camera={"wait": True})
        service(waiting, never, watchdog=dog).run()
        heard = []
        while True:
            try:
                heard.append(channel.recv(4096).decode())
            except BlockingIOError:
                break
    assert heard[0] == "READY=1\nSTATUS=running"
    assert "WATCHDOG=1\nSTATUS=waiting for the camera" in heard
    assert heard[-1] == "STOPPING=1"


def test_a_driver_that_hangs_on_closing_is_left_behind(tmp_path: Path) -> None:
    release = threading.Event()

    class Hangs(FakeCamera):
        def __exit__(self, *_: object) -> None:
            release.wait()

    openings = iter([(3, None)])
    summary = service(config(tmp_path), lambda: Hangs(openings, True)).run()
    release.set()
    assert summary.stuck
    assert frames(tmp_path) == [0, 1, 2]


def test_trouble_is_told_where_no_console_shows_it(tmp_path: Path) -> None:
    told: list[str] = []
    script = camera((1, CameraLost("unplugged")), (1, None))
    service(config(tmp_path), script, tell=told.append).run()
    assert "unplugged" in told[0] and "is back" in told[-1]
