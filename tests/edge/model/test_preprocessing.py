"""The one crop that device and workstation share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_edge.errors import ImageError
from emotion_edge.model.manifest import InputSpec
from emotion_edge.model.preprocessing import crop_face, face_input, read_image, resize_to_input
from emotion_edge.values import Box


def gradient(height: int = 120, width: int = 160) -> np.ndarray:
    """An image whose pixel values are their column numbers."""
    return np.tile(np.arange(width, dtype=np.uint8), (height, 1))


def test_a_square_inside_the_frame_is_a_view() -> None:
    image = gradient()
    crop = crop_face(image, Box(20, 30, 40, 40))
    assert np.shares_memory(crop, image)
    assert np.array_equal(crop, image[30:70, 20:60])


def test_margin_adds_its_share_on_each_side() -> None:
    crop = crop_face(gradient(), Box(40, 40, 40, 40), margin=0.25)
    assert crop.shape == (60, 60)
    assert (crop[0, 0], crop[0, -1]) == (30, 89)


def test_a_tall_box_becomes_a_square_around_its_centre() -> None:
    crop = crop_face(gradient(), Box(60, 30, 20, 40))
    assert crop.shape == (40, 40)
    assert (crop[0, 0], crop[0, -1]) == (50, 89)


@given(st.integers(-60, 159), st.integers(-60, 119), st.integers(1, 90), st.floats(-0.2, 0.6))
def test_over_the_edge_the_last_pixels_repeat(x: int, y: int, side: int, margin: float) -> None:
    image = gradient()
    try:
        crop = crop_face(image, Box(x, y, side, side), margin)
    except ImageError:
        return
    expected = max(1, round(side * (1 + 2 * margin)))
    assert crop.shape == (expected, expected)
    left = x + (side - expected) // 2
    columns = np.clip(np.arange(left, left + expected), 0, 159)
    assert np.array_equal(crop[0], columns.astype(np.uint8))


def test_a_box_outside_the_frame_is_refused() -> None:
    with pytest.raises(ImageError, match="outside the 160x120 image"):
        crop_face(gradient(), Box(500, 0, 20, 20))


GRAY = InputSpec(48, 48, 1, "gray")


def test_a_crop_that_needs_no_change_is_not_copied() -> None:
    face = np.zeros((48, 48), np.uint8)
    assert resize_to_input(face, GRAY) is face


def test_shrinking_averages() -> None:
    checkers = (np.indices((96, 96)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = resize_to_input(checkers, GRAY)
    assert small.shape == (48, 48)
    assert np.all(np.abs(small.astype(int) - 128) <= 1)


def test_colours_follow_the_manifest() -> None:
    blue = np.zeros((48, 48, 3), np.uint8)
    blue[..., 0] = 255
    rgb, bgr = InputSpec(48, 48, 3, "rgb"), InputSpec(48, 48, 3, "bgr")
    assert resize_to_input(blue, GRAY)[0, 0] == 29  # BT.601: 0.114 * 255
    assert resize_to_input(blue, rgb)[0, 0].tolist() == [0, 0, 255]
    assert resize_to_input(blue, bgr)[0, 0].tolist() == [255, 0, 0]
    assert resize_to_input(np.full((48, 48), 7, np.uint8), rgb)[0, 0].tolist() == [7, 7, 7]


@pytest.mark.parametrize("side", [30, 48, 71, 160])
def test_gray_and_colour_frames_of_one_image_give_the_same_input(side: int) -> None:
    colour = np.random.default_rng(side).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    gray = np.asarray(cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    box = Box(20, 20, side, side)
    assert np.array_equal(face_input(colour, box, GRAY), face_input(gray, box, GRAY))


def test_the_whole_step_crops_with_the_manifests_margin() -> None:
    spec = InputSpec(60, 60, 1, "gray", margin=0.25)
    assert np.array_equal(
        face_input(gradient(), Box(40, 40, 40, 40), spec),
        crop_face(gradient(), Box(40, 40, 40, 40), margin=0.25),
    )


@pytest.mark.parametrize("shape", [(0, 48), (48, 48, 4), (48,)])
def test_a_crop_that_is_not_an_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="expected gray"):
        resize_to_input(np.zeros(shape, np.uint8), GRAY)


def test_read_image_turns_by_exif(tmp_path: Path) -> None:
    from PIL import Image  # part of the development environment

    path = tmp_path / "turned.jpg"
    turned = Image.new("RGB", (40, 20))
    exif = turned.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees to view
    turned.save(path, exif=exif)
    assert read_image(path).shape == (40, 20, 3)


def test_read_image_says_what_was_wrong(tmp_path: Path) -> None:
    absent, text, empty = tmp_path / "absent.jpg", tmp_path / "text.jpg", tmp_path / "empty.jpg"
    text.write_text("plain text")
    empty.touch()
    with pytest.raises(ImageError, match=r"cannot read .*absent\.jpg: No such file"):
        read_image(absent)
    with pytest.raises(ImageError, match=r"text\.jpg is not an image .* \(10 bytes\)"):
        read_image(text)
    with pytest.raises(ImageError, match=r"\(0 bytes\)"):
        read_image(empty)
    whole = cv2.imencode(".png", gradient())[1].tobytes()
    text.write_bytes(whole[: len(whole) // 8])
    with pytest.raises(ImageError, match="not an image"):
        read_image(text)


# Levelling.

UPRIGHT = ((70.0, 70.0), (110.0, 70.0), (90.0, 95.0), (75.0, 115.0), (105.0, 115.0))
GRAY = InputSpec(48, 48, 1, "gray")


def turned(angle: float, *, side: int = 96, channels: int = 1) -> tuple[np.ndarray, Box]:
    """A smooth image turned by so many degrees about (90, 90), and its face's box."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (9, 9, channels)).astype(np.uint8)
    image = cv2.resize(coarse, (180, 180), interpolation=cv2.INTER_CUBIC)
    matrix = cv2.getRotationMatrix2D((89.5, 89.5), -angle, 1.0)
    image = cv2.warpAffine(image, matrix, (180, 180), borderMode=cv2.BORDER_REPLICATE)
    turn = np.radians(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (np.array(UPRIGHT) - 90) @ rotation.T + 90
    corner = 90 - side // 2
    landmarks = tuple((float(x), float(y)) for x, y in points)
    return image, Box(corner, corner, side, side, landmarks=landmarks)


@pytest.mark.parametrize("angle", [-35.0, -20.0, 8.0, 20.0, 90.0])
@pytest.mark.parametrize("side", [30, 48, 96, 110])
def test_a_levelled_face_looks_as_the_upright_one(angle: float, side: int) -> None:
    straight, box = turned(0, side=side)
    expected = face_input(straight, box, GRAY).astype(int)
    level = face_input(*turned(angle, side=side), GRAY)
    assert level.shape == (48, 48) and level.dtype == np.uint8
    error = np.abs(level - expected).mean()
    untouched = face_input(*turned(angle, side=side), replace(GRAY, alignment="none"))
    assert error < 4
    assert error < np.abs(untouched - expected).mean() / 2


def test_an_upright_face_is_cropped_as_without_landmarks() -> None:
    image, box = turned(3.0)
    plain = resize_to_input(crop_face(image, box), GRAY)
    assert np.abs(face_input(image, box, GRAY).astype(int) - plain).max() <= 3


@given(st.integers(0, 60), st.integers(0, 60), st.integers(20, 320))
def test_a_crop_samples_the_square_and_nothing_else(x: int, y: int, side: int) -> None:
    rng = np.random.default_rng(side)
    image = cv2.resize(rng.integers(0, 255, (9, 9), np.uint8), (400, 400))
    expected = cv2.resize(image[y : y + side, x : x + side], (48, 48), interpolation=cv2.INTER_AREA)
    crop = face_input(image, Box(x, y, side, side), GRAY)
    assert np.abs(crop.astype(int) - expected).max() <= 6
    assert abs(float(crop.mean()) - float(expected.mean())) < 0.6


def test_a_colour_network_gets_colours_from_a_levelled_face() -> None:
    spec = InputSpec(64, 64, 3, "rgb")
    image, box = turned(20, channels=3)
    level = face_input(image, box, spec)
    swapped = face_input(np.ascontiguousarray(image[..., ::-1]), box, spec)
    assert level.shape == (64, 64, 3)
    assert np.array_equal(level, swapped[..., ::-1])


@pytest.mark.parametrize("side", [60, 110])
def test_a_face_is_levelled_for_a_network_whose_input_is_not_square(side: int) -> None:
    wide = InputSpec(40, 56, 1, "gray")
    straight, box = turned(0, side=side)
    expected = face_input(straight, box, wide).astype(int)
    level = face_input(*turned(20, side=side), wide)
    assert level.shape == (40, 56)
    assert np.abs(level - expected).mean() < 4


def test_a_levelled_face_over_the_edge_repeats_the_last_pixels() -> None:
    image, box = turned(20)
    level = face_input(image[:, 60:], box.placed(1, -60), GRAY)
    assert level.shape == (48, 48)
    with pytest.raises(ImageError, match="outside the 180x180 image"):
        face_input(image, box.placed(1, 500), GRAY)
