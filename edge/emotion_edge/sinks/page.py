"""A live page over HTTP: the camera with boxes and labels, for another computer or a phone.

Paths: ``/`` the page, ``/stream.mjpg`` the frames (Motion JPEG), ``/frame.jpg`` the newest frame,
``/state.json`` the newest record (``emotion_edge.records``) with the frame rate and the camera's
trouble, ``/zones.json`` the zones, which a POST replaces where the page may edit them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Self

import cv2

from emotion_edge.annotate import annotate, colour_of
from emotion_edge.errors import EmotionEdgeError, UsageError
from emotion_edge.model.labels import EMOJI
from emotion_edge.records import observation_record, to_json
from emotion_edge.settings import key
from emotion_edge.sinks import Content, Kept, Run, Sink, SinkSettings
from emotion_edge.sinks.address import from_address
from emotion_edge.sinks.camera_state import PAUSED, camera_state
from emotion_edge.sinks.serving import Answer, Server
from emotion_edge.values import Event, Observation
from emotion_edge.zones import ZoneSettings, area, as_toml

_BOUNDARY = "frame"
_REPEAT_S = 5.0  # the last frame is sent again after this long, to notice viewers who have left
_POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSettings(SinkSettings):
    """A live page over HTTP; frames are encoded only while someone watches."""

    help: ClassVar[str] = "show the frames over HTTP; 127.0.0.1:8080"
    metavar: ClassVar[str] = "[HOST:]PORT"
    pixels: ClassVar[bool] = True

    host: str = key(
        "127.0.0.1",
        "address to listen on; `0.0.0.0` shows the camera to the whole network.",
        filled=True,
    )
    port: int = key(8080, "TCP port; 0 lets the system choose.", ge=0, le=65535)
    fps: float = key(10.0, "frames per second at most.", gt=0, le=1000)
    width: int = key(640, "greatest width of the frames sent, in pixels.", ge=16, le=16384)
    quality: int = key(80, "JPEG quality of the frames, 1..100.", ge=1, le=100)
    viewers: int = key(8, "largest number of viewers at the same time.", ge=1, le=1000)
    edit: bool | None = key(
        None,
        "whether viewers may edit the zones; unset: only where no other machine can open the page. "
        "The page has no password.",
    )

    @property
    def listens(self) -> tuple[str, int]:
        """Its host and port."""
        return self.host, self.port

    @classmethod
    def from_flag(cls, text: str) -> dict[str, str]:
        """Host, port, or both."""
        return from_address(text)

    def receipt(self, content: Content) -> list[Kept]:
        """Frames and records, for the people who watch."""
        server = Server(self.host, self.port, lambda path: None)
        return [
            Kept(
                f"{content.frames}, and {content}",
                f"browsers that open {server.url}",
                "until the next frame",
                leaves=server.public,
                images=True,
            )
        ]

    def open(self, run: Run) -> PageSink:
        """Nothing is opened yet."""
        return PageSink(self, zones=run.zones, set_zones=run.set_zones)


class PageSink(Sink):
    """Keeps the newest observation, and encodes it when a viewer needs it.

    All viewers share one encoding, made at most ``fps`` times a second and only while someone
    watches. A slow viewer misses frames and delays no other.
    """

    name = "page"
    announcement = ""

    def __init__(
        self,
        settings: PageSettings,
        *,
        zones: ZoneSettings | None = None,
        set_zones: Callable[[Sequence[str]], Path | None] | None = None,
    ) -> None:
        """zones, set_zones: as in ``Run``."""
        self._settings = settings
        self._zones = zones or ZoneSettings()
        self._set_zones = set_zones
        self._server = Server(settings.host, settings.port, self._answer, post=self._post)
        self._changed = threading.Condition()
        self._latest: Observation | None = None
        self._number = 0  # of the latest observation
        self._jpeg = b""
        self._jpeg_number = 0  # of the observation it shows
        self._jpeg_at = float("-inf")  # monotonic seconds
        self._encoding = False
        self._viewers = 0
        self._trouble = ""
        self._paused = False
        self._frame_ns = 0.0  # between two frames, smoothed
        self._closed = False

    @property
    def url(self) -> str:
        """Where to point the browser."""
        return self._server.url

    def __enter__(self) -> Self:
        """Listen. Raises SinkError when the address cannot be used."""
        self._server.start()
        self.name = f"page {self.url}"
        self.announcement = f"live page on {self.url}"
        if self._server.public:
            self.announcement += ": everyone on this network can watch the camera"
            if not self._no_editing:
                self.announcement += " and edit the zones"
        return self

    def write(self, observation: Observation) -> None:
        """Make this the newest."""
        with self._changed:
            if self._latest is not None:
                step = observation.frame.captured_ns - self._latest.frame.captured_ns
                self._frame_ns += (step - self._frame_ns) * (0.1 if self._frame_ns else 1.0)
            self._latest = observation
            self._number += 1
            self._trouble = ""
            self._paused = False
            self._changed.notify_all()

    def event(self, event: Event) -> None:
        """Show a camera's trouble until its next frame."""
        state = camera_state(event)
        if state is not None:
            with self._changed:
                self._trouble = "" if state == "ok" else event.message
                self._paused = state == PAUSED
                if self._paused:  # no one is to see the last frame any more
                    self._latest, self._jpeg, self._jpeg_number = None, b"", self._number
                    self._changed.notify_all()

    def __exit__(self, *error: object) -> None:
        """Stop listening and send the viewers away."""
        with self._changed:
            self._closed = True
            self._latest = None
            self._changed.notify_all()
        self._server.stop()

    def _answer(self, path: str) -> Answer | None:
        if path == "/":
            page = resources.files(__package__).joinpath("page.html").read_bytes()
            # Where the page can change something, no other page may show it in a frame.
            framed = "" if self._no_editing else "; frame-ancestors 'none'"
            headers = {"Content-Security-Policy": _POLICY + framed}
            return Answer(page, "text/html; charset=utf-8", headers=headers)
        if path == "/state.json":
            return Answer(to_json(self._state()).encode(), "application/json")
        if path == "/zones.json":
            found = [{"name": name, "corners": at} for name, at in self._zones.polygons()]
            return _json({"zones": found, "only": self._zones.only})
        if path == "/frame.jpg":
            jpeg, _ = self._newest_jpeg(after=0, wait_s=1.0)
            return Answer(jpeg, "image/jpeg") if jpeg else _nothing("no frame yet")
        if path == "/stream.mjpg":
            if self._viewers >= self._settings.viewers:
                return _nothing(f"{self._viewers} are watching already")
            return Answer(self._stream(), f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        return None

    @property
    def _no_editing(self) -> str:
        """Why the zones cannot be edited here, in one line; empty where they can."""
        if self._set_zones is None:
            return "this run takes no zones from the page"
        if self._settings.edit or (self._settings.edit is None and not self._server.public):
            return ""
        reason = "other machines can open this page" if self._server.public else "edit is false"
        return f"zones cannot be edited here: {reason}; sinks.page.edit = true allows it"

    def _post(self, path: str, body: bytes) -> Answer | None:
        """Replace the zones; the run that follows has another page sink."""
        if path != "/zones.json":
            return None
        if self._no_editing or self._set_zones is None:
            return _json({"error": self._no_editing}, HTTPStatus.FORBIDDEN)
        toml = ""
        try:
            areas = _areas(body)
            toml = as_toml(areas)
            saved = self._set_zones(areas)
        except EmotionEdgeError as error:
            wrong = isinstance(error, UsageError)
            status = HTTPStatus.BAD_REQUEST if wrong else HTTPStatus.INTERNAL_SERVER_ERROR
            return _json({"error": str(error), "toml": toml}, status)
        return _json({"saved": str(saved) if saved is not None else None, "toml": toml})

    def _state(self) -> dict[str, Any]:
        with self._changed:
            latest, trouble, frame_ns = self._latest, self._trouble, self._frame_ns
            viewers, paused = self._viewers, self._paused
        state: dict[str, Any] = {
            "trouble": trouble or ("" if latest else "waiting for the first frame"),
            "paused": paused,
            "viewers": viewers,
            "editable": not self._no_editing,
            "frames_per_second": round(1e9 / frame_ns, 1) if frame_ns > 0 else None,
            "seconds_since_frame": None,
            "record": None,
            "looks": {},
        }
        if latest is not None:
            state["record"] = observation_record(latest)
            # The frames of a file run ahead of the clock.
            since = max(0.0, (time.monotonic_ns() - latest.frame.captured_ns) / 1e9)
            state["seconds_since_frame"] = round(since, 2)
            labels = {face.label for face in latest.faces}.union(
                *(face.shown.labels for face in latest.faces)
            )
            state["looks"] = {
                label: {
                    "emoji": EMOJI.get(label, ""),
                    "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(label)[::-1]),
                }
                for label in labels
            }
        return state

    def _stream(self) -> Iterator[bytes]:
        shown = 0
        # Browsers show a part when the next boundary arrives, so each part ends with it.
        yield f"--{_BOUNDARY}\r\n".encode()
        with self._watching():
            while True:
                jpeg, shown = self._newest_jpeg(after=shown, wait_s=_REPEAT_S)
                if self._closed:
                    return
                if not jpeg:
                    continue
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                yield head.encode() + jpeg + f"\r\n--{_BOUNDARY}\r\n".encode()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        with self._changed:
            self._viewers += 1
        try:
            yield
        finally:
            with self._changed:
                self._viewers -= 1

    def _newest_jpeg(self, *, after: int, wait_s: float) -> tuple[bytes, int]:
        """A JPEG of an observation later than number ``after``, and its number.

        The last one again when none came within ``wait_s`` seconds; empty when there was none.
        """
        give_up = time.monotonic() + wait_s
        with self._changed:
            while True:
                now = time.monotonic()
                due = self._jpeg_at + 1 / self._settings.fps
                # A new viewer (after 0) must not get a frame encoded for an earlier one.
                fresh = after or now < due or self._jpeg_number == self._number
                newer = self._jpeg_number > after and fresh
                if self._closed or now >= give_up or newer:
                    return self._jpeg, self._jpeg_number
                if self._number > self._jpeg_number and not self._encoding and now >= due:
                    assert self._latest is not None
                    latest, number = self._latest, self._number
                    self._encoding = True
                    self._jpeg_at = now
                    break
                waiting = self._number > self._jpeg_number and not self._encoding
                self._changed.wait(min(give_up, due if waiting else give_up) - now)
        jpeg = b""
        try:
            jpeg = self._encode(latest)
        finally:
            with self._changed:
                # In one step: between two, another viewer would encode the same again.
                self._encoding = False
                if self._paused:
                    jpeg = b""
                self._jpeg, self._jpeg_number = jpeg, number
                self._changed.notify_all()
        return jpeg, number

    def _encode(self, observation: Observation) -> bytes:
        image = annotate(observation.frame.image, observation.faces, width=self._settings.width)
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._settings.quality]
        return cv2.imencode(".jpg", image, quality)[1].tobytes()


def _areas(body: bytes) -> tuple[str, ...]:
    """``zones.areas`` from ``[{"name": "door", "corners": [[0, 0.2], ...]}, ...]``.

    Raises UsageError for what is not that, and for zones that are not valid.
    """
    areas = []
    try:
        sent = json.loads(body)
        if not isinstance(sent, list):
            raise TypeError
        for one in sent:
            if not isinstance(one["name"], str):
                raise TypeError
            areas.append(area(one["name"], [(float(x), float(y)) for x, y in one["corners"]]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise UsageError(
            "these are not zones: send a list of {name, corners}, with corners as [x, y]"
        ) from None
    return ZoneSettings(areas=tuple(areas)).areas


def _json(content: Any, status: int = HTTPStatus.OK) -> Answer:
    return Answer(json.dumps(content).encode(), "application/json", status)


def _nothing(why: str) -> Answer:
    return Answer(f"{why}\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)
