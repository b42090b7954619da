"""Boxes and labels drawn into a copy of a picture."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np

from emotion_edge.values import Face, Image

_SMALLEST = 320  # pixels of the longer side below which no label would be legible
_FONT = cv2.FONT_HERSHEY_DUPLEX
_DARK = (24, 20, 16)  # BGR, text on the light colours below

# BGR; after Okabe and Ito's palette, whose colours differ for colour-blind eyes as well.
_COLOURS = {
    "angry": (90, 120, 255),
    "disgust": (110, 200, 60),
    "fear": (225, 160, 230),
    "happy": (60, 225, 250),
    "sad": (250, 185, 95),
    "surprise": (60, 165, 250),
    "neutral": (215, 215, 215),
}
_OTHER = (170, 200, 200)


def annotate(
    image: Image, faces: Sequence[Face], *, width: int | None = None, numbered: bool = False
) -> Image:
    """A copy of the picture with a box, a label and a confidence for each face.

    image: uint8 gray ``(height, width)`` or BGR ``(height, width, 3)``; it stays as it is.
    width: pixels across of the copy at most; None keeps the picture's. A picture whose longer
        side is below 320 pixels is enlarged by a whole factor, so that the labels have room.
    numbered: write the face's position in ``faces``, from 1, before its label.
    Returns uint8 BGR ``(height, width, 3)``.
    """
    canvas, scale = _canvas(image, width)
    height, across = canvas.shape[:2]
    line = max(1, round(min(height, across) / 300))
    taken: list[tuple[int, int, int, int]] = []
    for face in sorted(faces, key=lambda face: face.box.area):
        colour = colour_of(face.label)
        box = face.box
        x, y = round(box.x * scale), round(box.y * scale)
        right, bottom = round((box.x + box.width) * scale), round((box.y + box.height) * scale)
        # A dark line around the coloured one: it stands out from a light background, too.
        cv2.rectangle(canvas, (x, y), (right, bottom), _DARK, 3 * line, cv2.LINE_AA)
        cv2.rectangle(canvas, (x, y), (right, bottom), colour, line + (line == 1), cv2.LINE_AA)
    for number, face in enumerate(faces, 1):
        box = face.box
        text = f"{number} " if numbered else ""
        text += f"{_ascii(face.label)} {round(100 * face.shown.confidence)}%"
        _tag(
            canvas,
            text,
            colour_of(face.label),
            (round(box.x * scale), round(box.y * scale)),
            round((box.y + box.height) * scale),
            taken,
        )
    return canvas


def colour_of(label: str) -> tuple[int, int, int]:
    """The colour of a label, BGR; every one is light enough for dark text."""
    return _COLOURS.get(label, _OTHER)


def _canvas(image: Image, width: int | None) -> tuple[Image, float]:
    """A BGR copy in the size to draw in, and the factor from the picture's pixels to its own."""
    height, across = image.shape[:2]
    scale = 1.0
    if width is not None and across > width:
        scale = width / across
    elif max(height, across) < _SMALLEST:
        scale = float(-(-_SMALLEST // max(height, across)))
    if scale == 1.0:
        copy = image.copy() if image.ndim == 3 else _bgr(image)
        return np.ascontiguousarray(copy), scale
    size = (max(1, round(across * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)
    return (resized if resized.ndim == 3 else _bgr(resized)), scale


def _bgr(gray: Image) -> Image:
    return np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR), dtype=np.uint8)


def _tag(
    canvas: Image,
    text: str,
    colour: tuple[int, int, int],
    corner: tuple[int, int],
    bottom: int,
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Write a label on a plate: above the box, else below, else inside, where nothing stands."""
    height, across = canvas.shape[:2]
    size = max(0.5, min(height, across) / 600)
    stroke = max(1, round(1.2 * size))
    (wide, tall), base = cv2.getTextSize(text, _FONT, size, stroke)
    pad = max(3, tall // 3)
    if wide + 2 * pad > across:  # a long label in a narrow picture
        size *= (across - 2 * pad) / wide
        (wide, tall), base = cv2.getTextSize(text, _FONT, size, stroke)
    plate_wide, plate_tall = wide + 2 * pad, tall + base + 2 * pad - base // 2
    left = max(0, min(corner[0], across - plate_wide))
    places = [corner[1] - plate_tall, bottom, corner[1], bottom - plate_tall]
    fitting = [max(0, min(top, height - plate_tall)) for top in places]
    free = [
        top
        for wanted, top in zip(places, fitting, strict=True)
        if wanted == top
        and not any(_overlap((left, top, plate_wide, plate_tall), t) for t in taken)
    ]
    top = free[0] if free else fitting[0]
    taken.append((left, top, plate_wide, plate_tall))
    cv2.rectangle(canvas, (left, top), (left + plate_wide, top + plate_tall), colour, cv2.FILLED)
    at = (left + pad, top + pad + tall)
    cv2.putText(canvas, text, at, _FONT, size, _DARK, stroke, cv2.LINE_AA)


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return (
        one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
    )


def _ascii(label: str) -> str:
    """OpenCV's own fonts hold ASCII only: ``überrascht`` becomes ``uberrascht``."""
    plain = unicodedata.normalize("NFKD", label)
    return (
        "".join(sign for sign in plain if not unicodedata.combining(sign))
        .encode("ascii", "replace")
        .decode("ascii")
    )
