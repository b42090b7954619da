"""Where frames come from.

To add a camera, write one file with a class that has ``Camera``'s members and a ``CameraSettings``
that opens it, and add one line to ``CAMERAS``. Another package registers its settings class as an
entry point in the group ``emotion_edge.cameras``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

from emotion_edge.errors import CameraNotFound, UsageError
from emotion_edge.registry import Registry
from emotion_edge.settings import Settings, from_table, parse_text
from emotion_edge.settings import keys as keys_of
from emotion_edge.values import Event, Frame


class Camera(Protocol):
    """A source of frames, used as a context manager: entering opens it, leaving closes it.

    There are two frame policies: a file yields every frame, a live camera the newest.
    """

    @property
    def name(self) -> str:
        """What the user would call it: ``demo``, ``/dev/video0``, ``clip.mp4``."""

    @property
    def live(self) -> bool:
        """Whether frames that are not read in time are skipped."""

    @property
    def fps(self) -> float:
        """Frames per second, once open; 0 when the source does not report it."""

    def __enter__(self) -> Self:
        """Open. Raises CameraNotFound or CameraBusy."""

    def read(self, timeout: float) -> Frame | None:
        """The next frame, or None at the end of the source.

        timeout: seconds to wait at most. A live camera never returns the same frame twice.
        Raises FrameTimeout (a CameraLost) when no frame came in time, CameraLost when none will.
        """

    def __exit__(self, kind: Any, error: Any, traceback: Any, /) -> None:
        """Close; safe to call twice, and after a failed open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraRequest:
    """What every camera is opened with.

    width, height: pixels to request from the camera. Files have their own.
    fps: frames per second to request, None for the camera's choice; of photographs, how many
        count as a second.
    colour: False gives gray frames ``(height, width)``, which cost less in every stage.
    paced: whether a file or a virtual camera keeps to its frame rate; None means yes for a
        virtual camera and no for a file. Live cameras always do.
    on_event: receives every change of state, possibly from another thread. Without it, a problem
        becomes a RuntimeWarning.
    stop: once set, every wait ends and ``read`` returns None.
    rotate, flip: degrees clockwise (0, 90, 180 or 270) by which frames are turned, and whether they
        are mirrored after that. ``width`` and ``height`` are those before.
    """

    width: int = 640
    height: int = 480
    fps: float | None = None
    colour: bool = True
    paced: bool | None = None
    on_event: Callable[[Event], None] | None = None
    stop: threading.Event | None = None
    rotate: Literal[0, 90, 180, 270] = 0
    flip: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSettings(Settings):
    """A camera that can be opened: the base of every camera's settings.

    usage: how ``--camera`` names it. help: what it is, in one line.
    positional: the key that the text after ``NAME:`` sets; without one the text is
        ``KEY=VALUE,...``. When ``matches`` chose the camera, this key receives the whole text.
    stream: whether frames follow one another, so that faces are tracked; False for photographs.
    turns: whether the camera obeys ``rotate`` and ``flip`` itself; otherwise OpenCV does it.
    """

    usage: ClassVar[str]
    help: ClassVar[str]
    positional: ClassVar[str] = ""
    stream: ClassVar[bool] = True
    turns: ClassVar[bool] = False

    @classmethod
    def matches(cls, spec: str) -> bool:
        """Whether a text that does not start with a camera's name means this camera."""
        return False

    def open(self, request: CameraRequest) -> Camera:
        """The camera, not yet entered."""
        raise NotImplementedError


