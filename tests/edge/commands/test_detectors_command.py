"""``emotion-edge detectors``."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from emotion_edge.cli import main
from emotion_edge.commands import detectors as command
from emotion_edge.commands import doctor
from emotion_edge.detectors import yunet


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / yunet.FILE
    path.write_bytes(b"weights")
    monkeypatch.setattr(yunet, "weights_path", lambda: path)
    monkeypatch.setattr(yunet, "verify", lambda data, name: None)
    return path


def test_without_a_word_it_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detectors"]) == 0
    listed = capsys.readouterr().out
    assert {"yunet", "haar", "auto"} == {line.split()[0] for line in listed.splitlines()}
    assert main(["detectors", "list"]) == 0
    assert capsys.readouterr().out == listed


def test_an_absent_source_is_an_error_even_when_the_weights_are_installed(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detectors", "get", "yunet", "--from", str(tmp_path / "nonexistent")]) == 2
    output = capsys.readouterr()
    assert "nonexistent: No such file" in output.err and output.out == ""
    assert main(["detectors", "get", "yunet"]) == 0
    assert f"{installed} was already installed" in capsys.readouterr().out


def test_a_user_without_a_home_has_a_place_for_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert yunet.weights_path().parent == Path("/usr/local/share/emotion-edge")


WEIGHTS = b"weights" * 40_000  # 0.3 MB


class Server(ThreadingHTTPServer):
    """Answers with the right file, another one, too slowly, or not at all."""

    asked = 0


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked += 1
        if self.path == "/absent":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        try:
            if self.path == "/slow":
                for _ in range(50):
                    self.wfile.write(b"w")
                    time.sleep(0.05)
            else:
                self.wfile.write(WEIGHTS if self.path == "/right" else b"page of a hotel's network")
        except OSError:
            pass  # the client gave up

    def log_message(self, *text: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A publisher on this machine; the weights belong into an empty folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(yunet, "SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    monkeypatch.setattr(command, "_OPTIONAL_S", 0.5)
    with Server(("127.0.0.1", 0), Answers) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.02,))
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def publish(server: Server, monkeypatch: pytest.MonkeyPatch, *paths: str) -> None:
    addresses = tuple(f"http://127.0.0.1:{server.server_port}/{path}" for path in paths)
    monkeypatch.setattr(yunet._YuNetWeights, "urls", addresses)


@pytest.mark.parametrize("paths", [("right",), ("absent", "right"), ("wrong", "right")])
def test_optional_weights_are_downloaded_once(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    paths: tuple[str, ...],
) -> None:
    publish(server, monkeypatch, *paths)
    for _ in range(2):
        assert main(["detectors", "get", "yunet", "--optional"]) == 0
    assert yunet.weights_path().read_bytes() == WEIGHTS
    assert server.asked == len(paths)
    first, second = capsys.readouterr().err.splitlines()
    assert "installed as" in first and "already installed" in second


@pytest.mark.parametrize(
    ("path", "reason"),
    [("wrong", "a different file"), ("absent", "Not Found"), ("slow", "not complete after 0.5 s")],
)
def test_without_optional_weights_one_line_says_that_haar_is_used(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    path: str,
    reason: str,
) -> None:
    publish(server, monkeypatch, path)
    assert main(["detectors", "get", "yunet", "--optional"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "so haar is used" in line and reason in line and "--from FILE" in line
    assert not any(yunet.weights_path().parent.glob("*"))


def test_doctor_downloads_weights_only_if_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch, "right")
    (absent, _) = doctor.detectors()
    assert absent.state == "note" and server.asked == 0
    list(doctor.detectors(download=True))
    assert yunet.weights_path().read_bytes() == WEIGHTS
