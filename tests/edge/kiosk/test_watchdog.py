import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from emotion_edge.kiosk import watchdog
from emotion_edge.kiosk.watchdog import Watchdog


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.setblocking(False)
        yield channel


def heard(channel: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(channel.recv(4096).decode())
        except BlockingIOError:
            return messages


def environment(channel: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": channel.getsockname(), **more}


def test_ready_alive_stopping(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now)
    dog = Watchdog(environment(systemd, WATCHDOG_USEC="20000000"))
    assert dog.interval_s == 10
    dog.ready("looking")
    dog.alive()
    assert heard(systemd) == ["READY=1\nSTATUS=looking", "WATCHDOG=1"]
    now = 109.9
    dog.alive("looking")
    assert heard(systemd) == []
    now = 110.0
    dog.alive("no camera")
    dog.stopping()
    assert heard(systemd) == ["WATCHDOG=1\nSTATUS=no camera", "STOPPING=1"]


def test_a_service_without_a_watchdog_is_not_pinged(systemd: socket.socket) -> None:
    dog = Watchdog(environment(systemd))
    dog.alive()
    assert (dog.interval_s, heard(systemd)) == (None, [])


def test_a_watchdog_meant_for_another_process(systemd: socket.socket) -> None:
    dog = Watchdog(environment(systemd, WATCHDOG_USEC="1", WATCHDOG_PID=str(os.getpid() + 1)))
    assert dog.interval_s is None


def test_the_abstract_namespace() -> None:
    name = f"emotion-edge-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + name)
        channel.setblocking(False)
        Watchdog({"NOTIFY_SOCKET": "@" + name}).ready("up")
        assert heard(channel) == ["READY=1\nSTATUS=up"]


def test_without_systemd_nothing_happens() -> None:
    dog = Watchdog({})
    dog.ready("up")
    dog.alive("on")
    dog.stopping()
    assert dog.interval_s is None


def test_a_systemd_that_went_away_is_no_error(tmp_path: Path) -> None:
    Watchdog({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("up")


def test_a_reload_is_not_an_end(systemd: socket.socket) -> None:
    dog = Watchdog(environment(systemd))
    dog.reloading()
    dog.stopping()
    dog.stopping()
    again, end = heard(systemd)
    assert again.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert end == "STOPPING=1"
