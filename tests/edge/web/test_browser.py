"""The page in a real browser: Debian's Chromium, filming a generated clip of a real face.

Every test fails on a request to another host, an error in the console or an unexpected status of
400 or above; the whole file fails when the server has written anything. Each state of the page has
its screenshot taken (set EMOTION_EDGE_SCREENSHOTS=FOLDER to keep them) and axe's rules applied.
"""

from __future__ import annotations

import base64
import json
import re
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

from emotion_edge.cameras import open_camera
from emotion_edge.model.shipped import shipped_models
from emotion_edge.web.environment import private_cache
from emotion_edge.web.images import Limits
from emotion_edge.web.models import Models
from emotion_edge.web.server import Settings, create_server
from tests.browser import MARKS, chromium, screenshot, violations

from .conftest import nothing_written, photograph

PASSWORD = "open, sesame"

pytestmark = [*MARKS, pytest.mark.usefixtures("collected")]


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
    frames = []
    with open_camera("demo:faces=1,frames=40", paced=False) as camera:
        while (frame := camera.read(1)) is not None:
            frames.append(cv2.imencode(".jpg", frame.image)[1].tobytes())
    path = tmp_path_factory.mktemp("clip") / "face.mjpeg"
    path.write_bytes(b"".join(frames + frames[::-1]))
    return path


@pytest.fixture(scope="module")
def browser(clip: Path) -> Iterator[Any]:
    with chromium(
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={clip}",
    ) as browser:
        yield browser


