"""The zone editor of the live page in Debian's Chromium: mouse, keyboard, saving, refusals.

Set EMOTION_EDGE_SCREENSHOTS=FOLDER to keep the screenshots.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
)
pytest.importorskip(
    "axe_playwright_python", reason="axe is not installed: pip install axe-playwright-python"
)

import axe_playwright_python
from playwright.sync_api import sync_playwright

from emotion_edge.kiosk.board import Condition
from emotion_edge.kiosk.configuration import Config, load_config
from emotion_edge.kiosk.reload import Runs
from emotion_edge.kiosk.service import Service
from emotion_edge.kiosk.zone_file import ZoneFile
from emotion_edge.pipeline import Pipeline
from emotion_edge.values import Box, Frame
from emotion_edge.zones import Zones
from tests.edge.parts import Classifier, Detector

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
SHOTS = os.environ.get("EMOTION_EDGE_SCREENSHOTS")
FACE = Box(60, 40, 40, 40)  # its middle is at 25% and 25% of the frame

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt install chromium"),
    # Playwright's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


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
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--no-first-run"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, kiosk: Kiosk, until: Callable[..., Any]) -> Iterator[Any]:
    """The page with its editor open; it must not raise an error."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
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


def shot(page: Any, name: str) -> None:
    """A screenshot, and axe's rules."""
    data = page.screenshot()
    if SHOTS:
        Path(SHOTS, f"{name}.png").write_bytes(data)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        """() => axe.run(document, { resultTypes: ["violations"] }).then((result) =>
            result.violations.flatMap((v) => v.nodes.map((n) =>
                `${v.id}: ${n.target} ${n.any[0]?.message ?? v.help}`)))"""
    )
    assert found == []


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
    for number, x, y in ((1, 0.45, 0.1), (2, 0.45, 0.5)):  # dragged, until the face is inside
        start = page.locator("#plan circle").nth(number).bounding_box()
        page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
        page.mouse.down()
        page.mouse.move(*at(page, x, y), steps=3)
        page.mouse.up()
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
    assert page.locator("#plan circle").count() == 3
    page.keyboard.press("Escape")
    assert page.locator("#editor").is_hidden() and page.locator("#plan").is_hidden()
    page.get_by_role("button", name="Edit zones").click()
    page.get_by_role("button", name="Save zones").wait_for()
    assert page.locator("#zones li").count() == 0
