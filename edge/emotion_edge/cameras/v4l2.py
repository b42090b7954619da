"""Queries a /dev/video device without opening a stream.

Structures and numbers are those of linux/videodev2.h, the same on every 64-bit system.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_QUERYCAP = 0x80685600  # _IOR('V', 0, struct v4l2_capability), 104 bytes
_REQBUFS = 0xC0145608  # _IOWR('V', 8, struct v4l2_requestbuffers), 20 bytes
_CAPABILITY = struct.Struct("16s32s32s6I")
_VIDEO_CAPTURE = 0x1
_VIDEO_CAPTURE_MPLANE = 0x1000
_META_CAPTURE = 0x800000
_DEVICE_CAPS = 0x80000000

NOT_WEBCAMS = ("unicam", "rp1-cfe", "pispbe", "bcm2835-codec", "bcm2835-isp", "rpivid", "rpi-hevc")
"""Drivers of a Raspberry Pi whose nodes carry raw sensor data or encode: libcamera's, not ours."""


def held(prefix: str = "/dev/video") -> tuple[str, ...]:
    """The video devices that this process has open: none of them while no camera is."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(str(descriptor.readlink()))
    return tuple(sorted(name for name in found if name.startswith(prefix)))


@dataclass(frozen=True, slots=True)
class V4L2Device:
    """A node under /dev.

    card: the maker's name for it. captures: whether it delivers images that OpenCV can read.
    """

    path: str
    card: str
    driver: str
    captures: bool


def query(path: str) -> V4L2Device | None:
    """The device at a path; None when it is not a V4L2 device.

    Raises OSError when it cannot be opened (absent, forbidden, gone).
    """
    handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        answer = fcntl.ioctl(handle, _QUERYCAP, bytes(_CAPABILITY.size))
    except OSError:
        return None
    finally:
        os.close(handle)
    driver, card, _, _, whole, own, *_ = _CAPABILITY.unpack(answer)
    flags = own if whole & _DEVICE_CAPS else whole
    name = _text(driver)
    captures = bool(flags & (_VIDEO_CAPTURE | _VIDEO_CAPTURE_MPLANE)) and not flags & _META_CAPTURE
    return V4L2Device(path, _text(card), name, captures and not name.startswith(NOT_WEBCAMS))


def busy(path: str) -> bool:
    """Whether another program streams from the device.

    Freeing zero buffers changes nothing, and is refused with EBUSY to all but the owner.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        return error.errno == errno.EBUSY
    try:
        fcntl.ioctl(handle, _REQBUFS, struct.pack("5I", 0, 1, 1, 0, 0))
    except OSError as error:
        return error.errno == errno.EBUSY
    finally:
        os.close(handle)
    return False


def holders(path: str) -> str:
    """The programs that hold a device, ``firefox (pid 812)``; empty if /proc lists none."""
    found = []
    target = os.path.realpath(path)
    for handles in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(str(handle.readlink()) == target for handle in handles.iterdir()):
                name = (handles.parent / "comm").read_text().strip()
                found.append(f"{name} (pid {handles.parent.name})")
        except OSError:  # another user's process, or one that just ended
            continue
    return ", ".join(found)


def devices() -> list[str]:
    """Paths of the /dev/video nodes, in the order of their numbers."""
    nodes = [path for path in Path("/dev").glob("video*") if path.name[5:].isdigit()]
    return [str(path) for path in sorted(nodes, key=lambda path: int(path.name[5:]))]


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")
