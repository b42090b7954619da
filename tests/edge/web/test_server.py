from __future__ import annotations

import base64
import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("gradio", reason="the [web] extra is not installed")

import uvicorn
from starlette.testclient import TestClient

from emotion_edge.errors import UsageError
from emotion_edge.factory import load
from emotion_edge.model.preprocessing import read_image
from emotion_edge.web.environment import private_cache
from emotion_edge.web.images import WORKING_SIDE, Limits
from emotion_edge.web.models import Models
from emotion_edge.web.server import Settings, create_app, serve

from .conftest import TINY, nothing_written

pytestmark = [  # Gradio's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with private_cache() as name:
        yield Path(name)
    assert not Path(name).exists()


@pytest.fixture(scope="module")
def site(models: Models, folder: Path) -> Iterator[TestClient]:
    app = create_app(models, Settings(limits=Limits(megabytes=2, megapixels=10)))
    with TestClient(app) as client:
        yield client


def look(site: TestClient, data: bytes, **query: str) -> Any:
    answer = site.post("/api/faces", content=data, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def test_a_picture_in_a_record_out(site: TestClient, portrait: bytes, tmp_path: Path) -> None:
    record = look(site, portrait)
    assert {k: record[k] for k in ("schema", "type", "model", "width", "height", "notes")} == {
        "schema": 1, "type": "image", "model": "tiny int8", "width": 640, "height": 480,
        "notes": [],
    }  # fmt: skip
    # The answer of the library to the same file.
    path = tmp_path / "portrait.jpg"
    path.write_bytes(portrait)
    (face,) = load(TINY, detector="haar").image(read_image(path)).faces
    (answer,) = record["faces"]
    assert answer["label"] == face.label
    assert answer["confidence"] == pytest.approx(face.emotion.confidence, abs=0.02)
    box = face.box
    assert np.abs(np.subtract(answer["box"], [box.x, box.y, box.width, box.height])).max() <= 4


def test_boxes_are_in_the_pixels_of_a_picture_that_was_reduced(
    site: TestClient, portrait: bytes
) -> None:
    small = cv2.imdecode(np.frombuffer(portrait, np.uint8), cv2.IMREAD_COLOR)
    large = cv2.resize(small, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
    assert large.shape[1] > WORKING_SIDE
    record = look(site, cv2.imencode(".jpg", large)[1].tobytes())
    assert (record["width"], record["height"]) == (3200, 2400)
    (x, y, width, height) = record["faces"][0]["box"]
    (a, b, c, d) = look(site, portrait)["faces"][0]["box"]
    assert np.abs(np.array([x, y, width, height]) / 5 - [a, b, c, d]).max() < 0.1 * c


def test_no_face_is_an_empty_list(site: TestClient, scenery: bytes) -> None:
    assert look(site, scenery)["faces"] == []


def test_another_model(site: TestClient, portrait: bytes) -> None:
    assert look(site, portrait, model="other int8")["model"] == "other int8"
    answer = site.post("/api/faces", content=portrait, params={"model": "none"})
    assert answer.status_code == 404
    assert "other int8" in answer.json()["error"]


@pytest.mark.parametrize("data", [b"", b"hello"])
def test_no_picture(site: TestClient, data: bytes) -> None:
    answer = site.post("/api/faces", content=data)
    assert answer.status_code == 422
    assert "no picture" in answer.json()["error"]


def test_too_many_pixels_and_too_many_bytes(site: TestClient) -> None:
    white = cv2.imencode(".png", np.full((4000, 4000), 255, np.uint8))[1].tobytes()
    answer = site.post("/api/faces", content=white)
    assert (answer.status_code, "4000x4000" in answer.text) == (422, True)
    assert site.post("/api/faces", content=b"x" * 2_000_001).status_code == 422
    assert site.post("/api/faces", content=b"x" * 4_000_000).status_code == 413


def test_the_installed_models(site: TestClient) -> None:
    installed = site.get("/api/models").json()
    assert [one["name"] for one in installed] == ["tiny int8", "other int8"]
    assert installed[0]["bytes"] == TINY.stat().st_size
    assert "happy" in installed[0]["labels"]


def test_the_page_loads_nothing_from_elsewhere(site: TestClient) -> None:
    page = site.get("/").text
    loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']([^\"']+)", page)
    assert loaded
    assert [url for url in loaded if re.match(r"(https?:)?//", url)] == []
    assert "fonts.g" not in page.replace("\\/", "/")


def test_gradio_is_told_to_keep_quiet(site: TestClient) -> None:
    config = site.get("/config").json()
    assert config["analytics_enabled"] is False
    assert config.get("is_space") in (False, None)


def event(site: TestClient, number: int, inputs: list[str], picture: str) -> str:
    """What the page's event answers, through Gradio's queue, as the browser calls it."""
    joined = site.post(
        "/gradio_api/queue/join",
        json={"data": inputs, "event_data": {"picture": picture}, "fn_index": number,
              "session_hash": "abc"},
    )  # fmt: skip
    assert joined.status_code == 200, joined.text
    with site.stream("GET", "/gradio_api/queue/data", params={"session_hash": "abc"}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                message = json.loads(line[5:])
                if message["msg"] == "process_completed":
                    assert message["success"], message
                    return str(message["output"]["data"][0])
    raise AssertionError("the event was not answered")


def test_the_page_s_own_events(site: TestClient, portrait: bytes, scenery: bytes) -> None:
    encoded, empty = (base64.b64encode(data).decode() for data in (portrait, scenery))
    answer = event(site, 0, ["tiny int8"], encoded)
    assert answer.count("data-panel=") == 1
    assert 'download="emotions.jpg"' in answer and 'download="emotions.json"' in answer
    record = re.search(r"data:application/json;base64,([^\"]+)", answer)
    assert record is not None
    from_page, from_api = json.loads(base64.b64decode(record[1])), look(site, portrait)
    assert from_page["faces"] == from_api["faces"]
    assert "No face found" in event(site, 0, ["tiny int8"], empty)
    assert "no picture" in event(site, 0, ["tiny int8"], base64.b64encode(b"hello").decode())
    assert "carries no picture" in event(site, 0, ["tiny int8"], "?")
    compared = event(site, 1, ["tiny int8", "other int8"], encoded)
    assert "the same label" in compared and "0.0 points" in compared


def test_nothing_is_written(site: TestClient, portrait: bytes, folder: Path) -> None:
    encoded = base64.b64encode(portrait).decode()
    with nothing_written():
        look(site, portrait)
        site.post("/api/faces", content=b"hello")
        event(site, 0, ["tiny int8"], encoded)
        event(site, 1, ["tiny int8", "other int8"], encoded)
        with site.websocket_connect("/api/live") as live:
            live.send_bytes(portrait)
            live.receive_json()
    assert list(folder.rglob("*")) == []


def test_a_write_would_be_noticed(tmp_path: Path) -> None:
    import threading

    with pytest.raises(AssertionError, match=r"left\.txt"), nothing_written():
        thread = threading.Thread(target=(tmp_path / "left.txt").write_text, args=("x",))
        thread.start()
        thread.join()


def test_it_listens_on_this_machine_alone_unless_told() -> None:
    assert Settings().host == "127.0.0.1"


def test_a_port_in_use_is_one_line(models: Models) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port}: Address already in use"):
            serve(models, Settings(port=port))


def test_a_certificate_that_is_none_is_one_line(models: Models, tmp_path: Path) -> None:
    pem = tmp_path / "pem"
    pem.write_text("no certificate")
    with pytest.raises(UsageError, match="--certificate, --key"):
        serve(models, Settings(port=0, certificate=pem, key=pem))


def test_who_reads_the_address_can_come_at_once(
    models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        port = int(capsys.readouterr().out.split()[1].rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), timeout=10).close()

    monkeypatch.setattr(uvicorn.Server, "run", run)
    before = signal.getsignal(signal.SIGTERM)
    try:
        serve(models, Settings(port=0))
    finally:
        signal.signal(signal.SIGTERM, before)
