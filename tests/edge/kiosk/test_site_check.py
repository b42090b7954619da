import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_edge import cli
from emotion_edge.kiosk import site_check
from emotion_edge.kiosk.site_check import Look, Trial
from emotion_edge.values import Box, Emotion, Face, Frame, Observation


def trial(
    truth: str, answer: str | None = None, confidence: float = 0.9, *, side: int = 100, **more: Any
) -> Trial:
    """Ten frames with one answer."""
    settings: dict[str, Any] = {
        "label": answer or truth,
        "confidence": confidence,
        "shown": answer or truth,
        "side": side,
        "share": side / 480,
        "brightness": 120.0,
        **more,
    }
    return Trial(truth, [Look(**settings)] * 10)


def check(trials: list[Trial], **more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "unsure_below": 0.5,
        "precision": 0.95,
        "input_side": 48,
        "smallest_face": 0.0,
        "planned_s": 120.0,
        "lasted_s": 120.0,
        "about": {"site": "foyer"},
        **more,
    }
    return site_check.report(trials, **settings)


def suggested(found: dict[str, Any], key: str) -> dict[str, str]:
    (one,) = [each for each in found["suggestions"] if each["key"] == key]
    return dict(one)


def test_agreement_counts_trials_not_frames() -> None:
    found = check([trial("happy")] * 9 + [trial("sad", "neutral")] * 3)
    assert found["agreement"]["right"] == 9 and found["agreement"]["of"] == 12
    low, high = found["agreement"]["interval"]
    assert (low, high) == (0.468, 0.911)  # Wilson's, of 9 in 12
    assert found["by_label"] == {"happy": [9, 9], "sad": [0, 3]}
    assert found["mistaken_for"] == ["sad for neutral (3)"]
    assert found["frames"] == 120 and found["complete"]


def test_the_answer_is_the_label_of_most_frames() -> None:
    sad, happy = Look("sad", 0.8, "sad", 90, 0.2, 99), Look("happy", 0.6, "happy", 90, 0.2, 99)
    mixed = Trial("sad", [sad] * 3 + [happy] * 2)
    assert mixed.answer == "sad" and mixed.confidence == 0.8
    blind = Trial("sad", [Look()] * 5)
    found = check([mixed, blind])
    assert found["trials"] == 2 and found["trials_with_a_face"] == 1
    assert found["conditions"]["no_face"] == 0.5
    assert any("no face" in each["reason"] for each in found["suggestions"])


def test_a_threshold_where_uncertain_labels_are_wrong() -> None:
    trials = [trial("happy", confidence=0.9)] * 20 + [trial("sad", "fear", 0.6)] * 6
    one = suggested(check(trials), "tracker.unsure_below")
    assert one["value"] == "0.90"
    assert "only 20 of 26" in one["reason"] and "20 of 20" in one["reason"]
    one = suggested(check(trials[:20]), "tracker.unsure_below")
    assert one["value"] == "0.50" and "keep it" in one["reason"]
    one = suggested(check([trial("sad", "fear", 0.6)] * 12), "tracker.unsure_below")
    assert one["value"] == "" and "no threshold reaches 95%" in one["reason"]
    one = suggested(check(trials[:3]), "tracker.unsure_below")
    assert one["value"] == "" and "too few" in one["reason"]


def test_small_faces() -> None:
    trials = [trial("happy")] * 10 + [trial("sad", "fear", side=30)] * 4
    found = check(trials)
    assert found["conditions"]["too_small"] == 0.286
    one = suggested(found, "zones.smallest_face")
    assert one["value"] == "0.10"  # 48 of 480 pixels
    assert "agree on 0% of frames, larger ones on 100%" in one["reason"]
    found = check([trial("happy", side=30)] * 12)  # every face: ignoring them leaves nothing
    assert not [each for each in found["suggestions"] if each["key"] == "zones.smallest_face"]
    assert any("move the camera closer" in each["reason"] for each in found["suggestions"])


def test_light_and_angle() -> None:
    found = check([trial("happy", brightness=40.0, facing=False)] * 12)
    assert found["conditions"]["too_dark"] == found["conditions"]["too_turned"] == 1
    reasons = " ".join(each["reason"] for each in found["suggestions"])
    assert "exposure +3.5 EV" in reasons and "point away from the camera" in reasons
    reasons = " ".join(
        each["reason"] for each in check([trial("happy", brightness=240.0)] * 12)["suggestions"]
    )
    assert "exposure -2.2 EV" in reasons and "too bright" in reasons
    reasons = str(check([trial("happy")] * 12)["suggestions"])
    assert "EV" not in reasons and "away" not in reasons


