"""The search for faces of every size in one image."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_edge.detectors import FaceDetector, open_detector, yunet
from emotion_edge.detectors.geometry import reduce
from emotion_edge.detectors.stills import StillDetector, _tiles
from emotion_edge.errors import UsageError
from emotion_edge.model.preprocessing import read_image
from emotion_edge.values import Box, Image
from tests.faces import SHARED

SMALLEST = 16


class Squares:
    """Finds white squares of at least 16 pixels in what it is given, whole or cut."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size
        self.asked: list[tuple[int, ...]] = []

    def detect(self, image: Image) -> list[Box]:
        small, span = reduce(image, self.size) if self.size else (image, 1.0)
        self.asked.append(small.shape)
        count, _, stats, _ = cv2.connectedComponentsWithStats((small > 127).astype(np.uint8))
        found = [Box(*(int(n) for n in stats[i, :4])).placed(span) for i in range(1, count)]
        return [box for box in found if max(box.width, box.height) >= SMALLEST * span]


def drawn(height: int, width: int, *squares: tuple[int, int, int]) -> Image:
    image = np.zeros((height, width), np.uint8)
    for x, y, side in squares:
        image[y : y + side, x : x + side] = 255
    return image


def still(**options: object) -> StillDetector:
    return StillDetector(
        Squares(640),
        Squares(),
        size=640,
        whole_finds=SMALLEST,
        tile_finds=SMALLEST,
        **options,  # type: ignore[arg-type]
    )


def test_faces_of_every_size_are_found_once() -> None:
    squares = ((100, 100, 30), (1500, 1200, 45), (1900, 300, 150), (2600, 700, 1300))
    found = still().detect(drawn(3000, 4000, *squares))
    assert len(found) == len(squares)
    for box, (x, y, side) in zip(found, sorted(squares, key=lambda one: -one[2]), strict=True):
        assert box.iou(Box(x, y, side, side)) > 0.8


@given(st.integers(0, 3960), st.integers(0, 2960), st.integers(26, 120))
def test_a_small_face_is_found_wherever_it_is(x: int, y: int, side: int) -> None:
    x, y = min(x, 4000 - side), min(y, 3000 - side)
    found = still().detect(drawn(3000, 4000, (x, y, side)))
    assert [box.iou(Box(x, y, side, side)) > 0.7 for box in found] == [True]


def test_an_image_in_which_the_whole_shows_enough_is_searched_once() -> None:
    detector = still(min_face=24)
    detector.detect(drawn(600, 900))
    assert len(detector.tile.asked) == 0
    detector.detect(drawn(900, 1100))
    assert len(detector.tile.asked) == 1


def test_a_smaller_face_needs_a_finer_search() -> None:
    image = drawn(1000, 1000, (400, 400, 14))
    assert still().detect(image) == []
    assert len(still(min_face=12).detect(image)) == 1


def test_faces_smaller_than_asked_for_are_dropped() -> None:
    image = drawn(600, 600, (100, 100, 60), (300, 300, 200))
    assert [box.width for box in still(min_face=100).detect(image)] == [200]


def test_no_tile_is_searched_after_the_time_is_over() -> None:
    def clock() -> Iterator[float]:
        now = 0.0
        while True:
            yield now
            now += 1.0

    ticks = clock()
    detector = still(max_seconds=2.5, clock=lambda: next(ticks))
    image = drawn(3000, 4000, (1900, 1400, 40), (3900, 2900, 40), (500, 500, 900))
    found = detector.detect(image)
    assert len(detector.tile.asked) == 2
    assert [box.width > 500 for box in found[:1]] == [True]  # the whole image always counts
    assert not any(box.iou(Box(3900, 2900, 40, 40)) > 0.5 for box in found)
    assert 0 < detector.unsearched < 1
    detector = still()
    assert len(detector.detect(image)) == 3
    assert detector.unsearched == 0


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 600), st.floats(0.3, 2))
def test_tiles_cover_the_image_and_share_a_face(
    height: int, width: int, largest: int, scale: float
) -> None:
    tiles = list(_tiles(height, width, scale, largest))
    for axis, extent in ((0, width), (1, height)):
        spans = sorted({(tile[axis], tile[axis + 2]) for tile in tiles})
        assert spans[0][0] == 0
        assert spans[-1][1] == extent
        assert len({end - start for start, end in spans}) == 1
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end - start >= largest


