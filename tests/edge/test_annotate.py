from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_edge.annotate import annotate, colour_of
from emotion_edge.model.labels import EMOTIONS, UNSURE
from emotion_edge.values import Box, Emotion, Face


def face(box: Box, label: str = "happy", p: float = 0.91) -> Face:
    rest = (1 - p) / (len(EMOTIONS) - 1)
    emotion = Emotion(EMOTIONS, tuple(p if name == label else rest for name in EMOTIONS))
    return Face(box, emotion, label)


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Pixels of nearly this colour."""
    return int((abs(picture.astype(int) - colour).max(axis=2) < 12).sum())


@pytest.mark.parametrize("shape", [(480, 640), (480, 640, 3)])
def test_it_draws_into_a_copy(shape) -> None:
    image = np.zeros(shape, np.uint8)
    picture = annotate(image, [face(Box(200, 150, 180, 180))])
    assert picture.shape == (480, 640, 3) and picture.dtype == np.uint8
    assert not image.any()
    assert count(picture, colour_of("happy")) > 1000
    # The box lies where it should: coloured on its edges, untouched inside.
    assert count(picture[148:153, 260:320], colour_of("happy")) > 60
    assert not picture[200:300, 230:350].any()


def test_without_faces_the_picture_is_itself() -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    picture = annotate(image, [])
    assert (picture == image).all() and not np.shares_memory(picture, image)


def test_a_read_only_frame_will_do() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image.flags.writeable = False
    assert annotate(image, [face(Box(10, 10, 100, 100))]).any()


def test_reduced_pictures_have_their_boxes_in_place() -> None:
    image = np.zeros((1080, 1920, 3), np.uint8)
    picture = annotate(image, [face(Box(960, 540, 480, 480))], width=480)
    assert picture.shape == (270, 480, 3)
    rows, columns = np.nonzero((abs(picture.astype(int) - colour_of("happy")) < 12).all(2))
    assert abs(columns.min() - 240) <= 2 and abs(columns.max() - 360) <= 2
    assert abs(rows.max() - 255) <= 2
    assert annotate(image[:300, :400], [], width=480).shape == (300, 400, 3)


def test_a_thumbnail_is_enlarged_until_its_label_is_legible() -> None:
    picture = annotate(np.zeros((48, 48), np.uint8), [face(Box(4, 10, 40, 36))])
    assert picture.shape == (336, 336, 3)
    assert count(picture, colour_of("happy")) > 1500


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    neighbours = [face(Box(200, 200, 120, 120), "happy"), face(Box(230, 205, 120, 120), "sad")]
    picture = annotate(image, neighbours)
    alone = [annotate(image, [each]) for each in neighbours]
    for single, label in zip(alone, ("happy", "sad"), strict=True):
        plate = count(single, colour_of(label))
        assert count(picture, colour_of(label)) > 0.9 * plate


@pytest.mark.parametrize("label", [*EMOTIONS, UNSURE, "contempt", "überrascht", "радость"])
def test_every_label_can_be_read_on_its_plate(label) -> None:
    blue, green, red = colour_of(label)
    assert 0.114 * blue + 0.587 * green + 0.299 * red > 140  # light enough for dark text
    picture = annotate(np.zeros((480, 640), np.uint8), [face(Box(200, 150, 180, 180), label)])
    assert count(picture, colour_of(label)) > 1000


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
    picture = annotate(image, [face(Box(*box)) for box in boxes], width=limit)
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    assert not image.any()
    if boxes:
        assert picture.any()  # the label stays in the picture, wherever the box is
