"""A small HTTP server for the live page and the metrics: the standard library's, with limits.

It answers in one thread per connection, up to a limit. A client that stalls is disconnected. A
request for an unknown host name is refused: it may come from another site's page in a visitor's
browser (DNS rebinding). POST is refused unless the server takes it; then it must be JSON of a
limited size, and not from another site's page.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from emotion_edge.errors import SinkError

_STALLED_S = 10.0  # without progress, and a client's connection is closed
_CONNECTIONS = 32

POST_BYTES = 64 * 1024
"""Largest body of a POST."""

_DRAIN_BYTES = 1_000_000  # read of a body that is refused: closing earlier loses the answer


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send: bytes, or an iterator of bytes that are sent as they come."""

    body: bytes | Iterator[bytes]
    kind: str = "text/plain; charset=utf-8"
    status: int = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)


class Server:
    """Listens from ``start`` to ``stop``."""

    def __init__(
        self,
        host: str,
        port: int,
        answer: Callable[[str], Answer | None],
        *,
        post: Callable[[str, bytes], Answer | None] | None = None,
    ) -> None:
        """Nothing is opened yet.

        answer: from a path (without its query) to what to send; None where there is nothing.
        post: the same for a POST, from its path and its body; None to refuse every POST.
        """
        self._host = host
        self._port = port
        self._answer = answer
        self._post = post
        self._server: _Listener | None = None

    @property
    def url(self) -> str:
        """Where it answers: ``http://127.0.0.1:8080``, with the port the system chose."""
        port = self._server.server_address[1] if self._server else self._port
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}"

    @property
    def public(self) -> bool:
        """Whether other machines can reach it."""
        try:
            return not ipaddress.ip_address(self._host).is_loopback
        except ValueError:
            return self._host != "localhost"

    def start(self) -> None:
        """Listen. Raises SinkError when the address cannot be used."""
        try:
            self._server = _Listener(self._host, self._port, self._answer, self._post)
        # The last two: what cannot be a host name.
        except (OSError, OverflowError, ValueError, TypeError) as error:
            raise SinkError(
                f"cannot listen on {self._host} port {self._port}: "
                f"{getattr(error, 'strerror', None) or error}: choose another port or address"
            ) from error
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name=f"http {self.url}", daemon=True
        ).start()

    def stop(self) -> None:
        """Stop listening; a kept connection ends at its next request. Safe to call twice."""
        server, self._server = self._server, None
        if server is not None:
            server.stopped = True
            server.shutdown()
            server.server_close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _CONNECTIONS

    def __init__(
        self,
        host: str,
        port: int,
        answer: Callable[[str], Answer | None],
        post: Callable[[str, bytes], Answer | None] | None,
    ) -> None:
        self.answer = answer
        self.post = post
        self.stopped = False
        self.host = host
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's: it looks up this host's name, which can take seconds without a network.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.host, int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore it: a client that disconnects is normal."""


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    server_version = "emotion-edge"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = _STALLED_S

    def parse_request(self) -> bool:
        """Whether to answer: after the stop, a kept connection must not show what was served."""
        if self.server.stopped:
            self.close_connection = True
            return False
        return super().parse_request()

    def do_GET(self) -> None:
        if not _ours(self.headers.get("Host", ""), self.server.host):
            self._send(_refusal(*_FOREIGN))
        else:
            self._send(self.server.answer(self.path.partition("?")[0]))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        size = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
        refused = self._refused(size)
        # The rest of the connection would be taken for the next request.
        self.close_connection = True
        if refused is not None or size is None or self.server.post is None:
            self.rfile.read(min(size or 0, _DRAIN_BYTES))
            self._send(_refusal(*(refused or _FOREIGN)))
        else:
            self._send(self.server.post(self.path.partition("?")[0], self.rfile.read(size)))

    def _refused(self, size: int | None) -> tuple[int, str] | None:
        """Why a POST is not read: status and message; None to read it. size: of its body."""
        host = self.headers.get("Host", "")
        if not _ours(host, self.server.host):
            return _FOREIGN
        if self.server.post is None:
            return HTTPStatus.METHOD_NOT_ALLOWED, "this address takes GET only"
        if not same_origin(self.headers.get("Origin"), host):
            return HTTPStatus.FORBIDDEN, "pages of another site may not use this one"
        # Another site's page cannot send this type without asking first (CORS).
        if self.headers.get_content_type() != "application/json":
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON, with that Content-Type"
        if size is None:
            return HTTPStatus.LENGTH_REQUIRED, "send a Content-Length, in bytes"
        if size > POST_BYTES:
            return (
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the request has {size:,} bytes: send at most {POST_BYTES:,}",
            )
        return None

    def _send(self, answer: Answer | None) -> None:
        if answer is None:
            answer = _refusal(HTTPStatus.NOT_FOUND, "not found")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if isinstance(answer.body, bytes):
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
            return
        self.send_header("Connection", "close")
        self.end_headers()
        parts = answer.body
        try:
            for part in parts:
                self.wfile.write(part)
        finally:
            if hasattr(parts, "close"):
                parts.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: who watches is private."""


_FOREIGN = (
    HTTPStatus.FORBIDDEN,
    "unknown host name: use the machine's address, or its .local name",
)


def _refusal(status: int, why: str) -> Answer:
    return Answer(f"{why}\n".encode(), status=status)


def same_origin(origin: str | None, host: str | None) -> bool:
    """Whether a request comes from the page of this host, or from a script, which has no origin.

    origin, host: the request's headers.
    """
    return origin is None or origin.partition("://")[2] == host


def _ours(host: str, listening: str) -> bool:
    """Whether a request's Host header can be meant for a machine on the local network.

    No one else can own an address, ``localhost``, a name without a dot or a ``.local`` name. The
    name that we listen on is ours.
    """
    name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
    name = name.strip("[]").rstrip(".").lower()
    if name in ("", listening.lower(), socket.gethostname().lower()) or name.endswith(".local"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name
    return True
