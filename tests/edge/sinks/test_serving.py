from __future__ import annotations

import socket
import threading
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from emotion_edge.errors import SinkError
from emotion_edge.sinks import serving
from emotion_edge.sinks.serving import Answer, Server


@pytest.fixture
def server():
    server = Server("127.0.0.1", 0, {"/": Answer(b"hello\n")}.get)
    server.start()
    yield server
    server.stop()
    server.stop()


def status(server: Server, path: str = "/", host: str = "127.0.0.1") -> int:
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("192.168.1.20:8080", 200),
        ("[::1]:8080", 200),
        ("raspberrypi", 200),
        ("raspberrypi.local:8080", 200),
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.local.example", 403),
    ],
)
def test_a_foreign_host_name_is_refused(server, host, expected) -> None:
    assert status(server, host=host) == expected


def test_a_query_is_no_part_of_the_path(server) -> None:
    assert status(server, "/?now=1") == 200
    assert status(server, "/nothing") == 404


@pytest.mark.parametrize(
    "request_line", [b"POST / HTTP/1.1", b"\x00\xff\xfe", b"GET /" + b"x" * 70000, b"GET"]
)
def test_what_is_no_get_is_refused_and_the_next_is_served(server, request_line) -> None:
    host, _, port = urlsplit(server.url).netloc.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(request_line + b"\r\nHost: localhost\r\n\r\n")
        answer = raw.recv(1000)
    assert b" 200 " not in answer
    assert status(server) == 200


def test_connections_are_bounded(server, monkeypatch, until) -> None:
    before = threading.active_count()
    host, _, port = urlsplit(server.url).netloc.partition(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(40)]
    until(lambda: threading.active_count() == before + serving._CONNECTIONS)
    for each in idle:
        each.close()
    until(lambda: threading.active_count() == before)
    assert status(server) == 200


def test_a_silent_connection_is_closed(monkeypatch) -> None:
    monkeypatch.setattr(serving._Handler, "timeout", 0.05)
    server = Server("127.0.0.1", 0, lambda path: None)
    server.start()
    host, _, port = urlsplit(server.url).netloc.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as silent:
        assert silent.recv(1) == b""
    server.stop()


def test_a_port_or_an_address_that_cannot_be_had() -> None:
    for host, port in (("203.0.113.7", 0), ("no such name", 0), ("127.0.0.1", 99999)):
        with pytest.raises(SinkError, match=f"cannot listen on {host} port {port}"):
            Server(host, port, lambda path: None).start()


def test_ipv6_and_who_can_reach_it() -> None:
    assert not Server("::1", 0, lambda path: None).public
    assert not Server("localhost", 0, lambda path: None).public
    assert Server("0.0.0.0", 0, lambda path: None).public
    assert Server("kiosk.lan", 0, lambda path: None).public
    server = Server("::1", 0, {"/": Answer(b"hello\n")}.get)
    try:
        server.start()
    except SinkError:
        pytest.skip("this machine has no IPv6")
    assert server.url.startswith("http://[::1]:")
    assert status(server) == 200
    server.stop()
