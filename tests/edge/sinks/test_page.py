from __future__ import annotations

import json
import socket
import threading
import time
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from emotion_edge.errors import SinkError, UsageError
from emotion_edge.sinks.page import PageSettings, PageSink
from emotion_edge.zones import ZoneSettings


@pytest.fixture
def page():
    with PageSink(PageSettings(port=0, fps=1000, viewers=3)) as sink:
        yield sink


def get(sink: PageSink, path: str, **headers: str) -> tuple[int, bytes, HTTPResponse]:
    connection = HTTPConnection(urlsplit(sink.url).netloc, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer


class Viewer:
    """One who watches the stream."""

    def __init__(self, sink: PageSink) -> None:
        self._connection = HTTPConnection(urlsplit(sink.url).netloc, timeout=30)
        self._connection.request("GET", "/stream.mjpg")
        self.answer = self._connection.getresponse()

    def image(self) -> np.ndarray:
        length = 0
        while (line := self.answer.readline().strip()) != b"" or not length:
            assert line or self.answer.fp is not None
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        image = cv2.imdecode(np.frombuffer(self.answer.read(length), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        return image

    def close(self) -> None:
        self.answer.close()
        self._connection.close()


def test_the_page_asks_no_other_host(page) -> None:
    status, body, answer = get(page, "/")
    assert status == 200 and body.startswith(b"<!doctype html>")
    assert b"http:" not in body and b"https:" not in body and b"//" not in body
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert b'name="viewport"' in body
    assert get(page, "/elsewhere")[0] == 404
    assert get(page, "/../page.py")[0] == 404


def test_state_is_the_newest_record_and_the_cameras_trouble(page, observation, event, face) -> None:
    state = json.loads(get(page, "/state.json")[1])
    assert state["record"] is None and state["trouble"] == "waiting for the first frame"
    page.write(observation(1, at_s=10.0))
    page.write(observation(2, (face("sad", 0.7),), at_s=10.1))
    state = json.loads(get(page, "/state.json")[1])
    assert state["record"]["frame"] == 2 and state["record"]["faces"][0]["label"] == "sad"
    assert state["frames_per_second"] == 10.0 and state["trouble"] == ""
    assert state["looks"]["sad"]["emoji"] == "😢" and state["looks"]["sad"]["colour"][0] == "#"
    page.event(event("camera.lost", "the camera is gone"))
    page.event(event("sink.failed", "not the viewer's business"))
    assert json.loads(get(page, "/state.json")[1])["trouble"] == "the camera is gone"
    page.write(observation(3))
    assert json.loads(get(page, "/state.json")[1])["trouble"] == ""


def test_one_frame_with_its_boxes(page, observation) -> None:
    assert get(page, "/frame.jpg")[0] == 503
    page.write(observation(0, size=(1280, 720)))
    status, body, _ = get(page, "/frame.jpg")
    image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert status == 200 and image is not None and image.shape == (360, 640, 3)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What pages have encoded."""
    seen: list[object] = []
    encode = PageSink._encode

    def counting(self: PageSink, observation: object) -> bytes:
        seen.append(observation)
        return encode(self, observation)

    monkeypatch.setattr(PageSink, "_encode", counting)
    return seen


def test_nothing_is_encoded_while_nobody_watches(page, observation, encoded) -> None:
    for index in range(100):
        page.write(observation(index))
    assert encoded == []


def test_viewers_share_one_encoding_and_see_the_newest(page, observation, until, encoded) -> None:
    viewers = [Viewer(page) for _ in range(3)]
    until(lambda: page._viewers == 3)
    assert get(page, "/stream.mjpg")[0] == 503  # a fourth
    for index in range(5):
        page.write(observation(index, size=(400 + 10 * index, 320)))
        # The size tells which frame it was.
        assert {viewer.image().shape[1] for viewer in viewers} == {400 + 10 * index}
    assert len(encoded) == 5
    for viewer in viewers:
        viewer.close()

    def gone() -> bool:
        page.write(observation(9))
        return page._viewers == 0

    until(gone)


def test_encoding_is_limited_however_many_frames_come(observation, until, encoded) -> None:
    with PageSink(PageSettings(port=0, fps=0.5)) as page:
        page.write(observation(0))
        viewer = Viewer(page)
        viewer.image()
        for index in range(1, 50):
            page.write(observation(index))
            time.sleep(0.002)
        assert len(encoded) == 1
        viewer.close()


def test_a_viewer_that_never_reads_delays_neither_camera_nor_others(page, observation) -> None:
    stalled = socket.create_connection(urlsplit(page.url).netloc.split(":"))
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    viewer = Viewer(page)
    for index in range(60):  # about 300 kB each: far more than any buffer holds
        page.write(observation(index, size=(640, 480)))
        assert viewer.image().shape == (480, 640, 3)
    stalled.close()
    viewer.close()


def test_a_new_viewer_gets_no_frame_made_for_an_earlier_viewer(page, observation) -> None:
    page.write(observation(0, size=(400, 320)))
    get(page, "/frame.jpg")
    time.sleep(0.005)  # longer than one image at this rate
    page.write(observation(1, size=(500, 320)))
    viewer = Viewer(page)
    assert viewer.image().shape[1] == 500
    viewer.close()


def test_closing_sends_viewers_away_and_frees_the_port(observation, until) -> None:
    before = threading.active_count()
    page = PageSink(PageSettings(port=0))
    with page:
        page.write(observation(0))
        port = int(page.url.rpartition(":")[2])
        viewer = Viewer(page)
        viewer.image()
    assert viewer.answer.read() == b"\r\n--frame\r\n"  # the rest, then the end
    viewer.close()
    until(lambda: threading.active_count() == before)
    with PageSink(PageSettings(port=port)):
        pass


def test_an_address_in_use_is_one_line(page) -> None:
    port = int(page.url.rpartition(":")[2])
    with (
        pytest.raises(SinkError, match=f"cannot listen on 127.0.0.1 port {port}: Address already"),
        PageSink(PageSettings(port=port)),
    ):
        pass


def test_an_open_page_says_so() -> None:
    with PageSink(PageSettings(host="0.0.0.0", port=0)) as page:
        assert "everyone on this network can watch" in page.announcement
    with PageSink(PageSettings(port=0)) as page:
        assert "everyone" not in page.announcement


def test_a_pause_shows_no_frame_any_more(page, observation, event) -> None:
    page.write(observation(0))
    assert get(page, "/frame.jpg")[0] == 200
    page.event(event("camera.paused", "the camera is closed on request"))
    assert get(page, "/frame.jpg")[0] == 503
    state = json.loads(get(page, "/state.json")[1])
    assert (state["paused"], state["record"]) == (True, None)
    assert state["trouble"] == "the camera is closed on request"
    page.write(observation(1))
    assert get(page, "/frame.jpg")[0] == 200
    assert json.loads(get(page, "/state.json")[1])["paused"] is False


def test_a_frame_that_was_being_encoded_is_not_shown_in_a_pause(
    page, observation, event, monkeypatch
) -> None:
    encode = PageSink._encode

    def slow(self: PageSink, seen: object) -> bytes:
        jpeg = encode(self, seen)
        page.event(event("camera.paused", "paused"))
        return jpeg

    monkeypatch.setattr(PageSink, "_encode", slow)
    page.write(observation(0))
    assert get(page, "/frame.jpg")[0] == 503
    assert get(page, "/frame.jpg")[0] == 503


DOOR = {"name": "door", "corners": [[0, 0.2], [0.4, 0.2], [0.4, 1]]}
AREA = "door: 0,0.2 0.4,0.2 0.4,1"


def save(sink: PageSink, zones: Any) -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection("127.0.0.1", int(sink.url.rpartition(":")[2]), timeout=30)
    body = zones if isinstance(zones, bytes) else json.dumps(zones).encode()
    connection.request("POST", "/zones.json", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    return answer.status, said


def editable(taken: list[Any], saved: Path | None = None, **settings: Any) -> PageSink:
    def set_zones(areas: Any) -> Path | None:
        taken.append(areas)
        return saved

    return PageSink(
        PageSettings(port=0, **settings), zones=ZoneSettings(areas=(AREA,)), set_zones=set_zones
    )


def test_zones_are_shown_and_replaced() -> None:
    taken: list[Any] = []
    with editable(taken, Path("conf.d/60-zones.toml")) as page:
        assert json.loads(get(page, "/zones.json")[1])["zones"] == [DOOR]
        assert json.loads(get(page, "/state.json")[1])["editable"] is True
        policy = get(page, "/")[2].headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        toml = f'[zones]\nareas = ["{AREA}"]\n'
        assert save(page, [DOOR]) == (200, {"saved": "conf.d/60-zones.toml", "toml": toml})
        assert save(page, [])[0] == 200
    assert taken == [(AREA,), ()]
    with editable(taken) as page:
        assert save(page, [DOOR]) == (200, {"saved": None, "toml": toml})


@pytest.mark.parametrize(
    "zones",
    [
        b"", b"{", b"[" * 60_000, b"1", b'"door"', b"{}", b'""', {"name": "door"}, [1],
        [{}], [{"name": "door"}],
        [DOOR | {"corners": 3}], [DOOR | {"corners": [[0, 1, 2]]}], [DOOR | {"corners": ["a"]}],
        [DOOR | {"corners": [["a", 0]]}], [DOOR | {"name": None}],
        [DOOR | {"corners": [[0, 0], [1, 1]]}], [DOOR | {"corners": [[0, 0], [1, 0], [1, 2]]}],
        [DOOR | {"name": ""}], [DOOR | {"name": "a: b"}], [DOOR | {"name": "a\nb"}], [DOOR, DOOR],
        b'[{"name": "door", "corners": [[0, 0], [1, 0], [1, NaN]]}]',
        b'[{"name": "door", "corners": [[0, 0], [1, 0], [1, 1' + b"0" * 400 + b"]]}]",
    ],
)  # fmt: skip
def test_what_are_not_zones_is_one_line(zones: Any) -> None:
    taken: list[Any] = []
    with editable(taken) as page:
        status, said = save(page, zones)
    assert status == 400 and said["error"] and "\n" not in said["error"]
    assert taken == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"edit": False}, "edit is false"),
        ({"host": "0.0.0.0"}, "other machines can open this page"),
        ({"host": "0.0.0.0", "edit": False}, "other machines can open this page"),
    ],
)
def test_zones_are_edited_only_where_that_is_allowed(settings: Any, reason: str) -> None:
    taken: list[Any] = []
    with editable(taken, **settings) as page:
        status, said = save(page, [DOOR])
        assert status == 403 and reason in said["error"] and taken == []
        assert "sinks.page.edit = true allows it" in said["error"]
        assert json.loads(page._answer("/state.json").body)["editable"] is False  # type: ignore
        assert "edit the zones" not in page.announcement
    with PageSink(PageSettings(port=0)) as page:
        assert save(page, [DOOR])[1] == {"error": "this run takes no zones from the page"}


def test_an_open_page_that_edits_zones_says_so() -> None:
    taken: list[Any] = []
    with editable(taken, host="0.0.0.0", edit=True) as page:
        assert "everyone on this network can watch the camera and edit the zones" in (
            page.announcement
        )
        assert save(page, [DOOR])[0] == 200


@pytest.mark.parametrize(("error", "expected"), [(SinkError, 500), (UsageError, 400)])
def test_zones_that_cannot_be_saved_are_shown_to_copy(error: Any, expected: int) -> None:
    def failing(areas: Any) -> None:
        raise error("cannot write 60-zones.toml: No space left on device")

    with PageSink(PageSettings(port=0), set_zones=failing) as page:
        status, said = save(page, [DOOR])
    assert (status, said["error"]) == (
        expected,
        "cannot write 60-zones.toml: No space left on device",
    )
    assert AREA in said["toml"]
