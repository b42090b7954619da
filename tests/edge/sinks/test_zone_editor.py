"""The zone editor of the live page in Debian's Chromium: mouse, touch, keyboard, saving, errors."""

from __future__ import annotations

import functools
import json
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_edge.kiosk.board import Condition
from emotion_edge.kiosk.configuration import Config, load_config
from emotion_edge.kiosk.reload import Runs
from emotion_edge.kiosk.service import Service
from emotion_edge.kiosk.zone_file import ZoneFile
from emotion_edge.pipeline import Pipeline
from emotion_edge.values import Box, Frame
from emotion_edge.zones import Zones
from tests.browser import MARKS, chromium, screenshot, violations
from tests.edge.parts import Classifier, Detector

FACE = Box(60, 40, 40, 40)  # its middle is at 25% and 25% of the frame

pytestmark = MARKS


class Camera:
    """A live camera with a slow gradient, 320x240."""

    name, live, fps = "fake", True, 0.0

    def __init__(self) -> None:
        self.index = 0

    def __enter__(self) -> Camera:
        return self

    def read(self, timeout: float) -> Frame | None:
        time.sleep(0.05)
        self.index += 1
        image = np.add.outer(np.arange(240), np.arange(320)) // 4 + self.index % 50
        image = np.repeat(image[..., None], 3, axis=2).astype(np.uint8)
        return Frame(image, time.monotonic_ns(), self.index)

    def __exit__(self, *_: object) -> None:
        pass


def service(config: Config, **rest: Any) -> Service:
    """A run without hardware and without a model."""
    pipeline = Pipeline(Detector(FACE), Classifier(colour=True), zones=Zones(config.zones))
    return Service(
        config,
        camera=Camera,
        pipeline=pipeline,
        condition=lambda: Condition(None, None, 40.0, None),
        tell=lambda line: None,
        **rest,
    )


class Kiosk:
    """Runs in a thread, with a page and records."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.config, self.out = folder / "kiosk.toml", folder / "out.jsonl"
        self.saved = folder / "conf.d" / "60-zones.toml"
        self.config.write_text(
            f"quiet = true\n[sinks.page]\nport = {port}\n"
            f"[sinks.jsonl]\npath = {json.dumps(str(self.out))}\n"
        )
        read = functools.partial(load_config, self.config)
        zone_file = ZoneFile(self.config, lambda drafts: load_config(self.config, drafts))
        self.runs = Runs(
            read(),
            read,
            service=service,
            tell=lambda line: None,
            zone_file=zone_file,
        )
        self.thread = threading.Thread(target=self.runs.run)
        self.thread.start()

    def zone(self) -> str | None:
        """Of the face in the newest record."""
        lines = self.out.read_text().splitlines(keepends=True) if self.out.exists() else []
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        found = [one["faces"][0].get("zone") for one in whole if one["type"] == "observation"]
        return found[-1] if found else None


@pytest.fixture
def kiosk(tmp_path: Path) -> Iterator[Kiosk]:
    kiosk = Kiosk(tmp_path)
    yield kiosk
    kiosk.runs.stop()
    kiosk.thread.join(30)
    assert not kiosk.thread.is_alive()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@contextmanager
def editing(browser: Any, kiosk: Kiosk, until: Callable[..., Any], **options: Any) -> Iterator[Any]:
    """The page with its editor open; it must not raise an error."""
    context = browser.new_context(**options)
    context.set_default_timeout(60_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(kiosk.url)
    # Not wait_for_function: the page's Content-Security-Policy forbids it to evaluate text.
    until(lambda: page.evaluate("document.querySelector('#live').naturalWidth > 0"))
    page.get_by_role("button", name="Edit zones").click()
    page.get_by_role("button", name="Save zones").wait_for()
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def page(browser: Any, kiosk: Kiosk, until: Callable[..., Any]) -> Iterator[Any]:
    """The page on a desktop computer."""
    with editing(browser, kiosk, until, viewport={"width": 1200, "height": 1000}) as page:
        yield page


@pytest.fixture
def phone(browser: Any, kiosk: Kiosk, until: Callable[..., Any]) -> Iterator[Any]:
    """The page on a phone with a touch screen."""
    size = {"width": 390, "height": 844}
    with editing(
        browser,
        kiosk,
        until,
        viewport=size,
        has_touch=True,
        is_mobile=True,
        device_scale_factor=2,
    ) as page:
        yield page


def shot(page: Any, name: str) -> None:
    """A screenshot, and axe's rules."""
    screenshot(page, name)
    assert violations(page) == []


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """With the mouse, in pixels of the window."""
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=3)
    page.mouse.up()


