"""A virtual camera that pans and zooms over portraits: no hardware, no download."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_edge.cameras import CameraRequest, CameraSettings
from emotion_edge.cameras.capture import in_colours
from emotion_edge.cameras.virtual import VirtualCamera
from emotion_edge.errors import UsageError
from emotion_edge.model.preprocessing import read_image
from emotion_edge.settings import key
from emotion_edge.values import Box, Image

PORTRAIT_FACE = Box(168, 113, 196, 216)
"""The face in ``HOPPER``, eyebrow to chin and ear to ear, in its pixels."""

_PAN = 0.12  # share of the frame's side
_ZOOM = 0.18
_LIGHT = 0.25
_NOISE_REACH = 64  # pixels by which the noise image exceeds a frame


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings(CameraSettings):
    """What the demo camera films."""

    usage: ClassVar[str] = "demo"
    help: ClassVar[str] = "a virtual camera that films two portraits that come alive"

    faces: int | None = key(
        None, "film this many portraits of one person instead; benchmarks do.", ge=0, le=100
    )
    frames: int | None = key(None, "frames until it ends; unset: it never ends.", ge=0, le=10**9)
    seed: int = key(0, "seed of the movement and the noise.", ge=0, le=2**32 - 1)
    noise: float | None = key(
        None,
        "standard deviation of the sensor's noise, in gray levels; unset: 2, or 4 with `faces`.",
        ge=0,
        le=64,
    )

    def open(self, request: CameraRequest) -> VirtualCamera:
        """Nothing is drawn yet."""
        settings: dict[str, Any] = {
            "seed": self.seed,
            "width": request.width,
            "height": request.height,
            "fps": request.fps,
            "colour": request.colour,
            "frames": self.frames,
            "paced": request.paced is not False,
            "stop": request.stop,
        }
        if self.noise is not None:
            settings["noise"] = self.noise
        if self.faces is not None:
            return DemoCamera(faces=self.faces, **settings)
        from emotion_edge.cameras.gallery import GalleryCamera

        return GalleryCamera(**settings)


class Noise:
    """Sensor noise that costs one addition per frame: a window into one noisy image."""

    def __init__(
        self, width: int, height: int, sigma: float, seed: int | np.random.Generator, colour: bool
    ) -> None:
        """sigma: standard deviation in gray levels; 0 for none."""
        rng = np.random.default_rng(seed)
        shape = (height + _NOISE_REACH, width + _NOISE_REACH, *((3,) if colour else ()))
        noise = rng.normal(128, sigma, shape) if sigma else np.full(shape, 128.0)
        self._noise = np.clip(np.rint(noise), 0, 255).astype(np.uint8)
        self._size = (height, width)

    def add(self, image: Image, index: int, light: float) -> Image:
        """Frame ``index`` with noise, and its brightness multiplied by ``light``."""
        height, width = self._size
        x, y = index * 37 % _NOISE_REACH, index * 23 % _NOISE_REACH
        noise = self._noise[y : y + height, x : x + width]
        return np.asarray(cv2.addWeighted(image, light, noise, 1, -128), dtype=np.uint8)


class DemoCamera(VirtualCamera):
    """Rear Admiral Grace Hopper's official portrait, filmed.

    Pan, zoom, light and sensor noise are functions of the frame's index and the seed, so that two
    runs see the same images. With ``faces`` > 1 that many portraits share the scene, at
    different sizes, some mirrored.
    """

    def __init__(
        self,
        *,
        faces: int = 1,
        seed: int = 0,
        noise: float = 4.0,
        width: int = 640,
        height: int = 480,
        fps: float | None = None,
        colour: bool = True,
        **others: Any,
    ) -> None:
        """Nothing is drawn yet.

        faces: 0 to 100. noise: standard deviation in gray levels.
        fps: 15 unless given. others: ``frames``, ``paced`` and what else VirtualCamera takes.

        Raises UsageError for another number of faces.
        """
        if not 0 <= faces <= 100:
            raise UsageError(f"the demo shows 0 to 100 faces, not {faces}")
        super().__init__("demo", fps=fps or 15.0, **others)
        self._width, self._height, self._colour = width, height, colour
        self._count = faces
        self._seed = seed
        self._sigma = noise
        self._boxes: list[Box] = []

    def _prepare(self) -> None:
        rng = np.random.default_rng(self._seed)
        portrait = in_colours(read_image(HOPPER), self._colour)
        self._scene, self._boxes = _compose(portrait, self._width, self._height, self._count, rng)
        self._noise = Noise(self._width, self._height, self._sigma, rng, self._colour)
        self._phase = rng.uniform(0, 2 * math.pi, 4)
        # The camera moves only as far as every face stays whole.
        left = min((box.x for box in self._boxes), default=self._width)
        top = min((box.y for box in self._boxes), default=self._height)
        right = max((box.x + box.width for box in self._boxes), default=0)
        bottom = max((box.y + box.height for box in self._boxes), default=0)
        self._spare = (
            min(left, self._width - right, _PAN * self._width),
            min(top, self._height - bottom, _PAN * self._height),
        )

    def image_at(self, index: int) -> Image:
        """Frame ``index``: uint8 ``(height, width)`` or BGR ``(height, width, 3)``."""
        seconds = index / self.fps
        drawn = cv2.warpAffine(
            self._scene,
            self._view(seconds),
            (self._width, self._height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        light = 1 + _LIGHT * math.sin(2 * math.pi * seconds / 11 + self._phase[0])
        return self._noise.add(np.asarray(drawn, dtype=np.uint8), index, light)

    def boxes(self, index: int) -> list[Box]:
        """Where the faces of frame ``index`` are, the largest first: ground truth."""
        view = self._view(index / self.fps)
        scale = view[0, 0]
        moved = [
            Box(
                round(scale * box.x + view[0, 2]),
                round(scale * box.y + view[1, 2]),
                round(scale * box.width),
                round(scale * box.height),
            )
            for box in self._boxes
        ]
        return sorted(moved, key=lambda box: -box.area)

    def _view(self, seconds: float) -> NDArray[np.float64]:
        """The affine map (2, 3) from the scene to the frame at an instant."""
        _, a, b, c = self._phase
        spare_x, spare_y = self._spare
        # Zooming in uses part of the room that panning could use.
        centre_x, centre_y = self._width / 2, self._height / 2
        most = min(
            _ZOOM,
            0.4 * spare_x / (centre_x - spare_x),
            0.4 * spare_y / (centre_y - spare_y),
        )
        zoom = 1 + most * math.sin(2 * math.pi * seconds / 7 + a)
        pan_x = 0.5 * spare_x * math.sin(2 * math.pi * seconds / 9 + b)
        pan_y = 0.5 * spare_y * math.sin(2 * math.pi * seconds / 5 + c)
        return np.array(
            [
                [zoom, 0, centre_x - zoom * centre_x + pan_x],
                [0, zoom, centre_y - zoom * centre_y + pan_y],
            ]
        )


def _compose(
    portrait: Image, width: int, height: int, count: int, rng: np.random.Generator
) -> tuple[Image, list[Box]]:
    """Portraits in a grid, their edges feathered into a blurred backdrop, and where they are."""
    backdrop = cv2.resize(portrait, (width, height), interpolation=cv2.INTER_AREA)
    # Blurred until no detector takes the backdrop for a face.
    scene = cv2.GaussianBlur(backdrop, (0, 0), width / 10).astype(np.float32)
    boxes = []
    columns = max(1, math.ceil(math.sqrt(count)))
    rows = max(1, math.ceil(count / columns))
    for place in range(count):
        row, column = divmod(place, columns)
        tile_width, tile_height = width // columns, height // rows
        share = 1.0 if count == 1 else rng.uniform(0.8, 1.0)
        scale = share * min(tile_height / portrait.shape[0], tile_width / portrait.shape[1])
        size = (round(scale * portrait.shape[1]), round(scale * portrait.shape[0]))
        small = cv2.resize(portrait, size, interpolation=cv2.INTER_AREA)
        face_x = PORTRAIT_FACE.x
        if count > 1 and rng.random() < 0.5:
            small = cv2.flip(small, 1)
            face_x = portrait.shape[1] - PORTRAIT_FACE.x - PORTRAIT_FACE.width
        left = column * tile_width + (tile_width - size[0]) // 2
        top = row * tile_height + (tile_height - size[1]) // 2
        weight = _feather(size[1], size[0])
        if small.ndim == 3:
            weight = weight[:, :, None]
        under = scene[top : top + size[1], left : left + size[0]]
        under += weight * (small - under)
        boxes.append(
            Box(
                left + round(scale * face_x),
                top + round(scale * PORTRAIT_FACE.y),
                round(scale * PORTRAIT_FACE.width),
                round(scale * PORTRAIT_FACE.height),
            )
        )
    return np.rint(scene).astype(np.uint8), boxes


def _feather(height: int, width: int) -> NDArray[np.float32]:
    """Weights (height, width) that rise from 0 at the left and right edge to 1 inside."""
    reach = max(1, width // 10)
    distance = np.minimum(np.arange(width), np.arange(width)[::-1])
    return np.broadcast_to(np.clip(distance / reach, 0, 1).astype(np.float32), (height, width))


_PORTRAITS = Path(__file__).with_name("portraits")
HOPPER = _PORTRAITS / "hopper.jpg"
"""Rear Admiral Grace Hopper, 512x600; both are in the public domain (``portraits/README.md``)."""
COLLINS = _PORTRAITS / "collins.png"
"""Astronaut Eileen Collins, 200x250."""
