"""Drives Debian's Chromium; a test module that imports this is skipped without Playwright or axe.

Set EMOTION_EDGE_SCREENSHOTS=FOLDER to keep the screenshots.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
)
pytest.importorskip(
    "axe_playwright_python", reason="axe is not installed: pip install axe-playwright-python"
)

import axe_playwright_python
from playwright.sync_api import sync_playwright

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt install chromium"),
    # Playwright's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""Of every module that drives the browser."""

_AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
_SHOTS = os.environ.get("EMOTION_EDGE_SCREENSHOTS")


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """The browser with a new, empty profile."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--no-first-run", *arguments],
        )
        yield browser
        browser.close()


def screenshot(page: Any, name: str, *, full: bool = False) -> bytes:
    """A PNG file of what the page shows; full: of its whole height."""
    data: bytes = page.screenshot(full_page=full)
    if _SHOTS:
        Path(_SHOTS, f"{name}.png").write_bytes(data)
    return data


def violations(page: Any) -> list[str]:
    """What axe's rules find wrong with the page."""
    page.evaluate(_AXE.read_text(encoding="utf-8"))
    found: list[str] = page.evaluate(
        """() => axe.run(document, { resultTypes: ["violations"] }).then((result) =>
            result.violations.flatMap((v) => v.nodes.map((n) =>
                `${v.id}: ${n.target} ${n.any[0]?.message ?? v.help}`)))"""
    )
    return found