def at(page: Any, x: float, y: float) -> tuple[float, float]:
    """A point of the frame, given as shares, in the window."""
    box = page.locator("#live").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def corners(kiosk: Kiosk) -> list[list[float]]:
    """Those of the one saved zone."""
    (area,) = tomllib.loads(kiosk.saved.read_text())["zones"]["areas"]
    return [[float(x) for x in one.split(",")] for one in area.partition(": ")[2].split()]


def test_a_zone_is_drawn_saved_and_in_the_next_record(
    page: Any, kiosk: Kiosk, until: Callable[..., Any]
) -> None:
    until(kiosk.out.exists)
    assert kiosk.zone() is None
    for x, y in ((0.1, 0.1), (0.2, 0.1), (0.2, 0.5), (0.1, 0.5)):
        page.mouse.click(*at(page, x, y))
    for old, new in ((0.1, 0.1), (0.5, 0.5)):  # dragged, until the face is inside
        drag(page, at(page, 0.2, old), at(page, 0.45, new))
    page.get_by_label("Name of zone 1").fill("door")
    shot(page, "zone-editor")
    page.get_by_role("button", name="Save zones").click()
    page.get_by_text(f"Saved in {kiosk.saved}").wait_for()
    until(lambda: kiosk.zone() == "door")
    assert np.allclose(
        corners(kiosk), [(0.1, 0.1), (0.45, 0.1), (0.45, 0.5), (0.1, 0.5)], atol=0.01
    )
    # The page of the next run has the zone, and frames again.
    until(lambda: page.evaluate("document.querySelector('#dot').className === 'live'"))
    page.get_by_role("button", name="Edit zones").click()
    assert page.get_by_label("Name of zone 1").input_value() == "door"
    page.get_by_label("Delete zone 1").click()
    page.get_by_role("button", name="Save zones").click()
    page.get_by_text(f"Saved in {kiosk.saved}").wait_for()
    until(lambda: kiosk.zone() is None)


def test_the_keyboard_is_enough(page: Any, kiosk: Kiosk) -> None:
    page.get_by_role("button", name="New zone").press("Enter")
    page.keyboard.type("till")  # its name is selected
    add = page.get_by_label("Add a corner to zone 1")
    for _ in range(4):
        add.press("Enter")
    assert page.evaluate("document.activeElement.id") == "corner3"
    page.keyboard.press("Delete")
    page.keyboard.press("Shift+ArrowUp")  # of the third, at (0.5, 0.7)
    page.keyboard.press("ArrowLeft")
    label = page.locator("#corner2").get_attribute("aria-label")
    assert label == "Corner 3 of till: 49% from the left, 60% from the top"
    page.get_by_role("button", name="Save zones").press("Enter")
    page.get_by_text("Saved in").wait_for()
    assert corners(kiosk) == [[0.3, 0.3], [0.7, 0.3], [0.49, 0.6]]


def test_a_corner_is_inserted_in_an_edge_and_another_deleted(page: Any, kiosk: Kiosk) -> None:
    for x, y in ((0.2, 0.2), (0.6, 0.2), (0.6, 0.6), (0.2, 0.6)):
        page.mouse.click(*at(page, x, y))
    drag(page, at(page, 0.6, 0.4), at(page, 0.8, 0.4))  # a new corner, out of the right edge
    drag(page, at(page, 0.2, 0.5), at(page, 0.1, 0.5))  # and one out of the edge that closes it
    page.mouse.click(*at(page, 0.2, 0.2))
    shot(page, "zone-editor-corners")
    page.get_by_role("button", name="Delete corner").click()
    page.locator("#corner0").press("Enter")  # halfway to the next
    page.get_by_role("button", name="Save zones").click()
    page.get_by_text("Saved in").wait_for()
    expected = [(0.6, 0.2), (0.7, 0.3), (0.8, 0.4), (0.6, 0.6), (0.2, 0.6), (0.1, 0.5)]
    assert np.allclose(corners(kiosk), expected, atol=0.01)