def test_the_largest_face_is_looked_at() -> None:
    image = np.zeros((100, 200), np.uint8)
    image[10:50, 20:60] = 80
    emotion = Emotion(("happy", "sad"), (0.3, 0.7))
    faces = (
        Face(Box(0, 0, 10, 10), emotion, "happy"),
        Face(Box(20, 10, 40, 40), emotion, "unsure"),
    )
    seen = site_check.look(Observation(Frame(image, 0, 0), faces))
    assert seen == Look("sad", 0.7, "unsure", 40, 0.4, 80.0, None)
    assert site_check.look(Observation(Frame(image, 0, 0), ())) == Look()


def test_a_partial_report_says_so_first() -> None:
    found = check([trial("happy")], lasted_s=31.0)
    text = site_check.markdown(found)
    assert not found["complete"]
    assert text.splitlines()[2] == "**PARTIAL: interrupted after 31 of 120 s.**"
    assert "PARTIAL" not in site_check.markdown(check([trial("happy")]))
    assert site_check.markdown(check([], lasted_s=0.0))


def test_with_the_demo_camera_and_a_scripted_observer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script"
    script.write_text("1 happy\n1.6 sur\n2.2 nonsense\n")
    words = ["site-check", "--camera", "demo", "--seconds", "3", "--out", str(tmp_path / "r")]
    assert cli.main([*words, "--script", str(script)]) == 2
    assert "'nonsense' is not a label" in capsys.readouterr().err
    script.write_text("1 happy\n1.8 sur\n")
    assert cli.main([*words, "--script", str(script)]) == 0
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["complete"] and found["trials"] == found["trials_with_a_face"] == 2
    assert set(found["by_label"]) == {"happy", "surprise"}
    assert found["median"]["face_px"] > 20 and found["median"]["brightness"] > 5
    assert "an observer typed" in (tmp_path / "r.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "r.md", "script"]
    assert cli.main(words) == 2
    assert "exists already" in capsys.readouterr().err


# A shell that starts the tests in the background makes them, and what they start, ignore Ctrl-C.
HEARS_CTRL_C = """
import signal, sys
from emotion_edge.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


def test_asked_and_interrupted(tmp_path: Path) -> None:
    words = ["site-check", "--camera", "demo", "--hold", "2", "--out", str(tmp_path / "r")]
    process = subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C, *words],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    asked = 0
    while asked < 2:
        line = process.stdout.readline()
        assert line, process.communicate()
        asked += "please show" in line
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "emotion-edge: the check is partial: interrupted\n"
    found = json.loads((tmp_path / "r.json").read_text())
    assert not found["complete"] and found["trials"] == 2
    assert "**PARTIAL" in (tmp_path / "r.md").read_text()


def test_an_observer_who_types(tmp_path: Path) -> None:
    words = ["site-check", "--camera", "demo", "--seconds", "3", "--out", str(tmp_path / "r")]
    done = subprocess.run(
        [sys.executable, "-m", "emotion_edge", *words, "--observer"],
        input="happy\nx\nsa\n",  # all of it is there before the first frame
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "'x' is not a label: type one of" in done.stdout
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["trials"] == 2 and set(found["by_label"]) <= {"happy", "sad"}


def test_a_wrong_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["site-check", "--hold", "1", "--out", str(tmp_path / "r")]) == 2
    assert "more than 1.5 per expression" in capsys.readouterr().err
    assert cli.main(["site-check", "--script", str(tmp_path / "none")]) == 2
    assert "each line is 'SECONDS LABEL'" in capsys.readouterr().err
    for wrong in (["--seconds", "nan"], ["--seconds", "inf"], ["--hold", "nan"], ["--hold", "inf"]):
        assert cli.main(["site-check", *wrong, "--camera", "demo"]) == 2
        assert "use more than 0 seconds" in capsys.readouterr().err
    script = tmp_path / "script"
    script.write_text("nan happy\n")
    assert cli.main(["site-check", "--camera", "demo", "--script", str(script)]) == 2
    assert "each line is 'SECONDS LABEL'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "says"), [(0, "0 trials with a face are"), (1, "1 trial with a face is")]
)
def test_too_few_trials(count: int, says: str) -> None:
    reason = suggested(check([trial("happy")] * count), "tracker.unsure_below")["reason"]
    assert reason == f"{says} too few to suggest a threshold"
