import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_edge.errors import UsageError
from emotion_edge.model.labels import UNSURE
from emotion_edge.tracker import FaceTracker, TrackerSettings
from emotion_edge.values import Box, Emotion, Face

LABELS = ("happy", "sad", "neutral")
HAPPY = Emotion(LABELS, (0.8, 0.1, 0.1))
SAD = Emotion(LABELS, (0.1, 0.8, 0.1))
PLACE = Box(100, 80, 60, 60)


class Clock:
    """Feeds a tracker at a steady pace."""

    def __init__(self, tracker: FaceTracker, fps: float = 15.0) -> None:
        self.tracker = tracker
        self.fps = fps
        self.now = 10**12
        self.frames = 0

    def show(self, *seen: tuple[Box, Emotion]) -> tuple[Face, ...]:
        self.now += round(1e9 / self.fps)
        self.frames += 1
        return self.tracker.update(list(seen), self.now)

    def seconds(self, seconds: float, *seen: tuple[Box, Emotion]) -> list[tuple[Face, ...]]:
        return [self.show(*seen) for _ in range(round(seconds * self.fps))]


def test_a_face_is_reported_after_the_asked_number_of_frames() -> None:
    clock = Clock(FaceTracker(TrackerSettings(confirm_hits=3)))
    assert [len(clock.show((PLACE, HAPPY))) for _ in range(4)] == [0, 0, 1, 1]


def test_a_false_face_of_two_frames_is_never_reported_and_takes_no_identity() -> None:
    clock = Clock(FaceTracker())
    clock.show((PLACE, HAPPY))
    clock.show((PLACE, HAPPY))
    assert not any(clock.seconds(1.0))
    assert clock.seconds(1.0, (PLACE, SAD))[-1][0].track_id == 1


def test_a_lost_face_is_held_for_a_moment_then_no_longer_shown() -> None:
    clock = Clock(FaceTracker(TrackerSettings(hold_s=0.3)), fps=20)
    clock.seconds(1.0, (PLACE, HAPPY))
    shown = [bool(faces) for faces in clock.seconds(1.0)]
    assert shown == [True] * 6 + [False] * 14


def test_a_face_that_comes_back_soon_keeps_its_identity_and_later_does_not() -> None:
    clock = Clock(FaceTracker(TrackerSettings(forget_s=1.0)))
    clock.seconds(1.0, (PLACE, HAPPY))
    clock.seconds(0.6)
    assert clock.show((PLACE, HAPPY))[0].track_id == 1
    clock.seconds(1.5)
    assert clock.seconds(1.0, (PLACE, HAPPY))[-1][0].track_id == 2


def test_two_faces_keep_their_identities_in_whatever_order_they_are_found() -> None:
    clock = Clock(FaceTracker())
    other = Box(300, 80, 60, 60)
    for index in range(20):
        pair = [(PLACE, HAPPY), (other, SAD)]
        faces = clock.show(*(pair if index % 2 else pair[::-1]))
    assert [(face.track_id, face.label) for face in faces] == [(1, "happy"), (2, "sad")] or [
        (face.track_id, face.label) for face in faces
    ] == [(1, "sad"), (2, "happy")]
    assert {face.label: face.box.x for face in faces} == {"happy": 100, "sad": 300}


def test_a_fast_move_without_overlap_is_one_face() -> None:
    clock = Clock(FaceTracker(TrackerSettings(min_iou=0.5, reach=0.7)))
    for index in range(10):
        faces = clock.show((dataclasses.replace(PLACE, x=40 * index), HAPPY))
    assert [face.track_id for face in faces] == [1]
    assert abs(faces[0].box.x - 360) <= 4  # followed immediately, without lag


def test_a_jump_across_the_image_is_another_face() -> None:
    clock = Clock(FaceTracker())
    clock.seconds(1.0, (PLACE, HAPPY))
    far = dataclasses.replace(PLACE, x=400)
    assert clock.seconds(1.0, (far, HAPPY))[-1][0].track_id == 2


