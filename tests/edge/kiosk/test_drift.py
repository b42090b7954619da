"""Drift: counts by day, compared with the first days, kept over restarts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_edge.kiosk.configuration import build
from emotion_edge.kiosk.drift import FEATURES, FILE, Drift, DriftSettings, psi
from emotion_edge.kiosk.service import Service
from emotion_edge.kiosk.watchdog import Watchdog
from emotion_edge.values import Box, Emotion, Face, Frame, Observation

LABELS = ("happy", "sad")
DAY_S = 86400


def test_the_index_of_a_known_case() -> None:
    # Large counts, so that the half face per bin does not show: sum of (b - a) * ln(b / a).
    shares = [(0.2, 0.1), (0.5, 0.6), (0.3, 0.3)]
    expected = sum((b - a) * math.log(b / a) for a, b in shares)
    then, now = ([round(1e9 * pair[at]) for pair in shares] for at in (0, 1))
    assert psi(then, now) == pytest.approx(expected, rel=1e-6)
    assert psi(then, then) == 0


def test_an_empty_bin_is_finite() -> None:
    assert 0.25 < psi([1000, 0], [0, 1000]) < 100


class Site:
    """A kiosk whose days a test makes."""

    def __init__(self, folder: Path, model: str = "m", **settings: Any) -> None:
        self.lines: list[str] = []
        self.day = 20000
        values = {"baseline_days": 2, "window_days": 2, "min_faces": 50, "interval_s": 0}
        self.drift = Drift(
            DriftSettings(**(values | settings)),
            folder,
            LABELS,
            model,
            tell=self.lines.append,
            clock=lambda: self.day * DAY_S + 3600,
        )
        self._index = 0

    def see(self, faces: int = 100, label: str = "happy", gray: int = 120, side: int = 20) -> None:
        """A day's frames."""
        image = np.full((100, 100), gray, np.uint8)
        for _ in range(faces):
            emotion = Emotion(LABELS, (0.97, 0.03))
            face = Face(Box(10, 10, side, side), emotion, label, 1, emotion)
            self._index += 1
            self.drift.add(Observation(Frame(image, self._index * 10**9, self._index), (face,)))
        self.day += 1


def test_there_is_no_figure_before_the_baseline_is_complete(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.drift:
        site.see()
        assert all(math.isnan(value) for value in site.drift.figures().values())
        site.see()
        figures = site.drift.figures()
        assert set(figures) == set(FEATURES)
        assert all(value == 0 for value in figures.values())


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"label": "sad"}, {"labels"}),
        ({"label": "unsure"}, {"labels", "unsure"}),
        ({"gray": 30}, {"brightness"}),
        ({"side": 60}, {"face_size"}),
    ],
)
def test_a_change_shows_in_its_own_figure(
    tmp_path: Path, change: dict[str, Any], moved: set[str]
) -> None:
    site = Site(tmp_path)
    with site.drift:
        site.see()
        site.see()
        site.see(**change)
        site.see(**change)
        figures = site.drift.figures()
    assert {name for name, value in figures.items() if value > 0.25} == moved
    assert all(value < 0.1 for name, value in figures.items() if name not in moved)


def test_the_baseline_outlasts_a_restart(tmp_path: Path) -> None:
    first = Site(tmp_path)
    with first.drift:
        first.see()
        first.see()
    second = Site(tmp_path)
    second.day = first.day
    with second.drift:
        assert second.drift.baseline_days == 2
        second.see(label="sad")
        second.see(label="sad")
        assert second.drift.figures()["labels"] > 0.25
    assert not second.lines
    kept = json.loads((tmp_path / FILE).read_text())
    assert set(kept) == {"schema", "labels", "model", "baseline_days", "baseline", "days"}


def test_few_faces_give_no_figure(tmp_path: Path) -> None:
    site = Site(tmp_path, min_faces=500)
    with site.drift:
        site.see()
        site.see()
        assert math.isnan(site.drift.figures()["labels"])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[: len(text) // 2], "it is damaged"),
        (lambda text: "", "it is damaged"),
        (lambda text: "[]", "it is damaged"),
        (lambda text: "[" * 200_000, "it is damaged"),
        (lambda text: text.replace('"unsure":[100', '"unsure":[Infinity'), "it is damaged"),
        (lambda text: "{}", "it lacks 'schema'"),
        (lambda text: text.replace('"labels":["happy"', '"labels":["angry"'), "other labels"),
        (lambda text: text.replace('"unsure":[100', '"unsure":[-5'), "negative"),
        (lambda text: text.replace('"unsure":[', '"unsure":[1,'), "other bins"),
    ],
)
def test_a_file_that_cannot_be_used_is_kept_and_the_baseline_starts_over(
    tmp_path: Path, damage: Callable[[str], str], says: str
) -> None:
    first = Site(tmp_path)
    with first.drift:
        first.see()
    path = tmp_path / FILE
    damaged = damage(path.read_text())
    path.write_text(damaged)
    second = Site(tmp_path)
    with second.drift:
        assert second.drift.baseline_days == 0
        second.see()
    (line,) = second.lines
    assert says in line and "starts over" in line
    assert (tmp_path / "drift.old-1.json").read_text() == damaged
    assert json.loads(path.read_text())["baseline_days"] == [20000]


def test_another_model_starts_over(tmp_path: Path) -> None:
    with Site(tmp_path).drift as drift:
        drift.save()
    site = Site(tmp_path, model="other")
    with site.drift:
        assert "the model m" in site.lines[0]


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    first, second = Site(tmp_path), Site(tmp_path)
    with first.drift, second.drift:
        first.see()
        second.see(label="sad")
        assert "another run" in second.lines[0]
    assert json.loads((tmp_path / FILE).read_text())["baseline"]["labels"] == [100, 0, 0]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    site = Site(tmp_path / "file" / "state")
    with site.drift:
        site.see()
        site.see()
        assert site.drift.figures()["labels"] == 0
    assert len(site.lines) == 1 and "cannot keep counts" in site.lines[0]


def test_a_clock_that_was_wrong_does_not_end_the_baseline(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.drift:
        site.day = 0  # 1970: a board without a clock, before the network is up
        site.see(1)
        site.day = 20000
        site.see()
        assert site.drift.baseline_days == 2
        site.see()
        # The window holds the latest days, and 1970 is not among them.
        assert sum(sum(day["labels"]) for day in site.drift._days.values()) == 200


def test_a_run_keeps_counts_in_aggregate_mode_too(tmp_path: Path) -> None:
    config = build(
        {
            "quiet": True,
            "frames": 12,
            "camera": {"source": "demo", "fps": 100},
            "state_dir": str(tmp_path),
            "drift": {"interval_s": 0},
            "aggregate": {},
        }
    )
    Service(config, watchdog=Watchdog({}), tell=lambda line: None).run()
    kept = json.loads((tmp_path / FILE).read_text())
    assert sum(kept["baseline"]["labels"]) > 0 and len(kept["model"]) == 16
