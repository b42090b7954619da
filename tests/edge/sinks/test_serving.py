from __future__ import annotations

import socket
import threading
from http.client import HTTPConnection, RemoteDisconnected
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


@pytest.fixture
def posts():
    """A server that takes POST, and what it received."""
    got: list[bytes] = []

    def post(path: str, body: bytes) -> Answer | None:
        got.append(body)
        return Answer(b"taken\n") if path == "/in" else None

    server = Server("127.0.0.1", 0, {"/": Answer(b"hello\n")}.get, post=post)
    server.start()
    yield server, got
    server.stop()


def post(server: Server, body: bytes = b"[]", path: str = "/in", **headers: str | None) -> int:
    here = urlsplit(server.url).netloc
    sent = {"Host": here, "Origin": f"http://{here}", "Content-Type": "application/json"}
    sent["Content-Length"] = str(len(body))
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = HTTPConnection(here, timeout=30)
    connection.putrequest("POST", path, skip_host=True)
    for name, value in sent.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    assert said.count(b"\n") == 1
    return answer.status


def test_a_post_of_the_page_itself_and_of_a_script_is_taken(posts) -> None:
    server, got = posts
    assert post(server, b'{"a": 1}') == 200
    assert post(server, b"{}", Origin=None) == 200
    assert post(server, b"{}", path="/elsewhere") == 404
    assert post(server, b" " * serving.POST_BYTES) == 200
    assert got == [b'{"a": 1}', b"{}", b"{}", b" " * serving.POST_BYTES]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),  # DNS rebinding
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),  # another service of this machine
        ({"Origin": "null"}, 403),
        ({"Content_Type": "text/plain"}, 415),  # what a form can send without asking
        ({"Content_Type": None}, 415),
        ({"Content_Length": None}, 411),
        ({"Content_Length": "-1"}, 411),
        ({"Content_Length": "9" * 30}, 411),
    ],
)
def test_a_post_that_is_refused_is_not_read(posts, headers, expected) -> None:
    server, got = posts
    assert post(server, **headers) == expected
    assert got == [] and status(server) == 200


def test_a_post_that_is_too_large_is_refused(posts) -> None:
    server, got = posts
    assert post(server, b" " * (serving.POST_BYTES + 1)) == 413
    assert post(server, b" " * 900_000) == 413
    assert got == []


def test_a_server_that_takes_no_post_says_so(server) -> None:
    assert post(server) == 405


def test_a_kept_connection_is_not_answered_after_the_stop(server) -> None:
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hello\n"
    server.stop()  # another server may have taken its place: a reload
    connection.request("GET", "/")
    with pytest.raises(RemoteDisconnected):
        connection.getresponse()
    connection.close()


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
    hosts = ["203.0.113.7", "no such name", "a..b", "x" * 70, "a\0b"]
    for host, port in [*((host, 0) for host in hosts), ("127.0.0.1", 99999)]:
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
