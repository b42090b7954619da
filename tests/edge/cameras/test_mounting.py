"""Cameras that are mounted sideways, upside down or behind a mirror."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from emotion_edge.cameras import open_camera
from emotion_edge.cameras.mounting import Mounting
from emotion_edge.cli import main
from emotion_edge.errors import UsageError
from emotion_edge.kiosk.configuration import build, load_config

ARROW = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)


@pytest.mark.parametrize(
    ("rotate", "flip", "seen"),
    [
        (0, False, [[1, 2, 3], [4, 5, 6]]),
        (90, False, [[4, 1], [5, 2], [6, 3]]),
        (180, False, [[6, 5, 4], [3, 2, 1]]),
        (270, False, [[3, 6], [2, 5], [1, 4]]),
        (0, True, [[3, 2, 1], [6, 5, 4]]),
        (90, True, [[1, 4], [2, 5], [3, 6]]),
        (180, True, [[4, 5, 6], [1, 2, 3]]),
    ],
)
def test_clockwise_then_mirrored(rotate: Any, flip: bool, seen: list[list[int]]) -> None:
    mounting = Mounting(rotate, flip)
    np.testing.assert_array_equal(mounting.apply(ARROW), seen)
    colour = np.dstack([ARROW] * 3)
    np.testing.assert_array_equal(mounting.apply(colour)[:, :, 0], seen)
    if mounting.flips is None:
        assert rotate == 90 or rotate == 270
    else:  # what libcamera does gives the same
        horizontal, vertical = mounting.flips
        by_hand = ARROW[:: -1 if vertical else 1, :: -1 if horizontal else 1]
        np.testing.assert_array_equal(by_hand, seen)


def test_files_are_turned_and_keep_their_source(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), ARROW)
    camera = open_camera(tmp_path / "a.png", colour=False, rotate=90)
    assert (camera.name, camera.live, camera.fps) == (str(tmp_path / "a.png"), False, 1.0)
    with camera:
        frame = camera.read(1.0)
        assert frame is not None and frame.source == str(tmp_path / "a.png")
        np.testing.assert_array_equal(frame.image, [[4, 1], [5, 2], [6, 3]])
        assert camera.read(1.0) is None


def test_flags_and_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_text("[camera]\nrotate = 270\nflip = true\n")
    camera = load_config(path).camera
    assert (camera.rotate, camera.flip) == (270, True)
    with pytest.raises(UsageError, match="rotate is 45"):
        build({"camera": {"rotate": 45}})
    tiny = str(Path(__file__).parents[1] / "tiny.tflite")
    out = tmp_path / "out.jsonl"
    words = ["run", "--camera", "pattern:frames=2", "--width", "64", "--height", "32", "--rotate"]
    rest = ["--flip", "--model", tiny, "--detector", "haar", "--jsonl", str(out), "--quiet"]
    assert main([*words, "90", *rest]) == 0
    assert '"width":32,"height":64' in out.read_text()
    assert main([*words, "45", *rest, "--overwrite"]) == 2
    assert "camera.rotate is 45; expected 0 or 90 or 180 or 270" in capsys.readouterr().err
