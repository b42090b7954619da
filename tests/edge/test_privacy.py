"""Hidden faces: nothing of their pixels is left on the page or in a recording."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_edge import cli, privacy
from emotion_edge.cameras import open_camera
from emotion_edge.detectors import open_detector
from emotion_edge.detectors.scheduled import ScheduledDetector
from emotion_edge.pipeline import Pipeline
from emotion_edge.privacy import FaceHider, Hiding, hidden
from emotion_edge.sinks import Run, Sink, SinkSettings, open_sinks
from emotion_edge.tracker import FaceTracker
from emotion_edge.values import Box, Emotion, Event, Face, Frame, Image, Observation
from emotion_edge.zones import Zones, ZoneSettings

LABELS = ("happy", "sad")
BOX = Box(60, 40, 40, 40, 0.9)
COVERED = (slice(26, 94), slice(46, 114))  # the box with its margin


def face(box: Box = BOX, label: str = "happy") -> Face:
    return Face(box, Emotion(LABELS, (0.9, 0.1)), label, 1)


def frame(seed: int, at_s: float = 0.0, *, gray: bool = False) -> Frame:
    """Noise in which every pixel differs from that of another seed."""
    shape = (160, 200) if gray else (160, 200, 3)
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return Frame(image, round(at_s * 1e9), 0)


def hide(how: Hiding, *observations: Observation) -> list[Image]:
    hider = FaceHider(how)
    return [hider.hide(each).frame.image for each in observations]


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("label", [*LABELS, "surprise", "unsure", "neutral", "angry", "own"])
def test_emoji_does_not_depend_on_the_face(label: str, gray: bool) -> None:
    one, other = (
        hide("emoji", Observation(frame(seed, gray=gray), (face(label=label),)))[0]
        for seed in (1, 2)
    )
    assert np.array_equal(one[COVERED], other[COVERED])
    rest = np.ones(one.shape[:2], bool)
    rest[COVERED] = False
    assert np.array_equal(one[rest], frame(1, gray=gray).image[rest])


def test_blur_leaves_sixteen_cells_in_eight_steps() -> None:
    (image,) = hide("blur", Observation(frame(1), (face(),)))
    part = image[COVERED]
    rows = part.reshape(4, 17, 4, 17, 3)
    assert (rows == rows[:, :1, :, :1]).all()
    assert set(np.unique(part)) <= set(range(16, 256, 32))


def test_the_original_is_not_changed() -> None:
    observation = Observation(frame(1), (face(),))
    before = observation.frame.image.copy()
    hide("blur", observation)
    assert np.array_equal(observation.frame.image, before)
    assert hide("show", observation)[0] is observation.frame.image


@pytest.mark.parametrize("how", ["emoji", "blur"])
def test_a_face_stays_hidden_while_the_detector_misses_it(how: Hiding) -> None:
    seen = Observation(frame(1), (face(),))
    missed = [Observation(frame(2, at), ()) for at in (0.1, 0.9, 1.2)]
    _, first, second, late = hide(how, seen, *missed)
    for image, observation in ((first, missed[0]), (second, missed[1])):
        assert (image[COVERED] != observation.frame.image[COVERED]).mean() > 0.9
    assert np.array_equal(late, missed[2].frame.image)


def test_a_missed_face_stays_hidden_at_one_frame_per_second() -> None:
    # The lowest step of a hot board. The second counts from the first frame that misses the face.
    seen = Observation(frame(1), (face(),))
    missed = [Observation(frame(2, at), ()) for at in (1.1, 2.0, 2.2)]
    _, first, second, late = hide("emoji", seen, *missed)
    assert (first[COVERED] == 128).all() and (second[COVERED] == 128).all()
    assert np.array_equal(late, missed[2].frame.image)


def test_an_image_of_a_folder_is_not_covered_where_the_previous_one_had_a_face() -> None:
    one, other = (
        replace(frame(seed, at), source=name, media_time_s=0.0)
        for seed, at, name in ((1, 0.0, "a.jpg"), (2, 1.0, "b.jpg"))
    )
    _, image = hide("emoji", Observation(one, (face(),)), Observation(other, ()))
    assert np.array_equal(image, other.image)


def test_a_face_that_moved_leaves_no_trail() -> None:
    moved = face(Box(75, 40, 40, 40, 0.9))
    _, image = hide("emoji", Observation(frame(1), (face(),)), Observation(frame(2, 0.1), (moved,)))
    assert np.array_equal(image[26:94, 46:58], frame(2).image[26:94, 46:58])


@pytest.mark.parametrize(
    "box", [Box(-30, -30, 40, 40), Box(190, 150, 60, 60), Box(-99, 0, 9, 9), Box(0, 0, 900, 900)]
)
def test_a_face_at_the_edge(box: Box) -> None:
    for how in ("emoji", "blur"):
        assert hidden(frame(1).image, [face(box)], how=how).shape == (160, 200, 3)


class Detector:
    """Finds the face in some frames, and takes something else for one that is not sure."""

    def __init__(self, *found: bool) -> None:
        self.found = iter(found)
        self.candidates: tuple[Box, ...] = ()

    def detect(self, image: Image) -> list[Box]:
        found = next(self.found)
        self.candidates = () if found else (Box(150, 120, 20, 20),)
        return [BOX] * found


class Classifier:
    labels = LABELS
    colour = True

    def classify(self, image: Image, box: Box) -> Emotion:
        return Emotion(LABELS, (0.9, 0.1))


def test_faces_that_are_not_reported_are_hidden() -> None:
    # The tracker has not confirmed it, its zone does not count, or the detector is not sure.
    zones = Zones(ZoneSettings(areas=("far: 0.9,0.9 1,0.9 1,1",), only=True))
    for pipeline in (
        Pipeline(Detector(True), Classifier(), FaceTracker()),
        Pipeline(Detector(True), Classifier(), zones=zones),
    ):
        observation = pipeline.process(frame(1))
        assert observation.faces == ()
        (image,) = hide("emoji", observation)
        assert (image[COVERED] == 128).all()
    observation = Pipeline(Detector(False), Classifier()).process(frame(1))
    assert (hide("emoji", observation)[0][120:140, 150:170] == 128).all()


class Screen(Sink):
    name = "screen"

    def __init__(self) -> None:
        self.images: list[Image] = []

    def __enter__(self) -> Screen:
        return self

    def write(self, observation: Observation) -> None:
        self.images.append(observation.frame.image)

    def event(self, event: Event) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


class ScreenSettings(SinkSettings):
    pixels = True
    screen = Screen()

    def open(self, run: Run) -> Screen:
        return self.screen


def test_a_new_sink_cannot_forget_it() -> None:
    with open_sinks([ScreenSettings()], live=False, faces="emoji") as sinks:
        sinks.write(Observation(frame(1), (face(),)))
    (image,) = ScreenSettings.screen.images
    assert len(np.unique(image[26:38, 46:114])) == 1


def portraits(count: int) -> list[Frame]:
    with open_camera(f"demo:frames={count}", paced=False) as camera:
        return [found for _ in range(count) if (found := camera.read(30)) is not None]


def video(path: Path) -> list[Image]:
    capture = cv2.VideoCapture(str(path))
    found = []
    while True:
        read, image = capture.read()
        if not read:
            capture.release()
            return found
        found.append(np.asarray(image, np.uint8))


def faces_in(images: list[Image]) -> int:
    """Frames in which a detector finds a face as large as the portraits'."""
    detector = open_detector("haar")
    return sum(any(box.width > 80 for box in detector.detect(image)) for image in images)


