"""What stands between the network and the page.

Only the paths that the page needs are open; of Gradio's others several write files or reach out
to other hosts. A password, where there is one, guards everything. Every answer tells the browser
to load nothing from anywhere else.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = re.compile(
    r"/(api/(faces|models|live)|"
    # Gradio's page and what it loads
    r"(assets|static|svelte)/.*|theme\.css|config/?|favicon\.ico|manifest\.json|"
    # Gradio's events: the one door through which the page calls a function
    r"gradio_api/(startup-events|app_id|info|queue/(join|data)|heartbeat/\w+|cancel|reset)/?)?"
)
HEADERS = {
    # Gradio's own scripts stand inline in its page and build functions from templates.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' "
    "'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_COOKIE = "emotion-edge"


class Door:
    """ASGI middleware: which paths, who, and how much."""

    def __init__(self, app: App, *, body_limit: int, password: str | None = None) -> None:
        """Guard an app.

        body_limit: bytes of one request. password: asked for by HTTP Basic, any user name;
            None leaves the door open.
        """
        self._app = app
        self._body_limit = body_limit
        self._password = password
        # A browser sends the Basic password with pages but not, everywhere, with a WebSocket.
        self._session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on with a counted body and the security headers."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        if not OPEN.fullmatch(scope["path"]):
            await _refuse(scope, send, 404, "not found")
        elif not self._admits(headers):
            await _refuse(
                scope,
                send,
                401,
                "password required",
                ("www-authenticate", 'Basic realm="emotion-edge"'),
            )
        elif scope["type"] == "websocket" and not _same_origin(headers):
            await _refuse(scope, send, 403, "another site may not open this socket")
        elif int(headers.get("content-length") or 0) > self._body_limit:
            await _refuse(scope, send, 413, f"more than {self._body_limit} bytes")
        else:
            await self._hand_on(scope, receive, send)

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app with a counted body, and put the headers on its answer."""
        seen = 0
        extra = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
        if self._password is not None:
            cookie = f"{_COOKIE}={self._session}; HttpOnly; SameSite=Strict; Path=/"
            extra.append((b"set-cookie", cookie.encode()))

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self._body_limit:  # it had not told its length
                    return {"type": "http.disconnect"}
            return message

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                if seen > self._body_limit:
                    message["status"] = 413
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        try:
            await self._app(scope, counted, dressed)
        except Exception:
            if seen <= self._body_limit:
                raise

    def _admits(self, headers: MutableMapping[str, str]) -> bool:
        if self._password is None:
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            cookie = None
        if cookie and hmac.compare_digest(cookie.value.encode(), self._session.encode()):
            return True
        kind, _, credentials = headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            given = base64.b64decode(credentials, validate=True).partition(b":")[2]
        except ValueError:
            return False
        return hmac.compare_digest(given, self._password.encode())


def _same_origin(headers: MutableMapping[str, str]) -> bool:
    """Whether a socket is opened by this very page, or by a script, which names no origin."""
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")


async def _refuse(scope: Scope, send: Send, status: int, why: str, *more: tuple[str, str]) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    body = f'{{"error": "{why}"}}'.encode()
    headers = [("content-type", "application/json"), ("connection", "close"), *more]
    headers += HEADERS.items()
    encoded = [(k.encode(), v.encode()) for k, v in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
