from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_edge import annotate as annotating
from emotion_edge.annotate import annotate, colour_of, numbers
from emotion_edge.model.labels import EMOTIONS, UNSURE
from emotion_edge.values import Box, Emotion, Face


def face(box: Box, label: str = "happy", p: float = 0.91) -> Face:
    rest = (1 - p) / (len(EMOTIONS) - 1)
    emotion = Emotion(EMOTIONS, tuple(p if name == label else rest for name in EMOTIONS))
    return Face(box, emotion, label)


def count(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Pixels of nearly this colour."""
    return int((abs(image.astype(int) - colour).max(axis=2) < 12).sum())


@pytest.mark.parametrize("shape", [(480, 640), (480, 640, 3)])
def test_it_draws_into_a_copy(shape) -> None:
    image = np.zeros(shape, np.uint8)
    annotated = annotate(image, [face(Box(200, 150, 180, 180))])
    assert annotated.shape == (480, 640, 3) and annotated.dtype == np.uint8
    assert not image.any()
    assert count(annotated, colour_of("happy")) > 1000
    # The box lies where it should: coloured on its edges, untouched inside.
    assert count(annotated[148:153, 260:320], colour_of("happy")) > 60
    assert not annotated[200:300, 230:350].any()


def test_without_faces_the_image_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    annotated = annotate(image, [])
    assert (annotated == image).all() and not np.shares_memory(annotated, image)


def test_a_read_only_frame_will_do() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image.flags.writeable = False
    assert annotate(image, [face(Box(10, 10, 100, 100))]).any()


def test_boxes_of_a_reduced_image_are_in_place() -> None:
    image = np.zeros((1080, 1920, 3), np.uint8)
    annotated = annotate(image, [face(Box(960, 540, 480, 480))], width=480)
    assert annotated.shape == (270, 480, 3)
    rows, columns = np.nonzero((abs(annotated.astype(int) - colour_of("happy")) < 12).all(2))
    assert abs(columns.min() - 240) <= 2 and abs(columns.max() - 360) <= 2
    assert abs(rows.max() - 255) <= 2
    assert annotate(image[:300, :400], [], width=480).shape == (300, 400, 3)


def test_a_thumbnail_is_enlarged_until_its_label_is_legible() -> None:
    annotated = annotate(np.zeros((48, 48), np.uint8), [face(Box(4, 10, 40, 36))])
    assert annotated.shape == (336, 336, 3)
    assert count(annotated, colour_of("happy")) > 1500


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    neighbours = [face(Box(200, 200, 120, 120), "happy"), face(Box(230, 205, 120, 120), "sad")]
    annotated = annotate(image, neighbours)
    alone = [annotate(image, [each]) for each in neighbours]
    for single, label in zip(alone, ("happy", "sad"), strict=True):
        plate = count(single, colour_of(label))
        assert count(annotated, colour_of(label)) > 0.9 * plate


@pytest.mark.parametrize("label", [*EMOTIONS, UNSURE, "contempt", "überrascht", "радость"])
def test_every_label_can_be_read_on_its_plate(label) -> None:
    blue, green, red = colour_of(label)
    assert 0.114 * blue + 0.587 * green + 0.299 * red > 140  # light enough for dark text
    annotated = annotate(np.zeros((480, 640), np.uint8), [face(Box(200, 150, 180, 180), label)])
    assert count(annotated, colour_of(label)) > 1000


sides = st.integers(1, 700)
places = st.integers(-2000, 2000)


@settings(max_examples=60, deadline=None)
@given(
    height=sides,
    width=sides,
    boxes=st.lists(st.tuples(places, places, sides, sides), max_size=4),
    limit=st.none() | st.integers(16, 800),
)
def test_any_size_and_any_box(height, width, boxes, limit) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    annotated = annotate(image, [face(Box(*box)) for box in boxes], width=limit)
    assert annotated.ndim == 3 and annotated.shape[2] == 3 and annotated.dtype == np.uint8
    assert not image.any()
    if boxes:
        assert annotated.any()  # the label stays inside the image, wherever the box is


def plates(image: np.ndarray, faces: list[Face], monkeypatch, **options) -> list:
    """The texts and plates that ``annotate`` writes."""
    written = []
    write = annotating._write

    def note(canvas, tag, colour):
        written.append(tag)
        write(canvas, tag, colour)

    monkeypatch.setattr(annotating, "_write", note)
    annotate(image, faces, **options)
    return written


def apart(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return (
        one[0] >= other[0] + other[2]
        or other[0] >= one[0] + one[2]
        or one[1] >= other[1] + other[3]
        or other[1] >= one[1] + one[3]
    )


crowds = st.lists(st.tuples(places, places, st.integers(12, 400)), min_size=2, max_size=40)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(200, 900), width=st.integers(200, 1200), crowd=crowds)
def test_no_label_covers_another(height, width, crowd) -> None:
    with pytest.MonkeyPatch.context() as patch:
        faces = [face(Box(x % width, y % height, side, side)) for x, y, side in crowd]
        tags = plates(np.zeros((height, width, 3), np.uint8), faces, patch)
    for i, one in enumerate(tags):
        assert all(apart(one.plate, other.plate) for other in tags[:i])


def test_sixty_small_faces_each_have_a_whole_label(monkeypatch) -> None:
    grid = [Box(114 * x + 40, 142 * y + 14, 41, 41) for y in range(6) for x in range(10)]
    faces = [face(box, EMOTIONS[i % 7]) for i, box in enumerate(grid)]
    tags = plates(np.zeros((852, 1140, 3), np.uint8), faces, monkeypatch)
    assert sorted(int(tag.text.split()[0]) for tag in tags) == list(range(1, 61))
    assert all(tag.text.endswith("91%") for tag in tags)
    assert all(tag.size >= 0.38 for tag in tags)  # letters of 8 pixels


def test_a_label_is_as_large_as_its_face(monkeypatch) -> None:
    faces = [face(Box(200, 400, 60, 60)), face(Box(1600, 500, 700, 700))]
    small, large = plates(np.zeros((2160, 3840, 3), np.uint8), faces, monkeypatch)
    assert small.size < large.size / 2
    assert small.size > 0.8  # still letters of 8 pixels after halving a 4K image


def test_a_single_face_and_tracked_faces_have_no_number(monkeypatch) -> None:
    one = face(Box(200, 150, 180, 180))
    tracked = [replace(face(Box(x, 150, 90, 90)), track_id=x) for x in (10, 300)]
    image = np.zeros((480, 640, 3), np.uint8)
    assert [tag.text for tag in plates(image, [one], monkeypatch)] == ["happy 91%"]
    unsure = replace(one, label="unsure")  # the 91% are those of happy
    assert [tag.text for tag in plates(image, [unsure], monkeypatch)] == ["unsure"]
    assert [tag.text for tag in plates(image, tracked, monkeypatch)] == ["happy 91%"] * 2
    texts = [tag.text for tag in plates(image, tracked, monkeypatch, numbered=True)]
    assert sorted(texts) == ["1 happy 91%", "2 happy 91%"]


def test_faces_are_numbered_left_to_right_and_row_by_row() -> None:
    couple = [face(Box(500, 100, 90, 90)), face(Box(100, 320, 120, 120))]
    assert numbers(couple) == (2, 1)
    rows = [face(Box(150 * x + 3 * y, 200 * y + 5 * x, 60, 60)) for y in range(2) for x in range(4)]
    assert numbers(rows) == tuple(range(1, 9))
    assert numbers(rows[::-1]) == tuple(range(8, 0, -1))
    assert numbers([]) == ()