def test_escape_takes_back_a_corner_that_is_being_dragged(page: Any) -> None:
    for x, y in ((0.2, 0.2), (0.6, 0.2), (0.6, 0.6)):
        page.mouse.click(*at(page, x, y))
    page.mouse.move(*at(page, 0.6, 0.4))
    page.mouse.down()
    page.mouse.move(*at(page, 0.9, 0.4))
    assert page.locator("#plan .corner").count() == 4
    page.keyboard.press("Escape")
    page.mouse.up()
    assert page.locator("#plan .corner").count() == 3
    assert page.locator("#editor").is_visible()


def test_a_zone_is_drawn_with_a_finger(phone: Any, kiosk: Kiosk) -> None:
    for x, y in ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)):
        phone.touchscreen.tap(*at(phone, x, y))
    phone.touchscreen.tap(*at(phone, 0.5, 0.2))  # a corner in the upper edge
    assert phone.locator("#plan .corner").count() == 5
    # A finger hits a corner that it misses by 15 pixels, and everything that it must hit is large.
    x, y = at(phone, 0.8, 0.8)
    phone.touchscreen.tap(x - 10, y - 10)
    assert phone.locator("#plan .corner").count() == 5
    assert phone.locator(".picked").get_attribute("id") == "corner3"
    for one in phone.locator("#editor button:visible, #editor input:visible").all():
        assert one.bounding_box()["height"] >= 44
    # The frame and the buttons are on the screen together, and nothing is cut off at the side.
    save = phone.get_by_role("button", name="Save zones").bounding_box()
    assert save["y"] + save["height"] <= 844
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    shot(phone, "zone-editor-phone")
    phone.get_by_role("button", name="Delete corner").tap()
    phone.get_by_role("button", name="Save zones").tap()
    phone.get_by_text("Saved in").wait_for()
    expected = [(0.2, 0.2), (0.5, 0.2), (0.8, 0.2), (0.2, 0.8)]
    assert np.allclose(corners(kiosk), expected, atol=0.01)


def test_without_a_configuration_file_the_lines_are_shown_to_copy(
    page: Any, kiosk: Kiosk, until: Callable[..., Any]
) -> None:
    kiosk.runs._zone_file = None
    for x, y in ((0.1, 0.1), (0.5, 0.1), (0.1, 0.9)):
        page.mouse.click(*at(page, x, y))
    page.get_by_role("button", name="Save zones").click()
    page.get_by_text("To keep them, copy this").wait_for()
    lines = tomllib.loads(page.get_by_label("Zones for the configuration file").input_value())
    assert lines["zones"]["areas"][0].startswith("zone 1: 0.1")
    until(lambda: kiosk.zone() == "zone 1")
    assert not kiosk.saved.exists()


def test_escape_cancels_and_an_error_keeps_what_was_drawn(page: Any, kiosk: Kiosk) -> None:
    page.mouse.click(*at(page, 0.5, 0.5))
    page.get_by_role("button", name="Save zones").click()
    page.get_by_text("Not saved: 'zone 1: 0.5,0.5' is not a zone").wait_for()
    shot(page, "zone-editor-error")
    for x, y in ((0.9, 0.5), (0.9, 0.9)):
        page.mouse.click(*at(page, x, y))
    kiosk.saved.parent.write_text("not a folder")
    page.get_by_role("button", name="Save zones").click()
    page.get_by_text("is not a folder").wait_for()
    assert 'areas = ["zone 1: 0.5' in page.get_by_label("Zones for the config").input_value()
    assert page.locator("#plan .corner").count() == 3
    page.keyboard.press("Escape")
    assert page.locator("#editor").is_hidden() and page.locator("#plan").is_hidden()
    page.get_by_role("button", name="Edit zones").click()
    page.get_by_role("button", name="Save zones").wait_for()
    assert page.locator("#zones li").count() == 0
