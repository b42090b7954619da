"""The page in a real browser: Debian's Chromium, filming a generated clip of a real face.

Every test fails on a request to another host, on an error in the console and on an answer of 400
or above; the whole file fails when the server has written anything.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("gradio", reason="the [web] extra is not installed")
pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
)

from playwright.sync_api import sync_playwright

from emotion_edge.cameras import open_camera
from emotion_edge.model.shipped import shipped_models
from emotion_edge.web.environment import private_cache
from emotion_edge.web.images import Limits
from emotion_edge.web.models import Models
from emotion_edge.web.server import Settings, create_server

from .conftest import nothing_written, photograph

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
PASSWORD = "open, sesame"
SHOTS = os.environ.get("EMOTION_EDGE_SCREENSHOTS")
"""A folder to leave pictures of the page in, to be looked at."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt install chromium"),
    # Gradio's and Playwright's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]


@contextmanager
def serving(models: Models, **settings: Any) -> Iterator[str]:
    """A server of this process; its address."""
    with private_cache() as folder:
        server = create_server(
            models, Settings(port=0, limits=Limits(megabytes=3, megapixels=10), **settings)
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + 120
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            with nothing_written():
                yield f"http://localhost:{port}"
        finally:
            server.should_exit = True
            thread.join(30)
        assert list(Path(folder).rglob("*")) == []


@pytest.fixture(scope="module")
def address(models: Models) -> Iterator[str]:
    with serving(models) as address:
        yield address


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of a moving face, there and back, so that the loop has no jump."""
    pytest.importorskip("matplotlib", reason="the [demo] extra is not installed")
    pictures = []
    with open_camera("demo:faces=1,frames=40", paced=False) as camera:
        while (frame := camera.read(1)) is not None:
            pictures.append(cv2.imencode(".jpg", frame.image)[1].tobytes())
    path = tmp_path_factory.mktemp("clip") / "face.mjpeg"
    path.write_bytes(b"".join(pictures + pictures[::-1]))
    return path


@pytest.fixture(scope="module")
def browser(clip: Path) -> Iterator[Any]:
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(  # in a new, empty profile
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={clip}",
            ],
        )
        yield chromium
        chromium.close()


@contextmanager
def visiting(browser: Any, address: str, *, width: int = 1280, **options: Any) -> Iterator[Any]:
    """A page that has loaded, and that had nothing to complain of when it is left."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, permissions=["camera"], **options
    )
    context.set_default_timeout(60_000)
    complaints: list[str] = []
    page = context.new_page()

    def request(sent: Any) -> None:
        here = (address, address.replace("http:", "ws:"), "data:", "blob:")
        if not sent.url.startswith(here):
            complaints.append(f"another host: {sent.url}")

    page.on("request", request)
    page.on("websocket", request)
    page.on(
        "response",
        lambda got: complaints.append(f"{got.status} {got.url}") if got.status >= 400 else None,
    )
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.goto(address)
    page.get_by_role("tab", name="Picture").wait_for()
    page.complaints = complaints
    try:
        yield page
    finally:
        context.close()
    assert complaints == []


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with visiting(browser, address) as page:
        yield page


def file(data: bytes, name: str = "photo.jpg") -> dict[str, Any]:
    return {"name": name, "mimeType": "image/jpeg", "buffer": data}


def choose(page: Any, data: bytes, name: str = "photo.jpg") -> None:
    page.locator(".ee-picker:visible .ee-file").set_input_files(file(data, name))


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def shoot(page: Any, name: str) -> None:
    if SHOTS:
        page.wait_for_timeout(500)
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def fetched(page: Any, data: bytes) -> Any:
    """What the API answers to a script."""
    return page.request.post(f"{page.url}api/faces", data=data).json()


def download(page: Any, label: str) -> bytes:
    with page.expect_download() as coming:
        page.get_by_role("link", name=label).click()
    return Path(coming.value.path()).read_bytes()


