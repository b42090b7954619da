"""A test pattern that costs nothing to draw, for soak tests and for measuring the loop itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from emotion_edge.cameras import CameraRequest, CameraSettings
from emotion_edge.cameras.virtual import VirtualCamera
from emotion_edge.settings import key
from emotion_edge.values import Image

_STEPS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternSettings(CameraSettings):
    """How long the pattern lasts."""

    usage: ClassVar[str] = "pattern"
    help: ClassVar[str] = "a virtual camera that shows a moving test pattern"

    frames: int | None = key(None, "frames until it ends; unset: it never ends.", ge=0, le=10**9)

    def open(self, request: CameraRequest) -> PatternCamera:
        """Nothing is drawn yet."""
        return PatternCamera(
            width=request.width,
            height=request.height,
            fps=request.fps,
            colour=request.colour,
            frames=self.frames,
            paced=request.paced is not False,
            stop=request.stop,
        )


class PatternCamera(VirtualCamera):
    """Diagonal bands that move by a pixel a frame, back to the start after 64 frames.

    Every frame is a view into one image: no allocation, no drawing.
    """

    def __init__(
        self,
        *,
        width: int = 640,
        height: int = 480,
        fps: float | None = None,
        colour: bool = True,
        **others: Any,
    ) -> None:
        """Nothing is opened yet; fps is 30 unless given; others: see VirtualCamera."""
        super().__init__("pattern", fps=fps or 30.0, **others)
        self._width, self._height, self._colour = width, height, colour

    def _prepare(self) -> None:
        across = np.arange(self._width + _STEPS)[None, :] + np.arange(self._height)[:, None]
        bands = (across * 4 % 256).astype(np.uint8)
        self._image = np.stack([bands, bands, 255 - bands], axis=2) if self._colour else bands
        self._image.flags.writeable = False

    def image_at(self, index: int) -> Image:
        """Frame ``index``: uint8 ``(height, width)`` or ``(height, width, 3)``, read-only."""
        left = index % _STEPS
        return self._image[:, left : left + self._width]
