"""Draws every plot of training, conversion and benchmarks in one style.

Readable in gray: series differ by marker and dash before they differ by colour. Each plot is
written as PNG and SVG, whole or not at all. Needs matplotlib, not TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from train.files import replacing
from train.metrics import wilson_interval

COLOURS = ("#0b3c5d", "#d1495b", "#3a8f6b", "#e0a030", "#6c5b9e", "#777777")
"""From dark to light, so that they differ in gray too."""
MARKERS = ("o", "s", "^", "D", "v", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))

SMALL = 7.5
"""Points of the letters in a figure that is printed half a column wide."""

STYLE: dict[str, Any] = {
    "figure.dpi": 120,
    "savefig.dpi": 150,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.hashsalt": "emotion-edge",
}


@contextmanager
def figure(
    width: float = 7.0, height: float = 4.2, rows: int = 1, columns: int = 1, **keywords: Any
) -> Iterator[tuple[Figure, Any]]:
    """A figure in the house style and its axes; needs no display.

    >>> with figure() as (page, axes):
    ...     axes.plot([1, 2, 3], **series(0))
    ...     save(page, "out/curve")
    """
    with matplotlib.rc_context(STYLE):
        page = Figure(figsize=(width, height), layout="constrained")
        yield page, page.subplots(rows, columns, **keywords)


def series(index: int, *, markers: bool = True) -> dict[str, Any]:
    """Colour, dash and marker of the ``index``-th line."""
    look: dict[str, Any] = {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
    }
    if markers:
        look["marker"] = MARKERS[index % len(MARKERS)]
    return look


def save(page: Figure, stem: str | Path) -> list[Path]:
    """Write ``stem``.png and ``stem``.svg and return their paths."""
    stem = Path(stem)
    paths = []
    for kind in ("png", "svg"):
        path = stem.with_name(f"{stem.name}.{kind}")
        # A date in the file would make equal plots differ.
        metadata = {"Date": None} if kind == "svg" else None
        with matplotlib.rc_context(STYLE), replacing(path) as part:
            page.savefig(part, format=kind, metadata=metadata)
        paths.append(path)
    return paths


def curves(history: Sequence[Mapping[str, float]], stem: str | Path, title: str = "") -> list[Path]:
    """Loss and accuracies over the epochs, side by side."""
    epochs = [row["epoch"] for row in history]
    every = max(1, len(epochs) // 8)
    names = {
        "accuracy": "training targets",
        "val_accuracy": "PublicTest, original labels",
        "val_ferplus": "PublicTest, FER+ majority",
        "val_ferplus_votes": "PublicTest, FER+ majority, votes head",
    }
    with figure(10, 4, columns=2) as (page, (left, right)):
        for index, (key, label) in enumerate(
            (("loss", "training (soft targets)"), ("val_loss", "PublicTest (original labels)"))
        ):
            if key in history[0]:
                values = [row[key] for row in history]
                left.plot(epochs, values, label=label, markevery=every, **series(index))
        left.set(xlabel="epoch", ylabel="cross-entropy", title=title or "Loss")
        left.legend()
        for index, (key, label) in enumerate(names.items()):
            if key in history[0]:
                values = [100 * row[key] for row in history]
                right.plot(epochs, values, label=label, markevery=every, **series(index))
        right.set(xlabel="epoch", ylabel="accuracy, %", title="Accuracy")
        right.legend()
        return save(page, stem)


def confusion(
    matrix: NDArray[np.int64], labels: Sequence[str], stem: str | Path, title: str = ""
) -> list[Path]:
    """Row-normalised confusion matrix, share and count in each cell."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    with figure(6.4, 5.6) as (page, axes):
        axes.grid(False)
        cells = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for i, j in np.ndindex(*matrix.shape):
            axes.text(
                j,
                i,
                f"{100 * share[i, j]:.0f}%\n{matrix[i, j]}",
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if share[i, j] > 0.55 else "#222222",
            )
        axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        axes.set(xlabel="predicted", ylabel="true", title=title or "Confusion matrix")
        page.colorbar(cells, ax=axes, shrink=0.8, label="share of the true class")
        return save(page, stem)


def reliability(
    confidence: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    error: float,
    noise: float,
    stem: str | Path,
    title: str = "",
) -> list[Path]:
    """Accuracy against confidence over bins of equal mass."""
    with figure(5.2, 4.8) as (page, axes):
        axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", label="perfect")
        axes.plot(confidence, accuracy, label="bins of equal size", **series(0))
        axes.set(
            xlabel="confidence",
            ylabel="accuracy",
            xlim=(0, 1),
            ylim=(0, 1),
            title=title or "Reliability",
        )
        axes.text(
            0.97,
            0.05,
            f"expected calibration error {100 * error:.1f}%\n(noise floor {100 * noise:.1f}%)",
            ha="right",
            transform=axes.transAxes,
        )
        axes.legend(loc="upper left")
        return save(page, stem)


