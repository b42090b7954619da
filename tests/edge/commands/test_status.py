import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from emotion_edge import cli
from emotion_edge.commands import status
from emotion_edge.commands.status import describe

HEALTH = {
    "status": "ok",
    "reason": "",
    "version": "0.1.0",
    "uptime_s": 93784.2,
    "seconds_since_frame": 0.05,
    "frames": 1400,
    "skipped": 3,
    "faces": 2,
    "camera": "ok",
    "message": "",
    "temperature_c": 61.2,
    "sinks": [
        {"name": "jsonl a.jsonl", "written": 1401, "dropped": 0, "failing": ""},
        {"name": "mqtt broker:1883", "written": 9, "dropped": 4, "failing": "refused"},
    ],
}


class Kiosk(HTTPServer):
    answer: tuple[int, bytes] = (200, b"{}")


@pytest.fixture
def kiosk() -> Iterator[Kiosk]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/healthz"
            assert isinstance(self.server, Kiosk)
            code, body = self.server.answer
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with Kiosk(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url(kiosk: Kiosk) -> str:
    return f"http://127.0.0.1:{kiosk.server_address[1]}"


def test_healthy(kiosk: Kiosk, capsys: pytest.CaptureFixture[str]) -> None:
    kiosk.answer = (200, json.dumps(HEALTH).encode())
    assert cli.main(["status", "--url", url(kiosk) + "/"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "ok",
        "version 0.1.0, up 1 d 02:03",
        "camera  ok",
        "frames  1400, 3 skipped, the last 0.1 s ago",
        "faces   2 now",
        "board   61 °C",
        "output  jsonl a.jsonl: 1401 written",
        "output  mqtt broker:1883: 9 written, 4 dropped, failing: refused",
    ]


def test_degraded(kiosk: Kiosk, capsys: pytest.CaptureFixture[str]) -> None:
    kiosk.answer = (
        503,
        json.dumps(HEALTH | {"status": "degraded", "reason": "disk full"}).encode(),
    )
    assert cli.main(["status", "--url", url(kiosk)]) == 1
    assert capsys.readouterr().out.startswith("degraded: disk full\nversion")


def test_failing(kiosk: Kiosk, capsys: pytest.CaptureFixture[str]) -> None:
    gone = {"status": "failing", "reason": "no frame for 12 s", "faces": None}
    stale = HEALTH | gone | {"camera": "lost", "message": "/dev/video0 stopped"}
    kiosk.answer = (503, json.dumps(stale).encode())
    assert cli.main(["status", "--url", url(kiosk)]) == 1
    out = capsys.readouterr().out
    assert "failing: no frame for 12 s" in out
    assert "camera  lost: /dev/video0 stopped" in out
    assert "faces   unknown: no frames" in out


def test_json(kiosk: Kiosk, capsys: pytest.CaptureFixture[str]) -> None:
    kiosk.answer = (200, json.dumps(HEALTH).encode())
    assert cli.main(["status", "--url", url(kiosk), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == HEALTH


def test_the_configuration_names_the_port(
    kiosk: Kiosk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kiosk.answer = (200, json.dumps(HEALTH).encode())
    config = tmp_path / "kiosk.toml"
    config.write_text(f"[sinks.metrics]\nhost='0.0.0.0'\nport={kiosk.server_address[1]}")
    assert cli.main(["status", "--config", str(config)]) == 0
    config.write_text("frames = 1")
    assert cli.main(["status", "--config", str(config)]) == 2
    assert "add [sinks.metrics]" in capsys.readouterr().err


def test_the_services_configuration_is_the_default(
    kiosk: Kiosk,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kiosk.answer = (200, json.dumps(HEALTH).encode())
    config = tmp_path / "kiosk.toml"
    config.write_text(f"[sinks.metrics]\nport={kiosk.server_address[1]}")
    monkeypatch.setattr(status, "SERVICE_CONFIG", config)
    assert cli.main(["status"]) == 0


def test_nothing_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert cli.main(["status", "--url", f"http://127.0.0.1:{port}"]) == 3
    assert "systemctl start emotion-edge" in capsys.readouterr().err


@pytest.mark.parametrize("body", [b"<html>", b"[]"])
def test_something_else_answers(
    kiosk: Kiosk, body: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    kiosk.answer = (200, body)
    assert cli.main(["status", "--url", url(kiosk)]) == 3
    assert "is not emotion-edge" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["kiosk", "file:///etc/hostname", "ftp://kiosk:9188"])
def test_no_address(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--url", url]) == 2
    assert "is not an address" in capsys.readouterr().err


def test_before_the_first_frame() -> None:
    starting = HEALTH | {"status": "starting", "seconds_since_frame": None, "temperature_c": None}
    lines = describe(starting)
    assert lines[0].startswith("starting")
    assert lines[3].endswith("none yet")
    assert not any(line.startswith("board") for line in lines)
