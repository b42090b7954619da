"""Selects faces by zone of the image and by size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_edge.errors import UsageError
from emotion_edge.settings import Settings, key, table_as_toml
from emotion_edge.values import Face

_LEAST = 1e-6  # share of the image that a zone's outline encloses; a line encloses none


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneSettings(Settings):
    """Where faces are counted. A face is in the first zone that holds the middle of its box."""

    areas: tuple[str, ...] = key(
        (),
        "polygons, each `NAME: x,y x,y x,y ...`, with x and y as shares (0 to 1) of the image's "
        "width and height from the top left.",
    )
    only: bool = key(False, "ignore faces outside every zone, for example on a poster.")
    smallest_face: float = key(
        0.0, "ignore faces smaller than this share of the image's shorter side.", ge=0, le=1
    )

    def check(self) -> None:
        """Every area is a polygon with a name of its own."""
        names = [_parse(area)[0] for area in self.areas]
        if len(set(names)) < len(names):
            raise UsageError(f"zones are named {', '.join(names)}: give each its own name")
        if self.only and not self.areas:
            raise UsageError("only is true and there are no areas: add some, or every face is lost")

    def polygons(self) -> list[tuple[str, list[list[float]]]]:
        """Name and corners ``[x, y]`` of each area, as shares of the image."""
        return [
            (name, [[round(float(at), 4) for at in corner] for corner in polygon])
            for name, polygon in map(_parse, self.areas)
        ]


def area(name: str, corners: Iterable[tuple[float, float]]) -> str:
    """A zone as ``ZoneSettings.areas`` has it; not validated. corners: shares of the image."""
    return f"{name}: " + " ".join(f"{x:.4g},{y:.4g}" for x, y in corners)


def as_toml(areas: Sequence[str]) -> str:
    """The table ``[zones]`` of a configuration with these areas."""
    return "\n".join(["[zones]", *table_as_toml(ZoneSettings, {"areas": tuple(areas)}), ""])


class Zones:
    """Gives faces their zone, and drops those that do not count."""

    def __init__(self, settings: ZoneSettings) -> None:
        self._settings = settings
        self._areas = [_parse(area) for area in settings.areas]

    def apply(self, faces: Sequence[Face], shape: Sequence[int]) -> tuple[Face, ...]:
        """The faces that count, with their zones; shape: the image's height and width."""
        height, width = shape[:2]
        smallest = self._settings.smallest_face * min(height, width)
        kept = []
        for face in faces:
            box = face.box
            middle = (box.x + box.width / 2) / width, (box.y + box.height / 2) / height
            zone = next((name for name, polygon in self._areas if _holds(polygon, middle)), "")
            if max(box.width, box.height) >= smallest and (zone or not self._settings.only):
                kept.append(replace(face, zone=zone) if zone else face)
        return tuple(kept)


def _holds(polygon: NDArray[np.float32], point: tuple[float, float]) -> bool:
    """Whether a point is inside a polygon ``(corners, 2)`` or on its edge."""
    return cv2.pointPolygonTest(polygon, point, False) >= 0


def _parse(area: str) -> tuple[str, NDArray[np.float32]]:
    """``door: 0,0.2 0.4,0.2 0.4,1`` as a name and corners ``(n, 2)``. Raises UsageError."""
    name, colon, text = area.partition(":")
    try:
        corners = [[float(part) for part in corner.split(",")] for corner in text.split()]
        polygon = np.array(corners, np.float32).reshape(len(corners), 2)
    except ValueError:
        colon = ""
    name = name.strip()
    named = name.isprintable() and name != ""
    drawn = colon and len(polygon) >= 3 and ((polygon >= 0) & (polygon <= 1)).all()
    if not (named and drawn):
        raise UsageError(
            f"{area!r} is not a zone: give NAME: x,y x,y x,y with at least three corners, each "
            "number from 0 to 1"
        )
    if cv2.contourArea(cv2.convexHull(polygon)) < _LEAST:
        raise UsageError(f"{area!r} is a line: move a corner, so that the zone has an area")
    return name, polygon
