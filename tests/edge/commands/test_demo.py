"""``emotion-edge demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

from emotion_edge.cli import main
from emotion_edge.commands import demo
from emotion_edge.errors import SinkError

TINY = str(Path(__file__).parents[1] / "tiny.tflite")


def test_it_leaves_a_clip_a_sheet_and_records_and_ends_with_three_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a folder" / "demo"
    for _ in range(2):  # the second time replaces the first
        assert main(["demo", "--frames", "12", "--model", TINY, "--out", str(out)]) == 0
        last = capsys.readouterr().out.splitlines()[-3:]
        assert [line.split()[0] for line in last] == ["Seen:", "Files:", "Next:"]
        assert "in 12 frames" in last[0]
        files = ["annotated.mp4", "contact-sheet.jpg", "emotions.jsonl"]
        assert sorted(path.name for path in out.iterdir()) == files
        assert all(str(out / name) in last[1] for name in files)
    assert cv2.imread(str(out / "contact-sheet.jpg")).shape[1] == 3 * 428


def test_faces_can_be_hidden(tmp_path: Path) -> None:
    words = ["demo", "--frames", "2", "--model", TINY, "--out", str(tmp_path), "--faces", "emoji"]
    assert main(words) == 0
    sheet = cv2.imread(str(tmp_path / "contact-sheet.jpg"))
    gray = (abs(sheet.astype(int) - 128) < 6).all(axis=2)
    assert gray.mean() > 0.02  # none of the room is gray


def test_a_clip_without_a_frame_is_one_line(tmp_path: Path) -> None:
    clip = tmp_path / "empty.mp4"
    clip.write_bytes(b"")
    with pytest.raises(SinkError, match="no frame for a contact sheet"):
        demo.contact_sheet(clip, [0.0, 1.0])


def test_a_demo_without_end_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--frames", "0", "--out", str(tmp_path / "demo")]) == 2
    assert "--frames 0: use 1 or more" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_camera_that_is_absent_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["demo", "--camera", "/dev/video97", "--model", TINY, "--out", str(tmp_path)]
    assert main(words) == 3
    assert "Seen" not in capsys.readouterr().out


def record(seconds: float, *labels: str, confidence: float = 0.9) -> dict[str, Any]:
    faces = [{"label": label, "confidence": confidence} for label in labels]
    return {"media_time_s": seconds, "faces": faces}


def test_the_summary_counts_faces_and_labels() -> None:
    seen = [record(0), record(1, "happy", "sad"), record(2, "happy"), record(3, "happy")]
    assert demo.summary(seen) == "2 faces at most in 4 frames: happy 75%, sad 25%"
    assert demo.summary([record(0)]) == "no face in 1 frame"


def test_moments_show_every_set_of_labels_first() -> None:
    labels = ["neutral"] * 40 + ["happy"] * 60 + ["sad"] * 5 + ["happy"] * 15
    seen = [record(i / 10, label) for i, label in enumerate(labels)]
    chosen = demo.moments(seen)
    assert len(chosen) == 9 and chosen == sorted(chosen)
    assert {2.0, 7.0, 10.2} <= set(chosen)


def test_the_most_certain_moment_of_a_run_is_shown() -> None:
    seen = [record(i / 10, "sad", confidence=0.5 + 0.4 * (i == 7)) for i in range(10)]
    seen += [record(1 + i / 10, "happy") for i in range(5)]  # all the same: the middle
    assert {0.7, 1.2} <= set(demo.moments(seen))


def test_moments_without_a_face_are_left_out_unless_there_are_no_others() -> None:
    seen = [record(n / 15, *["sad"] * (n > 90)) for n in range(180)]
    assert min(demo.moments(seen)) > 90 / 15
    assert len(demo.moments([record | {"faces": []} for record in seen])) == 9


def test_live_records_are_placed_by_their_time() -> None:
    first, later = ({"time": f"2026-11-20T12:00:0{s}.500+00:00"} for s in (1, 3))
    assert demo._seconds(later, first) == 2.0


def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo").touch()
    assert main(["demo", "--model", TINY, "--out", str(tmp_path / "demo")]) == 4
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "give another --out folder" in error
