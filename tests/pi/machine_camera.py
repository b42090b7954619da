"""libcamera's virtual camera made fit for Picamera2; imported at the end of Picamera2's package.

The virtual pipeline handler of libcamera 0.4 gives frames in NV12 alone, has no raw stream, grants
four buffers whatever is requested, makes a frame as soon as a buffer is free, and leaves its status
uninitialised. The machine also has no ``/dev/dma_heap`` with contiguous memory. This module works
around all of that; Picamera2's own allocator, requests and event loop still do the work.
Without ``/dev/udmabuf`` (in a container), buffers are plain shared memory.

``VIRTUAL_CAMERA_FPS`` sets the pace (30 by default, 0: as fast as it can). While the file
``/run/virtual-camera/frozen`` exists, no frame arrives.
"""

from __future__ import annotations

import fcntl
import inspect
import mmap
import os
import struct
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import libcamera
import picamera2.allocators.dmaallocator as dmaallocator
import picamera2.picamera2 as implementation
from picamera2.dma_heap import UniqueFD

FROZEN = Path("/run/virtual-camera/frozen")
BUFFERS = 6
"""What a Pi grants when six are asked for."""
_PERIOD_S = 1 / fps if (fps := float(os.environ.get("VIRTUAL_CAMERA_FPS", "30"))) else 0.0
_UDMABUF = Path("/dev/udmabuf").exists()
_UDMABUF_CREATE = 0x40187542  # _IOW('u', 0x42, struct udmabuf_create), linux/udmabuf.h
_F_SEAL_SHRINK = 2


class _Heap:
    """Picamera2's DmaHeap, on /dev/udmabuf."""

    isValid = True

    def __init__(self) -> None:
        self._device = os.open("/dev/udmabuf", os.O_RDWR | os.O_CLOEXEC) if _UDMABUF else None

    def alloc(self, name: str, size: int) -> UniqueFD:
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = os.memfd_create(name, os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory, size)
            if self._device is None:
                return UniqueFD(os.dup(memory))
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _F_SEAL_SHRINK)
            request = bytearray(struct.pack("=IIQQ", memory, 1, 0, size))  # 1: close on exec
            return UniqueFD(fcntl.ioctl(self._device, _UDMABUF_CREATE, request))
        finally:
            os.close(memory)

    def close(self) -> None:
        if self._device is not None:
            os.close(self._device)


def _two_planes(planes: list[Any]) -> Any:
    """A frame buffer of NV12, from the one plane that Picamera2 describes."""
    (luma,) = planes
    chroma = libcamera.FrameBuffer.Plane()
    chroma.fd = luma.fd
    chroma.length = luma.length // 3
    luma.length -= chroma.length
    chroma.offset = luma.length
    return libcamera.FrameBuffer([luma, chroma])


_two_planes.Plane = libcamera.FrameBuffer.Plane  # type: ignore[attr-defined]


class _Allocator(dmaallocator.DmaAllocator):  # type: ignore[misc]
    def allocate(self, configuration: Any, use_case: Any) -> None:
        for stream in configuration:
            stream.buffer_count = BUFFERS
        super().allocate(configuration, use_case)


_handle_request = implementation.CameraManager.handle_request
_due = 0.0


def _gate(self: Any, flushid: int | None = None) -> None:
    """Take what libcamera has completed, at the pace of a sensor, or not at all while frozen."""
    global _due
    if flushid is None:
        if FROZEN.exists():
            time.sleep(0.05)
            return
        time.sleep(max(0.0, _due - time.monotonic()))
        _due = max(_due + _PERIOD_S, time.monotonic())
    _handle_request(self, flushid)


def _without_status(method: Any) -> Any:
    """The method with every frame's status taken for a success."""
    source = textwrap.dedent(inspect.getsource(method))
    test = "== libcamera.FrameMetadata.Status.Success"
    if source.count(test) != 1:
        raise ImportError("this Picamera2 looks at the frame's status in another way")
    made: dict[str, Any] = {}
    exec(source.replace(test, "is not None"), vars(implementation), made)
    return made[method.__name__]


dmaallocator.DmaHeap = _Heap
dmaallocator.libcamera = SimpleNamespace(FrameBuffer=_two_planes)
if not _UDMABUF:
    dmaallocator.fcntl = SimpleNamespace(ioctl=lambda *_: 0)  # plain memory has no caches to sync
implementation.DmaAllocator = _Allocator
implementation.CameraManager.handle_request = _gate
implementation.Picamera2.process_requests = _without_status(
    implementation.Picamera2.process_requests
)
implementation.Picamera2._get_raw_modes = lambda self: [{"format": "NV12", "size": (640, 480)}]
