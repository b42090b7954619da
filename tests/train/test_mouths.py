"""Mouths move; the rest of the face and closed mouths stay."""

from __future__ import annotations

import numpy as np

from train.augment import Augmentation, augment
from train.mouths import is_frontal, mouth_rows, move_mouths


def face(mouth: int = 38) -> np.ndarray:
    """A bright oval with two eyes and a dark line for a mouth."""
    y, x = np.mgrid[:48, :48]
    image = np.where(((x - 23.5) / 17) ** 2 + ((y - 24) / 23) ** 2 < 1, 190, 60)
    image[16:19, 13:18] = image[16:19, 30:35] = 40
    image[mouth : mouth + 2, 17:31] = 70
    return image.astype(np.uint8)


def test_the_mouth_is_found() -> None:
    rows = mouth_rows(np.stack([face(37), face(39)]))
    assert np.abs(rows - [37.5, 39.5]).max() <= 1.5


def test_an_open_mouth_is_dark_inside_and_leaves_the_eyes_alone() -> None:
    faces = face()[None]
    one = np.ones(1, np.float32)
    np.testing.assert_array_equal(move_mouths(faces, 0 * one, one), faces)
    opened = move_mouths(faces, 5 * one, one)
    assert opened[0, 38:42, 23].mean() < faces[0, 38:42, 23].mean() - 30
    np.testing.assert_array_equal(opened[0, :28], faces[0, :28])


def test_a_face_with_its_mouth_in_the_middle_is_frontal() -> None:
    turned = np.roll(face(), 9, axis=1)
    assert is_frontal(np.stack([face(), turned])).tolist() == [True, False]


def test_only_calm_faces_talk() -> None:
    faces = np.stack([face()] * 40)
    calm = np.arange(40) < 20
    target = np.zeros((40, 7), np.float32)
    rng = np.random.default_rng(0)
    out, same = augment(faces, target, Augmentation(talk=1.0), rng, calm)
    moved = (out[..., 0] != faces).any(axis=(1, 2))
    assert moved[:20].mean() > 0.8
    assert not moved[20:].any()
    np.testing.assert_array_equal(same, target)
