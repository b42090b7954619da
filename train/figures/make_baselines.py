"""Draws baselines.png and .svg: the accuracy of the six baselines next to ``fast-fer2013``.

    python train/figures/make_baselines.py

The figures come from the table in ``train/EXPERIMENTS.md`` and from the model's manifest.
"""

from __future__ import annotations

import re
from pathlib import Path

from emotion_edge.errors import UsageError
from emotion_edge.model.manifest import load
from emotion_edge.model.shipped import model_path
from train import plots

TABLE = Path(__file__).parents[1] / "EXPERIMENTS.md"
STEM = Path(__file__).with_name("baselines")
HEADING = "## Baselines, by the same protocol"
REFERENCE = "fast-fer2013"


def main() -> None:
    """Read, draw, and say where."""
    for path in draw(baselines(TABLE.read_text(encoding="utf-8")), STEM):
        print(path)


def baselines(text: str) -> dict[str, tuple[float, float]]:
    """Percent on PrivateTest by baseline: without near-duplicates, and FER+ majority.

    text: of EXPERIMENTS.md. Raises UsageError if the table is not there.
    """
    _, _, section = text.partition(f"{HEADING}\n")
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
    head, rows = (lines[0], lines[2:]) if len(lines) > 2 else ([], [])
    if "without near-duplicates" not in head or "FER+" not in head:
        raise UsageError(f"no table with figures below {HEADING!r}: see {TABLE.name}")
    without, ferplus = head.index("without near-duplicates"), head.index("FER+")
    return {
        row[0].strip("`"): (float(row[without].strip("*")), float(row[ferplus].strip("*")))
        for row in rows
        if re.fullmatch(r"`[\w-]+`", row[0])
    }


def draw(figures: dict[str, tuple[float, float]], stem: Path) -> list[Path]:
    """Write the plot; returns its paths."""
    _, manifest = load(model_path(REFERENCE))
    score = manifest.accuracy["PrivateTest"]["converted"]
    shown = figures | {
        REFERENCE: (100 * score["without_twins"], 100 * score["ferplus"]["accuracy"])
    }
    order = sorted(shown, key=lambda name: -shown[name][0])
    counts = (score["without_twins_images"], score["ferplus"]["images"])
    titles = ("FER2013's original labels", "What most people say (FER+)")
    panels = [
        plots.Panel(title, [shown[name][at] for name in order], count)
        for at, (title, count) in enumerate(zip(titles, counts, strict=True))
    ]
    names = {name: name == REFERENCE for name in order}
    return plots.ranking(names, panels, stem, "PrivateTest; bars: 95% interval; bold: shipped")


if __name__ == "__main__":
    main()