@pytest.mark.parametrize("how", ["emoji", "blur"])
def test_no_face_is_found_in_a_recording(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Haar takes some of the drawn faces for faces. What they cover is what matters here.
    monkeypatch.setattr(privacy, "_draw", lambda image, face: None)
    assert faces_in([each.image for each in portraits(3)]) == 3
    path = tmp_path / "clip.avi"
    words = ["run", "--camera", "demo", "--frames", "20", "--quiet", "--set", "camera.paced=false"]
    assert cli.main([*words, "--detector", "haar", "--faces", how, "--record", str(path)]) == 0
    images = video(path)
    assert len(images) >= 5
    assert faces_in(images[::4]) == 0


def test_an_annotated_copy_can_hide_faces(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    cv2.imwrite(str(source), portraits(1)[0].image)
    words = ["image", str(source), "--detector", "haar", "--annotate", str(tmp_path / "out")]
    assert cli.main([*words, "--faces", "emoji"]) == 0
    (copy,) = (tmp_path / "out").iterdir()
    image = cv2.imread(str(copy))
    assert image is not None and faces_in([np.asarray(image, np.uint8)]) == 0


def test_every_frame_is_searched_where_faces_are_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[int] = []

    class Whole:
        def detect(self, image: Image) -> list[Box]:
            searched.append(1)
            return []

    still = np.zeros((48, 64, 3), np.uint8)
    scheduled = ScheduledDetector(Whole())
    for _ in range(10):
        scheduled.detect(still)
    assert len(searched) < 10
    searched.clear()
    scheduled.search_every_frame()
    for _ in range(10):
        scheduled.detect(still)
    assert len(searched) == 10
