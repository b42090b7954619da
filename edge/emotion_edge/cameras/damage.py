"""Finds damaged frames of a video that FFmpeg decodes without reporting an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from itertools import islice

import cv2

from emotion_edge.cameras.capture import OpenCapture, open_capture

Packet = tuple[float, bytes]
"""Milliseconds from the start of the file, and the encoded bytes of one frame."""

ReadPackets = Callable[[str], Generator[Packet]]
"""Path of a video -> its encoded frames, in order."""

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_SCAN, _PROGRESSIVE = 0xDA, 0xC2
# Inside the entropy-coded data 0xFF is followed by 0, by another 0xFF or by a restart marker.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_LOOK_AHEAD = 16  # frames


class DamagedFrames:
    """Which frames of a Motion JPEG file are cut off or overwritten.

    FFmpeg fills the missing part of a JPEG with gray and reports no error, so the encoded bytes
    are checked instead. Other codecs are not checked: their decoders refuse a damaged frame.
    """

    def __init__(self, packets: Generator[Packet]) -> None:
        """packets: those of the whole file, in order."""
        first = list(islice(packets, _LOOK_AHEAD))
        jpeg = sum(data.startswith(_START) for _, data in first) * 2 > len(first)
        # Some encoders write no end marker at all.
        self._ends = any(not fault(data) for _, data in first)
        self._ahead = iter(first if jpeg else ())
        self._packets = packets
        if not jpeg:
            packets.close()
        self._next: Packet | None = None
        self._advance()

    def at(self, position_ms: float) -> str:
        """What is wrong with the frame at a position: ``cut off``, ``overwritten`` or nothing.

        position_ms: as FFmpeg reports it; it must rise from call to call.
        """
        while self._next is not None and self._next[0] < position_ms - 0.5:
            self._advance()
        if self._next is None or self._next[0] > position_ms + 0.5:
            return ""
        return fault(self._next[1], ends=self._ends)

    def close(self) -> None:
        """Close the file."""
        self._packets.close()

    def _advance(self) -> None:
        self._next = next(self._ahead, None) or next(self._packets, None)


def fault(jpeg: bytes, *, ends: bool = True) -> str:
    """What is wrong with an encoded JPEG: ``cut off``, ``overwritten`` or an empty string.

    ends: whether an end marker is expected.
    """
    if not jpeg.startswith(_START):
        return "overwritten"
    position, kind, progressive = 2, 0, False
    while kind != _SCAN:  # the headers, segment by segment
        if position + 4 > len(jpeg):
            return "cut off"
        if jpeg[position] != 0xFF:
            return "overwritten"
        kind = jpeg[position + 1]
        progressive = progressive or kind == _PROGRESSIVE
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    end = jpeg.find(_END, position)
    if end < 0 and ends:
        return "cut off"
    # A progressive JPEG has more segments between its scans.
    limit = end if end >= 0 else len(jpeg)
    return "overwritten" if not progressive and _MARKER.search(jpeg, position, limit) else ""


def read_packets(path: str, capture: OpenCapture = open_capture) -> Generator[Packet]:
    """The encoded frames of a video's first video stream; none where OpenCV cannot return them."""
    raw = capture(path, cv2.CAP_FFMPEG, ())
    try:
        if not raw.isOpened() or not raw.set(cv2.CAP_PROP_FORMAT, -1):
            return
        while True:
            came, data = raw.read()
            if not came:
                return
            yield raw.get(cv2.CAP_PROP_POS_MSEC), data.tobytes()
    finally:
        raw.release()
