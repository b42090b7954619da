import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import jsonschema
import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.faces import Crops, Found, Settled, Watch, end_to_end, film, match, turn
from benchmarks.scenes import HEIGHT, WIDTH, scenes
from benchmarks.steady import changes, lasting, shake, shaken_answers, shown_labels, steadiness
from emotion_edge.model.manifest import InputSpec
from emotion_edge.model.preprocessing import face_input
from emotion_edge.tracker import TrackerSettings
from emotion_edge.values import Box, Image

TINY = Path(__file__).parents[1] / "edge" / "tiny.tflite"
LABELS = ("happy", "sad")
SCHEMA = json.loads((Path(benchmarks.__file__).parent / "schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def faces() -> Image:
    """Smooth random images, 48x48."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 220, (6, 6, 6)).astype(np.uint8)
    return np.stack([cv2.resize(one, (48, 48), interpolation=cv2.INTER_CUBIC) for one in coarse])


def test_scenes_are_the_same_for_the_same_seed_and_hold_each_face_once(faces: Image) -> None:
    first, again = list(scenes(faces, seed=3)), list(scenes(faces, seed=3))
    assert [i for scene in first for i in scene.faces] == list(range(6))
    for one, two in zip(first, again, strict=True):
        assert one.boxes == two.boxes
        assert np.array_equal(one.image, two.image)
    assert not np.array_equal(first[0].image, next(scenes(faces, seed=4)).image)


def test_a_pasted_face_comes_back_from_its_box(faces: Image) -> None:
    for scene in scenes(faces, seed=1, noise=0):
        assert scene.image.shape == (HEIGHT, WIDTH, 3)
        for index, box in zip(scene.faces, scene.boxes, strict=True):
            crop = face_input(scene.image, box, InputSpec(48, 48, 1, "gray"))
            assert np.abs(crop.astype(int) - faces[index]).mean() < 2


def test_match_tells_found_missed_and_false_apart() -> None:
    truth = [Box(0, 0, 100, 100), Box(300, 0, 100, 100)]
    near, far, second = Box(5, 5, 100, 100), Box(0, 300, 80, 80), Box(20, 20, 70, 70)
    assert match([near, far, second], truth) == ([near, None], 1)
    assert match([], truth) == ([None, None], 0)
    # Centred on the face, and too small to be its box: neither found nor false.
    assert match([Box(45, 45, 10, 10)], truth[:1]) == ([None], 0)


class BgrNetwork:
    """Records what it is given; its manifest requires BGR."""

    manifest = SimpleNamespace(input=InputSpec(48, 64, 3, "bgr"))
    labels = LABELS

    def __init__(self) -> None:
        self.seen: list[Image] = []

    def probabilities(self, face: Image) -> np.ndarray:
        self.seen.append(face)
        return np.array([0.3, 0.7], np.float32)


def test_a_bgr_network_is_measured_on_bgr_crops() -> None:
    blue = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    blue[..., 0] = 255
    network, crops = BgrNetwork(), Crops("any", (0.0, 0.1), 1)
    crops.take(0, blue, Box(100, 100, 90, 90), network)  # type: ignore[arg-type]
    assert [face[0, 0].tolist() for face in network.seen] == [[255, 0, 0]] * 2


def test_steady_shows_the_network_its_own_input_size(faces: Image) -> None:
    network = BgrNetwork()
    answers = shaken_answers(network, faces[:1], 1, 0)  # type: ignore[arg-type]
    assert {face.shape for face in network.seen} == {(48, 64, 3)}
    assert answers.shape == (1, 10, 2)


class Half:
    """Draws boxes of half the side, shifted to the left by a quarter of it."""

    def __init__(self, truth: list[Box]) -> None:
        self.truth = truth

    def detect(self, image: Image) -> list[Box]:
        return [
            Box(box.x + box.width // 8, box.y + box.height // 8, *(3 * box.width // 4,) * 2)
            for box in self.truth
        ]


def test_found_reports_how_a_detector_draws() -> None:
    truth = [Box(80, 80, 160, 160), Box(400, 80, 160, 160)]
    found = Found("three quarters")
    found.look(Half(truth), np.zeros((480, 640), np.uint8), truth)
    row = found.summary()
    assert row["missed"] == 0
    assert row["side"] == pytest.approx(4 / 3)
    assert row["right"] == pytest.approx(0)
    assert row["iou"] == pytest.approx(9 / 16)


class Replay:
    """Knows the film, and lags behind it."""

    def __init__(self, boxes: list[Box | None], lag: int) -> None:
        self.boxes: Iterator[Box | None] = iter([None] * lag + boxes)

    def detect(self, image: Image) -> list[Box]:
        box = next(self.boxes)
        return [] if box is None else [box]


def test_watch_counts_late_and_stale_frames(faces: Image) -> None:
    frames = list(film(faces, np.random.default_rng(0)))
    boxes = [box for _, box in frames]
    assert boxes[:15] == boxes[-15:] == [None] * 15
    for lag in (0, 3):
        watch = Watch("replay", Replay(boxes, lag))
        watch.see(frames)
        row = watch.summary()
        assert row["noticed_frames"] == row["stale_frames"] == lag
        assert row["missed"] == pytest.approx(lag / 60)
        assert row["false_per_100_frames"] == 0


def test_a_sampled_clip_is_counted_in_frames(faces: Image) -> None:
    frames = list(film(faces, np.random.default_rng(0)))
    watch = Watch("replay", Replay([box for _, box in frames[::3]], 1), every=3)
    watch.see(frames)
    row = watch.summary()
    assert row["missed"] == pytest.approx(1 / 20)
    assert row["noticed_frames"] == row["stale_frames"] == 3


def test_a_shaken_face_is_still_that_face(faces: Image) -> None:
    rng = np.random.default_rng(0)
    frames = [shake(faces[0], rng, 48) for _ in range(50)]
    assert not np.array_equal(frames[0], frames[1])
    mean = np.mean(frames, axis=0)
    assert np.corrcoef(mean.ravel(), faces[0].ravel())[0, 1] > 0.95
    assert shake(faces[0], rng, 64).shape == (64, 64)


def _film(*spans: tuple[int, float]) -> np.ndarray:
    """Answers (frames, 2): for so many frames, happy with this probability."""
    happy = np.concatenate([np.full(frames, p, np.float32) for frames, p in spans])
    return np.stack([happy, 1 - happy], axis=1)


def test_steadiness_counts_changes_a_minute() -> None:
    flicker = _film(*[(1, 0.9), (1, 0.2)] * 75)  # 150 frames: 149 changes in 10 s
    row = steadiness(flicker[None], np.array([0]), LABELS, 15, TrackerSettings())
    assert row["raw"] == pytest.approx(149 * 6)
    assert row["shown"] == 0
    assert row["ratio"] == math.inf
    assert (row["raw_still"], row["still"]) == (0, 1)
    assert row["raw_accuracy"] == pytest.approx(0.5)
    assert row["accuracy"] == 1


def test_changes_measures_the_delay_of_the_new_label() -> None:
    answers = np.stack([_film((150, 0.95)), _film((150, 0.05))])
    rows = changes(answers, LABELS, 15, TrackerSettings(half_life_s=1.0, lead=1.0, switch_s=0.0))
    # Half of a half-life-of-one-second average has gone over after one second.
    assert rows["clear"]["pairs"] == 2
    assert rows["clear"]["median_s"] == pytest.approx(1.0, abs=0.1)
    assert rows["clear"]["within_half"] == 0
    quick = changes(answers, LABELS, 15, TrackerSettings())
    assert quick["clear"]["within_half"] == 1


def test_labels_are_empty_until_a_face_is_confirmed() -> None:
    shown = shown_labels(_film((5, 0.9)), LABELS, 15, TrackerSettings(confirm_hits=3))
    assert shown == ["", "", "happy", "happy", "happy"]


def test_lasting_answers_stand_for_one_to_four_frames() -> None:
    answers = np.arange(60, dtype=np.float32).reshape(1, 60, 1)
    slow = lasting(answers, 0)[0, :, 0]
    runs = np.diff(np.flatnonzero(np.concatenate([[1], np.diff(slow), [1]])))
    assert set(runs) <= {1, 2, 3, 4}
    assert len(set(runs)) > 1
    assert set(slow) <= set(range(60))


@pytest.fixture
def data(tmp_path: Path, faces: Image, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of six faces, and two others in each other split, in the challenge's format."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))  # where read data is kept
    others = np.random.default_rng(1).integers(0, 255, (4, 48, 48))
    splits = ["PublicTest"] * 6 + ["Training"] * 2 + ["PrivateTest"] * 2
    path = tmp_path / "fer2013.csv"
    lines = ["emotion,pixels,Usage"]
    for index, (face, split) in enumerate(zip([*faces, *others], splits, strict=True)):
        lines.append(f"{index % 7},{' '.join(map(str, face.ravel()))},{split}")
    path.write_text("\n".join(lines) + "\n")
    return path


def _run(*words: str) -> int:
    return benchmarks.main([*words, "--model", str(TINY)])


def test_faces_ends_with_one_json_document(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["faces", "--data", str(data), "--detector", "haar", "--sequences", "0"]
    words += ["--empty", "2", "--turned", "2"]
    assert _run(*words) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["settings"]["faces"] == 6
    assert [row["detector"] for row in document["rows"]] == ["haar, photo", "haar, stream"]
    assert [row["detector"] for row in document["detection"]] == ["haar, photo", "haar, stream"]
    assert all(0 <= row["missed"] <= 1 for row in document["detection"])
    assert {row["margin"] for row in document["crops"]} <= {-0.05, 0.0, 0.05}
    assert [row["scenes"] for row in document["empty"]] == [2]
    assert [row["degrees"] for row in document["tilt"]] == [20]
    assert document["turns"] == []  # Haar has no landmarks


def test_found_and_correct_counts_clear_faces_only() -> None:
    votes = np.zeros((4, 10), np.uint8)
    votes[:3, 1] = 10  # happiness
    votes[3, :2] = 5
    crops = Crops("one", (-0.05, 0.0), 4, np.array([[-1] * 4, [3, 0, -1, 3]]))
    (row,) = end_to_end([crops], votes)
    assert row["faces"] == 3
    assert row["found"] == pytest.approx(2 / 3)
    assert row["correct_of_found"] == pytest.approx(1 / 2)
    assert row["found_and_correct"] == pytest.approx(1 / 3)
    assert row["ci95"][0] < 1 / 3 < row["ci95"][1]


def test_a_turn_moves_the_nose_to_its_side_and_no_turn_changes_nothing() -> None:
    face = np.zeros((48, 48), np.uint8)
    face[25:29, 23:25] = 255
    assert np.abs(turn(face, 0).astype(int) - face).max() <= 2
    for degrees in (-30, 30):
        columns = turn(face, degrees).max(axis=0).nonzero()[0]
        assert (columns.mean() - 23.5) * degrees > 60


def test_a_tilted_scene_has_the_same_faces_in_the_same_places(faces: Image) -> None:
    for plain, leaning in zip(scenes(faces, seed=1), scenes(faces, seed=1, tilt=20), strict=True):
        assert plain.boxes == leaning.boxes and plain.faces == leaning.faces
        assert not np.array_equal(plain.image, leaning.image)


def test_settled_answers_for_the_last_of_many_frames() -> None:
    class Late:
        def reset(self) -> None:
            self.frames = 0

        def detect(self, image: Image) -> list[Box]:
            self.frames += 1
            return [Box(0, 0, 9, 9)] * (self.frames >= 5)

    assert Settled(Late(), 4).detect(faces_of_nothing := np.zeros((9, 9), np.uint8)) == []
    assert len(Settled(Late(), 5).detect(faces_of_nothing)) == 1


def test_steady_ends_with_one_json_document(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("steady", "--data", str(data), "--count", "2") in (0, 1)
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["steady"]["each"]["raw"] >= document["steady"]["each"]["shown"]


def test_without_data_the_line_says_what_to_give(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EMOTION_EDGE_DATA", raising=False)
    assert _run("faces") == 2
    assert "--data" in capsys.readouterr().err