@pytest.mark.parametrize("wrong", [{"min_face": 0}, {"max_seconds": 0}, {"max_seconds": math.nan}])
def test_a_limit_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is .*: use"):
        still(**wrong)


# Real photographs, which are not part of the repository.

MEDIA = SHARED / "media"
PORTRAITS = {  # where the faces are, by eye
    "obama.jpg": (Box(339, 101, 301, 301),),
    "obama2.jpg": (Box(159, 248, 357, 357),),
    "two_people.jpg": (Box(222, 37, 179, 179), Box(766, 55, 188, 188)),
}
PATIENT = {"max_seconds": 3600}  # however busy the machine is


@pytest.fixture(params=["haar", "yunet"])
def detector(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FaceDetector:
    """A detector for single images."""
    if not (MEDIA / "obama.jpg").is_file():
        pytest.skip(f"no photographs in {MEDIA}: set EMOTION_EDGE_SHARED")
    if request.param == "yunet":
        weights = SHARED / "models" / yunet.FILE
        if not weights.is_file():
            pytest.skip(f"no {yunet.FILE} in {weights.parent}: set EMOTION_EDGE_SHARED")
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        yunet.weights_path().parent.mkdir(parents=True)
        shutil.copyfile(weights, yunet.weights_path())
    return open_detector(request.param, changes=PATIENT)


def test_sixty_faces_of_38_pixels_are_found_in_a_montage(detector: FaceDetector) -> None:
    tile = cv2.resize(read_image(MEDIA / "obama.jpg"), (114, 142), interpolation=cv2.INTER_AREA)
    montage = np.vstack([np.hstack([tile] * 10)] * 6)
    faces = [Box(114 * x + 42, 142 * y + 13, 38, 38) for y in range(6) for x in range(10)]
    boxes = detector.detect(montage)
    least = 50 if detector.whole.name == "haar" else 55  # type: ignore[attr-defined]
    assert sum(any(face.iou(box) > 0.4 for box in boxes) for face in faces) >= least
    assert len(boxes) <= 60


def test_seven_faces_of_very_different_sizes_are_found_in_a_4k_collage(
    detector: FaceDetector,
) -> None:
    canvas = np.full((2160, 3840, 3), 120, np.uint8)
    faces = []
    sources = [(name, box) for name, boxes in PORTRAITS.items() for box in boxes]
    sizes = (600, 320, 180, 110, 70, 48, 36)
    for i, (side, x) in enumerate(
        zip(sizes, (100, 1500, 2300, 2800, 3100, 3300, 3500), strict=True)
    ):
        name, box = sources[i % len(sources)]
        image, scale = read_image(MEDIA / name), side / box.width
        room = box.width // 2
        left, top = max(0, box.x - room), max(0, box.y - room)
        part = image[top : box.y + box.height + room, left : box.x + box.width + room]
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        y = 200 + 150 * i
        canvas[y : y + part.shape[0], x : x + part.shape[1]] = part[: 2160 - y, : 3840 - x]
        faces.append(Box(round(box.x - left), round(box.y - top), box.width, box.height))
        faces[-1] = faces[-1].placed(scale, x, y)
    boxes = detector.detect(canvas)
    assert [any(face.iou(box) > 0.4 for box in boxes) for face in faces] == [True] * 7


@pytest.mark.parametrize("name", PORTRAITS)
def test_single_portraits_lose_nothing(detector: FaceDetector, name: str) -> None:
    boxes = detector.detect(read_image(MEDIA / name))
    for face in PORTRAITS[name]:
        assert sum(box.iou(face) > 0.5 for box in boxes) == 1
