"""Draws accuracy against work per face, and a ranking, next to published networks.

Both conventions have a panel: no model can lead both (``train/README.md``). Intervals are Wilson's,
95%. Sizes fit half a column of print.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from train import plots

PUBLISHED = Path(__file__).with_name("published_accuracy.toml")
TITLES = {
    "without_near_duplicates": "FER2013's original labels",
    "ferplus": "What most people say (FER+)",
}
_FONT = plots.SMALL


@dataclass(frozen=True, slots=True)
class Point:
    """A model's figures: percent by convention, and millions of multiply-accumulates per face."""

    name: str
    ours: bool
    accuracy: Mapping[str, float]
    mmac: float | None = None
    family: str = ""
    """Of networks that differ in nothing but their weights."""


def points_of(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    """One point for each model of the benchmark's table: its first variant, int8 as a rule."""
    found: dict[str, Point] = {}
    for row in rows:
        names = {"without_near_duplicates": "without twins %", "ferplus": "FER+ majority %"}
        figures = {key: row[name] for key, name in names.items() if row[name] is not None}
        found.setdefault(row["model"], Point(row["model"], True, figures, row["MMAC"]))
    return list(found.values())


def published(path: Path = PUBLISHED) -> list[Point]:
    """The published networks, scored on PrivateTest."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["model"]
    return [
        Point(
            name=one["name"],
            ours=False,
            accuracy={key: one[key] for key in TITLES if key in one},
            mmac=one.get("mmac"),
            family=one.get("family", ""),
        )
        for one in tables
    ]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (cost, accuracy) that no other point beats in both, by cost."""
    order = sorted(range(len(points)), key=lambda n: (points[n][0], -points[n][1]))
    best: list[int] = []
    for index in order:
        if not best or points[index][1] > points[best[-1]][1]:
            best.append(index)
    return best


def draw(points: Sequence[Point], faces: Mapping[str, int], split: str, stem: Path) -> None:
    """Write ``stem``.png and .svg, and ``stem``-ranking; faces: how many each convention has."""
    shown = [key for key in TITLES if faces.get(key) and any(key in p.accuracy for p in points)]
    _pareto([point for point in points if point.mmac], faces, shown, split, stem)
    _ranking(points, faces, shown, split, stem.with_name(f"{stem.name}-ranking"))


def _pareto(
    points: Sequence[Point], faces: Mapping[str, int], shown: Sequence[str], split: str, stem: Path
) -> None:
    with plots.figure(4.2, 2.9 * len(shown) + 0.2, len(shown), squeeze=False) as (page, grid):
        for axes, key in zip(grid[:, 0], shown, strict=True):
            of = [point for point in points if key in point.accuracy]
            costs = apart([point.mmac or 0 for point in of])
            places = [(cost, point.accuracy[key]) for cost, point in zip(costs, of, strict=True)]
            best = [places[index] for index in _front(of, key)]
            axes.plot(
                *zip(*best, strict=True), color="#999999", linestyle="--", linewidth=1, zorder=1
            )
            for point, (x, y) in zip(of, places, strict=True):
                low, high = plots.interval(y, faces[key])
                plots.mark(axes, x, y, strong=point.ours, yerr=[[low], [high]])
            axes.set_xscale("log")
            axes.margins(x=0.28, y=0.12)
            if any(point.family for point in of):  # room for its text
                low, high = axes.get_ylim()
                axes.set_ylim(low - 0.2 * (high - low), high)
            axes.xaxis.set_major_locator(_ticks())
            axes.xaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
            axes.tick_params(labelsize=_FONT)
            axes.set_ylabel("right, %", fontsize=_FONT)
            axes.set_title(f"{TITLES[key]}, {faces[key]:,} faces", fontsize=_FONT + 1)
        grid[-1, 0].set_xlabel(
            "work per face, million multiply-accumulates\n"
            f"{split}; bars: 95% interval; dashed: best for its work;\n"
            "networks of equal work are drawn side by side",
            fontsize=_FONT,
        )
        page.draw_without_rendering()  # places the axes, so that names can be placed in them
        for axes, key in zip(grid[:, 0], shown, strict=True):
            of = [point for point in points if key in point.accuracy]
            costs = apart([point.mmac or 0 for point in of])
            places = [(cost, point.accuracy[key]) for cost, point in zip(costs, of, strict=True)]
            _label(axes, of, places, [places[index] for index in _front(of, key)], faces[key])
        plots.save(page, stem)


def apart(costs: Sequence[float], step: float = 1.11) -> list[float]:
    """Equal costs moved apart by a constant factor, evenly around their place, in their order."""
    moved = []
    for index, cost in enumerate(costs):
        same = [other for other, value in enumerate(costs) if abs(value / cost - 1) < 0.05]
        moved.append(cost * step ** (same.index(index) - (len(same) - 1) / 2))
    return moved


def _ticks() -> Any:
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=(1, 2, 5))


