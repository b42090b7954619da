"""The live tab's socket: frames in, records out, the newest first and nothing queued.

A visitor's camera sends JPEG frames as binary messages. Each is answered by one text message: an
``observation`` of ``emotion_edge.records`` with the ``model``'s name, or
``{"type": "error", "message": ...}``. With ``?other=NAME`` a second model reads the same faces,
and the record carries ``"other": {"model": ..., "faces": [...]}``. Frames that arrive while one is
being processed replace each other: a client that sends too fast loses frames and gains no delay.
Each socket has its own tracker, so visitors cannot see each other's tracks.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
from starlette.websockets import WebSocket, WebSocketDisconnect

from emotion_edge.errors import EmotionEdgeError
from emotion_edge.records import face_record, observation_record
from emotion_edge.values import Frame
from emotion_edge.web.images import Limits, decode_image
from emotion_edge.web.memory import give_back
from emotion_edge.web.models import Models, Stream

FRAME_LIMITS = Limits(megabytes=1, megapixels=2.1)
"""Of one frame: Full HD. The page itself sends frames 640 pixels wide."""

_TRY_AGAIN_LATER = 1013  # of the registered WebSocket close codes
_IDLE_S = 30.0


@dataclass(slots=True)
class _Newest:
    """One slot: the last frame that arrived and has not been processed."""

    data: bytes | None = None
    arrived_ns: int = 0
    index: int = -1


class Live:
    """Serves several sockets at a time."""

    def __init__(self, models: Models, *, visitors: int = 4, workers: int = 2) -> None:
        """Share a device.

        visitors: cameras at the same time; a further one is refused and told to try again later.
        workers: threads that process frames.
        """
        self._models = models
        self._visitors = visitors
        self._present = 0
        self._workers = workers
        self._limiter: anyio.CapacityLimiter | None = None

    async def __call__(self, socket: WebSocket) -> None:
        """Serve one visitor until the socket closes or sends nothing for half a minute."""
        await socket.accept()
        if self._present >= self._visitors:
            await socket.close(
                _TRY_AGAIN_LATER, f"{self._visitors} cameras are in use already: try again later"
            )
            return
        self._present += 1
        try:
            await self._serve(socket)
        finally:
            self._present -= 1
            give_back()

    async def _serve(self, socket: WebSocket) -> None:
        # A limiter belongs to a running event loop; none runs when the server is built.
        self._limiter = self._limiter or anyio.CapacityLimiter(self._workers)
        wanted = socket.query_params
        try:
            stream = await anyio.to_thread.run_sync(
                self._models.stream,
                wanted.get("model"),
                wanted.get("other"),
                limiter=self._limiter,
            )
        except EmotionEdgeError as error:
            await socket.close(1008, str(error)[:120])
            return
        newest, arrival = _Newest(), anyio.Event()

        async def answer() -> None:
            with suppress(WebSocketDisconnect):  # the visitor left in the meantime
                await answer_all()

        async def answer_all() -> None:
            nonlocal arrival
            while True:
                await arrival.wait()
                arrival = anyio.Event()
                data, newest.data = newest.data, None
                if data is None:
                    continue
                try:
                    record = await anyio.to_thread.run_sync(
                        _process,
                        stream,
                        data,
                        newest.arrived_ns,
                        newest.index,
                        limiter=self._limiter,
                    )
                except EmotionEdgeError as error:
                    record = {"type": "error", "message": str(error)}
                await socket.send_json(record)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            try:
                while True:
                    with anyio.fail_after(_IDLE_S):
                        newest.data = await socket.receive_bytes()
                    newest.arrived_ns, newest.index = time.monotonic_ns(), newest.index + 1
                    arrival.set()
            except WebSocketDisconnect:
                pass
            except TimeoutError:
                await socket.close(1000, "no frame for half a minute")
            except KeyError:  # a text message
                await socket.close(1003, "frames are binary messages")
            tasks.cancel_scope.cancel()


def _process(stream: Stream, data: bytes, arrived_ns: int, index: int) -> dict[str, Any]:
    """The record of one frame.

    Raises ImageError for a frame that is not an image or is too large.
    """
    decoded = decode_image(data, FRAME_LIMITS)
    first, *others = stream.process(Frame(decoded.image, arrived_ns, index))
    record = observation_record(first)
    record["model"] = stream.names[0]
    for name, observation in zip(stream.names[1:], others, strict=True):
        record["other"] = {
            "model": name,
            "faces": [face_record(face) for face in observation.faces],
        }
    return record
