from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("starlette", reason="the [web] extra is not installed")

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from emotion_edge.values import Frame, Observation
from emotion_edge.web.live import Live
from emotion_edge.web.models import Models, Stream


def client(models: Any, **options: Any) -> TestClient:
    return TestClient(Starlette(routes=[WebSocketRoute("/", Live(models, **options).__call__)]))


def test_a_frame_is_answered_with_an_observation(models: Models, portrait: bytes) -> None:
    with client(models) as page, page.websocket_connect("/") as socket:
        for index in range(3):
            socket.send_bytes(portrait)
            record = socket.receive_json()
            assert (record["type"], record["frame"], record["skipped"]) == ("observation", index, 0)
            assert (record["width"], record["height"]) == (640, 480)
            assert set(record["timings_ms"]) == {"detect", "classify", "track", "age"}
            assert all(sum(f["probabilities"].values()) > 0.97 for f in record["faces"])
        assert [face["track"] for face in record["faces"]] == [1]


def test_a_second_model_reads_the_same_faces(models: Models, portrait: bytes) -> None:
    with (
        client(models) as page,
        page.websocket_connect("/?model=tiny int8&other=other int8") as socket,
    ):
        for _ in range(4):
            socket.send_bytes(portrait)
            record = socket.receive_json()
    assert (record["model"], record["other"]["model"]) == ("tiny int8", "other int8")
    (face,), (other,) = record["faces"], record["other"]["faces"]
    assert (face["track"], face["box"]) == (other["track"], other["box"]) == (1, face["box"])
    assert other["probabilities"] == face["probabilities"]  # the same network by another name


def test_visitors_have_trackers_of_their_own(
    models: Models, portrait: bytes, scenery: bytes
) -> None:
    with (
        client(models) as page,
        page.websocket_connect("/") as first,
        page.websocket_connect("/") as second,
    ):
        for _ in range(3):
            first.send_bytes(portrait)
            second.send_bytes(scenery)
            seen, other = first.receive_json(), second.receive_json()
        assert [face["track"] for face in seen["faces"]] == [1]
        assert other["faces"] == []
        # The second one's first face is its number 1, however many the first has seen.
        for _ in range(3):
            second.send_bytes(portrait)
            other = second.receive_json()
        assert [face["track"] for face in other["faces"]] == [1]


def test_one_visitor_too_many_is_told_to_come_back(models: Models, portrait: bytes) -> None:
    with client(models, visitors=1) as page:
        with page.websocket_connect("/") as first:
            with (
                page.websocket_connect("/") as second,
                pytest.raises(WebSocketDisconnect) as told,
            ):
                second.receive_json()
            assert told.value.code == 1013
            assert "try again later" in told.value.reason
            first.send_bytes(portrait)
            first.receive_json()
        # The place is free again.
        with page.websocket_connect("/") as third:
            third.send_bytes(portrait)
            assert third.receive_json()["type"] == "observation"


def test_what_is_not_an_image_is_reported_and_does_not_end_the_stream(
    models: Models, portrait: bytes
) -> None:
    with client(models) as page, page.websocket_connect("/") as socket:
        socket.send_bytes(b"noise")
        record = socket.receive_json()
        assert record["type"] == "error" and "not an image" in record["message"]
        socket.send_bytes(portrait)
        assert socket.receive_json()["type"] == "observation"


def test_an_unknown_model_and_a_text_message_close_the_socket(models: Models) -> None:
    with client(models) as page:
        for path, text, code in (("/?model=none", None, 1008), ("/", "hello", 1003)):
            with page.websocket_connect(path) as socket:
                if text:
                    socket.send_text(text)
                with pytest.raises(WebSocketDisconnect) as told:
                    socket.receive_json()
            assert told.value.code == code


class SlowPipeline:
    """Looks at its first frame until it is released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.indices: list[int] = []

    def process(self, frame: Frame) -> Observation:
        self.indices.append(frame.index)
        self.entered.set()
        assert self.release.wait(30)
        return Observation(frame, (), {})


class Script:
    """A visitor who sends a frame, and nine more while it is looked at."""

    def __init__(self, frame: bytes, pipeline: SlowPipeline) -> None:
        self.frame, self.pipeline = frame, pipeline
        self.query_params: dict[str, str] = {}
        self.sent = 0
        self.answers: list[dict[str, Any]] = []
        self.answered = anyio.Event()

    async def accept(self) -> None: ...

    async def close(self, code: int = 1000, reason: str = "") -> None: ...

    async def receive_bytes(self) -> bytes:
        if self.sent == 1:
            await anyio.to_thread.run_sync(self.pipeline.entered.wait)
        if self.sent == 10:  # asked for an eleventh: the ten have been taken
            self.pipeline.release.set()
            await self.answered.wait()
            raise WebSocketDisconnect(1000)
        self.sent += 1
        return self.frame

    async def send_json(self, record: dict[str, Any]) -> None:
        self.answers.append(record)
        if len(self.answers) == 2:
            self.answered.set()


def test_a_slow_device_drops_frames_and_looks_at_the_newest(scenery: bytes) -> None:
    pipeline = SlowPipeline()

    class One:
        def stream(self, name: str | None, other: str | None) -> Stream:
            return Stream(("slow",), (pipeline,))  # type: ignore[arg-type]

    async def visit() -> Script:
        script = Script(scenery, pipeline)
        await Live(One())(script)  # type: ignore[arg-type]
        return script

    answers = anyio.run(visit).answers
    assert pipeline.indices == [0, 9]
    assert [answer["frame"] for answer in answers] == [0, 9]


def test_the_frame_reaches_the_pipeline_as_it_was_sent() -> None:
    seen: list[Frame] = []

    class Recording:
        def process(self, frame: Frame) -> Observation:
            seen.append(frame)
            return Observation(frame, (), {})

        def stream(self, name: str | None, other: str | None) -> Stream:
            return Stream(("recording",), (self,))  # type: ignore[arg-type]

    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = (255, 0, 0)
    data = cv2.imencode(".png", image)[1].tobytes()
    with client(Recording()) as page, page.websocket_connect("/") as socket:
        socket.send_bytes(data)
        socket.receive_json()
    assert np.array_equal(seen[0].image, image)
