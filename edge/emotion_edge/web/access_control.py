"""Decides which requests reach the page: path, host, origin, password, size and number.

Only the paths that the page uses are open. Of Gradio's other paths several write files, fetch from
other hosts or keep what a visitor sends. Every response tells the browser to load nothing from
anywhere else.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import re
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

import anyio

from emotion_edge.sinks.serving import same_origin

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_READ = ("GET", "HEAD")
PATHS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"/api/faces|/page/(faces|compare)"), ("POST",)),
    (re.compile(r"/api/(models|openapi\.json)"), ("GET",)),
    (re.compile(r"/api/live"), ("GET",)),
    (re.compile(r"/(page/[\w-]+\.(jpg|svg)|favicon\.ico)"), ("GET",)),
    # Gradio's page and the files it loads. Everything below /gradio_api stays closed (uploads,
    # files, proxy, events): nothing that a visitor sends may reach Gradio.
    (re.compile(r"/((assets|static|svelte)/.*|theme\.css|config/?|manifest\.json)?"), _READ),
)
"""The open paths and the methods each one takes."""

HEADERS = {
    # Gradio's own scripts are inline in its page and build functions from templates.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' "
    "'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Set on every response."""

RETRY_AFTER_S = 2
"""Seconds after which a client that received 503 should try again."""

_COOKIE = "emotion-edge"
_DRAIN_S = 30.0
_DRAIN_BYTES = 256_000_000