def test_a_small_face_in_front_of_a_large_one_is_not_taken_for_it() -> None:
    clock = Clock(FaceTracker())
    clock.seconds(1.0, (Box(100, 100, 200, 200), HAPPY))
    small = Box(180, 180, 40, 40)
    faces = clock.seconds(1.0, (Box(100, 100, 200, 200), HAPPY), (small, SAD))[-1]
    assert [face.track_id for face in faces] == [1, 2]


def test_the_box_of_a_still_face_shakes_less_than_the_detector() -> None:
    clock = Clock(FaceTracker())
    shown = []
    for index in range(60):
        shaken = dataclasses.replace(PLACE, x=PLACE.x + (2 if index % 2 else -2))
        faces = clock.show((shaken, HAPPY))
        shown += [face.box.x for face in faces[:1]]
    assert max(shown[10:]) - min(shown[10:]) < 4


def test_one_wrong_frame_does_not_change_the_label() -> None:
    clock = Clock(FaceTracker())
    clock.seconds(2.0, (PLACE, HAPPY))
    face = clock.show((PLACE, SAD))[0]
    assert (face.label, face.emotion.label) == ("happy", "sad")
    assert {faces[0].label for faces in clock.seconds(1.0, (PLACE, HAPPY))} == {"happy"}


def test_labels_that_alternate_every_frame_stand_still() -> None:
    clock = Clock(FaceTracker())
    happier, sadder = Emotion(LABELS, (0.5, 0.4, 0.1)), Emotion(LABELS, (0.4, 0.5, 0.1))
    labels = []
    for index in range(150):
        faces = clock.show((PLACE, sadder if index % 2 else happier))
        labels += [face.label for face in faces]
    assert len(set(labels)) == 1


@pytest.mark.parametrize("fps", [5, 15, 30, 60])
def test_a_real_change_shows_within_half_a_second_at_any_frame_rate(fps: float) -> None:
    clock = Clock(FaceTracker(), fps=fps)
    clock.seconds(2.0, (PLACE, HAPPY))
    labels = [faces[0].label for faces in clock.seconds(1.0, (PLACE, SAD))]
    assert labels.index("sad") / fps <= 0.5
    assert labels[-1] == "sad"


@pytest.mark.parametrize("fps", [5, 10, 60])
def test_smoothing_does_not_depend_on_the_frame_rate(fps: float) -> None:
    half_life = 0.4
    clock = Clock(FaceTracker(TrackerSettings(half_life_s=half_life)), fps=fps)
    clock.seconds(4.0, (PLACE, HAPPY))
    face = clock.seconds(half_life, (PLACE, SAD))[-1][0]
    assert face.shown.probabilities == pytest.approx((0.45, 0.45, 0.1), abs=1e-3)


def test_unsure_is_off_unless_asked_for() -> None:
    flat = Emotion(LABELS, (0.35, 0.33, 0.32))
    clock = Clock(FaceTracker())
    assert clock.seconds(1.0, (PLACE, flat))[-1][0].label == "happy"
    clock = Clock(FaceTracker(TrackerSettings(unsure_below=0.5)))
    assert clock.seconds(1.0, (PLACE, flat))[-1][0].label == UNSURE
    assert clock.seconds(1.0, (PLACE, SAD))[-1][0].label == "sad"
    assert clock.seconds(2.0, (PLACE, flat))[-1][0].label == UNSURE


