"""A window on this machine's display, with tkinter and Pillow (extra ``[window]``).

Not ``cv2.imshow``: the headless OpenCV has none, and the other aborts the process where there is
no display.
"""

from __future__ import annotations

import gc
import threading
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import cv2

from emotion_edge.annotate import annotate
from emotion_edge.errors import MissingExtra, SinkError
from emotion_edge.settings import key
from emotion_edge.sinks import Content, Kept, Run, Sink, SinkSettings
from emotion_edge.sinks.camera_state import PAUSED, camera_state
from emotion_edge.values import Event, Image, Observation

_TITLE = "Emotion Edge"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings(SinkSettings):
    """A window on this machine's display (extra ``[window]``)."""

    help: ClassVar[str] = "show the frames in a window on this machine"
    pixels: ClassVar[bool] = True

    fullscreen: bool = key(False, "fill the display; Escape or `q` closes it.")
    fps: float = key(20.0, "frames per second at most.", gt=0, le=1000)

    def receipt(self, content: Content) -> list[Kept]:
        """Frames, on the display only."""
        what = f"{content.frames} and labels"
        return [Kept(what, "this machine's display", "until the next frame", images=True)]

    def open(self, run: Run) -> WindowSink:
        """Nothing is opened yet."""
        return WindowSink(self)


class WindowSink(Sink):
    """Shows the newest frame with boxes and labels; Escape, ``q`` or the close button end the run.

    Tk must be created, used and destroyed by one thread, and be served while no frames come: the
    window has a thread of its own.
    """

    name = "window"
    finished = False

    def __init__(self, settings: WindowSettings) -> None:
        self._fullscreen = settings.fullscreen
        self._pause_ms = max(1, round(1000 / settings.fps))
        self._latest: Observation | None = None
        self._trouble = ""
        self._closing = False
        self._thread: threading.Thread | None = None
        self._opened = threading.Event()
        self._error: Exception | None = None
        self.shown = 0
        """Frames shown since the start."""

    def __enter__(self) -> Self:
        """Open the window. Raises MissingExtra, or SinkError where there is no display."""
        self._thread = threading.Thread(target=self._run, name="window", daemon=True)
        self._thread.start()
        self._opened.wait()
        if self._error is not None:
            raise self._error
        return self

    def write(self, observation: Observation) -> None:
        """Show this next."""
        self._latest = observation
        self._trouble = ""

    def event(self, event: Event) -> None:
        """Show a camera's trouble in the title."""
        state = camera_state(event)
        if state is not None:
            self._trouble = "" if state == "ok" else event.message
            if state == PAUSED:
                self._latest = None

    def __exit__(self, *error: object) -> None:
        """Close the window."""
        self._closing = True
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        interpreter: Any = None
        try:
            root = self._open()
            interpreter = root.tk
            self._opened.set()
            root.mainloop()
        except Exception as error:
            self._error = error
        # Tcl aborts the process when another thread deletes its interpreter, and widgets hold it in
        # cycles: collect them here, and let go of the interpreter last.
        root = None
        gc.collect()
        del interpreter
        self._opened.set()

    def _open(self) -> Any:
        try:
            import tkinter
        except ImportError as error:
            raise SinkError(
                "the window needs tkinter, which this Python lacks: apt install python3-tk"
            ) from error
        try:
            from PIL import Image as PillowImage
            from PIL import ImageTk
        except ImportError as error:
            raise MissingExtra("the window", "window", "PIL") from error
        try:
            root = tkinter.Tk(className="emotion-edge")
        except tkinter.TclError as error:
            raise SinkError(
                f"no display for the window ({error}): use the live page instead, or set DISPLAY"
            ) from None
        root.title(_TITLE)
        root.configure(background="black")
        root.geometry("640x480")
        root.attributes("-fullscreen", self._fullscreen)
        label = tkinter.Label(root, background="black", borderwidth=0)
        label.pack(fill="both", expand=True)

        def close(_event: Any = None) -> None:
            self.finished = True
            self._closing = True

        root.protocol("WM_DELETE_WINDOW", close)
        for pressed in ("<Escape>", "q"):
            root.bind(pressed, close)
        shown: Observation | None = None
        photo: Any = None

        def tick() -> None:
            nonlocal shown, photo
            if self._closing:
                label.configure(image="")
                photo = None
                root.destroy()
                return
            latest = self._latest
            if latest is None and shown is not None:
                label.configure(image="")
                photo = shown = None
            if latest is not None and latest is not shown:
                if shown is None and not self._fullscreen:
                    height, width = latest.frame.image.shape[:2]
                    root.geometry(f"{max(width, 320)}x{max(height, 240)}")
                    root.update_idletasks()
                drawn = _fit(latest, label.winfo_width(), label.winfo_height())
                photo = ImageTk.PhotoImage(PillowImage.fromarray(drawn[:, :, ::-1]), master=root)
                label.configure(image=photo)
                shown = latest
                self.shown += 1
            trouble = self._trouble
            root.title(f"{_TITLE}: {trouble}" if trouble else _TITLE)
            root.after(self._pause_ms, tick)

        tick()
        return root


def _fit(observation: Observation, width: int, height: int) -> Image:
    """The annotated frame as large as the window allows, BGR."""
    image = observation.frame.image
    scale = min(max(width, 32) / image.shape[1], max(height, 32) / image.shape[0])
    across = max(1, round(image.shape[1] * scale))
    drawn = annotate(image, observation.faces, width=across)
    size = (across, max(1, round(image.shape[0] * scale)))
    if drawn.shape[1::-1] == size:
        return drawn
    return cv2.resize(drawn, size)  # type: ignore[return-value]