def _front(points: Sequence[Point], key: str) -> list[int]:
    return front([(point.mmac or 0, point.accuracy[key]) for point in points])


def _label(
    axes: Any,
    points: Sequence[Point],
    places: Sequence[tuple[float, float]],
    line: Sequence[tuple[float, float]],
    faces: int,
) -> None:
    """Write each model's name near its mark, inside the axes and over nothing else.

    A family has one text, which names its members from left to right. line: the front, in places.
    """
    reach = axes.figure.dpi / 72 * 4  # a mark's half width and a little space
    taken = [_box(axes, x, y, reach, reach) for x, y in places]
    for x, y in places:
        below, above = plots.interval(y, faces)
        taken += [_box(axes, x, y + part, reach / 2, reach / 2) for part in (-below, above)]
    for (x, y), (right, top) in itertools.pairwise(line):
        for part in np.linspace(0, 1, 40):  # straight on a logarithmic axis
            taken.append(_box(axes, x * (right / x) ** part, y + part * (top - y), 1, 1))
    families: dict[str, list[int]] = {}
    for index, point in enumerate(points):
        families.setdefault(point.family or point.name, []).append(index)
    for name, members in families.items():
        text, place = name, places[members[0]]
        if len(members) > 1:
            names = [points[index].name for index in members]
            listed = wrap(", ".join(one.replace(" ", "\N{NO-BREAK SPACE}") for one in names), 26)
            text = "\n".join([f"{name}, from the left:", *listed])
            # Around the middle of the family, at its lowest.
            middle = places[members[len(members) // 2]][0]
            place = (middle, min(places[index][1] for index in members))
        taken.append(_place(axes, text, place, taken, bold=points[members[0]].ours))


def _box(axes: Any, x: float, y: float, width: float, height: float) -> Any:
    """A box in pixels around a place in data, so much to each side."""
    from matplotlib.transforms import Bbox

    left, bottom = axes.transData.transform((x, y))
    return Bbox([(left - width, bottom - height), (left + width, bottom + height)])


def _place(
    axes: Any, text: str, place: tuple[float, float], taken: Sequence[Any], *, bold: bool
) -> Any:
    """Write a text at the first free place around a mark, or else the last; returns its box.

    taken: boxes, in pixels, that other things cover.
    """
    sides = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))
    for distance, (side, up) in itertools.product((6, 12, 18, 24, 30, 36, 42), sides):
        name = axes.annotate(
            text,
            place,
            xytext=(side * min(distance, 12), up * distance),
            textcoords="offset points",
            ha=("center", "left", "right")[side],
            va=("center", "bottom", "top")[up],
            fontsize=_FONT,
            fontweight="bold" if bold else "normal",
        )
        name.set_in_layout(False)
        box = name.get_window_extent()
        inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
        inside = inside and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
        if inside and not any(box.overlaps(other) for other in taken):
            return box
        name.remove()
    axes.add_artist(name)
    return box


def _full_name(point: Point) -> str:
    return f"{point.family}, {point.name}" if point.family else point.name


def _ranking(
    points: Sequence[Point], faces: Mapping[str, int], shown: Sequence[str], split: str, stem: Path
) -> None:
    rows = sorted(points, key=lambda point: -point.accuracy.get(shown[0], 0.0))
    panels = [
        plots.Panel(TITLES[key], [point.accuracy.get(key) for point in rows], faces[key])
        for key in shown
    ]
    names = {_full_name(point): point.ours for point in rows}
    plots.ranking(names, panels, stem, f"{split}; bars: 95% interval; bold: this project, int8")