def test_a_picture_is_chosen_and_read(page: Any, portrait: bytes) -> None:
    choose(page, portrait)
    page.locator(".ee-box").wait_for()
    (face,) = fetched(page, portrait)["faces"]
    assert face["label"] in page.locator(".ee-verdict").inner_text()
    rows = page.locator(".ee-bars li").all_inner_texts()
    shown = {row.split()[1]: float(row.split()[-1].rstrip("%")) / 100 for row in rows}
    assert shown == pytest.approx(face["probabilities"], abs=0.001)
    assert list(shown.values()) == sorted(shown.values(), reverse=True)
    box, picture = page.locator(".ee-box").bounding_box(), page.locator("figure img").bounding_box()
    assert box["x"] - picture["x"] == pytest.approx(face["box"][0] / 640 * picture["width"], abs=6)
    assert box["width"] == pytest.approx(face["box"][2] / 640 * picture["width"], abs=6)
    assert json.loads(download(page, "JSON"))["faces"] == [face]
    annotated = cv2.imdecode(np.frombuffer(download(page, "Annotated"), np.uint8), 1)
    plain = cv2.imdecode(np.frombuffer(portrait, np.uint8), 1)
    assert annotated.shape == plain.shape
    assert (cv2.absdiff(annotated, plain).max(axis=2) > 60).sum() > 500
    assert "Looking" not in page.locator(".ee-picker:visible").inner_text()
    shoot(page, "picture")


def test_one_of_several_faces_is_chosen(page: Any) -> None:
    choose(page, photograph("demo:faces=3"))
    page.locator(".ee-box").first.wait_for()
    assert page.locator(".ee-box").count() >= 2
    assert page.locator(".ee-panel:visible").get_attribute("data-panel") == "0"
    page.locator(".ee-box").nth(1).click()
    assert page.locator(".ee-panel:visible").get_attribute("data-panel") == "1"
    assert page.locator(".ee-chip").nth(1).get_attribute("aria-pressed") == "true"
    page.locator(".ee-chip").first.press("Enter")
    assert page.locator(".ee-panel:visible").get_attribute("data-panel") == "0"
    shoot(page, "faces")


def test_no_face_is_said(page: Any, scenery: bytes) -> None:
    choose(page, scenery)
    page.get_by_text("No face found").wait_for()
    assert page.locator(".ee-box").count() == 0
    shoot(page, "no-face")


def test_what_cannot_be_read_is_said_and_the_next_one_is_read(page: Any, portrait: bytes) -> None:
    choose(page, b"hello", "notes.jpg")
    page.get_by_role("alert").get_by_text("no picture").wait_for()
    choose(page, b"x" * 3_000_001)
    page.get_by_text("at most 3 MB are taken").wait_for()
    choose(page, portrait)
    page.locator(".ee-box").wait_for()
    assert page.get_by_role("alert").count() == 0


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page: Any, portrait: bytes, way: str) -> None:
    page.evaluate(
        """([way, encoded]) => {
            const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
            const picker = [...document.querySelectorAll(".ee-picker")].find((p) => p.offsetParent);
            if (way === "drop") picker.dispatchEvent(
                new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
            else document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried }));
        }""",
        [way, base64.b64encode(portrait).decode()],
    )
    page.locator(".ee-box").wait_for()


def test_the_camera_takes_a_picture(page: Any) -> None:
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_function("document.querySelector('.ee-camera video').videoWidth > 0")
    page.get_by_role("button", name="Take the picture").click()
    page.locator(".ee-box").wait_for()
    assert page.evaluate("document.querySelector('.ee-camera video').srcObject") is None


def start_live(page: Any) -> None:
    tab(page, "Live")
    page.get_by_role("button", name="Start the camera").click()
    page.locator(".ee-live .ee-verdict .ee-emoji").wait_for()


def painted(page: Any, canvas: str) -> int:
    """Pixels of a canvas that are not transparent."""
    return int(
        page.evaluate(
            """(canvas) => {
                const c = document.querySelector(canvas);
                const copy = new OffscreenCanvas(c.width, c.height);
                const pen = copy.getContext("2d", { willReadFrequently: true });
                pen.drawImage(c, 0, 0);
                const data = pen.getImageData(0, 0, c.width, c.height).data;
                let n = 0;
                for (let i = 3; i < data.length; i += 4) n += data[i] > 40;
                return n;
            }""",
            canvas,
        )
    )


def test_the_live_tab_follows_a_face(page: Any) -> None:
    records: list[dict[str, Any]] = []
    page.on(
        "websocket",
        lambda socket: socket.on("framereceived", lambda text: records.append(json.loads(text))),
    )
    start_live(page)
    page.wait_for_function(
        "/^[1-9]\\d* frames\\/s/.test(document.querySelector('.ee-fps').textContent)"
    )
    readout = page.locator(".ee-readout").inner_text()
    assert re.search(r"\d+ ms there and back", readout) and "drop" in readout
    page.wait_for_timeout(3000)
    assert painted(page, ".ee-overlay") > 500
    assert painted(page, ".ee-timeline canvas") > 1000
    assert len(records) > 5
    faces = [record["faces"] for record in records if record["faces"]]
    assert {face["track"] for seen in faces for face in seen} == {1}
    assert records[-1]["timings_ms"]["age"] > 0
    shoot(page, "live")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Start the camera").wait_for()
    assert page.evaluate("document.querySelector('.ee-stage video').srcObject") is None
    assert painted(page, ".ee-overlay") == 0


