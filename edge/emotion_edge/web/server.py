"""The page's server: Gradio's page, the API for scripts, the socket of the live tab.

A picture travels in the body of a request, is decoded in memory and is gone with the answer.
Gradio's own uploads and streaming images are not used: they leave files in its cache.
"""

from __future__ import annotations

import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread

from emotion_edge.errors import EmotionEdgeError, ImageError, MissingExtra, UsageError
from emotion_edge.web import environment  # noqa: F401  before Gradio
from emotion_edge.web.images import Limits
from emotion_edge.web.models import Models

try:
    import gradio
    import uvicorn
    import websockets  # noqa: F401  uvicorn serves no socket without it
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse
except ImportError as error:
    raise MissingExtra("the web page", "web", error.name or "gradio") from error

from emotion_edge.web import answers, page
from emotion_edge.web.access_control import App, Door
from emotion_edge.web.live import FRAME_LIMITS, Live

_STATUS: dict[type[EmotionEdgeError], int] = {ImageError: 422, UsageError: 404}


@dataclass(frozen=True, slots=True)
class Settings:
    """How the page is served.

    visitors: cameras watched at once on the live tab. password: None for none.
    certificate, key: PEM files for https; browsers give a page their camera only over https or
        on the very machine.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    limits: Limits = field(default_factory=Limits)
    visitors: int = 4
    password: str | None = None
    certificate: Path | None = None
    key: Path | None = None


def create_app(models: Models, settings: Settings) -> App:
    """The ASGI application: page, API and socket behind the door.

    Use it inside ``environment.private_cache``, for Gradio asks for a folder of its own.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/api/models")
    def installed() -> list[dict[str, Any]]:
        return [answers.model_record(one) for one in models.installed]

    @app.post("/api/faces")
    async def faces(request: Request, model: str | None = None) -> JSONResponse:
        data = await request.body()
        try:
            record = await anyio.to_thread.run_sync(
                answers.image_record, models, data, settings.limits, model
            )
        except EmotionEdgeError as error:
            return JSONResponse({"error": str(error)}, _STATUS.get(type(error), 500))
        return JSONResponse(record, headers={"cache-control": "no-store"})

    app.websocket("/api/live")(Live(models, visitors=settings.visitors).__call__)
    gradio.mount_gradio_app(
        app,
        page.build(models, settings.limits),
        "/",
        footer_links=[],
        ssr_mode=False,
        show_error=True,
        **page.appearance(),
    )
    # The page's events carry a picture as base64, four bytes for three, in a little JSON.
    return Door(app, body_limit=settings.limits.bytes * 4 // 3 + 65_536, password=settings.password)


def serve(models: Models, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; call it inside ``environment.private_cache``.

    Raises UsageError when the address cannot be listened on or the certificate is refused.
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
        # uvicorn shuts down in order and then raises the signal again: by default the process
        # would die of it before the cache is deleted.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        listening.listen()  # uvicorn's comes later: whoever reads the address may come at once
        print(f"open {kind}://{host}:{port}  (Ctrl+C ends)", flush=True)
        server.run(sockets=[listening])


def create_server(models: Models, settings: Settings) -> uvicorn.Server:
    """A server that ``run()`` starts and a signal ends; for inside ``private_cache``."""
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
            limit_concurrency=64,
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
