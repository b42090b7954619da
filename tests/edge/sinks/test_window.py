from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import emotion_edge
from emotion_edge.errors import SinkError
from emotion_edge.sinks.window import WindowSettings, WindowSink

pytest.importorskip("tkinter", reason="this Python has no tkinter")
pytest.importorskip("PIL", reason="Pillow is not installed")


def test_without_a_display_there_is_a_clear_word(monkeypatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with (
        pytest.raises(SinkError, match=r"no display for the window .* use the live page") as caught,
        WindowSink(WindowSettings()),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def display():
    """A virtual display."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    with os.fdopen(reader) as number:
        name = f":{number.readline().strip()}"
    yield name
    server.terminate()
    server.wait()


def in_a_window(display: str, script: str) -> str:
    """Run a script that opens a window in its own process: Tk requires the main thread."""
    head = """
        import time
        import numpy as np
        from emotion_edge.sinks.window import WindowSettings
        from emotion_edge.sinks.window import WindowSink
        from emotion_edge.values import Event, Frame, Observation

        def until(condition):
            deadline = time.monotonic() + 30
            while not condition():
                assert time.monotonic() < deadline
                time.sleep(0.01)

        def observation(index):
            image = np.full((240, 320, 3), (200, 30, 30), np.uint8)
            return Observation(Frame(image, time.monotonic_ns(), index), ())
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(head) + textwrap.dedent(script)],
        env={
            **os.environ,
            "DISPLAY": display,
            "PYTHONPATH": str(Path(emotion_edge.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_it_shows_the_newest_frame(display) -> None:
    said = in_a_window(
        display,
        """
        import threading
        from PIL import ImageGrab

        with WindowSink(WindowSettings(fps=100)) as sink:
            for index in range(3):
                sink.write(observation(index))
                until(lambda: sink.shown == index + 1)

            def blue():
                grabbed = np.asarray(ImageGrab.grab(xdisplay=""))
                return (abs(grabbed[..., :3].astype(int) - (30, 30, 200)).max(2) < 12).sum()

            until(lambda: blue() >= 320 * 240 * 0.95)
            sink.event(Event("camera.lost", "the camera is gone", 0))
        assert not sink.finished
        print(threading.active_count())
        """,
    )
    assert said == "1\n"


def test_its_user_closes_it_fullscreen_too(display) -> None:
    in_a_window(
        display,
        """
        import tkinter

        roots = []
        make = tkinter.Tk
        tkinter.Tk = lambda **kwargs: roots.append(make(**kwargs)) or roots[-1]
        with WindowSink(WindowSettings(fps=100, fullscreen=True)) as sink:
            sink.write(observation(0))
            until(lambda: sink.shown == 1)
            root = roots.pop()
            root.focus_force()  # there is no window manager to give the focus
            root.after(10, root.event_generate, "<Escape>")
            del root
            until(lambda: sink.finished)
        sink.write(observation(1))  # the window is closed: nothing happens
        """,
    )
