"""The live tab's socket: pictures in, records out, newest first and nothing queued.

A visitor's camera sends JPEG frames as binary messages; each is answered by one text message, an
``observation`` of ``emotion_edge.records`` (or ``{"type": "error", "message": ...}``). Frames that
arrive while one is being looked at replace each other, so whoever sends too fast loses frames and
never gains delay. The tracker belongs to the socket: visitors cannot see each other's tracks.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

import anyio
import anyio.to_thread
from starlette.websockets import WebSocket, WebSocketDisconnect

from emotion_edge.errors import EmotionEdgeError
from emotion_edge.pipeline import Pipeline
from emotion_edge.records import observation_record
from emotion_edge.values import Frame, Observation
from emotion_edge.web.images import Limits, read_picture
from emotion_edge.web.models import Models

FRAME_LIMITS = Limits(megabytes=1, megapixels=2.1)
"""Of one frame: Full HD. The page itself sends 640 pixels across."""

_TRY_AGAIN_LATER = 1013  # of the registered WebSocket close codes
_IDLE_S = 30.0


@dataclass(slots=True)
class _Newest:
    """One slot: what came last and has not been looked at."""

    data: bytes | None = None
    arrived_ns: int = 0
    index: int = -1


class Live:
    """Serves sockets, several at a time."""

    def __init__(self, models: Models, *, visitors: int = 4, workers: int = 2) -> None:
        """Share a device.

        visitors: cameras at once; one more is told to come back later.
        workers: frames looked at in the same instant, by as many threads.
        """
        self._models = models
        self._visitors = visitors
        self._present = 0
        self._workers = workers
        self._limiter: anyio.CapacityLimiter | None = None

    async def __call__(self, socket: WebSocket) -> None:
        """Serve one visitor until the socket closes, or sends nothing for half a minute."""
        await socket.accept()
        if self._present >= self._visitors:
            await socket.close(
                _TRY_AGAIN_LATER, f"{self._visitors} cameras are being watched already: try later"
            )
            return
        self._present += 1
        try:
            await self._serve(socket)
        finally:
            self._present -= 1

    async def _serve(self, socket: WebSocket) -> None:
        # An anyio limiter belongs to a running loop: there is none yet when the server is built.
        self._limiter = self._limiter or anyio.CapacityLimiter(self._workers)
        try:
            pipeline = await anyio.to_thread.run_sync(
                self._models.stream, socket.query_params.get("model"), limiter=self._limiter
            )
        except EmotionEdgeError as error:
            await socket.close(1008, str(error)[:120])
            return
        newest, arrival = _Newest(), anyio.Event()

        async def answer() -> None:
            with suppress(WebSocketDisconnect):  # the visitor left while we looked
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
                    observation = await anyio.to_thread.run_sync(
                        _look,
                        pipeline,
                        data,
                        newest.arrived_ns,
                        newest.index,
                        limiter=self._limiter,
                    )
                except EmotionEdgeError as error:
                    await socket.send_json({"type": "error", "message": str(error)})
                else:
                    await socket.send_json(observation_record(observation))

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


def _look(pipeline: Pipeline, data: bytes, arrived_ns: int, index: int) -> Observation:
    """Decode and process. Raises ImageError for what is no picture or too large."""
    picture = read_picture(data, FRAME_LIMITS)
    return pipeline.process(Frame(picture.image, arrived_ns, index))
