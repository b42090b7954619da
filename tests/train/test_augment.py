"""Augmentation: what moves, moves as it says, and a seed decides everything."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from train.augment import Augmentation, affine, augment, warp

RNG = np.random.default_rng(0)
FACES = RNG.integers(0, 256, (9, 48, 48), np.uint8)
TARGETS = np.eye(7, dtype=np.float32)[RNG.integers(0, 7, 9)]


def one(**changes: float) -> np.ndarray:
    """A matrix for one image, identity but for ``changes``."""
    values = {"angle": 0.0, "scale_x": 1.0, "scale_y": 1.0, "shift_x": 0.0, "shift_y": 0.0}
    return affine(**{k: np.full(1, v, np.float32) for k, v in (values | changes).items()})


def test_off_changes_nothing() -> None:
    faces, targets = augment(FACES, TARGETS, Augmentation(), np.random.default_rng(1))
    assert faces.shape == (9, 48, 48, 1)
    assert faces.dtype == np.float32
    np.testing.assert_array_equal(faces[..., 0], FACES)
    np.testing.assert_array_equal(targets, TARGETS)


def test_warp_mirrors_shifts_and_turns() -> None:
    face = FACES[:1]
    np.testing.assert_array_equal(warp(face, one(scale_x=-1.0)), face[:, :, ::-1])
    moved = warp(face, one(shift_x=3.0))  # to the right, the left edge repeated
    np.testing.assert_array_equal(moved[:, :, 3:], face[:, :, :-3])
    np.testing.assert_array_equal(moved[:, :, :3], face[:, :, :1].repeat(3, axis=2))
    turned = warp(face, one(angle=np.pi / 2)).astype(int)
    best = min(np.abs(turned - np.rot90(face, k, axes=(1, 2)).astype(int)).max() for k in (1, 3))
    assert best <= 8  # OpenCV interpolates in steps of 1/32 pixel


def test_faces_of_a_batch_do_not_bleed_into_each_other() -> None:
    faces = np.zeros((3, 48, 48), np.uint8)
    faces[1] = 255
    how = Augmentation(rotation=45, shift=0.3, zoom=0.5)
    moved, _ = augment(faces, TARGETS[:3], how, np.random.default_rng(2))
    assert moved[0].max() == 0
    assert moved[1].min() == 255
    assert moved[2].max() == 0


def test_big_batches_exceed_opencvs_limit_unharmed() -> None:
    many = np.arange(1500, dtype=np.int64)[:, None, None] % 251
    faces = np.broadcast_to(many, (1500, 48, 48)).astype(np.uint8)
    identity = np.repeat(one(), 1500, axis=0)
    np.testing.assert_array_equal(warp(faces, identity), faces)


def test_a_seed_decides_the_batch() -> None:
    how = Augmentation(flip=True, rotation=20, zoom=0.2, erase=0.5, brightness=0.2, mixup=0.2)
    a, ta = augment(FACES, TARGETS, how, np.random.default_rng(5))
    b, tb = augment(FACES, TARGETS, how, np.random.default_rng(5))
    c, _ = augment(FACES, TARGETS, how, np.random.default_rng(6))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(ta, tb)
    assert np.abs(a - c).max() > 10
    assert a.min() >= 0
    assert a.max() <= 255


def test_mixing_keeps_targets_distributions() -> None:
    for how in (Augmentation(mixup=0.4), Augmentation(cutmix=1.0)):
        faces, targets = augment(FACES, TARGETS, how, np.random.default_rng(3))
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
        assert np.abs(targets - TARGETS).max() > 0.05
        assert np.abs(faces[..., 0] - FACES).max() > 10


def test_erasing_touches_a_rectangle_only() -> None:
    flat = np.full((50, 48, 48), 100, np.uint8)
    target = np.zeros((50, 7), np.float32)
    erased, _ = augment(flat, target, Augmentation(erase=1.0), np.random.default_rng(4))
    share = (erased != 100).mean(axis=(1, 2, 3))
    assert 0.01 < share.mean() < 0.15
    assert share.max() < 0.2


MANY = np.random.default_rng(8).integers(0, 256, (600, 48, 48), np.uint8)
NO_TARGETS = np.zeros((600, 7), np.float32)
BLUR, NOISE = Augmentation(blur=0.3), Augmentation(noise=0.3)


def seen(how: Augmentation, seed: int = 1, images: np.ndarray = MANY) -> np.ndarray:
    return augment(images, NO_TARGETS[: len(images)], how, np.random.default_rng(seed))[0][..., 0]


@pytest.mark.parametrize("how", [BLUR, NOISE], ids=["blur", "noise"])
def test_blur_and_noise_take_the_share_they_are_told(how: Augmentation) -> None:
    faces = seen(how)
    changed = (faces != MANY).any(axis=(1, 2))
    assert 0.2 < changed.mean() < 0.4  # 0.3, give or take five standard errors
    np.testing.assert_array_equal(faces[~changed], MANY[~changed])
    assert faces.min() >= 0
    assert faces.max() <= 255
    np.testing.assert_array_equal(seen(how), faces)
    assert (seen(how, seed=2) != faces).any()
    never = dataclasses.replace(how, blur=0.0, noise=0.0)
    np.testing.assert_array_equal(seen(never), MANY)


def test_blur_smooths_within_one_face() -> None:
    always = Augmentation(blur=1.0, blur_sigma=1.5)
    light = np.zeros((600, 48, 48), np.uint8)  # more than the channels of an OpenCV image
    light[1::2] = 255
    np.testing.assert_array_equal(seen(always, images=light), light)
    point = np.zeros((3, 48, 48), np.uint8)
    point[:, 24, 20] = 200
    for seed in range(5):
        one, two, three = seen(always, seed, point)
        assert one.sum() == pytest.approx(200, abs=0.5)
        assert 200 / (2 * np.pi * 1.5**2) * 0.9 < one.max() <= 200
        np.testing.assert_array_equal(one.argmax(), 24 * 48 + 20)
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


def test_noise_has_no_mean_and_at_most_its_sigma() -> None:
    gray = np.full((600, 48, 48), 128, np.uint8)
    grain = seen(Augmentation(noise=1.0, noise_sigma=12.0), images=gray) - 128
    sigmas = grain.std(axis=(1, 2))
    assert np.abs(grain.mean(axis=(1, 2))).max() < 5 * 12 / 48
    assert sigmas.max() < 12 * 1.1
    assert sigmas.mean() == pytest.approx(6, abs=0.8)  # uniform between 0 and 12
    assert np.abs(np.corrcoef(grain[:20].reshape(20, -1))[np.triu_indices(20, 1)]).max() < 0.12
