"""Draws boxes and labels on a copy of an image."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from emotion_edge.model.labels import UNSURE
from emotion_edge.values import Box, Face, Image, reading_order

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
    image: Image,
    faces: Sequence[Face],
    *,
    width: int | None = None,
    numbered: bool | None = None,
) -> Image:
    """A copy of the image with a box, a label and, unless unsure, a confidence for each face.

    A label is as large as its face allows and covers no other label. Where there is no room it is
    shortened, at last to the face's number.

    image: uint8 gray ``(height, width)`` or BGR ``(height, width, 3)``; it is not changed.
    width: largest width of the copy in pixels; None keeps the image's. An image whose longer
        side is below 320 pixels is enlarged by a whole factor to make room for the labels.
    numbered: whether labels start with ``numbers(faces)``; None for several faces of one image,
        but not for tracked ones, whose numbers would change as people move.
    Returns uint8 BGR ``(height, width, 3)``.
    """
    canvas, scale = _canvas(image, width)
    if numbered is None:
        numbered = len(faces) > 1 and all(face.track_id is None for face in faces)
    places = [_scaled(face.box, scale) for face in faces]
    order = sorted(range(len(faces)), key=lambda i: faces[i].box.area)
    for i in order:
        x, y, right, bottom = places[i]
        line = _line(canvas, min(right - x, bottom - y))
        # A dark line around the coloured one makes it visible on a light background, too.
        cv2.rectangle(canvas, (x, y), (right, bottom), _DARK, 3 * line, cv2.LINE_AA)
        colour = colour_of(faces[i].label)
        cv2.rectangle(canvas, (x, y), (right, bottom), colour, line + (line == 1), cv2.LINE_AA)
    counted = numbers(faces) if numbered else ()
    taken: list[tuple[int, int, int, int]] = []
    for i in order:  # the small ones first: a large face has room inside its box
        face, others = faces[i], [place for j, place in enumerate(places) if j != i]
        label, confidence = _ascii(face.label), f"{round(100 * face.shown.confidence)}%"
        # The greatest probability of an unsure face is another label's.
        texts = [label] if face.label == UNSURE else [f"{label} {confidence}", label]
        if counted:
            texts = [f"{counted[i]} {text}" for text in texts] + [str(counted[i])]
        tag = _tag(canvas, texts, places[i], others, taken)
        if tag is not None:
            taken.append(tag.plate)
            _write(canvas, tag, colour_of(face.label))
    return canvas


def numbers(faces: Sequence[Face]) -> tuple[int, ...]:
    """A number for each face, from 1, in the order of ``faces``: left to right in the image."""
    places = {index: place for place, index in enumerate(reading_order(faces), 1)}
    return tuple(places[index] for index in range(len(faces)))


def colour_of(label: str) -> tuple[int, int, int]:
    """The colour of a label, BGR; every one is light enough for dark text."""
    return _COLOURS.get(label, _OTHER)


def _canvas(image: Image, width: int | None) -> tuple[Image, float]:
    """A BGR copy in the size to draw in, and the factor from the image's pixels to its own."""
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


@dataclass(frozen=True, slots=True)
class _Tag:
    """A text on its plate: left, top, width and height in pixels of the canvas."""

    text: str
    size: float
    plate: tuple[int, int, int, int]
    baseline: tuple[int, int]


def _scaled(box: Box, scale: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in pixels of the canvas."""
    return (
        round(box.x * scale),
        round(box.y * scale),
        round((box.x + box.width) * scale),
        round((box.y + box.height) * scale),
    )


def _line(canvas: Image, side: int) -> int:
    """Thickness of a box's line: thin around a small face."""
    shorter = int(min(canvas.shape[:2]))
    return max(1, min(round(shorter / 300), side // 40))


def _sizes(canvas: Image, side: int) -> tuple[float, ...]:
    """Font scales to try for a face: its own, then the smallest that can be read."""
    height, across = canvas.shape[:2]
    largest = max(0.5, min(height, across) / 600)
    smallest = min(largest, max(0.38, max(height, across) / 4200))
    own = min(largest, max(smallest, side / 190))
    return (own, smallest) if own > smallest else (own,)


def _tag(
    canvas: Image,
    texts: Sequence[str],
    place: tuple[int, int, int, int],
    others: Sequence[tuple[int, int, int, int]],
    taken: Sequence[tuple[int, int, int, int]],
) -> _Tag | None:
    """Where a label goes, or None where no text fits without covering another label.

    texts: the label, the longest form first. place: its face, as left, top, right, bottom.
    others: the other faces; they are covered only if there is no other way. taken: plates so far.
    """
    boxes = [(left, top, right - left, bottom - top) for left, top, right, bottom in others]
    sizes = _sizes(canvas, min(place[2] - place[0], place[3] - place[1]))
    for obstacles in ([*taken, *boxes], taken):
        for text in texts:
            for size in sizes:
                for tag in _candidates(canvas, text, size, place):
                    if not any(_overlap(tag.plate, obstacle) for obstacle in obstacles):
                        return tag
    return None


def _candidates(
    canvas: Image, text: str, size: float, place: tuple[int, int, int, int]
) -> Iterator[_Tag]:
    """A label above its box, below it, inside it at the top and at the bottom, then at its sides.

    The last one is the nearest place inside the canvas, for a face outside of it.
    """
    height, across = canvas.shape[:2]
    (wide, tall), base = cv2.getTextSize(text, _FONT, size, _stroke(size))
    pad = max(2, tall // 3)
    if wide + 2 * pad > across:  # a long label in a narrow image
        size *= max(0.01, (across - 2 * pad) / wide)
        (wide, tall), base = cv2.getTextSize(text, _FONT, size, _stroke(size))
    plate_wide, plate_tall = wide + 2 * pad, tall + base + 2 * pad - base // 2
    x, y, right, bottom = place
    left = max(0, min(x, across - plate_wide))
    flush = max(0, min(right - plate_wide, across - plate_wide))
    middle = (y + bottom - plate_tall) // 2
    spots = [
        *((each, top) for top in (y - plate_tall, bottom) for each in (left, flush)),
        *((left, top) for top in (y, bottom - plate_tall)),
        (right, middle),
        (x - plate_wide, middle),
    ]
    for spot_x, spot_y in spots:
        if 0 <= spot_x <= across - plate_wide and 0 <= spot_y <= height - plate_tall:
            plate = (spot_x, spot_y, plate_wide, plate_tall)
            yield _Tag(text, size, plate, (spot_x + pad, spot_y + pad + tall))
    top = max(0, min(y - plate_tall, height - plate_tall))
    yield _Tag(text, size, (left, top, plate_wide, plate_tall), (left + pad, top + pad + tall))


def _write(canvas: Image, tag: _Tag, colour: tuple[int, int, int]) -> None:
    left, top, wide, tall = tag.plate
    cv2.rectangle(canvas, (left, top), (left + wide - 1, top + tall - 1), colour, cv2.FILLED)
    stroke = _stroke(tag.size)
    cv2.putText(canvas, tag.text, tag.baseline, _FONT, tag.size, _DARK, stroke, cv2.LINE_AA)


def _stroke(size: float) -> int:
    return max(1, round(1.2 * size))


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return (
        one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
    )


def _ascii(label: str) -> str:
    """OpenCV's own fonts have ASCII letters only: ``überrascht`` becomes ``uberrascht``."""
    plain = unicodedata.normalize("NFKD", label)
    return (
        "".join(sign for sign in plain if not unicodedata.combining(sign))
        .encode("ascii", "replace")
        .decode("ascii")
    )
