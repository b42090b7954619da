"""Where frames come from.

To add a camera: write one file with a class that has ``Camera``'s members, and add its line to
``open_camera``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypedDict

from emotion_edge.errors import CameraNotFound, UsageError
from emotion_edge.values import Event, Frame

SPECS = (
    "auto, demo, pattern, picamera2, /dev/videoN, an RTSP or HTTP address, "
    "a video, a photo or a folder of photos"
)
"""What ``open_camera`` understands, for help texts."""


class _Size(TypedDict):
    width: int
    height: int
    fps: float | None
    colour: bool


class _Told(TypedDict):
    on_event: Callable[[Event], None] | None
    stop: threading.Event | None


class Camera(Protocol):
    """A source of frames, used as a context manager: entering opens it, leaving closes it.

    Two frame policies, and only two: a file yields every frame, a live camera the newest.
    """

    @property
    def name(self) -> str:
        """What the user would call it: ``demo``, ``/dev/video0``, ``clip.mp4``."""

    @property
    def live(self) -> bool:
        """Whether frames that nobody reads in time are skipped."""

    def __enter__(self) -> Self:
        """Open. Raises CameraNotFound or CameraBusy."""

    def read(self, timeout: float) -> Frame | None:
        """The next frame, or None at the end of the source.

        timeout: seconds to wait at most. A live camera never returns the same frame twice.
        Raises FrameTimeout (a CameraLost) when no frame came in time, CameraLost when none will.
        """

    def __exit__(self, kind: Any, error: Any, traceback: Any, /) -> None:
        """Close; safe to call twice, and after a failed open."""


def open_camera(
    spec: str | Path,
    *,
    width: int = 640,
    height: int = 480,
    fps: float | None = None,
    colour: bool = True,
    paced: bool | None = None,
    on_event: Callable[[Event], None] | None = None,
    stop: threading.Event | None = None,
) -> Camera:
    """The camera that a word, a device, an address or a path means, not yet opened.

    spec: one of ``SPECS``. ``demo`` and ``pattern`` take settings:
        ``demo:faces=3,frames=200,seed=1,noise=4``, ``pattern:frames=1000``. ``picamera2:1`` is the
        second of two.
    width, height, fps: pixels and frames per second to ask a camera for. Files have their own;
        for photos fps is how many count as a second.
    colour: False gives gray frames ``(height, width)``, cheaper everywhere.
    paced: whether a file or a drawn camera keeps to its frame rate; None means yes for the drawn,
        no for files. Live cameras always do.
    on_event: told of every change of state, maybe from another thread. Without it, trouble becomes
        a RuntimeWarning.
    stop: once set, every wait ends and ``read`` returns None.
    Raises CameraNotFound when the path does not exist, UsageError for an unknown setting.
    """
    spec = str(spec)
    word, _, rest = spec.partition(":")
    size: _Size = {"width": width, "height": height, "fps": fps, "colour": colour}
    told: _Told = {"on_event": on_event, "stop": stop}
    drawn = paced is not False
    filed = paced is True
    if word == "demo":
        from emotion_edge.cameras.demo import DemoCamera

        settings = _settings(spec, rest, {"faces": int, "frames": int, "seed": int, "noise": float})
        return DemoCamera(**size, paced=drawn, stop=stop, **settings)
    if word == "pattern":
        from emotion_edge.cameras.pattern import PatternCamera

        settings = _settings(spec, rest, {"frames": int})
        return PatternCamera(**size, paced=drawn, stop=stop, **settings)
    if word in ("picamera2", "picamera"):
        from emotion_edge.cameras.picamera import Picamera

        if rest and not rest.isdigit():
            raise UsageError(f"camera {spec}: {rest} is no number; use picamera2 or picamera2:1")
        return Picamera(int(rest or 0), **size, **told)
    if spec == "auto":
        from emotion_edge.cameras.auto import AutoCamera

        return AutoCamera(**size, **told)
    if "://" in spec:
        from emotion_edge.cameras.stream import StreamCamera

        return StreamCamera(spec, colour=colour, **told)
    if spec.isdigit() or spec.startswith("/dev/"):
        from emotion_edge.cameras.webcam import Webcam

        return Webcam(spec, **size, **told)
    path = Path(spec)
    if not path.exists():
        raise CameraNotFound(f"there is no camera, file or folder {spec}: give {SPECS}")
    from emotion_edge.cameras.photos import Photos, is_photo

    if path.is_dir() or is_photo(path):
        return Photos(path, fps=fps, colour=colour, paced=filed, **told)
    from emotion_edge.cameras.video import VideoFile

    return VideoFile(path, colour=colour, paced=filed, **told)


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """A camera that could be opened.

    spec: what ``--camera`` takes. model: the maker's name for it.
    trouble: why it cannot be opened now (busy, no permission); empty when it can.
    """

    spec: str
    model: str
    trouble: str = ""


def list_cameras() -> list[CameraInfo]:
    """Every camera of this machine, in the order in which ``auto`` tries them. Opens none."""
    from emotion_edge.cameras import auto

    return auto.list_cameras()


def _settings(spec: str, text: str, known: dict[str, Callable[[str], Any]]) -> dict[str, Any]:
    """``a=1,b=2`` as keyword arguments. Raises UsageError naming what can be set."""
    settings = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            settings[name] = known[name](value)
            if not settings[name] >= 0:
                raise ValueError
        except (KeyError, ValueError):
            raise UsageError(
                f"camera {spec}: {part} is no setting; use {', '.join(f'{k}=N' for k in known)}"
            ) from None
    return settings
