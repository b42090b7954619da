from __future__ import annotations

import io
import os
import re
import sys
from dataclasses import replace

import pytest

from emotion_edge.errors import SinkError
from emotion_edge.sinks.console import ConsoleSettings, ConsoleSink


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "10")
    return Terminal()


def screen(text: str) -> list[str]:
    """What a terminal shows after the text, as far as this sink's own sequences go."""
    lines, row = [""], 0
    for part in re.split(r"(\x1b\[\d*[AJK]|\r|\n)", text):
        if match := re.fullmatch(r"\x1b\[(\d+)A", part):
            row -= int(match[1])
            assert row >= 0, "above the top"
        elif part == "\x1b[J":
            del lines[row + 1 :]
            lines[row] = ""
        elif part == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif part in ("\r", "\x1b[K", ""):
            pass
        else:
            lines[row] = part
    return lines[:-1] if lines[-1] == "" else lines


def test_a_terminal_shows_one_line_a_face_in_place(terminal, observation, face, event) -> None:
    with ConsoleSink(ConsoleSettings(), terminal) as sink:
        sink.write(observation(0, (face("happy", 0.91, 1), face("sad", 0.5, 2)), at_s=1.0))
        sink.write(observation(1, (face("fear", 0.4, 1),), at_s=1.5))
        sink.event(event("sink.failed", "the disk is full"))
        sink.write(observation(2, (face("fear", 0.4, 1),), at_s=2.0))
    shown = screen(terminal.getvalue())
    assert shown[0] == "· the disk is full"
    assert shown[1] == " 2.0 frames/s · age 12 ms · 1 face"
    assert shown[2] == "   #1 😨 fear       40% ████████░░░░░░░░░░░░"
    assert len(shown) == 3


def test_a_terminal_is_redrawn_at_the_rate_asked_for(terminal, observation) -> None:
    with ConsoleSink(ConsoleSettings(refresh_hz=2), terminal) as sink:
        for index in range(100):
            sink.write(observation(index, at_s=index / 100))
    assert terminal.getvalue().count("frames/s") == 2


def test_lines_fit_the_terminal(terminal, observation, face, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "4")
    with ConsoleSink(ConsoleSettings(), terminal) as sink:
        sink.write(observation(0, tuple(face(track=n) for n in range(30))))
    shown = screen(terminal.getvalue())
    assert len(shown) == 3
    # An emoji is one sign and two columns wide.
    assert all(len(line) + line.count("😀") < 20 for line in shown)


def test_elsewhere_only_changes_are_printed(observation, face) -> None:
    stream = io.StringIO()
    with ConsoleSink(ConsoleSettings(), stream) as sink:
        for index in range(10):
            sink.write(observation(index, (face("happy", 0.9, 1),)))
        sink.write(observation(10, (face("sad", 0.8, 1), face("happy", 0.7, 2))))
        sink.write(observation(11, (face("happy", 0.7, 2),)))
    text = stream.getvalue()
    assert "\x1b" not in text
    assert [line.split(" ", 1)[1] for line in text.splitlines()] == [
        "face 1: happy 90%",
        "face 1: sad 80%",
        "face 2: happy 70%",
        "face 1: gone",
    ]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 face", text)


def test_lines_of_files_name_the_file(observation, face) -> None:
    stream = io.StringIO()
    sink = ConsoleSink(ConsoleSettings(), stream)
    for source, seconds in (("a.jpg", 0.0), ("b.jpg", 0.0), ("clip.mp4", 1.5)):
        seen = observation(0, (face("happy", 0.9, track=None),))
        frame = replace(seen.frame, source=source, media_time_s=seconds)
        sink.write(replace(seen, frame=frame))
    assert stream.getvalue().splitlines() == [
        "a.jpg face 1: happy 90%",
        "b.jpg face 1: happy 90%",
        "clip.mp4 1.50 s face 1: happy 90%",
    ]


def test_photographs_have_no_identity(observation, face) -> None:
    stream = io.StringIO()
    with ConsoleSink(ConsoleSettings(), stream) as sink:
        sink.write(observation(0, (face("happy", 0.9, None),)))
    assert "face 1: happy 90%" in stream.getvalue()


@pytest.mark.parametrize("live", [True, False])
def test_a_stream_without_unicode_gets_ascii(live, observation, face, event, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(stream, "isatty", lambda: live, raising=False)
    with ConsoleSink(ConsoleSettings(), stream) as sink:
        sink.write(observation(0, (replace(face("happy"), label="überrascht"),)))
        sink.event(event("camera.lost", "weg für 3 s"))
    assert b"?berrascht" in raw.getvalue() and b"* weg f?r 3 s" in raw.getvalue()


def test_a_dumb_terminal_gets_lines(terminal, observation, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with ConsoleSink(ConsoleSettings(), terminal) as sink:
        sink.write(observation(0))
    assert "\x1b" not in terminal.getvalue()


def test_a_closed_pipe_is_told_apart_from_a_full_disk(observation) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        sink = ConsoleSink(ConsoleSettings(), stream)
        with pytest.raises(BrokenPipeError):
            sink.write(observation(0))
        # What stays in the buffer does not fail again when the file is closed.


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")  # noqa: PTH110
def test_a_full_disk_behind_standard_output_is_one_line(observation) -> None:
    stream = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115, PTH123
    sink = ConsoleSink(ConsoleSettings(), stream)
    with pytest.raises(SinkError, match=r"cannot write to standard output: .*No space left"):
        sink.write(observation(0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    stream.close()


def test_standard_output_is_the_default(observation, capsys) -> None:
    with ConsoleSink(ConsoleSettings(), sys.stdout) as sink:
        sink.write(observation(0))
    assert "happy" in capsys.readouterr().out
