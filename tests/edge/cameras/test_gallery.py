"""The demo camera: two portraits that come alive."""

from __future__ import annotations

import io
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion_edge import Pipeline, load
from emotion_edge.cameras import open_camera
from emotion_edge.cameras.demo import DemoCamera
from emotion_edge.cameras.gallery import SECONDS, GalleryCamera
from emotion_edge.model.shipped import shipped_models


@pytest.fixture(scope="module")
def gallery() -> GalleryCamera:
    camera = open_camera("demo:noise=0", paced=False)
    assert isinstance(camera, GalleryCamera)
    return camera.__enter__()


@pytest.fixture(scope="module")
def still() -> Pipeline:
    if "fast" not in shipped_models():
        pytest.skip("no model is shipped")
    return load("fast", detector="haar", unsure_below=0)


def at(seconds: float) -> int:
    return round(seconds * 15)


@pytest.mark.parametrize(
    ("seconds", "label"),
    [(0.4, "neutral"), (1.3, "happy"), (5.1, "surprise"), (7.9, "angry"), (9.1, "sad")],
)
def test_the_model_reads_each_expression(
    gallery: GalleryCamera, still: Pipeline, seconds: float, label: str
) -> None:
    faces = still.image(gallery.image_at(at(seconds))).faces
    assert min(faces, key=lambda face: face.box.x).label == label


def test_two_people_one_turns_away_and_a_hand_passes(
    gallery: GalleryCamera, still: Pipeline
) -> None:
    both = still.image(gallery.image_at(at(3.0))).faces
    assert sorted(face.label for face in both) == ["happy", "happy"]
    for seconds, left in ((6.8, True), (9.93, False)):  # turned away; a hand before the other
        (face,) = still.image(gallery.image_at(at(seconds))).faces
        assert (face.box.x < 320) == left


def test_it_knows_where_its_faces_are(gallery: GalleryCamera, still: Pipeline) -> None:
    for seconds in (1.0, 3.5, 6.8, 8.4):
        truth = gallery.boxes(at(seconds))
        found = [face.box for face in still.image(gallery.image_at(at(seconds))).faces]
        assert len(found) == len(truth) == (2 if seconds in (3.5, 8.4) else 1)
        assert all(max(box.iou(face) for face in found) > 0.4 for box in truth)


def test_frames_are_the_same_every_time_and_repeat() -> None:
    settings = {"width": 160, "height": 120, "noise": 2.0}
    with GalleryCamera(**settings) as one, GalleryCamera(**settings) as other:
        np.testing.assert_array_equal(one.image_at(77), other.image_at(77))
        assert (one.image_at(77) != one.image_at(78)).any()
        assert one.image_at(0).shape == (120, 160, 3)
    with GalleryCamera(colour=False, width=200, height=200) as gray:
        assert gray.image_at(at(SECONDS - 0.1)).shape == (200, 200)


def test_a_number_of_faces_gives_as_many_portraits_of_one_person() -> None:
    assert isinstance(open_camera("demo:faces=2"), DemoCamera)


def test_the_image_of_the_readme_is_drawn_from_it() -> None:
    path = Path(__file__).parents[3] / "edge" / "images" / "make_demo.py"
    draw = runpy.run_path(str(path))["draw"]
    data = draw(160, seconds=1.0)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.n_frames, image.size) == ("GIF", 8, (160, 110))
    with Image.open(path.with_name("demo.gif")) as shipped:
        assert shipped.n_frames == 90
    assert path.with_name("demo.gif").stat().st_size < 3_000_000
