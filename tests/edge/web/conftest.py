from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import cv2
import pytest

from emotion_edge.model import manifest as manifests

TINY = Path(__file__).parents[1] / "tiny.tflite"


def write_tiny(path: Path, name: str) -> Path:
    """The tests' model under another name."""
    model, manifest = manifests.load(TINY)
    path.write_bytes(manifests.attach(model, replace(manifest, name=name)))
    return path


@pytest.fixture(scope="session")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [write_tiny(folder / f"{name}.tflite", name) for name in ("tiny", "other")]


@pytest.fixture(scope="session")
def models(two_models: list[Path]) -> Iterator[object]:
    """Two models on offer, whatever is shipped."""
    pytest.importorskip("PIL", reason="the [web] extra is not installed")
    from emotion_edge.web import models as module

    patch = pytest.MonkeyPatch()
    patch.setattr(module, "shipped_models", dict)
    yield module.Models(two_models, detector="haar")
    patch.undo()


@pytest.fixture(scope="session")
def portrait() -> bytes:
    """A JPEG file with one face."""
    return photograph("demo:faces=1")


@pytest.fixture(scope="session")
def scenery() -> bytes:
    """A JPEG file without a face."""
    return photograph("pattern")


def photograph(camera: str) -> bytes:
    from emotion_edge.cameras import open_camera

    with open_camera(camera, paced=False) as source:
        frame = source.read(1)
    assert frame is not None
    return cv2.imencode(".jpg", frame.image)[1].tobytes()


@pytest.fixture(scope="module")
def collected() -> Iterator[None]:
    """Gradio's unclosed loops are collected, with a warning, before their module ends."""
    yield
    gc.collect()


class _Watch:
    on = False
    written: ClassVar[list[str]] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _Watch.on or threading.current_thread() is threading.main_thread():
        return
    if event == "open":
        path, _, flags = arguments
        # A number is an open descriptor that gets a Python object.
        if (
            not isinstance(path, int)
            and isinstance(flags, int)
            and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            _Watch.written.append(str(path))
    elif event in ("os.mkdir", "os.rename", "shutil.copyfile"):
        _Watch.written.append(f"{event} {arguments[0]}")


@contextmanager
def nothing_written() -> Iterator[None]:
    """Fails when another thread than this one opens a file for writing, makes or moves one."""
    if not getattr(sys, "_emotion_edge_audit", False):
        sys.addaudithook(_audit)  # a hook stays for the life of the interpreter
        sys._emotion_edge_audit = True  # type: ignore[attr-defined]
    _Watch.written = []
    _Watch.on = True
    try:
        yield
    finally:
        _Watch.on = False
    assert _Watch.written == []
