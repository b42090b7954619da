"""Boxes, emotions and faces."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_edge import EMOTIONS, Box, Emotion, Face

boxes = st.builds(
    Box, st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 80), st.integers(1, 80)
)


@given(boxes, boxes)
def test_iou_equals_counting_pixels(one: Box, other: Box) -> None:
    def pixels(box: Box) -> set[tuple[int, int]]:
        return {
            (x, y)
            for x in range(box.x, box.x + box.width)
            for y in range(box.y, box.y + box.height)
        }

    shared, union = pixels(one) & pixels(other), pixels(one) | pixels(other)
    assert one.iou(other) == pytest.approx(len(shared) / len(union))
    assert one.iou(other) == other.iou(one)


def test_emotion_names_the_most_probable_label() -> None:
    emotion = Emotion(EMOTIONS, (0.1, 0.0, 0.0, 0.6, 0.1, 0.1, 0.1))
    assert (emotion.label, emotion.confidence) == ("happy", 0.6)


def test_a_face_shows_smoothed_probabilities_where_it_is_tracked() -> None:
    now, smooth = Emotion(("a", "b"), (0.9, 0.1)), Emotion(("a", "b"), (0.4, 0.6))
    box = Box(0, 0, 10, 10)
    assert Face(box, now, "a").shown is now
    assert Face(box, now, "b", track_id=1, smoothed=smooth).shown is smooth


def test_values_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Box(0, 0, 1, 1).x = 3  # type: ignore[misc]
