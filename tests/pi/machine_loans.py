"""Proof of Picamera's buffer loans, on the real Picamera2; runs inside the machine.

    python machine_loans.py FOLDER_OF_FRAMES

Frames that ``emotion_edge`` hands out without a copy lie in buffers into which libcamera writes
later frames. Here some thousand frames are kept for various times, whole and in parts, and dropped
in various threads: no kept frame may change, each must be one of the photographs, and in the end
all buffers must be in circulation. That the instrument sees a buffer that is written over is shown
first, by giving one back too early on purpose.
"""

from __future__ import annotations

import gc
import os
import queue
import random
import sys
import threading
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import picamera2

from emotion_edge.cameras.capture import in_colours
from emotion_edge.cameras.picamera import BUFFERS, LENT, Picamera
from emotion_edge.cameras.supervised import SupervisedCamera
from emotion_edge.errors import FrameTimeout
from emotion_edge.model.preprocessing import read_image
from emotion_edge.values import Event, Frame, Image

FRAMES = 3000
FREEZES = 5
FROZEN = Path("/run/virtual-camera/frozen")
CLOSE = 3.0
"""Mean difference to the photograph below which a frame is that photograph, in gray levels."""


def main(folder: Path) -> str:
    """Runs everything; returns the summary. Raises AssertionError with what was wrong."""
    photos = [
        in_colours(read_image(path), False)[::4, ::4].astype(np.int16)
        for path in sorted(folder.iterdir(), key=lambda path: int(path.stem))
    ]
    written_over = overwritten(early=True), overwritten(early=False)
    assert written_over == (True, False), f"the instrument does not work: {written_over}"
    print("a buffer given back too early changes under its reader, a kept one does not", flush=True)
    kept = keep(photos)
    print(kept, flush=True)
    return f"{kept}; {freezes()}"


def overwritten(*, early: bool) -> bool:
    """Whether a frame changes while fifty others come, its buffer returned early or kept."""
    camera = picamera2.Picamera2()
    size = {"size": (640, 480), "format": "YUV420"}
    camera.configure(camera.create_video_configuration(main=size, lores=size, queue=False))
    camera.start()
    try:
        request = camera.capture_request()
        mapped = picamera2.MappedArray(request, "lores", write=False)
        mapped.__enter__()
        before = check(mapped.array[:480, :640])
        if early:
            request.release()
        for _ in range(50):
            camera.capture_request().release()
        changed = check(mapped.array[:480, :640]) != before
        if not early:
            request.release()
        del mapped
        return changed
    finally:
        camera.close()


