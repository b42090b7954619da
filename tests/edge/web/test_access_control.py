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

from emotion_edge.web.access_control import HEADERS, Door

LIMIT = 1000


async def size(request: Request) -> JSONResponse:
    return JSONResponse(len(await request.body()))


async def greet(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("in")
    await socket.close()


def client(password: str | None = None) -> TestClient:
    app = Starlette(
        routes=[
            Route("/api/faces", size, methods=["POST"]),
            WebSocketRoute("/api/live", greet),
            Route("/{rest:path}", lambda _: PlainTextResponse("inside")),
        ]
    )
    return TestClient(Door(app, body_limit=LIMIT, password=password))


def basic(password: str, user: str = "anyone") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/a.js", "/gradio_api/queue/join",
     "/gradio_api/heartbeat/ab12"],
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
     "/gradio_api/run-history/connect", "/login", "/docs", "/monitoring", "/anything"],
)  # fmt: skip
def test_what_it_does_not_need_is_shut(path: str) -> None:
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
    assert client().post("/api/faces", content=b"x" * LIMIT).json() == LIMIT


def test_a_body_that_names_no_length_is_cut_off_at_the_limit() -> None:
    given = 0

    def endless() -> Any:
        nonlocal given
        while given < 100 * LIMIT:
            given += 100
            yield b"x" * 100

    assert client().post("/api/faces", content=endless()).status_code == 413
