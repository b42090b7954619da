"""Live lines on standard output: one for each face."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from dataclasses import dataclass
from typing import ClassVar, Self, TextIO

from emotion_edge.errors import SinkError
from emotion_edge.model.labels import EMOJI, UNSURE
from emotion_edge.records import wall_clock
from emotion_edge.settings import key
from emotion_edge.sinks import Content, Kept, Run, Sink, SinkSettings
from emotion_edge.sinks.camera_state import camera_state
from emotion_edge.values import Event, Face, Frame, Observation

_BAR = 20  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSettings(SinkSettings):
    """How often the lines are redrawn."""

    help: ClassVar[str] = "labels on standard output; on unless --quiet"
    prints: ClassVar[bool] = True

    refresh_hz: float = key(
        10.0, "redraws per second on a terminal; elsewhere only changes are printed.", gt=0, le=1000
    )

    def receipt(self, content: Content) -> list[Kept]:
        """Labels, where standard output goes."""
        where = "standard output, which the system's journal records for a service"
        return [Kept(str(content), where, "as long as that keeps it")]

    def open(self, run: Run) -> ConsoleSink:
        """On standard output."""
        return ConsoleSink(self)


class ConsoleSink(Sink):
    """Prints what the camera sees.

    On a terminal a block of lines is redrawn in place: the rate, then one line per face. Elsewhere
    (a pipe, a journal) a line is printed when a face appears, changes its label or leaves.
    """

    name = "console"

    def __init__(self, settings: ConsoleSettings, stream: TextIO | None = None) -> None:
        """stream: standard output by default."""
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._unicode = _holds(self._stream, "😀█░·")
        self._interval_ns = 1e9 / settings.refresh_hz
        self._drawn_ns = float("-inf")
        self._lines = 0  # of the block on the screen
        self._last: Observation | None = None
        self._frame_ns = 0.0  # between two frames, smoothed
        self._worn: dict[int, str] = {}  # the labels printed, by identity
        self._source = ""  # the file of the last frame

    def __enter__(self) -> Self:
        """Nothing to open."""
        return self

    def write(self, observation: Observation) -> None:
        """Show one observation. Raises SinkError, or BrokenPipeError when the reader has gone."""
        self._count(observation)
        if not self._live:
            self._print(self._changes(observation), observation)
            return
        now = observation.frame.captured_ns
        if now - self._drawn_ns >= self._interval_ns:
            self._drawn_ns = now
            self._draw(observation)

    def event(self, event: Event) -> None:
        """Print one line; on a terminal it stays above the block."""
        mark = "· " if self._unicode else "* "
        if not self._live:
            self._emit(f"{wall_clock(event.at_ns)} {mark}{event.message}\n")
            return
        block, self._lines = self._lines, 0
        self._emit(f"{_up(block)}\x1b[J{mark}{event.message}\n")
        if self._last is not None and camera_state(event) in (None, "ok"):
            self._draw(self._last)

    def __exit__(self, *error: object) -> None:
        """Leave the last block on the screen."""

    def _count(self, observation: Observation) -> None:
        if self._last is not None:
            step = observation.frame.captured_ns - self._last.frame.captured_ns
            self._frame_ns += (step - self._frame_ns) * (0.1 if self._frame_ns else 1.0)
        self._last = observation

    def _draw(self, observation: Observation) -> None:
        size = shutil.get_terminal_size()
        rate = 1e9 / self._frame_ns if self._frame_ns else 0.0
        dot = " · " if self._unicode else ", "
        parts = [
            f"{rate:4.1f} frames/s",
            _age(observation),
            f"{len(observation.faces)} face{'' if len(observation.faces) == 1 else 's'}",
        ]
        lines = [dot.join(parts), *(self._line(face) for face in observation.faces)]
        lines = [_cut(line, size.columns - 1) for line in lines[: max(1, size.lines - 1)]]
        # From the block's top: each line overwrites, then clears to its end; no flicker.
        text = _up(self._lines) + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"
        self._lines = len(lines)
        self._emit(text)

    def _line(self, face: Face) -> str:
        p = face.shown.confidence
        full = round(p * _BAR)
        bar = "█" * full + "░" * (_BAR - full) if self._unicode else "#" * full
        emoji = f"{EMOJI.get(face.label, '  ')} " if self._unicode else ""
        who = f"#{face.track_id}" if face.track_id is not None else ""
        # The greatest probability of an unsure face is another label's.
        share = "" if face.label == UNSURE else f"{p:.0%}"
        return f"{who:>5} {emoji}{face.label:<9}{share:>5} {bar}"

    def _changes(self, observation: Observation) -> list[str]:
        lines = []
        worn = {}
        if self._source != observation.frame.source:  # another image: no one has left
            self._source, self._worn = observation.frame.source, {}
        for place, face in enumerate(observation.faces, start=1):
            who = face.track_id if face.track_id is not None else place
            worn[who] = face.label
            if self._worn.get(who) != face.label:
                share = "" if face.label == UNSURE else f" {face.shown.confidence:.0%}"
                lines.append(f"face {who}: {face.label}{share}")
        lines += [f"face {who}: gone" for who in self._worn if who not in worn]
        self._worn = worn
        return lines

    def _print(self, lines: list[str], observation: Observation) -> None:
        if lines:
            at = _when(observation.frame)
            self._emit("".join(f"{at} {line}\n" for line in lines))

    def _emit(self, text: str) -> None:
        try:
            if not self._unicode:
                text = text.encode("ascii", "replace").decode("ascii")
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            _discard(self._stream)
            raise
        except (OSError, ValueError) as error:
            raise SinkError(
                f"cannot write to standard output: {error}: redirect it to another place"
            ) from error


def _age(observation: Observation) -> str:
    if observation.frame.media_time_s is not None:
        return f"at {observation.frame.media_time_s:.1f} s"
    return f"age {observation.timings.get('age', 0.0):.0f} ms"


def _when(frame: Frame) -> str:
    """The wall-clock time of a live frame; the file and the time in it otherwise."""
    if frame.media_time_s is None:
        return wall_clock(frame.captured_ns)
    return f"{frame.source} {frame.media_time_s:.2f} s" if frame.media_time_s else frame.source


def _discard(stream: TextIO) -> None:
    """Point a stream without a reader at /dev/null, so that flushing it at exit cannot fail."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _up(lines: int) -> str:
    return f"\r\x1b[{lines}A" if lines else ""


def _cut(line: str, columns: int) -> str:
    """To the terminal's width, where an emoji takes two columns."""
    used = 0
    for place, sign in enumerate(line):
        used += 2 if ord(sign) >= 0x1F000 else 1
        if used > columns:
            return line[:place]
    return line


def _holds(stream: TextIO, signs: str) -> bool:
    try:
        signs.encode(getattr(stream, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True