CAMERAS: Registry[CameraSettings] = Registry(
    "camera",
    "emotion_edge.cameras",
    CameraSettings,
    {
        "webcam": "emotion_edge.cameras.webcam:WebcamSettings",
        "stream": "emotion_edge.cameras.stream:StreamSettings",
        "photos": "emotion_edge.cameras.photos:PhotosSettings",
        "video": "emotion_edge.cameras.video:VideoFileSettings",
        "picamera2": "emotion_edge.cameras.picamera:PicameraSettings",
        "auto": "emotion_edge.cameras.auto:AutoSettings",
        "demo": "emotion_edge.cameras.demo:DemoSettings",
        "pattern": "emotion_edge.cameras.pattern:PatternSettings",
    },
)
"""By name. Those that match a text without a name come first, in the order they are tried."""


def find_camera(
    spec: str | Path, tables: Mapping[str, Mapping[str, Any]] | None = None
) -> CameraSettings:
    """The settings of the camera that a name, a device, an address or a path means.

    spec: ``NAME``, ``NAME:TEXT``, or a text that one of our cameras matches.
    tables: settings by camera name; the text wins over them.
    Raises CameraNotFound when nothing matches, UsageError for an unknown setting, PluginError.
    """
    spec = str(spec)
    if not spec.strip():
        raise UsageError(f"the camera is {spec!r}: give one of {usage()}")
    name, _, text = spec.partition(":")
    kind = CAMERAS.get(name)
    given = "path" in (tables or {}).get(name, {})
    if kind is not None and kind.positional == "path" and spec == name and not given:
        # A folder called "photos" is a folder, unless the table says which one is meant.
        kind = None if Path(spec).exists() else kind
    if kind is None:
        for ours, candidate in CAMERAS.items():
            if candidate.matches(spec):
                name, kind, text = ours, candidate, spec
                break
        else:
            kind = CAMERAS.find(name)
    if kind is None:
        raise CameraNotFound(f"there is no camera, file or folder {spec}: give one of {usage()}")
    table = dict((tables or {}).get(name, {}))
    if kind.positional:
        table |= {kind.positional: parse_text(keys_of(kind)[kind.positional], text)} if text else {}
    else:
        table |= _pairs(kind, spec, text)
    return from_table(kind, table, where=f"camera {spec}")


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
    rotate: Literal[0, 90, 180, 270] = 0,
    flip: bool = False,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
) -> Camera:
    """The camera that a name, a device, an address or a path means, not yet opened.

    spec: ``auto``, ``demo``, ``pattern``, ``picamera2``, ``/dev/videoN``, an RTSP or HTTP address,
        a video, a photograph or a folder of photographs. Some take settings:
        ``demo:frames=200,noise=0``, ``demo:faces=3`` for three portraits of one person,
        ``pattern:frames=1000``. ``picamera2:1`` is the second of two.
    width, height, fps, colour, paced, on_event, stop, rotate, flip: see ``CameraRequest``.
    tables: settings by camera name, as in the configuration's ``[cameras.NAME]``.
    Raises CameraNotFound when nothing matches, UsageError for an unknown setting, PluginError for
    a broken camera of another package.
    """
    request = CameraRequest(
        width=width,
        height=height,
        fps=fps,
        colour=colour,
        paced=paced,
        on_event=on_event,
        stop=stop,
        rotate=rotate,
        flip=flip,
    )
    settings = find_camera(spec, tables)
    camera = settings.open(request)
    if settings.turns or not (rotate or flip):
        return camera
    from emotion_edge.cameras.mounting import MountedCamera, Mounting

    return MountedCamera(camera, Mounting(rotate, flip))


def usage() -> str:
    """What ``open_camera`` accepts, for help texts; imports every camera of ours."""
    return ", ".join(kind.usage for kind in CAMERAS.values())


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


def _pairs(kind: type[CameraSettings], spec: str, text: str) -> dict[str, Any]:
    """``a=1,b=2`` as a table. Raises UsageError naming what can be set."""
    hints = keys_of(kind)
    table = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or name not in hints:
            known = ", ".join(f"{each}=..." for each in hints) or "it without settings"
            raise UsageError(f"camera {spec}: {part!r} is not a setting of it; use {known}")
        table[name] = parse_text(hints[name], value)
    return table
