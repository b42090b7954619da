"""Augmentation on JAX: the same changes as ``train.augment``."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.train.conftest import faces as generated
from train import augment as host
from train.augment import Augmentation

jax = pytest.importorskip("jax", reason="no JAX: pip install '.[jax]'")
from train import jax_augment as device  # noqa: E402

COUNT = 64


@pytest.fixture(scope="module")
def faces() -> NDArray[np.uint8]:
    rng = np.random.default_rng(5)
    images = generated(np.arange(COUNT) % 7, rng, noise=3)
    return np.asarray(images, np.uint8)


def targets() -> NDArray[np.float32]:
    return np.eye(7, dtype=np.float32)[np.arange(COUNT) % 7]


def changed(faces: NDArray[np.uint8], seed: int = 0, **how: object):
    """Faces (N, H, W) and targets after these changes."""
    out, kept = device.augment(faces, targets(), Augmentation(**how), jax.random.key(seed))
    assert out.shape == (COUNT, 48, 48, 1)
    return np.asarray(out[..., 0]), np.asarray(kept)


def test_nothing_to_do_changes_nothing(faces: NDArray[np.uint8]) -> None:
    out, kept = changed(faces)
    np.testing.assert_array_equal(out, faces)
    np.testing.assert_array_equal(kept, targets())


def test_a_warp_is_opencvs(faces: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(1)
    drawn = {
        "angle": rng.uniform(-0.3, 0.3, COUNT).astype(np.float32),
        "scale_x": np.where(rng.random(COUNT) < 0.5, -1.1, 0.9).astype(np.float32),
        "scale_y": rng.uniform(0.8, 1.2, COUNT).astype(np.float32),
        "shift_x": rng.uniform(-5, 5, COUNT).astype(np.float32),
        "shift_y": rng.uniform(-5, 5, COUNT).astype(np.float32),
    }
    matrices = host.affine(**drawn)
    np.testing.assert_allclose(device.affine(**drawn), matrices, atol=1e-6)
    ours = np.asarray(device.warp(faces.astype(np.float32), matrices))
    theirs = host.warp(faces, matrices).astype(np.float32)
    assert np.abs(ours - theirs).max() < 6  # OpenCV rounds coordinates to 1/32 pixel
    assert np.abs(ours - theirs).mean() < 0.5


def test_a_flip_is_a_mirror_of_half_of_the_faces(faces: NDArray[np.uint8]) -> None:
    out, _ = changed(faces, flip=True)
    same = np.isclose(out, faces, atol=0.01).all(axis=(1, 2))
    mirrored = np.isclose(out, faces[:, :, ::-1], atol=0.01).all(axis=(1, 2))
    assert (same ^ mirrored).all()
    assert 16 <= mirrored.sum() <= 48


def test_a_blur_is_opencvs(faces: NDArray[np.uint8]) -> None:
    import cv2

    sigma = np.linspace(0.3, 1.5, COUNT).astype(np.float32)
    ours = np.asarray(device.blur(faces.astype(np.float32), sigma, 1.5))
    for index in (0, 30, 63):
        theirs = cv2.GaussianBlur(
            faces[index].astype(np.float32),
            (11, 11),
            float(sigma[index]),
            borderType=cv2.BORDER_REPLICATE,
        )
        np.testing.assert_allclose(ours[index], theirs, atol=0.05)


@pytest.mark.parametrize(
    "how",
    [
        {"rotation": 12.0, "zoom": 0.12, "stretch": 0.1, "shift": 0.08},
        {"brightness": 0.15, "contrast": 0.25},
        {"noise": 0.5},
        {"blur": 0.5},
        {"erase": 0.5},
        {"cutmix": 1.0},
        {"mixup": 0.4},
    ],
)
def test_it_changes_as_much_as_on_the_host(faces: NDArray[np.uint8], how: dict[str, float]) -> None:
    """The mean change of a pixel over many draws is that of NumPy's augmentation."""
    ours = [np.abs(changed(faces, seed, **how)[0] - faces).mean() for seed in range(6)]
    theirs = [
        np.abs(
            host.augment(faces, targets(), Augmentation(**how), np.random.default_rng(seed))[0][
                ..., 0
            ]
            - faces
        ).mean()
        for seed in range(60)  # one sigma for a whole batch: it takes many
    ]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.2)


@pytest.mark.parametrize("how", [{"cutmix": 1.0}, {"mixup": 0.4}, {"cutmix": 0.5, "mixup": 0.4}])
def test_mixed_targets_are_still_shares(faces: NDArray[np.uint8], how: dict[str, float]) -> None:
    out, kept = changed(faces, **how)
    np.testing.assert_allclose(kept.sum(axis=1), 1, atol=1e-5)
    assert (kept.max(axis=1) < 1).any()
    assert out.min() >= 0 and out.max() <= 255


def test_only_calm_faces_talk(faces: NDArray[np.uint8]) -> None:
    calm = np.arange(COUNT) % 2 == 0
    variants, place = device.talking_variants(faces, calm, seed=1)
    assert variants.shape == (device.VARIANTS, 32, 48, 48)
    rows = np.arange(COUNT, dtype=np.int32)
    out = np.asarray(device.speaking(faces, rows, variants, place, 0.5, jax.random.key(2)))
    moved = (out != faces).any(axis=(1, 2))
    assert not moved[~calm].any()
    assert 8 <= moved.sum() <= 24
    for index in np.flatnonzero(moved):
        own = variants[:, place[index]]
        assert (own == out[index]).all(axis=(1, 2)).any()


def test_the_same_key_draws_the_same(faces: NDArray[np.uint8]) -> None:
    how = dataclasses.asdict(Augmentation(flip=True, rotation=10, erase=0.3, mixup=0.2))
    np.testing.assert_array_equal(changed(faces, 3, **how)[0], changed(faces, 3, **how)[0])
    assert (changed(faces, 3, **how)[0] != changed(faces, 4, **how)[0]).any()
