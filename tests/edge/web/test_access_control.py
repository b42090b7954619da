from __future__ import annotations

import base64
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the [web] extra is not installed")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from emotion_edge.web.access_control import HEADERS, AccessControl, WrongPasswords

LIMIT = 1000


async def size(request: Request) -> JSONResponse:
    return JSONResponse(len(await request.body()))


async def inside(request: Request) -> PlainTextResponse:
    """As Gradio does, any site may read it with the visitor's cookie."""
    headers = {
        "access-control-allow-origin": request.headers.get("origin", "*"),
        "access-control-allow-credentials": "true",
    }
    return PlainTextResponse("inside", headers=headers)


async def greet(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("in")
    await socket.close()


def client(password: str | None = None, hosts: Any = (), **options: Any) -> TestClient:
    app = Starlette(
        routes=[
            Route("/api/faces", size, methods=["POST"]),
            WebSocketRoute("/api/live", greet),
            Route("/page/faces", size, methods=["POST"]),
            Route("/{rest:path}", inside),
        ]
    )
    return TestClient(
        AccessControl(
            app, body_limit=LIMIT, password=password, hosts=["testserver", *hosts], **options
        )
    )


def basic(password: str, user: str = "anyone") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/a.js", "/api/models", "/api/openapi.json",
     "/page/icon.svg", "/page/drawn-angry.jpg", "/favicon.ico"],
)  # fmt: skip
def test_what_the_page_needs_is_open(path: str) -> None:
    answer = client().get(path)
    assert answer.text == "inside"
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/file/etc/passwd",
     "/gradio_api/proxy=https://example.org", "/gradio_api/deep_link", "/gradio_api/run/look",
     "/gradio_api/call/look", "/gradio_api/component_server", "/gradio_api/stream/x",
     "/gradio_api/run-history/connect", "/gradio_api/queue/join", "/gradio_api/queue/data",
     "/gradio_api/heartbeat/ab12", "/gradio_api/info", "/login", "/docs", "/monitoring",
     "/anything"],
)  # fmt: skip
def test_what_it_does_not_need_is_closed(path: str) -> None:
    answer = client().get(path)
    assert (answer.status_code, answer.json()) == (404, {"error": "not found"})
    assert client().post(path, content=b"x").status_code == 404


def test_without_the_password_nothing_is_open() -> None:
    guarded = client("secret")
    for path in ("/", "/config", "/assets/a.js"):
        answer = guarded.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert "set-cookie" not in answer.headers
    assert guarded.post("/api/faces", content=b"x").status_code == 401


@pytest.mark.parametrize(
    "authorization",
    [basic("wrong")["authorization"], basic("")["authorization"], "Basic !!!", "Basic",
     "Bearer secret", "Basic " + base64.b64encode(b"secret").decode()],
)  # fmt: skip
def test_wrong_passwords(authorization: str) -> None:
    assert client("secret").get("/", headers={"authorization": authorization}).status_code == 401


def test_the_password_opens_whatever_the_user_and_whatever_it_holds() -> None:
    assert client("se:crét").get("/", headers=basic("se:crét", "")).text == "inside"


def test_the_cookie_of_a_page_opens_the_socket() -> None:
    guarded = client("secret")
    with pytest.raises(WebSocketDisconnect), guarded.websocket_connect("/api/live"):
        pass
    cookie = guarded.get("/", headers=basic("secret")).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    with guarded.websocket_connect("/api/live") as socket:  # the client has kept the cookie
        assert socket.receive_text() == "in"
    with (
        pytest.raises(WebSocketDisconnect),
        client("secret").websocket_connect("/api/live", headers={"cookie": "emotion-edge=guessed"}),
    ):
        pass


@pytest.mark.parametrize("origin", ["http://testserver", None])
def test_the_page_and_scripts_may_open_the_socket(origin: str | None) -> None:
    headers: dict[str, Any] = {"origin": origin} if origin else {}
    with client().websocket_connect("/api/live", headers=headers) as socket:
        assert socket.receive_text() == "in"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://testserver.evil.example"]
)
def test_another_site_may_not(origin: str) -> None:
    with (
        pytest.raises(WebSocketDisconnect),
        client().websocket_connect("/api/live", headers={"origin": origin}),
    ):
        pass


def test_a_body_over_the_limit_is_refused_by_its_length() -> None:
    answer = client().post("/api/faces", content=b"x" * (LIMIT + 1))
    assert answer.status_code == 413
    assert "1000 bytes" in answer.json()["error"]
    assert client().post("/api/faces", content=b"x" * LIMIT).json() == LIMIT