def keep(photos: list[Any]) -> str:
    """Thousands of frames, kept and dropped in all ways."""
    rng = random.Random(0)
    references: dict[int, int] = {}  # checksum -> photograph
    buffers: Counter[int] = Counter()
    held: list[tuple[int, Image, int]] = []  # (until which frame, image, checksum)
    elsewhere: queue.SimpleQueue[tuple[Image, int] | None] = queue.SimpleQueue()
    wrong: list[str] = []
    checks = 0

    def drop_elsewhere() -> None:
        while (item := elsewhere.get()) is not None:
            if check(item[0]) != item[1]:
                wrong.append("changed before another thread dropped it")
            del item

    thread = threading.Thread(target=drop_elsewhere)
    thread.start()
    lent = copied = 0
    begun = time.monotonic()
    with Picamera(colour=False, fps=30, on_event=ignore) as camera:
        for number in range(FRAMES):
            frame = camera.read(30)
            assert frame is not None
            image = frame.image
            assert image.shape == (480, 640) and image.dtype == np.uint8, image.shape
            if image.flags.writeable:
                copied += 1
            else:
                lent += 1
                buffers[address(image)] += 1
            whole = check(image)
            if whole not in references:
                small = image[::4, ::4].astype(np.int16)
                distances = [float(np.abs(small - photo).mean()) for photo in photos]
                best = int(np.argmin(distances))
                assert distances[best] < CLOSE, f"frame {number} is not a photo: {min(distances)}"
                references[whole] = best
            # Most are dropped immediately. Some are kept for up to forty frames, whole or in part.
            if rng.random() < 0.3:
                part = image[100:300, 50:] if rng.random() < 0.5 else image
                held.append((number + rng.randrange(1, 40), part, check(part)))
            if rng.random() < 0.1:
                elsewhere.put((image, whole))
            del frame, image
            while held and (held[0][0] <= number or len(held) > 12):
                _, part, was = held.pop(0)
                checks += 1
                if check(part) != was:
                    wrong.append(f"frame {number}: a kept frame changed")
                del part
            if number % 500 == 499:
                gc.collect()
                print(f"{number + 1} frames, {lent} lent, {copied} copied", flush=True)
        held.clear()
        elsewhere.put(None)
        thread.join()
        seconds = time.monotonic() - begun
        assert not wrong, f"{len(wrong)} wrong, first: {wrong[0]}"
        assert len(set(references.values())) == len(photos), "not all photographs were seen"
        assert lent > FRAMES / 4 and copied, (lent, copied)
        # All buffers must still circulate: nothing is kept now, so each comes by again, lent.
        again = set()
        for _ in range(20 * BUFFERS):
            frame = camera.read(30)
            assert frame is not None
            if not frame.image.flags.writeable:
                again.add(address(frame.image))
        assert again == set(buffers), f"of {len(buffers)} buffers {len(again)} came again"
        assert len(buffers) == BUFFERS, f"{len(buffers)} buffers seen"
    return (
        f"{FRAMES} frames at {FRAMES / seconds:.0f} a second, {lent} lent and {copied} copied "
        f"(at most {LENT} of {BUFFERS} lent), {checks} kept ones unchanged, all buffers back"
    )


def freezes() -> str:
    """Frames stay readable when their camera freezes, is closed and opened again; nothing leaks."""
    events: list[str] = []

    def note(event: Event) -> None:
        events.append(event.kind)

    camera = SupervisedCamera(
        lambda: Picamera(colour=False, fps=30, on_event=note, close_timeout=30),
        note,
        frozen_after_s=5,
        backoff_first_s=0.2,
        backoff_limit_s=0.2,
        give_up_after_s=600,
    )

    def read(seconds: float) -> Frame | None:
        try:
            return camera.read(seconds)
        except FrameTimeout:
            return None

    sizes = []
    with camera:
        for _ in range(FREEZES):
            images = [frame.image for _ in range(LENT + 2) if (frame := read(60)) is not None]
            were = [check(image) for image in images]
            FROZEN.touch()
            while "camera.lost" not in events:
                read(0.5)
            FROZEN.unlink()
            while "camera.recovered" not in events:
                read(0.5)
            for _ in range(50):
                read(60)
            assert [check(image) for image in images] == were, "a frame changed after the reopening"
            events.clear()
            del images
            gc.collect()
            for _ in range(5):
                read(60)
            sizes.append((mappings(), len(os.listdir("/proc/self/fd")), threading.active_count()))  # noqa: PTH208
            print(f"freeze survived: buffers mapped, files open, threads: {sizes[-1]}", flush=True)
    for first, second, last in zip(sizes[0], sizes[1], sizes[-1], strict=True):
        assert last <= max(first, second), f"something leaks: {sizes}"
    assert "camera.stuck" not in events
    return f"{FREEZES} freezes survived with frames in hand, none changed, no buffer or file leaked"


def ignore(event: Event) -> None:
    """Events are of no interest there."""


def check(image: Image) -> int:
    """A checksum of the pixels as they are now."""
    return zlib.crc32(image.tobytes())


def address(image: Image) -> int:
    """Where the first pixel lies."""
    return int(image.__array_interface__["data"][0])


def mappings() -> int:
    """Camera buffers in this process's address space."""
    maps = Path("/proc/self/maps").read_text()
    return maps.count("/dmabuf:") + maps.count("/memfd:picamera2-")


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
