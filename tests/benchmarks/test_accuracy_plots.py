"""The plots of accuracy: which points, where, and with names that can be read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import accuracy, accuracy_plots
from benchmarks.accuracy_plots import TITLES, Point
from convert.cards import PEERS
from train import plots
from train.data import Split

FACES = {"without_near_duplicates": 3075, "ferplus": 2720}
ROWS = [
    {"model": name, "variant": "int8", "MMAC": mmac, "without twins %": one, "FER+ majority %": two}
    for name, mmac, one, two in (
        ("fast", 14.9, 62.2, 88.2),
        ("accurate", 117.7, 63.2, 90.4),
        ("fast-fer2013", 14.9, 67.1, 80.6),
        ("accurate-fer2013", 117.7, 68.9, 80.8),
    )
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The pages, by the name of their file."""
    pages: dict[str, Any] = {}
    monkeypatch.setattr(plots, "save", lambda page, stem: pages.update({stem.name: page}))
    points = accuracy_plots.points_of(ROWS) + accuracy_plots.published()
    accuracy_plots.draw(points, FACES, "PrivateTest", tmp_path / "pareto")
    return pages


def test_the_front_is_what_no_other_point_beats() -> None:
    points = [(1.0, 60.0), (2.0, 59.0), (3.0, 70.0), (3.0, 71.0), (5.0, 71.0)]
    assert accuracy_plots.front(points) == [0, 3]


def test_both_plots_are_written_in_both_formats(tmp_path: Path) -> None:
    points = accuracy_plots.points_of(ROWS)
    accuracy_plots.draw(points, FACES | {"ferplus": 0}, "PublicTest", tmp_path / "pareto")
    for name in ("pareto", "pareto-ranking"):
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()


def test_every_published_model_is_named_with_its_interval(drawn: dict[str, Any]) -> None:
    published = accuracy_plots.published()
    assert len(published) == 11
    (left, right) = drawn["pareto-ranking"].axes
    named = {text.get_text() for text in left.get_yticklabels()}
    assert {point.name for point in accuracy_plots.points_of(ROWS)} < named
    assert all(any(point.name in name for name in named) for point in published)
    for axes, key in ((left, "without_near_duplicates"), (right, "ferplus")):
        assert len(axes.containers) == sum(key in p.accuracy for p in published) + len(ROWS)
    panels = drawn["pareto"].axes
    assert [axes.get_title(loc="left").rpartition(", ")[0] for axes in panels] == [*TITLES.values()]
    known = sum(point.mmac is not None for point in published) + len(ROWS)
    assert [len(axes.containers) for axes in panels] == [known, known]


def test_names_and_marks_are_inside_and_over_nothing(drawn: dict[str, Any]) -> None:
    page = drawn["pareto"]
    page.draw_without_rendering()
    for axes in page.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == 6  # four of ours, a family, one more
        for box in boxes:
            assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            assert axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
        marks = []
        for container in axes.containers:
            x, y = axes.transData.transform(container.lines[0].get_xydata()[0])
            marks.append((x, y))
        radius = 2.5 * page.dpi / 72
        for box, (x, y) in itertools.product(boxes, marks):
            assert not (
                box.x0 - radius < x < box.x1 + radius and box.y0 - radius < y < box.y1 + radius
            )
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        for one, two in itertools.combinations(marks, 2):
            assert np.hypot(one[0] - two[0], one[1] - two[1]) > 2 * radius


def test_equal_costs_are_moved_apart_around_their_place() -> None:
    first, second, third, alone = accuracy_plots.apart([10.0, 10.2, 10.0, 20.0])
    assert first < second < third and alone == 20.0
    assert second == pytest.approx(10.2)


def test_one_point_for_each_model_the_first_variant() -> None:
    rows = [*ROWS, ROWS[0] | {"variant": "float32", "without twins %": 1.0}]
    found = accuracy_plots.points_of(rows)
    assert [point.name for point in found] == [row["model"] for row in ROWS]
    assert found[0] == Point("fast", True, {"without_near_duplicates": 62.2, "ferplus": 88.2}, 14.9)


def test_the_peer_of_the_cards_has_the_same_figures_here() -> None:
    (keras,) = [point for point in accuracy_plots.published() if point.name == "fer (Keras)"]
    (peer,) = PEERS
    ferplus, _, _, without = peer.figures
    assert keras.accuracy == {"without_near_duplicates": float(without), "ferplus": float(ferplus)}
    assert keras.mmac == float(peer.macs)


def test_faces_are_counted_by_convention() -> None:
    votes = np.zeros((3, 10), np.uint8)
    votes[:2, 1] = 9
    split = Split(
        "PublicTest",
        images=np.zeros((3, 48, 48), np.uint8),
        labels=np.array([0, 1, 2]),
        rows=np.arange(3),
        votes=votes,
        twin=np.array([False, True, True]),
    )
    assert accuracy.faces_of(split) == {"without_near_duplicates": 1, "ferplus": 2}
