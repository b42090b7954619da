"""A virtual camera in a gallery where two portraits come alive: no hardware, no download."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_edge.cameras import demo
from emotion_edge.cameras.capture import in_colours
from emotion_edge.cameras.expressions import EXPRESSIONS, HOPPER, warp
from emotion_edge.cameras.virtual import VirtualCamera
from emotion_edge.model.preprocessing import read_image
from emotion_edge.values import Box, Image

SECONDS = 12.0
"""The length of the show, which then begins again."""

_ROOM = (1280, 960)  # pixels; the wall, in which everything below has its place
_PORTRAIT = (400, 500)
_FRAME = 26  # pixels of gilt wood around a portrait
_HOPPER_AT, _COLLINS_AT = (140, 150), (740, 150)
_HOPPER_CROP, _COLLINS_CROP = (62, 40, 400, 500), (0, 0, 200, 250)
_COLLINS_FACE = Box(46, 64, 108, 118)  # in ``demo.COLLINS``
_NAMES = ("Grace Hopper, US Navy, 1984", "Eileen Collins, NASA")
_LEVELS = 8  # steps from a neutral face to the whole expression

# Seconds, and what is reached by then; in between it changes smoothly.
_MOOD: tuple[tuple[float, str, float], ...] = (
    (0.0, "happy", 0), (0.6, "happy", 0), (1.0, "happy", 1), (3.2, "happy", 1),
    (3.5, "happy", 0), (3.8, "surprise", 1), (5.2, "surprise", 1), (5.5, "surprise", 0),
    (6.4, "angry", 0), (6.7, "angry", 1), (8.3, "angry", 1), (8.5, "angry", 0), (8.7, "sad", 1),
    (9.7, "sad", 1), (9.9, "sad", 0), (10.6, "happy", 0), (10.9, "happy", 1), (11.5, "happy", 1),
    (11.9, "happy", 0), (12.0, "happy", 0),
)  # fmt: skip
_TURN = ((0.0, 0), (5.6, 0), (6.4, 180), (7.2, 180), (8.0, 360), (12.0, 360))  # degrees
_HAND = ((0.0, -0.3), (9.2, -0.3), (11.0, 1.4), (12.0, 1.4))  # shares of the room's width
_VIEW = (  # the middle of what the camera sees, and its width
    (0.0, (345, 400, 620)), (1.6, (345, 400, 620)), (2.8, (640, 425, 1140)),
    (11.0, (640, 425, 1140)), (12.0, (345, 400, 620)),
)  # fmt: skip


class GalleryCamera(VirtualCamera):
    """Two portraits on a wall. One changes its expression, the other turns around, a hand passes.

    The portraits are works of US agencies and in the public domain: Grace Hopper by the US Navy,
    Eileen Collins by NASA. A frame depends on its index and the settings alone, so that two runs
    see the same images.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        noise: float = 2.0,
        steady: bool = False,
        width: int = 640,
        height: int = 480,
        fps: float | None = None,
        colour: bool = True,
        **others: Any,
    ) -> None:
        """Nothing is drawn yet.

        noise: standard deviation of the sensor noise in gray levels. fps: 15 unless given.
        steady: whether the camera is on a tripod in constant light, which compresses well.
        others: ``frames``, ``paced`` and the other settings of VirtualCamera.
        """
        super().__init__("demo", fps=fps or 15.0, **others)
        self._width, self._height, self._colour = width, height, colour
        self._seed, self._sigma = seed, noise
        self._shake = 0.0 if steady else 1.0

    def _prepare(self) -> None:
        self._noise = demo.Noise(self._width, self._height, self._sigma, self._seed, self._colour)
        hopper, collins = read_image(demo.HOPPER), read_image(demo.COLLINS)
        left, top, width, height = HOPPER
        self._face = hopper[top : top + height, left : left + width]
        self._faces: dict[tuple[str, int], Image] = {}
        self._wall = _wall()
        self._card = _framed(_cut(collins, _COLLINS_CROP))
        self._back = _back()
        scene = self._wall.copy()
        for image, at, name in (
            (_framed(_cut(hopper, _HOPPER_CROP)), _HOPPER_AT, _NAMES[0]),
            (self._card, _COLLINS_AT, _NAMES[1]),
        ):
            _hang(scene, image, at)
            for surface in (scene, self._wall):
                _label(surface, name, at)
        self._scene = scene

    def image_at(self, index: int) -> Image:
        """Frame ``index``: uint8 ``(height, width)`` or BGR ``(height, width, 3)``."""
        seconds = index / self.fps % SECONDS
        scene = self._scene.copy()
        mood, strength = _mood(seconds)
        if level := round(strength * _LEVELS):
            face = self._expressing(mood, level)
            left = _HOPPER_AT[0] + HOPPER[0] - _HOPPER_CROP[0]
            top = _HOPPER_AT[1] + HOPPER[1] - _HOPPER_CROP[1]
            scene[top : top + face.shape[0], left : left + face.shape[1]] = face
        if angle := _along(_TURN, seconds) % 360:
            self._turn(scene, angle)
        hand = _along(_HAND, seconds)
        if -0.25 < hand < 1.35:
            _draw_hand(scene, hand * _ROOM[0], seconds)
        drawn = cv2.warpAffine(
            scene,
            self._view(index),
            (self._width, self._height),
            flags=cv2.INTER_AREA,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        light = 1 + 0.04 * self._shake * math.sin(2 * math.pi * seconds / SECONDS)
        return self._noise.add(
            in_colours(np.asarray(drawn, dtype=np.uint8), self._colour), index, light
        )

    def boxes(self, index: int) -> list[Box]:
        """The faces that look out of frame ``index``, the largest first: ground truth.

        A face behind the hand is among them, a portrait that has turned by over 50 degrees is not.
        """
        seconds = index / self.fps % SECONDS
        places = [(demo.PORTRAIT_FACE, _HOPPER_CROP, _HOPPER_AT)]
        angle = _along(_TURN, seconds) % 360
        if min(angle, 360 - angle) <= 50:
            places.append((_COLLINS_FACE, _COLLINS_CROP, _COLLINS_AT))
        view = self._view(index)
        found = []
        for face, crop, at in places:
            enlarged = _PORTRAIT[0] / crop[2]
            scale = view[0, 0] * enlarged
            x = view[0, 0] * (at[0] + (face.x - crop[0]) * enlarged) + view[0, 2]
            y = view[1, 1] * (at[1] + (face.y - crop[1]) * enlarged) + view[1, 2]
            box = Box(round(x), round(y), round(scale * face.width), round(scale * face.height))
            if box.x + box.width / 2 < self._width:
                found.append(box)
        return sorted(found, key=lambda box: -box.area)

    def _expressing(self, mood: str, level: int) -> Image:
        """The first portrait's face; level: of the expression, 1 to ``_LEVELS``."""
        if (mood, level) not in self._faces:
            self._faces[mood, level] = warp(self._face, EXPRESSIONS[mood], level / _LEVELS)
        return self._faces[mood, level]

    def _view(self, index: int) -> NDArray[np.float64]:
        """The affine map (2, 3) from the room to the frame."""
        seconds = index / self.fps
        x, y, width = _place(_VIEW, seconds % SECONDS)
        turn = 2 * math.pi * seconds
        x += self._shake * (5 * math.sin(turn / 3.1) + 2 * math.sin(turn / 1.3))
        y += self._shake * 4 * math.sin(turn / 2.3)
        scale = self._width / width
        return np.array(
            [[scale, 0, self._width / 2 - scale * x], [0, scale, self._height / 2 - scale * y]]
        )

    def _turn(self, scene: Image, angle: float) -> None:
        """The second portrait, turned about its vertical axis by some degrees."""
        x, y = _COLLINS_AT[0] - _FRAME, _COLLINS_AT[1] - _FRAME
        card = self._card if angle < 90 or angle > 270 else self._back
        height, width = card.shape[:2]
        around = (slice(y - 50, y + height + 70), slice(x - 50, x + width + 60))  # and its shadow
        part = np.ascontiguousarray(self._wall[around])
        scene[around] = part
        half = width / 2
        reach = half * math.cos(math.radians(angle))
        near = 0.16 * math.sin(math.radians(angle))  # the side that comes towards the camera
        if abs(reach) < 1:
            return
        if card is self._back:
            reach, near = -reach, -near
        left, right, slant = x + half - reach, x + half + reach, near * half
        bottom = y + height
        corners = [(left, y - slant), (right, y + slant), (right, bottom - slant),
                   (left, bottom + slant)]  # fmt: skip
        corners = [(across - x + 50, down - y + 50) for across, down in corners]  # in the part
        source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        matrix = cv2.getPerspectiveTransform(source, np.array(corners, np.float32))
        scene[around] = cv2.warpPerspective(
            card,
            matrix,
            part.shape[1::-1],
            dst=part,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_TRANSPARENT,
        )


def _mood(seconds: float) -> tuple[str, float]:
    """The expression at an instant, and its strength 0..1."""
    for (before, _, was), (after, mood, will) in pairwise(_MOOD):
        if before <= seconds <= after:
            return mood, was + (will - was) * _ease((seconds - before) / (after - before))
    return _MOOD[-1][1], _MOOD[-1][2]


def _along(steps: Sequence[tuple[float, float]], seconds: float) -> float:
    return _place([(at, (value,)) for at, value in steps], seconds)[0]


def _place(steps: Sequence[tuple[float, Sequence[float]]], seconds: float) -> tuple[float, ...]:
    """The value at an instant, between those of the steps before and after."""
    for (before, old), (after, new) in pairwise(steps):
        if before <= seconds <= after:
            share = _ease((seconds - before) / (after - before))
            return tuple(a + (b - a) * share for a, b in zip(old, new, strict=True))
    return tuple(steps[-1][1])


def _ease(share: float) -> float:
    return share * share * (3 - 2 * share)


def _cut(image: Image, crop: tuple[int, int, int, int]) -> Image:
    left, top, width, height = crop
    part = image[top : top + height, left : left + width]
    return np.asarray(cv2.resize(part, _PORTRAIT, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _wall() -> Image:
    """A painted wall, lit from above."""
    width, height = (side // 4 for side in _ROOM)  # smooth enough to be enlarged
    y, x = 4 * np.mgrid[:height, :width].astype(np.float32)
    light = np.full((height, width), 0.62, np.float32)
    for left, top in (_HOPPER_AT, _COLLINS_AT):
        middle = left + _PORTRAIT[0] / 2
        light += 0.5 * np.exp(-(((x - middle) / 330) ** 2) - ((y - top - 160) / 420) ** 2)
    colour = np.array((104, 92, 58), np.float32)  # BGR
    small = np.clip(light[..., None] * colour, 0, 255)
    return np.asarray(cv2.resize(small, _ROOM, interpolation=cv2.INTER_CUBIC)).astype(np.uint8)


def _framed(portrait: Image) -> Image:
    """A portrait in a gilt frame."""
    side = (_FRAME, _FRAME)
    framed = np.pad(portrait, (side, side, (0, 0)))
    height, width = framed.shape[:2]
    for ring in range(_FRAME):
        shine = 0.62 + 0.38 * math.sin(math.pi * (ring + 3) / 11) ** 2
        colour = tuple(round(shine * c) for c in (88, 172, 214))
        cv2.rectangle(framed, (ring, ring), (width - 1 - ring, height - 1 - ring), colour, 1)
    return np.asarray(framed, dtype=np.uint8)


def _back() -> Image:
    """The back of a framed portrait: brown paper and a wire."""
    paper = np.full((_PORTRAIT[1], _PORTRAIT[0], 3), (96, 138, 168), np.uint8)
    cv2.line(paper, (20, 120), (200, 80), (60, 60, 60), 2, cv2.LINE_AA)
    cv2.line(paper, (200, 80), (380, 120), (60, 60, 60), 2, cv2.LINE_AA)
    return _framed(paper)


def _hang(scene: Image, framed: Image, at: tuple[int, int]) -> None:
    height, width = framed.shape[:2]
    x, y = at[0] - _FRAME, at[1] - _FRAME
    shadow = np.zeros(scene.shape[:2], np.float32)
    shadow[y + 14 : y + height + 14, x + 6 : x + width + 6] = 0.55
    soft = np.asarray(cv2.GaussianBlur(shadow, (0, 0), 12))[..., None]
    scene[:] = (scene * (1 - soft)).astype(np.uint8)
    scene[y : y + height, x : x + width] = framed


def _label(scene: Image, name: str, at: tuple[int, int]) -> None:
    """A brass plate below a portrait."""
    (wide, tall), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_DUPLEX, 0.7, 1)
    x, y = at[0] + _PORTRAIT[0] // 2, at[1] + _PORTRAIT[1] + 75
    corner, other = (x - wide // 2 - 16, y - tall - 12), (x + wide // 2 + 16, y + 12)
    cv2.rectangle(scene, corner, other, (92, 160, 190), cv2.FILLED)
    cv2.rectangle(scene, corner, other, (52, 96, 120), 2, cv2.LINE_AA)
    at_text = (x - wide // 2, y)
    cv2.putText(scene, name, at_text, cv2.FONT_HERSHEY_DUPLEX, 0.7, (30, 40, 48), 1, cv2.LINE_AA)


@cache
def _hand() -> tuple[Image, NDArray[np.float32]]:
    """A hand with a sleeve and its opacity 0..1, ``(900, 420)``, fingers up."""
    height, width = 900, 420
    mask = np.zeros((height, width), np.uint8)
    fingers = ((110, 250, 92, 95, 24), (172, 235, 160, 45, 26), (232, 235, 234, 28, 27),
               (290, 250, 308, 62, 25))  # fmt: skip
    for x, y, tip_x, tip_y, thick in fingers:
        cv2.line(mask, (x, y), (tip_x, tip_y), 255, 2 * thick, cv2.LINE_AA)
    cv2.line(mask, (300, 360), (378, 250), 255, 56, cv2.LINE_AA)  # the thumb
    cv2.ellipse(mask, (205, 320), (120, 130), 0, 0, 360, 255, cv2.FILLED, cv2.LINE_AA)
    cv2.rectangle(mask, (125, 380), (280, height), 255, cv2.FILLED)
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    round_ = np.clip(np.asarray(distance) / 30, 0, 1)[..., None] ** 0.6
    skin = np.array((120, 158, 214), np.float32) * (0.62 + 0.38 * round_)
    sleeve = np.array((92, 58, 36), np.float32) * (0.5 + 0.5 * round_)
    rows = np.arange(height)[:, None, None]
    drawn = np.where(rows > 520, sleeve, skin)
    drawn = np.where((rows > 505) & (rows <= 520), np.array((235, 235, 235), np.float32), drawn)
    soft = np.asarray(cv2.GaussianBlur(mask, (0, 0), 2.5), dtype=np.float32) / np.float32(255)
    return np.asarray(cv2.GaussianBlur(drawn, (0, 0), 2), dtype=np.uint8), soft


def _draw_hand(scene: Image, x: float, seconds: float) -> None:
    """A hand that passes in front, its fingers at the height of the faces."""
    image, opacity = _hand()
    angle = 8 * math.sin(2 * math.pi * seconds / 0.9)
    matrix = cv2.getRotationMatrix2D((205, 850), angle, 1.1)
    # Only the part of the room that the hand can reach: the whole room takes four times as long.
    left, right = max(0, int(x) - 330), min(scene.shape[1], int(x) + 330)
    if left >= right:
        return
    matrix[:, 2] += np.array((x - 205 - left, 70))
    part = scene[:, left:right]
    size = (right - left, scene.shape[0])
    drawn = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    weight = np.asarray(cv2.warpAffine(opacity, matrix, size), dtype=np.float32)
    part[:] = cv2.blendLinear(np.ascontiguousarray(part), drawn, 1 - weight, weight)