def contact_sheet(
    images: NDArray[np.uint8],
    captions: Sequence[str],
    stem: str | Path,
    title: str = "",
    columns: int = 10,
) -> list[Path]:
    """Gray faces, uint8 (N, H, W), in a grid with a caption below each."""
    columns = min(columns, max(len(images), 1))
    rows = -(-max(len(images), 1) // columns)
    lines = 1 + max((text.count("\n") for text in captions), default=0)
    height, width = images.shape[1:]
    across = round(1.06 * width)  # pixels of a cell, which is 0.95 inches wide
    down = height + round((0.05 + 0.13 * lines) / 0.95 * across)
    # One image in one pair of axes: a pair for each face takes seconds.
    sheet = np.full((rows * down, columns * across), 255, np.uint8)
    places = [(place // columns * down, place % columns * across) for place in range(len(images))]
    for image, (top, left) in zip(images, places, strict=True):
        sheet[top : top + height, left : left + width] = image
    inches = max(columns, 3) * 0.95, rows * 0.95 * down / across + 0.4
    with figure(*inches) as (page, axes):
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
        for text, (top, left) in zip(captions, places, strict=False):
            below = {"ha": "center", "va": "top", "fontsize": 6.5, "linespacing": 1.1}
            axes.text(left + width / 2, top + height + 1, text, **below)
        if title:
            page.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
        return save(page, stem)


def bars(
    names: Sequence[str],
    values: Mapping[str, Sequence[float]],
    stem: str | Path,
    *,
    title: str = "",
    unit: str = "%",
) -> list[Path]:
    """Groups of bars, one group per name, one bar per series; hatched, to be readable in gray."""
    hatches = ("", "//", "..", "xx", "\\\\", "++")
    place = np.arange(len(names))
    width = 0.8 / max(len(values), 1)
    with figure(max(6.0, 0.9 * len(names) + 2), 4) as (page, axes):
        axes.grid(axis="x", visible=False)
        for index, (label, heights) in enumerate(values.items()):
            axes.bar(
                place + (index - (len(values) - 1) / 2) * width,
                heights,
                width,
                label=label,
                color=COLOURS[index % len(COLOURS)],
                hatch=hatches[index % len(hatches)],
                edgecolor="white",
            )
        axes.set_xticks(place, names, rotation=20 if len(names) > 6 else 0)
        axes.set(ylabel=unit, title=title)
        if len(values) > 1:
            axes.legend()
        return save(page, stem)


class Panel(NamedTuple):
    """A column of ``ranking``."""

    title: str
    values: Sequence[float | None]
    """Percent, one per row; None where it is not known."""
    faces: int
    """How many the percentages are of."""


def interval(percent: float, count: int) -> tuple[float, float]:
    """How far the 95% interval (Wilson) reaches below and above, in percentage points."""
    low, high = wilson_interval(round(percent * count / 100), count)
    return max(0.0, percent - 100 * low), max(0.0, 100 * high - percent)


def mark(axes: Any, x: float, y: float, *, strong: bool, **error: Any) -> None:
    """A value with its interval: a filled circle if ``strong``, else an open square."""
    colour = COLOURS[0] if strong else COLOURS[1]
    axes.errorbar(
        [x],
        [y],
        **error,
        color=colour,
        marker="o" if strong else "s",
        markersize=5 if strong else 4,
        markerfacecolor=colour if strong else "white",
        elinewidth=1,
        capsize=0,
        zorder=3,
    )


def ranking(
    names: Mapping[str, bool], panels: Sequence[Panel], stem: str | Path, note: str = ""
) -> list[Path]:
    """Rows from the top, a column for each panel, with 95% intervals and the figures.

    names: of the rows, and whether each is bold.
    """
    places = range(len(names) - 1, -1, -1)
    height = 0.19 * len(names) + 0.95
    with figure(4.6, height, 1, len(panels), sharey=True, squeeze=False) as (page, grid):
        for axes, panel in zip(grid[0], panels, strict=True):
            for at, value, strong in zip(places, panel.values, names.values(), strict=True):
                if value is None:
                    continue
                below, above = interval(value, panel.faces)
                mark(axes, value, at, strong=strong, xerr=[[below], [above]])
                axes.annotate(
                    f"{value:.1f}",
                    (value + above, at),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=SMALL - 0.5,
                )
            low, high = axes.get_xlim()
            axes.set_xlim(low, high + 0.22 * (high - low))  # room for the figures
            axes.set_ylim(-0.7, len(names) - 0.3)
            axes.set_yticks(places, list(names), fontsize=SMALL)
            axes.tick_params(axis="x", labelsize=SMALL)
            axes.tick_params(axis="y", length=0)
            axes.set_title("\n".join(wrap(panel.title, 18)), fontsize=SMALL + 0.5)
            axes.set_xlabel(f"right of {panel.faces:,} faces, %", fontsize=SMALL)
        for text, strong in zip(grid[0][0].get_yticklabels(), names.values(), strict=True):
            text.set_fontweight("bold" if strong else "normal")
        page.supxlabel(note, fontsize=SMALL, x=0.99, ha="right")
        return save(page, stem)