def test_unsure_does_not_flicker_at_its_threshold() -> None:
    clock = Clock(FaceTracker(TrackerSettings(unsure_below=0.5)))
    above, below = Emotion(LABELS, (0.52, 0.28, 0.2)), Emotion(LABELS, (0.47, 0.3, 0.23))
    labels = []
    for index in range(300):
        faces = clock.show((PLACE, above if index // 10 % 2 else below))
        labels += [face.label for face in faces]
    assert sum(a != b for a, b in itertools.pairwise(labels)) <= 1


def test_a_talking_face_keeps_its_label_and_a_real_change_still_shows_soon() -> None:
    def changes(settings: TrackerSettings) -> int:
        clock, labels = Clock(FaceTracker(settings), fps=30), []
        for index in range(600):  # 20 s: half a second of one answer, a third of another
            talking = Emotion(LABELS, (0.75, 0.15, 0.1)) if index % 25 < 10 else SAD
            labels += [face.label for face in clock.show((PLACE, talking))]
        return sum(a != b for a, b in itertools.pairwise(labels))

    assert changes(TrackerSettings(calm_factor=1)) > 20
    assert changes(TrackerSettings()) <= 5
    clock = Clock(FaceTracker(), fps=30)
    for index in range(300):
        clock.show((PLACE, HAPPY if index % 25 < 10 else SAD))
    labels = [faces[0].label for faces in clock.seconds(2.5, (PLACE, HAPPY))]
    assert labels[-1] == "happy"


def test_a_label_needs_the_threshold_to_appear() -> None:
    settings = TrackerSettings(unsure_below=0.5)
    for start, expected in ((0.53, "happy"), (0.47, UNSURE)):
        clock = Clock(FaceTracker(settings))
        rest = (1 - start) / 2
        face = clock.seconds(1.0, (PLACE, Emotion(LABELS, (start, rest, rest))))[-1][0]
        assert face.label == expected


def test_a_clock_that_jumps_backwards_changes_nothing() -> None:
    clock = Clock(FaceTracker())
    clock.seconds(2.0, (PLACE, HAPPY))
    clock.now -= 3600 * 10**9
    face = clock.show((PLACE, HAPPY))[0]
    assert (face.track_id, face.label) == (1, "happy")
    labels = [faces[0].label for faces in clock.seconds(1.0, (PLACE, SAD))]
    assert labels[-1] == "sad"
    assert not clock.seconds(1.0)[-1]


def test_after_a_gap_nothing_is_known_any_more() -> None:
    clock = Clock(FaceTracker(TrackerSettings(gap_s=5)))
    clock.seconds(2.0, (PLACE, HAPPY))
    clock.now += 60 * 10**9
    assert clock.show((PLACE, SAD)) == ()
    face = clock.seconds(1.0, (PLACE, SAD))[-1][0]
    assert (face.track_id, face.label) == (2, "sad")


def test_a_frame_a_second_still_gives_one_identity() -> None:
    clock = Clock(FaceTracker(), fps=1)
    assert clock.seconds(10, (PLACE, HAPPY))[-1][0].track_id == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("half_life_s", 0),
        ("half_life_s", -1),
        ("box_half_life_s", 0),
        ("confirm_hits", 0),
        ("lead", 0.9),
        ("hold_s", -1),
        ("unsure_below", 1.5),
        ("unsure_below", -0.1),
        ("calm_s", 0),
        ("calm_factor", 0.5),
        ("half_life_s", math.nan),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        TrackerSettings(**{name: value})


boxes = st.builds(
    Box, st.integers(-50, 700), st.integers(-50, 500), st.integers(0, 300), st.integers(0, 300)
)
weights = st.tuples(*[st.floats(0.001, 1)] * 3)
moments = st.tuples(st.integers(-(10**9), 10**10), st.lists(st.tuples(boxes, weights), max_size=4))


@settings(max_examples=60, deadline=None)
@given(st.lists(moments, max_size=25))
def test_whatever_comes_identities_are_unique_and_probabilities_sum_to_one(
    frames: list[tuple[int, list[tuple[Box, tuple[float, ...]]]]],
) -> None:
    tracker = FaceTracker()
    now = 0
    for step, seen in frames:
        now += step
        answers = [
            (box, Emotion(LABELS, tuple(w / sum(weights) for w in weights)))
            for box, weights in seen
        ]
        faces = tracker.update(answers, now)
        ids = [face.track_id for face in faces]
        assert None not in ids
        assert len(set(ids)) == len(ids)
        for face in faces:
            assert sum(face.shown.probabilities) == pytest.approx(1)
            assert face.label in LABELS
            assert face.emotion.labels == LABELS