def test_a_body_without_a_length_is_refused_at_the_limit_and_read_to_its_end() -> None:
    given = 0

    def chunks() -> Any:
        nonlocal given
        for _ in range(100):
            given += LIMIT
            yield b"x" * LIMIT

    answer = client().post("/api/faces", content=chunks())
    assert (answer.status_code, given) == (413, 100 * LIMIT)
    assert "1000 bytes" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/api/faces", "POST"), ("PUT", "/api/faces", "POST"), ("GET", "/page/faces", "POST"),
     ("POST", "/api/models", "GET"), ("POST", "/", "GET, HEAD"), ("OPTIONS", "/api/faces", "POST"),
     ("DELETE", "/api/live", "GET")],
)  # fmt: skip
def test_another_method_is_refused_and_the_right_one_named(
    method: str, path: str, allowed: str
) -> None:
    answer = client().request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert allowed in answer.json()["error"]


@pytest.mark.parametrize(
    ("host", "accepted"),
    [("localhost", True), ("localhost:7860", True), ("LOCALHOST.", True), ("127.0.0.1:7860", True),
     ("192.168.1.5", True), ("[::1]:7860", True), ("[fe80::1]", True), ("my.name:80", True),
     ("evil.example", False), ("localhost.evil.example", False), ("", False),
     ("127.0.0.1.evil.example", False), ("[evil.example]", False)],
)  # fmt: skip
def test_only_own_names_are_served(host: str, accepted: bool) -> None:
    answer = client(hosts=["my.name"]).get("/", headers={"host": host})
    assert answer.status_code == (200 if accepted else 421)
    if not accepted:
        assert "--allow-host" in answer.json()["error"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
@pytest.mark.parametrize("path", ["/", "/config", "/api/faces"])
def test_another_site_cannot_use_or_read_the_page(origin: str, path: str) -> None:
    method = "POST" if path == "/api/faces" else "GET"
    answer = client().request(method, path, headers={"origin": origin})
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_no_other_site_is_let_in_by_gradio() -> None:
    answer = client().get("/", headers={"origin": "http://testserver"})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_more_requests_than_places_are_asked_to_come_back() -> None:
    import anyio

    entered, leave = 0, anyio.Event()
    statuses: list[tuple[int, dict[bytes, bytes]]] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal entered
        entered += 1
        await leave.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guard = AccessControl(slow, body_limit=LIMIT, uploads=3)

    async def post() -> None:
        chunks = [b"x" * 10] * 5
        read = 0

        async def receive() -> Any:
            nonlocal read
            read += 1
            return {"type": "http.request", "body": chunks[0], "more_body": read < len(chunks)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append((message["status"], dict(message["headers"])))
                if message["status"] == 503:
                    assert read == 0
            elif not message.get("more_body") and statuses[-1][0] == 503:
                assert read == len(chunks)  # closing earlier would reset the connection

        headers = [(b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": "/api/faces", "headers": headers}
        await guard(scope, receive, send)

    async def rush() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(120):
                tasks.start_soon(post)
            while len(statuses) < 117:
                await anyio.sleep(0)
            assert entered == 3
            leave.set()
        await post()  # the places are free again

    anyio.run(rush)
    assert [status for status, _ in statuses] == [503] * 117 + [200] * 4
    assert statuses[0][1][b"retry-after"] == b"2"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_wrong_passwords_make_an_address_wait() -> None:
    clock = Clock()
    guarded = client("secret", clock=clock)
    tried = waited = 0.0
    for guess in range(12):
        while True:
            answer = guarded.get("/", headers=basic(f"guess {guess}"))
            if answer.status_code != 429:
                break
            seconds = int(answer.headers["retry-after"])
            # The right password is refused as well, or a guesser could tell by the status.
            assert guarded.get("/", headers=basic("secret")).status_code == 429
            clock.now += seconds
            waited += seconds
        assert answer.status_code == 401
        tried += 1
    assert waited == 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60
    clock.now += 60
    assert guarded.get("/", headers=basic("secret")).status_code == 200


def test_a_page_that_is_open_is_not_slowed_down_by_someone_s_guesses() -> None:
    guarded = client("secret")
    guarded.get("/", headers=basic("secret"))  # the client keeps the cookie
    for _ in range(5):
        TestClient(guarded.app).get("/", headers={**basic("wrong"), "host": "localhost"})
    assert guarded.get("/").status_code == 200


def test_addresses_wait_each_for_itself_and_are_forgotten_in_the_end() -> None:
    guesses = WrongPasswords(Clock())
    for _ in range(4):
        guesses.add("10.0.0.1")
        guesses.add("2001:db8::1")
    assert guesses.wait_s("10.0.0.1") == guesses.wait_s("::ffff:10.0.0.1") == 1
    assert guesses.wait_s("2001:db8::ffff") == 1  # the same network
    assert guesses.wait_s("10.0.0.2") <= 0 and guesses.wait_s("2001:db8:0:1::1") <= 0
    for number in range(WrongPasswords.REMEMBERED):
        guesses.add(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}x")
    assert guesses.wait_s("10.0.0.1") <= 0
