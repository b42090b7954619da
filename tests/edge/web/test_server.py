from __future__ import annotations

import base64
import functools
import gc
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

pytest.importorskip("gradio", reason="the [web] extra is not installed")

import uvicorn
from starlette.testclient import TestClient

from emotion_edge.errors import UsageError
from emotion_edge.factory import load
from emotion_edge.model.preprocessing import read_image
from emotion_edge.web import page
from emotion_edge.web.environment import private_cache
from emotion_edge.web.images import Limits
from emotion_edge.web.models import Models
from emotion_edge.web.server import Settings, create_app, create_server, serve
from tests.schema import check_record

from .conftest import TINY, nothing_written

LIMITS = Limits(megabytes=2, megapixels=15.5)

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
    app = create_app(models, Settings(limits=LIMITS, names=("testserver",)))
    with TestClient(app) as client:
        yield client


def look(site: TestClient, data: bytes, **query: str) -> Any:
    answer = site.post("/api/faces", content=data, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def test_an_image_in_a_record_out(site: TestClient, portrait: bytes, tmp_path: Path) -> None:
    record = look(site, portrait)
    check_record(record)
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


def test_boxes_are_in_the_pixels_of_the_original_of_a_reduced_image(
    site: TestClient, portrait: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emotion_edge.web.images.WORKING_SIDE", 1920)
    small = cv2.imdecode(np.frombuffer(portrait, np.uint8), cv2.IMREAD_COLOR)
    large = cv2.resize(small, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
    record = look(site, cv2.imencode(".jpg", large)[1].tobytes())
    assert (record["width"], record["height"]) == (3200, 2400)
    (x, y, width, height) = record["faces"][0]["box"]
    (a, b, c, d) = look(site, portrait)["faces"][0]["box"]
    assert np.abs(np.array([x, y, width, height]) / 5 - [a, b, c, d]).max() < 0.1 * c


def test_no_face_is_an_empty_list(site: TestClient, scenery: bytes) -> None:
    assert look(site, scenery)["faces"] == []


def test_another_model(site: TestClient, portrait: bytes) -> None:
    assert look(site, portrait, model="other int8")["model"] == "other int8"
    assert look(site, portrait, model="other")["model"] == "other int8"
    answer = site.post("/api/faces", content=portrait, params={"model": "none"})
    assert answer.status_code == 404
    assert "other int8" in answer.json()["error"]


def test_a_form_is_read_like_a_body(site: TestClient, portrait: bytes) -> None:
    body = look(site, portrait)
    form = site.post("/api/faces", files={"anything": ("photo.jpg", portrait)}, data={"a": "b"})
    assert form.status_code == 200, form.text
    assert form.json()["faces"] == body["faces"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [("multipart/form-data", b""), ("multipart/form-data; boundary=x", b"--x--\r\n"),
     ("multipart/form-data; boundary=x", b"garbage"),
     ("multipart/form-data; boundary=x",
      b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\ntext\r\n--x--\r\n')],
)  # fmt: skip
def test_a_form_without_a_file_is_told_how(site: TestClient, kind: str, body: bytes) -> None:
    answer = site.post("/api/faces", content=body, headers={"content-type": kind})
    assert answer.status_code == 422
    assert "-F file=@photo.jpg" in answer.json()["error"]


@pytest.mark.parametrize("data", [b"", b"hello"])
def test_what_is_not_an_image(site: TestClient, data: bytes) -> None:
    answer = site.post("/api/faces", content=data)
    assert answer.status_code == 422
    assert "not an image" in answer.json()["error"]
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert "--data-binary" in site.post("/api/faces", content=data, headers=form).json()["error"]


def test_too_many_pixels_and_too_many_bytes(site: TestClient) -> None:
    white = cv2.imencode(".png", np.full((4000, 4000), 255, np.uint8))[1].tobytes()
    answer = site.post("/api/faces", content=white)
    assert (answer.status_code, "4000x4000" in answer.text) == (422, True)
    form = {"content-type": "application/x-www-form-urlencoded"}  # curl --data-binary
    assert "curl" not in site.post("/api/faces", content=white, headers=form).text
    assert site.post("/api/faces", content=b"x" * 2_000_000).status_code == 422
    assert site.post("/api/faces", content=b"x" * 2_000_001).status_code == 413
    assert site.post("/api/faces", content=b"x" * 4_000_000).status_code == 413
    assert site.post("/api/faces", files={"file": b"x" * 2_000_001}).status_code == 413


def test_a_face_that_is_not_found_can_be_read_from_the_whole_image(
    site: TestClient, scenery: bytes
) -> None:
    (face,) = look(site, scenery, whole="true")["faces"]
    assert face["box"] == [0, 0, 640, 480]
    answer = site.post("/api/faces", content=scenery, params={"whole": "perhaps"})
    assert answer.status_code == 422
    assert "parameter whole" in answer.json()["error"] and "'perhaps'" in answer.json()["error"]


def test_the_installed_models(site: TestClient, two_models: list[Path]) -> None:
    installed = site.get("/api/models").json()
    assert [one["name"] for one in installed] == ["tiny int8", "other int8"]
    assert installed[0]["bytes"] == two_models[0].stat().st_size
    assert "happy" in installed[0]["labels"]
    assert {"convention", "unsure_below"} <= set(installed[0])


def test_the_page_loads_nothing_from_elsewhere(site: TestClient) -> None:
    page = site.get("/").text
    loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']([^\"']+)", page)
    assert loaded
    assert [url for url in loaded if re.match(r"(https?:)?//", url)] == []
    assert "fonts.g" not in page.replace("\\/", "/")


def test_gradio_reports_nothing_to_its_makers(site: TestClient) -> None:
    config = site.get("/config").json()
    assert config["analytics_enabled"] is False
    assert config.get("is_space") in (False, None)


def test_gradio_has_no_event_and_no_state(site: TestClient) -> None:
    config = site.get("/config").json()
    assert config["dependencies"] == []
    kinds = {one["type"] for one in config["components"]}
    assert kinds <= {"html", "tabs", "tabitem", "column", "row"}, kinds


def test_the_page_s_own_paths(site: TestClient, portrait: bytes, scenery: bytes) -> None:
    def part(path: str, data: bytes) -> str:
        answer = site.post(f"/page/{path}", content=data)
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        return answer.text

    answer = part("faces?model=tiny int8", portrait)
    assert answer.count("data-panel=") == 1
    assert 'download="emotions.jpg"' in answer and 'download="emotions.json"' in answer
    record = re.search(r"data:application/json;base64,([^\"]+)", answer)
    assert record is not None
    from_page, from_api = json.loads(base64.b64decode(record[1])), look(site, portrait)
    assert from_page["faces"] == from_api["faces"]
    assert "No face found" in part("faces", scenery)
    assert "data-panel=" in part("faces?whole=true", scenery)
    assert "not an image" in site.post("/page/faces", content=b"hello").json()["error"]
    compared = part("compare?model=tiny int8&other=other int8", portrait)
    assert "the same label" in compared and "0.0 points" in compared
    assert site.post("/page/compare?other=none", content=portrait).status_code == 404


@pytest.mark.parametrize("name", page.EXAMPLES)
def test_each_example_shows_a_face(site: TestClient, name: str) -> None:
    answer = site.get(f"/page/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert len(look(site, answer.content)["faces"]) == (2 if name == "two.jpg" else 1)


def test_the_icon_is_the_project_s_own(site: TestClient) -> None:
    for path in ("/favicon.ico", "/page/icon.svg"):
        answer = site.get(path)
        assert answer.headers["content-type"] == "image/svg+xml" and answer.text == page.icon()
    assert site.get("/page/none.jpg").status_code == 404


# ── the OpenAPI document ──


@pytest.fixture(scope="module")
def document(site: TestClient) -> dict[str, Any]:
    return site.get("/api/openapi.json").json()


def conforms(document: dict[str, Any], path: str, method: str, answer: Any) -> None:
    """Hold a response to what the document says of its status."""
    responses = document["paths"][path][method]["responses"]
    assert str(answer.status_code) in responses, answer.text
    schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), {**schema, "components": document["components"]})


def test_each_documented_status_is_returned_as_documented(
    models: Models, site: TestClient, document: dict[str, Any], portrait: bytes
) -> None:
    guarded = create_app(models, Settings(limits=LIMITS, names=("testserver",), password="secret"))
    full = create_app(models, Settings(limits=LIMITS, names=("testserver",), uploads=0))
    client, path = TestClient(guarded), "/api/faces"
    wrong = [client.post(path, auth=("me", "wrong"), content=portrait) for _ in range(6)]
    answers = [
        site.post(path, content=portrait),
        client.post(path, content=portrait),
        site.post(path, content=portrait, headers={"origin": "http://evil.example"}),
        site.post(path, content=portrait, params={"model": "none"}),
        site.get(path),
        site.post(path, content=b"x" * 3_000_000),
        site.post(path, content=portrait, headers={"host": "evil.example"}),
        site.post(path, content=b"hello"),
        wrong[-1],
        TestClient(full).post(path, content=portrait),
    ]
    documented = document["paths"][path]["post"]["responses"]
    assert sorted(str(answer.status_code) for answer in answers) == sorted(documented)
    for answer in answers:
        conforms(document, path, "post", answer)
    conforms(document, "/api/models", "get", site.get("/api/models"))


def test_the_documented_example_has_the_fields_of_an_answer(
    site: TestClient, document: dict[str, Any], portrait: bytes
) -> None:
    faces = document["paths"]["/api/faces"]["post"]
    example = faces["responses"]["200"]["content"]["application/json"]["example"]
    check_record(example)
    answer = look(site, portrait)
    assert list(example) == list(answer)
    assert list(example["faces"][0]) == list(answer["faces"][0])
    # Haar's score is not a probability, in the example either.
    assert example["faces"][0]["score"] > 1 and answer["faces"][0]["score"] > 1
    assert {p["name"] for p in faces["parameters"]} == {"model", "whole"}
    assert "multipart/form-data" in faces["requestBody"]["content"]
    assert set(document["paths"]) == {"/api/faces", "/api/models"}


def test_a_crowd_is_answered_and_no_connection_is_reset(models: Models, portrait: bytes) -> None:
    import http.client
    import threading
    import time
    from concurrent.futures import ThreadPoolExecutor

    with private_cache():
        server = create_server(models, Settings(port=0, limits=LIMITS, uploads=2))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        together = threading.Barrier(120)
        image = portrait + bytes(1_000_000)  # far more than a socket's buffer

        def post(_: int) -> tuple[int, str | None]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            together.wait(60)
            connection.request("POST", "/api/faces", image)
            response = connection.getresponse()
            response.read()
            connection.close()
            return response.status, response.getheader("retry-after")

        try:
            with ThreadPoolExecutor(120) as pool:
                answers = list(pool.map(post, range(120)))
        finally:
            server.should_exit = True
            thread.join(30)
    assert set(answers) == {(200, None), (503, "2")}


# ── nothing is kept ──


def test_nothing_is_written(site: TestClient, portrait: bytes, folder: Path) -> None:
    with nothing_written():
        look(site, portrait)
        site.post("/api/faces", content=b"hello")
        # A form of more than the megabyte from which Starlette would use a temporary file.
        site.post("/api/faces", files={"file": portrait + bytes(1_500_000)})
        site.post("/page/faces", content=portrait)
        site.post("/page/compare?other=other int8", content=portrait)
        with site.websocket_connect("/api/live") as live:
            live.send_bytes(portrait)
            live.receive_json()
    assert list(folder.rglob("*")) == []


def large_objects() -> dict[int, str]:
    """Every text, bytes and array above 10 kB that Python can reach, by id."""
    gc.collect()
    found: dict[int, str] = {}
    seen: set[int] = set()
    pending: list[Any] = gc.get_objects()
    while pending:
        for one in gc.get_referents(*[pending.pop() for _ in range(min(1000, len(pending)))]):
            if id(one) in seen:
                continue
            seen.add(id(one))
            if isinstance(one, bytes | bytearray | str | memoryview | np.ndarray):
                size = one.nbytes if isinstance(one, np.ndarray | memoryview) else len(one)
                if size > 10_000:
                    found[id(one)] = f"{type(one).__name__} of {size}"
            elif not gc.is_tracked(one):
                pending.append(one)
    return found


def alone(test: Callable[..., None]) -> Callable[..., None]:
    """Runs a test in a process of its own when this one is large.

    After TensorFlow's tests, walking over all objects takes minutes.
    """

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        if "tensorflow" not in sys.modules:
            test(*arguments, **named)
            return
        command = [sys.executable, "-m", "pytest", "-q", f"{__file__}::{test.__name__}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@alone
def test_no_image_is_reachable_after_its_response(models: Models, folder: Path) -> None:
    from emotion_edge.cameras import open_camera

    app = create_app(models, Settings(limits=LIMITS, names=("testserver",)))
    with open_camera("demo:faces=1", paced=False) as camera:
        images = []
        for _ in range(50):
            frame = camera.read(1)
            assert frame is not None
            images.append(cv2.imencode(".jpg", frame.image)[1].tobytes())

    def session(image: bytes) -> None:
        """A visitor of their own: page, image, comparison, live frame, damaged image."""
        visitor = TestClient(app)
        visitor.get("/")
        assert "data-panel" in visitor.post("/page/faces", content=image).text
        visitor.post("/page/faces", files={"file": image})
        visitor.post("/page/compare?other=other int8", content=image)
        visitor.post("/api/faces", content=image[: len(image) // 2])
        with visitor.websocket_connect("/api/live") as live:
            live.send_bytes(image)
            live.receive_json()

    session(images[0])  # opens the models and fills caches that hold no image
    before = large_objects()
    for image in images[1:]:
        session(image)
    del image
    kept = {key: what for key, what in large_objects().items() if key not in before}
    assert list(kept.values()) == []
    assert list(folder.rglob("*")) == []


@alone
def test_a_kept_image_would_be_noticed(portrait: bytes) -> None:
    before = large_objects()
    kept = {"session": [portrait + b"x"]}
    new = [what for key, what in large_objects().items() if key not in before]
    assert new == [f"bytes of {len(portrait) + 1}"], kept


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


def test_a_wrong_certificate_is_one_line(models: Models, tmp_path: Path) -> None:
    pem = tmp_path / "pem"
    pem.write_text("no certificate")
    with pytest.raises(UsageError, match="--certificate, --key"):
        serve(models, Settings(port=0, certificate=pem, key=pem))


def test_the_printed_address_can_be_opened_immediately(
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