@contextmanager
def visiting(
    browser: Any,
    address: str,
    *,
    width: int = 1400,
    expected: str = "nothing is expected",
    **options: Any,
) -> Iterator[Any]:
    """A page that has loaded, with nothing to report when it is left.

    expected: regular expression of the console messages and statuses that the test provokes.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900}, permissions=["camera"], **options
    )
    context.set_default_timeout(90_000)
    complaints: list[str] = []
    page = context.new_page()

    def complain(text: str) -> None:
        if not re.search(expected, text):
            complaints.append(text)

    def request(sent: Any) -> None:
        here = (address, address.replace("http:", "ws:"), "data:", "blob:")
        if not sent.url.startswith(here):
            complaints.append(f"another host: {sent.url}")
        if "/gradio_api/" in sent.url:
            complaints.append(f"Gradio is used: {sent.url}")

    page.on("request", request)
    page.on("websocket", request)
    page.on("response", lambda got: complain(f"{got.status} {got.url}") if got.status >= 400 else 0)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on(
        "console", lambda said: complain(said.text) if said.type in ("error", "warning") else None
    )
    page.goto(address)
    page.locator(".ee-drop:visible").wait_for()
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
    page.get_by_role("tab", name=name, exact=True).click()


def check_state(page: Any, name: str, *, axe: bool = True, full: bool = True) -> None:
    """Take the state's screenshot, and apply axe's rules to it.

    full: the page's whole height; Chromium stops emulating a phone's touch screen for that.
    """
    page.wait_for_timeout(300)
    data = screenshot(page, name, full=full)
    shot = cv2.imdecode(np.frombuffer(data, np.uint8), 1)
    assert len(np.unique(shot.reshape(-1, 3), axis=0)) > 100, "the page is blank"
    if axe:
        assert violations(page) == []


def fetched(page: Any, data: bytes) -> Any:
    """What the API answers to a script."""
    return page.request.post(f"{page.url}api/faces", data=data).json()


def download(page: Any, label: str) -> bytes:
    with page.expect_download() as coming:
        page.get_by_role("link", name=label).click()
    return Path(coming.value.path()).read_bytes()


def test_an_image_is_chosen_and_read(page: Any, portrait: bytes) -> None:
    check_state(page, "image-empty")
    choose(page, portrait)
    page.locator(".ee-box").wait_for()
    (face,) = fetched(page, portrait)["faces"]
    assert face["label"] in page.locator(".ee-verdict").inner_text()
    rows = page.locator(".ee-bars li").all_inner_texts()
    shown = {row.split()[1]: float(row.split()[-1].rstrip("%")) / 100 for row in rows}
    assert shown == pytest.approx(face["probabilities"], abs=0.001)
    assert list(shown.values()) == sorted(shown.values(), reverse=True)
    box, image = page.locator(".ee-box").bounding_box(), page.locator("figure img").bounding_box()
    assert box["x"] - image["x"] == pytest.approx(face["box"][0] / 640 * image["width"], abs=6)
    assert box["width"] == pytest.approx(face["box"][2] / 640 * image["width"], abs=6)
    assert json.loads(download(page, "Save as JSON"))["faces"] == [face]
    annotated = cv2.imdecode(np.frombuffer(download(page, "Save the image"), np.uint8), 1)
    plain = cv2.imdecode(np.frombuffer(portrait, np.uint8), 1)
    assert annotated.shape == plain.shape
    assert (cv2.absdiff(annotated, plain).max(axis=2) > 60).sum() > 500
    assert page.locator(".ee-spinner:visible").count() == 0
    announced = page.locator(".ee-announce[aria-live]").first
    assert announced.inner_text().startswith(f"One face: {face['label']}, ")
    check_state(page, "image-one-face")


def test_an_example_needs_one_click_and_no_scrolling(page: Any) -> None:
    page.locator(".ee-example:visible").first.click()
    page.locator(".ee-box").wait_for()
    for part in (".ee-figure:visible", ".ee-side:visible", ".ee-downloads:visible"):
        box = page.locator(part).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 900, part
    assert page.evaluate("document.documentElement.scrollHeight") <= 900
    assert page.evaluate("document.querySelector('link[rel=icon]').href").endswith("page/icon.svg")


def numbers(page: Any, selector: str) -> list[str]:
    return [text.split()[0] for text in page.locator(selector).all_inner_texts()]


def test_one_of_several_faces_is_chosen(page: Any) -> None:
    choose(page, photograph("demo:faces=3"))
    page.locator(".ee-box").first.wait_for()
    count = page.locator(".ee-box").count()
    assert count >= 2
    # The numbers in the image are those of the chips, and of the verdict.
    expected = [str(i + 1) for i in range(count)]
    assert numbers(page, ".ee-tag") == numbers(page, ".ee-chip") == expected
    assert page.locator(".ee-panel:visible").get_attribute("data-panel") == "0"
    page.locator(".ee-box").nth(1).click()
    assert page.locator(".ee-panel:visible").get_attribute("data-panel") == "1"
    assert page.locator(".ee-verdict:visible").inner_text().startswith("2")
    assert page.locator(".ee-chip").nth(1).get_attribute("aria-pressed") == "true"
    page.locator(".ee-chip").first.press("Enter")
    assert page.locator(".ee-panel:visible").get_attribute("data-panel") == "0"
    check_state(page, "image-faces")


@pytest.mark.parametrize("width", [1400, 360])
def test_tags_do_not_hide_each_other(browser: Any, address: str, width: int) -> None:
    with visiting(browser, address, width=width) as page:
        choose(page, photograph("demo:faces=12"))
        page.locator(".ee-tag").first.wait_for()
        page.wait_for_timeout(500)
        tags = [one.bounding_box() for one in page.locator(".ee-tag").all()]
        assert len(tags) >= 5
        frame = page.locator(".ee-figure > div").bounding_box()
        for i, a in enumerate(tags):
            assert frame["x"] - 1 <= a["x"] and frame["y"] - 1 <= a["y"]
            assert a["x"] + a["width"] <= frame["x"] + frame["width"] + 1
            for b in tags[:i]:
                apart = (
                    a["x"] + a["width"] <= b["x"] + 1 or b["x"] + b["width"] <= a["x"] + 1
                    or a["y"] + a["height"] <= b["y"] + 1 or b["y"] + b["height"] <= a["y"] + 1
                )  # fmt: skip
                assert apart, (a, b)
        check_state(page, f"image-crowd-{width}", axe=False)


def test_no_face_offers_to_read_the_whole_image(page: Any, scenery: bytes) -> None:
    choose(page, scenery)
    page.get_by_text("No face found").first.wait_for()
    assert page.locator(".ee-box").count() == 0
    check_state(page, "image-no-face")
    page.get_by_role("button", name="Treat the whole image as one face").click()
    page.locator(".ee-box").wait_for()
    box, image = page.locator(".ee-box").bounding_box(), page.locator("figure img").bounding_box()
    assert box["width"] == pytest.approx(image["width"], abs=2)
    check_state(page, "image-whole")


def test_a_bad_file_is_reported_each_time_and_the_next_one_is_read(
    browser: Any, address: str, portrait: bytes
) -> None:
    with visiting(browser, address, expected=r"422") as page:
        for _ in range(2):  # the same file again gets its answer again
            choose(page, b"hello", "notes.jpg")
            page.locator(".ee-spinner").first.wait_for(state="hidden")
            page.get_by_role("alert").get_by_text("not an image").wait_for()
        check_state(page, "image-error")
        choose(page, b"x" * 3_000_001)
        page.get_by_role("alert").get_by_text("the limit is 3 MB").wait_for()
        choose(page, portrait)
        page.locator(".ee-box").wait_for()
        assert page.get_by_role("alert").count() == 0


def test_the_spinner_ends_when_the_server_is_gone_or_busy(
    browser: Any, address: str, portrait: bytes
) -> None:
    with visiting(browser, address, expected=r"ERR_FAILED|ERR_TIMED_OUT|503") as page:
        page.route("**/page/faces*", lambda route: route.abort())
        choose(page, portrait)
        page.get_by_role("alert").get_by_text("server cannot be reached").wait_for()
        assert page.locator(".ee-spinner:visible").count() == 0
        page.unroute("**/page/faces*")

        held: list[Any] = []
        page.route(
            "**/page/faces*", lambda route: route.continue_() if held else held.append(route)
        )
        choose(page, portrait)
        page.get_by_text("Looking for faces").first.wait_for()
        check_state(page, "image-working", axe=False)
        page.wait_for_timeout(300)
        busy = {"status": 503, "headers": {"retry-after": "1"}, "json": {"error": "busy"}}
        held[0].fulfill(**busy)
        page.locator(".ee-box").wait_for()  # tried again by itself

        # A request that is never answered ends by its own timeout.
        page.evaluate(
            "AbortSignal.timeout = () => AbortSignal.abort(new DOMException('', 'TimeoutError'))"
        )
        choose(page, portrait)
        page.get_by_role("alert").get_by_text("No answer within 60 seconds").wait_for()
        assert page.locator(".ee-spinner:visible").count() == 0


def test_another_model_reads_the_same_image_again(page: Any, portrait: bytes) -> None:
    choose(page, portrait)
    page.get_by_text("tiny int8 ·").wait_for()
    page.locator(".ee-model:visible").select_option("other int8")
    page.get_by_text("other int8 ·").wait_for()


DROP = """([target, encoded]) => {
    const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
    if (target === "paste") {
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried }));
        return true;
    }
    const options = { dataTransfer: carried, bubbles: true, cancelable: true };
    const over = new DragEvent("dragover", options), drop = new DragEvent("drop", options);
    const place = [...document.querySelectorAll(target)].find((one) => one.offsetParent);
    place.dispatchEvent(over);
    place.dispatchEvent(drop);
    return over.defaultPrevented && drop.defaultPrevented;
}"""


@pytest.mark.parametrize("where", [".ee-drop", ".ee-head h1", "paste"])
def test_an_image_is_dropped_anywhere_or_pasted(page: Any, portrait: bytes, where: str) -> None:
    assert page.evaluate(DROP, [where, base64.b64encode(portrait).decode()])
    page.locator(".ee-box").wait_for()


def test_a_file_dropped_on_another_tab_does_not_leave_the_page(page: Any, portrait: bytes) -> None:
    tab(page, "API")
    assert page.evaluate(DROP, [".ee-card", base64.b64encode(portrait).decode()])


def test_the_camera_takes_a_photo(page: Any) -> None:
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_function("document.querySelector('.ee-camera video').videoWidth > 0")
    check_state(page, "image-camera", axe=False)
    page.get_by_role("button", name="Take the photo").click()
    page.locator(".ee-box").wait_for()
    assert page.evaluate("document.querySelector('.ee-camera video').srcObject") is None


def test_arrow_keys_move_between_tabs(page: Any) -> None:
    page.get_by_role("tab", name="Image").focus()
    for key, name in (("ArrowRight", "Live"), ("End", "API"), ("ArrowRight", "Image"),
                      ("ArrowLeft", "API"), ("Home", "Image")):  # fmt: skip
        page.keyboard.press(key)
        chosen = page.locator("[role=tab][aria-selected=true]:visible")
        assert chosen.inner_text() == name
        assert page.evaluate("document.activeElement.innerText") == name


def start_live(page: Any) -> None:
    tab(page, "Live")
    page.get_by_role("button", name="Start the camera").click()
    page.locator(".ee-live .ee-verdict .ee-emoji").first.wait_for()


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
    tab(page, "Live")
    assert "What you will see" in page.locator(".ee-side:visible").inner_text()
    check_state(page, "live-idle")
    start_live(page)
    page.wait_for_function(
        "/^[1-9]\\d* frames\\/s/.test(document.querySelector('.ee-fps').textContent)"
    )
    page.wait_for_timeout(3000)
    readout = page.locator(".ee-readout").inner_text()
    (whole, part) = re.findall(r"(\d+) ms per frame, (\d+) ms of it on the device", readout)[0]
    assert int(part) <= int(whole) and "skipped" in readout
    assert painted(page, ".ee-overlay") > 500
    assert painted(page, ".ee-timeline canvas") > 1000
    assert len(records) > 5
    faces = [record["faces"] for record in records if record["faces"]]
    assert {face["track"] for seen in faces for face in seen} == {1}
    check_state(page, "live")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Start the camera").wait_for()
    assert page.evaluate("document.querySelector('.ee-stage video').srcObject") is None
    assert painted(page, ".ee-overlay") == 0


def test_two_models_are_compared_live(page: Any) -> None:
    start_live(page)
    page.get_by_label("Compare with").select_option("other int8")
    page.locator(".ee-live .ee-verdict .ee-b").wait_for()
    page.wait_for_timeout(1000)
    values = page.locator(".ee-live .ee-value").all_inner_texts()
    assert values
    for value in values:  # the same network under two names
        first, second = re.findall(r"\d+", value)
        assert first == second
    assert painted(page, ".ee-overlay") > 500
    check_state(page, "live-compare", axe=False)


def test_leaving_the_live_tab_stops_the_camera(page: Any) -> None:
    start_live(page)
    tab(page, "Image")
    page.wait_for_function("document.querySelector('.ee-stage video').srcObject === null")


def test_two_visitors_at_the_same_time(browser: Any, address: str) -> None:
    with visiting(browser, address) as first, visiting(browser, address) as second:
        start_live(first)
        start_live(second)
        for page in (first, second):
            assert page.locator(".ee-who").inner_text() == "face 1"


def test_models_are_compared(page: Any, portrait: bytes) -> None:
    tab(page, "Compare")
    check_state(page, "compare-empty")
    choose(page, portrait)
    page.locator(".ee-difference").wait_for()
    text = page.locator(".ee-difference").inner_text()
    assert "the same label" in text and "0.0 points" in text
    table = page.locator(".ee-table").inner_text()
    assert "tiny int8" in table and "other int8" in table
    assert re.search(r"\d+\.\d+ ms", table)
    check_state(page, "compare")


def test_the_shipped_models_and_their_cards(
    browser: Any, portrait: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emotion_edge.web.models.shipped_models", shipped_models)
    shipped = Models(detector="haar")
    with serving(shipped) as address, visiting(browser, address) as page:
        tab(page, "Compare")
        chosen = page.locator(".ee-toolbar:visible select")
        assert [one.input_value() for one in chosen.all()] == [
            one.name for one in shipped.installed[:2]
        ]
        page.locator(".ee-example:visible").nth(2).click()
        page.locator(".ee-difference").wait_for()
        check_state(page, "compare-shipped")
        tab(page, "Model card")
        check_state(page, "card-shipped")


def test_another_model_s_card(page: Any) -> None:
    tab(page, "Model card")
    page.get_by_role("heading", name="tiny int8").wait_for()
    page.locator(".ee-model:visible").select_option("other int8")
    page.get_by_role("heading", name="other int8").wait_for()
    assert page.get_by_role("heading", name="tiny int8").count() == 0
    assert "What a person feels" in page.locator(".ee-card:visible").inner_text()


def test_the_api_is_documented_with_the_page_s_own_address(page: Any, address: str) -> None:
    tab(page, "API")
    assert f"{address}/api/faces" in page.locator(".ee-card:visible").inner_text()
    check_state(page, "api")


def test_the_theme_can_be_switched_and_is_remembered(page: Any, portrait: bytes) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Switch between light and dark").click()
    page.wait_for_function(f"{background} !== '{light}'")
    choose(page, portrait)
    page.locator(".ee-box").wait_for()
    check_state(page, "image-dark")
    tab(page, "Model card")
    check_state(page, "card-dark")
    page.reload()
    page.locator(".ee-drop:visible").wait_for()
    page.wait_for_function(f"{background} !== '{light}'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_s_width_is_enough(
    browser: Any, address: str, portrait: bytes, scheme: str
) -> None:
    phone = {"color_scheme": scheme, "has_touch": True, "is_mobile": True}
    with visiting(browser, address, width=360, **phone) as page:
        assert page.get_by_text("Take a photo or choose one").first.is_visible()
        assert not page.get_by_text("Drop an image").first.is_visible()
        check_state(page, f"phone-{scheme}-empty", axe=False, full=False)
        choose(page, portrait)
        page.locator(".ee-box").wait_for()
        for name in ("Image", "Live", "Compare", "Model card", "API"):
            tab(page, name)
            page.wait_for_timeout(200)
            check_state(
                page, f"phone-{scheme}-{name.replace(' ', '-').lower()}", axe=False, full=False
            )
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
        # The first, unauthorised response is how a browser learns that it must ask.
        with visiting(browser, address, expected="401", http_credentials=credentials) as page:
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
