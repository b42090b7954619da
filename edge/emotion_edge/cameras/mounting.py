"""Turns frames upright for a camera that is mounted sideways, upside down or behind a mirror."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import cv2
import numpy as np

from emotion_edge.cameras import Camera
from emotion_edge.values import Frame, Image

Rotation = Literal[0, 90, 180, 270]

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True, slots=True)
class Mounting:
    """How frames are turned: by ``rotate`` degrees clockwise, then mirrored if ``flip``."""

    rotate: Rotation = 0
    flip: bool = False

    @property
    def flips(self) -> tuple[bool, bool] | None:
        """Horizontal and vertical flip that do the same; None where a quarter turn is needed.

        That is all that libcamera can do while the sensor is read.
        """
        half = self.rotate == 180
        return (half != self.flip, half) if self.rotate in (0, 180) else None

    def apply(self, image: Image) -> Image:
        """The image as it would be from a camera mounted upright; uint8, gray or BGR."""
        turned: Any = cv2.rotate(image, _TURNS[self.rotate]) if self.rotate else image
        turned = cv2.flip(turned, 1) if self.flip else turned
        return np.asarray(turned, dtype=np.uint8)


class MountedCamera:
    """Another camera whose frames are turned by OpenCV."""

    def __init__(self, camera: Camera, mounting: Mounting) -> None:
        """Nothing is opened yet."""
        self._camera = camera
        self._mounting = mounting

    @property
    def name(self) -> str:
        """The camera's."""
        return self._camera.name

    @property
    def live(self) -> bool:
        """The camera's."""
        return self._camera.live

    @property
    def fps(self) -> float:
        """The camera's."""
        return self._camera.fps

    def __enter__(self) -> Self:
        """Open the camera."""
        self._camera.__enter__()
        return self

    def read(self, timeout: float) -> Frame | None:
        """The camera's next frame, turned."""
        frame = self._camera.read(timeout)
        return frame and replace(frame, image=self._mounting.apply(frame.image))

    def __exit__(self, kind: Any, error: Any, traceback: Any, /) -> None:
        """Close the camera."""
        self._camera.__exit__(kind, error, traceback)


def mounted(camera: Camera, mounting: Mounting) -> Camera:
    """The camera with its frames turned; the camera itself if nothing is to be turned."""
    return camera if mounting == Mounting() else MountedCamera(camera, mounting)