class AccessControl:
    """ASGI middleware around the page and the API."""

    def __init__(
        self,
        app: App,
        *,
        body_limit: int,
        uploads: int = 8,
        password: str | None = None,
        hosts: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Guard an app.

        body_limit: largest request body, bytes.
        uploads: POST requests served at a time; further ones receive 503 with ``Retry-After``.
        password: required by HTTP Basic, with any user name; None for no password.
        hosts: names that the Host header may carry, besides IP addresses, ``localhost`` and this
            machine's own name.
        clock: seconds; tests pass their own.
        """
        self._app = app
        self._body_limit = body_limit
        self._uploads = uploads
        self._present = 0
        self._password = password
        self._hosts = _own_names() | {name.lower().rstrip(".") for name in hosts}
        self._guesses = WrongPasswords(clock)
        # A browser sends the Basic password with pages, but not always with a WebSocket.
        self._session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on with its body counted and the headers added."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(scope, receive, send, *refusal)
            return
        uploading = scope.get("method") == "POST"
        self._present += uploading
        try:
            await self._pass_on(scope, receive, send)
        finally:
            self._present -= uploading

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str, _Pairs] | None:
        """Why a request is refused: status, message and further headers; None to accept it."""
        host = headers.get("host", "")
        if not self._is_own_name(host):
            return 421, (
                f"this page is not served under the name {host!r}: use its IP address or "
                "localhost, or start it with --allow-host NAME"
            ), ()  # fmt: skip
        methods = next((allowed for path, allowed in PATHS if path.fullmatch(scope["path"])), None)
        if methods is None:
            return 404, "not found", ()
        if scope.get("method", "GET") not in methods:
            allowed = ", ".join(methods)
            return 405, f"{scope['path']} takes {allowed} only", (("allow", allowed),)
        if not same_origin(headers.get("origin"), headers.get("host")):
            return 403, "pages of another site may not use this one", ()
        refusal = self._refused_password(scope, headers)
        if refusal is not None:
            return refusal
        if _length(headers) > self._body_limit:
            return 413, self._too_large, ()
        if scope.get("method") == "POST" and self._present >= self._uploads:
            return 503, (
                f"{self._uploads} images are being processed already: "
                f"try again in {RETRY_AFTER_S} s"
            ), (("retry-after", str(RETRY_AFTER_S)),)  # fmt: skip
        return None

    @property
    def _too_large(self) -> str:
        return f"the request has more than {self._body_limit} bytes: send a smaller image"

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app with a counted body, and set the headers of its response."""
        received = 0
        refused = False
        extra = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
        if self._password is not None:
            cookie = f"{_COOKIE}={self._session}; HttpOnly; SameSite=Strict; Path=/"
            extra.append((b"set-cookie", cookie.encode()))

        async def counted() -> Message:
            nonlocal received, refused
            if refused:
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._body_limit:  # sent in chunks, without a Content-Length
                    refused = True
                    await _refuse(scope, receive, send, 413, self._too_large)
                    return {"type": "http.disconnect"}
            return message

        async def completed(message: Message) -> None:
            if refused:
                return
            if message["type"] == "http.response.start":
                kept = [
                    (name, value)
                    for name, value in message.get("headers", [])
                    # Gradio lets pages of any site read its responses, with the visitor's cookie.
                    if not name.lower().startswith(b"access-control-")
                ]
                message["headers"] = [*kept, *extra]
            await send(message)

        try:
            await self._app(scope, counted, completed)
        except Exception:
            if not refused:  # otherwise the app reports the disconnection it was given
                raise

    def _is_own_name(self, host: str) -> bool:
        """Whether a Host header names this server.

        Another site's name may resolve to this machine (DNS rebinding); a browser then treats
        this page as part of that site. An IP address cannot be used for that.
        """
        name = host.rpartition("]")[0].lstrip("[") or host.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower().rstrip(".") in self._hosts
        return True

    def _refused_password(
        self, scope: Scope, headers: Mapping[str, str]
    ) -> tuple[int, str, _Pairs] | None:
        if self._password is None or self._has_cookie(headers):
            return None
        given = _given_password(headers)
        address = (scope.get("client") or ("", 0))[0]
        if given is not None:
            wait = self._guesses.wait_s(address)
            if wait > 0:
                seconds = str(max(1, round(wait)))
                return 429, (
                    f"too many wrong passwords from this address: try again in {seconds} s"
                ), (("retry-after", seconds),)  # fmt: skip
            if hmac.compare_digest(given, self._password.encode()):
                self._guesses.forget(address)
                return None
            self._guesses.add(address)
        return 401, (
            "password required: with curl, -u :PASSWORD"
            if given is None
            else "wrong password"
        ), (("www-authenticate", 'Basic realm="emotion-edge"'),)  # fmt: skip

    def _has_cookie(self, headers: Mapping[str, str]) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(
            cookie.value.encode(), self._session.encode()
        )


class WrongPasswords:
    """Makes each address wait longer after each wrong password.

    Three are free; after that the waits are 1 s, 2 s, 4 s and so on, up to a minute. An IPv6
    network (/64) counts as one address.
    """

    FREE = 3
    LONGEST_S = 60.0
    REMEMBERED = 10_000  # addresses

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without any wrong password. clock: seconds."""
        self._clock = clock
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Seconds until the address may try again; 0 or less: now."""
        return self._seen.get(_network(address), (0, 0.0))[1] - self._clock()

    def add(self, address: str) -> None:
        """Count a wrong password."""
        network = _network(address)
        count = self._seen.pop(network, (0, 0.0))[0] + 1
        wait = 0.0
        if count > self.FREE:
            wait = min(self.LONGEST_S, 2.0 ** min(count - self.FREE - 1, 10))
        self._seen[network] = count, self._clock() + wait
        if len(self._seen) > self.REMEMBERED:
            self._seen.popitem(last=False)

    def forget(self, address: str) -> None:
        """Start again after the right password."""
        self._seen.pop(_network(address), None)


_Pairs = tuple[tuple[str, str], ...]


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 6:
        mapped = parsed.ipv4_mapped
        return str(mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return {"localhost", name, short, f"{short}.local"} - {""}


def _given_password(headers: Mapping[str, str]) -> bytes | None:
    """The password of the Authorization header; None without one; b"" for a damaged one."""
    kind, _, credentials = headers.get("authorization", "").partition(" ")
    if not kind:
        return None
    if kind.lower() != "basic":
        return b""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _length(headers: Mapping[str, str]) -> int:
    try:
        return int(headers.get("content-length") or 0)
    except ValueError:
        return 0


async def _refuse(
    scope: Scope, receive: Receive, send: Send, status: int, why: str, more: _Pairs = ()
) -> None:
    """Send an error, then read the rest of the request.

    Closing a connection on which bytes are still arriving resets it, and the client loses the
    response. So what arrives is thrown away, up to 30 seconds and 256 MB.
    """
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    body = json.dumps({"error": why}, ensure_ascii=False).encode()
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
        ("connection", "close"),
        *more,
        *HEADERS.items(),
    ]
    encoded = [(k.encode(), v.encode()) for k, v in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    if scope["method"] == "HEAD":
        body = b""
    await send({"type": "http.response.body", "body": body, "more_body": True})
    dropped = 0
    with anyio.move_on_after(_DRAIN_S):
        while dropped < _DRAIN_BYTES:
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                break
            dropped += len(message.get("body", b""))
    await send({"type": "http.response.body", "body": b""})