def test_leaving_the_live_tab_ends_the_camera(page: Any) -> None:
    start_live(page)
    tab(page, "Picture")
    page.wait_for_function("document.querySelector('.ee-stage video').srcObject === null")


def test_two_visitors_at_once(browser: Any, address: str) -> None:
    with visiting(browser, address) as first, visiting(browser, address) as second:
        start_live(first)
        start_live(second)
        for page in (first, second):
            assert page.locator(".ee-who").inner_text() == "face 1"


def test_models_are_compared(page: Any, portrait: bytes) -> None:
    tab(page, "Compare")
    choose(page, portrait)
    page.locator(".ee-difference").wait_for()
    text = page.locator(".ee-difference").inner_text()
    assert "the same label" in text and "0.0 points" in text
    table = page.locator(".ee-table").inner_text()
    assert "tiny int8" in table and "other int8" in table
    assert re.search(r"\d+\.\d+ ms", table)
    shoot(page, "compare")


def test_float16_beside_int8_is_what_compare_opens_with(
    browser: Any, portrait: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emotion_edge.web.models.shipped_models", shipped_models)
    shipped = Models(detector="haar")
    if "fast float16" not in [one.name for one in shipped.installed]:
        pytest.skip("a checkout has models/fast/fast-float16.tflite, a wheel has not")
    with serving(shipped) as address, visiting(browser, address) as page:
        tab(page, "Compare")
        choose(page, portrait)
        page.locator(".ee-difference").wait_for()
        table = page.locator(".ee-table").inner_text()
        assert "fast int8" in table and "fast float16" in table
        (points,) = re.findall(r"([\d.]+) points", page.locator(".ee-difference").inner_text())
        assert 0 < float(points) < 5
        shoot(page, "compare-float16")


def test_another_model_s_card(page: Any) -> None:
    tab(page, "Model card")
    page.get_by_role("heading", name="tiny int8").wait_for()
    page.get_by_role("combobox", name="Model").and_(page.locator(":visible")).click()
    page.get_by_role("option", name="other int8").click()
    page.get_by_role("heading", name="other int8").wait_for()
    assert "What a person feels" in page.locator(".ee-card:visible").inner_text()


def test_the_api_is_documented_with_this_very_address(page: Any, address: str) -> None:
    tab(page, "API")
    assert f"{address}/api/faces" in page.locator(".ee-card:visible").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_s_width_is_enough(
    browser: Any, address: str, portrait: bytes, scheme: str
) -> None:
    with visiting(browser, address, width=360, color_scheme=scheme) as page:
        choose(page, portrait)
        page.locator(".ee-box").wait_for()
        for name in ("Picture", "Live", "Compare", "Model card", "API"):
            tab(page, name)
            page.wait_for_timeout(200)
            shoot(page, f"phone-{scheme}-{name.replace(' ', '-').lower()}")
            for element in (
                "document.documentElement",
                "document.querySelector('.gradio-container')",
            ):
                assert page.evaluate(f"{element}.scrollWidth") <= 360, name


def test_a_password_guards_page_and_socket(browser: Any, models: Models) -> None:
    with serving(models, password=PASSWORD) as address:
        context = browser.new_context()
        assert context.request.get(address).status == 401
        context.close()
        credentials = {"username": "me", "password": PASSWORD}
        with visiting(browser, address, http_credentials=credentials) as page:
            # The first, unauthorised answer is how a browser learns that it must ask.
            page.complaints[:] = [c for c in page.complaints if not c.startswith(("401", "Failed"))]
            start_live(page)


def test_a_request_elsewhere_is_blocked_and_would_fail_these_tests(
    browser: Any, address: str
) -> None:
    elsewhere = "http://127.0.0.9:9/"
    with (
        pytest.raises(AssertionError, match=re.escape(elsewhere)),
        visiting(browser, address) as page,
    ):
        answer = page.evaluate(
            "(url) => fetch(url).then(() => 'sent', (error) => String(error))", elsewhere
        )
        assert answer.startswith("TypeError")
        assert any("Content Security Policy" in complaint for complaint in page.complaints)
