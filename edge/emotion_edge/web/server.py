"""The page's server: Gradio's page, the API for scripts, the socket of the live tab.

An image travels in the body of a request, is decoded in memory, and is gone with the response.
Gradio's uploads, events and session state are not used: they keep what a visitor sent.
"""

from __future__ import annotations

import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from emotion_edge.errors import MissingExtra, UsageError
from emotion_edge.web import environment  # noqa: F401  before Gradio
from emotion_edge.web.images import Limits, decode_image
from emotion_edge.web.models import Models

try:
    import gradio
    import uvicorn
    import websockets  # noqa: F401  uvicorn needs it for the socket
    from fastapi import Request
    from fastapi.responses import HTMLResponse, Response
except ImportError as error:
    raise MissingExtra("the web page", "web", error.name or "gradio") from error

from emotion_edge.web import page, render
from emotion_edge.web.access_control import AccessControl, App
from emotion_edge.web.api import FORM_OVERHEAD, Work, create_api
from emotion_edge.web.live import FRAME_LIMITS, Live


@dataclass(frozen=True, slots=True)
class Settings:
    """How the page is served.

    visitors: cameras in use at the same time on the live tab. uploads: images processed at the same
        time.
    password: None for none.
    certificate, key: PEM files for https; browsers give a page their camera only over https or
        on the same machine.
    names: host names under which the page may be opened, besides this machine's own.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    limits: Limits = field(default_factory=Limits)
    visitors: int = 4
    uploads: int = 8
    password: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()


def create_app(models: Models, settings: Settings) -> App:
    """The ASGI application: page, API and socket behind the access control.

    Use it inside ``environment.private_cache``: Gradio needs a folder of its own.
    """
    work = Work(settings.limits)
    app = create_api(models, work)
    app.websocket("/api/live")(Live(models, visitors=settings.visitors).__call__)

    @app.post("/page/faces", include_in_schema=False)
    async def faces(request: Request, model: str | None = None, whole: bool = False) -> Response:
        def answer(data: bytes) -> str:
            name = models.find(model).name
            decoded = decode_image(data, settings.limits)
            return render.result(decoded, models.look(decoded.image, name, whole=whole), name)

        return _fragment(await work.on(request, answer))

    @app.post("/page/compare", include_in_schema=False)
    async def compare(
        request: Request, model: str | None = None, other: str | None = None, whole: bool = False
    ) -> Response:
        def answer(data: bytes) -> str:
            names = [models.find(name).name for name in (model, other)]
            decoded = decode_image(data, settings.limits)
            return render.comparison(decoded, models.compare(decoded.image, names, whole=whole))

        return _fragment(await work.on(request, answer))

    @app.get("/favicon.ico", include_in_schema=False)
    @app.get("/page/icon.svg", include_in_schema=False)
    def icon() -> Response:
        return Response(page.icon(), media_type="image/svg+xml", headers=_CACHED)

    @app.get("/page/{name}", include_in_schema=False)
    def example(name: str) -> Response:
        if name not in page.EXAMPLES:
            return Response(status_code=404)
        return Response(page.example_bytes(name), media_type="image/jpeg", headers=_CACHED)

    gradio.mount_gradio_app(
        app,
        page.build(models, settings.limits),
        "/",
        footer_links=[],
        ssr_mode=False,
        show_error=True,
        **page.appearance(),
    )
    return AccessControl(
        app,
        body_limit=settings.limits.bytes + FORM_OVERHEAD,
        uploads=settings.uploads,
        password=settings.password,
        hosts=(*settings.names, settings.host),
    )


_CACHED = {"cache-control": "private, max-age=3600"}


def _fragment(html: str) -> Response:
    """A part of the page that holds a visitor's image: for this visitor, and kept nowhere."""
    return HTMLResponse(html, headers={"cache-control": "no-store"})


def serve(models: Models, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; call it inside ``environment.private_cache``.

    Raises UsageError when the address is in use or the certificate cannot be read.
    """
    with _listen(settings) as listening:
        port = listening.getsockname()[1]
        kind = "https" if settings.certificate else "http"
        host = "localhost" if settings.host in ("127.0.0.1", "0.0.0.0", "::") else settings.host
        try:
            server = create_server(models, settings)
            server.config.load()
        except OSError as error:  # of the certificate; ssl.SSLError is one
            raise UsageError(f"--certificate, --key: {error}") from error
        # uvicorn shuts down and then raises the signal again, which would end the process before
        # the cache is deleted.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        listening.listen()  # uvicorn listens later, and the address is printed now
        print(f"open {kind}://{host}:{port}  (Ctrl+C to stop)", flush=True)
        server.run(sockets=[listening])


def create_server(models: Models, settings: Settings) -> uvicorn.Server:
    """A server that ``run()`` starts and a signal stops; use it inside ``private_cache``."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(models, settings),
            host=settings.host,
            port=settings.port,
            log_level="warning",
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.key,
            ws_max_size=FRAME_LIMITS.bytes,
            ws_max_queue=2,
            # X-Forwarded-For would let a client choose the address its wrong passwords count for.
            proxy_headers=False,
            timeout_graceful_shutdown=2,
        )
    )


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise UsageError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}; "
            "choose another --port or --host"
        ) from error
    return listening
