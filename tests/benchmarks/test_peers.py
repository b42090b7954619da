"""The comparison with a peer of our own making: the true one takes 8 GB."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import environments, peers
from benchmarks.__main__ import main
from benchmarks.peers import PeerFailed, Seen, System
from emotion_edge.model.backend import installed
from emotion_edge.values import Box

TINY = Path(__file__).parents[1] / "edge" / "tiny.tflite"
EDGE = Path(peers.__file__).parents[1] / "edge"

FAKE = '''
class FER:
    """Sees one face in the middle of its frame and one in the corner, where there is none."""

    def __init__(self, use_tflite):
        print("a peer that prints")
        self.keras = not use_tflite

    def detect_emotions(self, frame, face_rectangles=None):
        height, width = frame.shape[:2]
        middle = (width // 4, height // 4, width // 2, height // 2)
        boxes = face_rectangles or [middle, (0, 0, 9, 9)]
        return [{"box": box, "emotions": {"happy": 1.0}} for box in boxes]

    def _classify_emotions(self, faces):
        assert faces.shape == (3, 64, 64) and -1 <= faces.min() and faces.max() <= 1
        return [[0, 0, 0, 1.0 if self.keras else 0.0, 0.5, 0, 0]] * 3
'''


@pytest.fixture
def python_path(tmp_path, monkeypatch):
    """A Python in which ``import fer`` finds ours."""
    (tmp_path / "fer").mkdir()
    (tmp_path / "fer" / "__init__.py").write_text("")
    (tmp_path / "fer" / "fer.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(EDGE)]))
    return sys.executable


@pytest.fixture
def frames(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for index in range(4):
        paths.append(tmp_path / f"{index}.npy")
        np.save(paths[-1], rng.integers(0, 256, (120, 160, 3), dtype=np.uint8))
    return paths


@pytest.mark.skipif("litert" not in installed(), reason="LiteRT is not installed")
def test_systems_take_turns_and_their_answers_are_counted(python_path, frames, tmp_path):
    faces = tmp_path / "faces.npy"
    np.save(faces, np.zeros((3, 48, 48), np.uint8))
    systems = [System(name, python_path, TINY) for name in ("fer", "fer-keras", "haar")]
    truth = [[Box(40, 30, 80, 60)]] * 4
    seen = peers.compare(systems, frames, truth, faces, starts=1)
    fer = seen["fer"]
    assert (fer.found, fer.true, fer.false) == (4, 4, 4)
    assert len(fer.frame_ns) == len(fer.emotion_ns) == 4 and len(fer.first_label_s) == 1
    assert fer.labels == [4, 4, 4] and seen["fer-keras"].labels == [3, 3, 3]
    assert seen["haar"].found == 0 and seen["haar"].peak_mb > fer.peak_mb > 0
    rows = [peers.row(name, one, 100, np.array([4, 4, 3])) for name, one in seen.items()]
    assert [one["accuracy %"] for one in rows[:2]] == [66.67, 33.33]
    records = peers.ratios(rows, seen)
    assert {one["ours"] for one in records} == {"haar"} and len(records) == 2 * 5
    bars = peers.judge(rows, records)
    assert [one["holds"] for one in bars if "environment" in one["bar"]] == [False, False]
    shown = {row["peer over us"]: row for row in peers.side_by_side(records)}
    assert len(shown) == 5 and shown["installed MB"]["bar"] == ">= 20"
    for peer, column in peers.PEERS.items():
        (stage,) = [r for r in records if r["peer"] == peer and r["what"] == "emotion ms"]
        assert shown["emotion ms"][column].startswith(f"{stage['ratio']:g} ({stage['low']:g}-")


def test_a_peer_that_cannot_start_is_one_line(frames, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with System("fer", sys.executable, TINY) as system, pytest.raises(PeerFailed, match="fer"):
        system.open()


def test_interval_of_a_constant_ratio_is_that_ratio():
    ours = np.random.default_rng(0).integers(1000, 2000, 200)
    assert peers.interval([20 * int(n) for n in ours], [int(n) for n in ours]) == (20.0, 20.0)


def test_a_box_is_true_when_it_is_centred_in_a_face():
    face = Box(100, 100, 50, 50)
    assert peers.match([Box(80, 80, 90, 90)], [face]) == (1, 0)
    assert peers.match([Box(0, 0, 50, 50), Box(110, 110, 20, 20)], [face]) == (1, 1)
    assert peers.match([], [face, face]) == (0, 0)


def test_the_environments_are_asked_for_not_made(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(environments, "_FOLDER", tmp_path)
    assert main(["peers"]) == 2
    assert "--install" in capsys.readouterr().err


def test_rows_are_json():
    seen = Seen([1_000_000], [1000], [0.5], 1, 1, 0, 50.0, [])
    assert json.loads(json.dumps(peers.row("haar", seen, 300, None)))["accuracy %"] is None
