import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_edge import cli
from emotion_edge.cameras.demo import HOPPER
from emotion_edge.commands import detectors as command
from emotion_edge.detectors import DETECTORS, chosen_detector, haar, open_detector, yunet
from emotion_edge.detectors.geometry import Extent, Landmarks, distinct, reduce
from emotion_edge.detectors.haar import HaarDetector
from emotion_edge.detectors.scheduled import ScheduledDetector
from emotion_edge.errors import DetectorError, OutputExists, UsageError
from emotion_edge.values import Box, Image
from tests.faces import SHARED

WEIGHTS = SHARED / "models" / yunet.FILE
FACE = Box(245, 95, 160, 160)  # of the portrait below, by eye

needs_weights = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason=f"{yunet.FILE} is not at hand: it is fetched, not shipped"
)


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps the user's own weights out of the tests."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def portrait() -> Image:
    """A public-domain portrait, 640x480 BGR."""
    image = cv2.imread(str(HOPPER))
    canvas = np.full((480, 640, 3), 90, np.uint8)
    canvas[:, 115:525] = cv2.resize(image, (410, 480), interpolation=cv2.INTER_AREA)
    return canvas


@pytest.fixture
def at_home(data_home: Path) -> Iterator[Path]:
    """YuNet's weights where they are looked for."""
    if not WEIGHTS.is_file():
        pytest.skip(f"{yunet.FILE} is not at hand: it is fetched, not shipped")
    path = yunet.weights_path()
    path.parent.mkdir(parents=True)
    shutil.copyfile(WEIGHTS, path)
    yield path


def on_face(box: Box) -> bool:
    return box.iou(FACE) > 0.5


@pytest.mark.parametrize("scheduled", [False, True])
def test_haar_finds_the_one_face(portrait: Image, scheduled: bool) -> None:
    boxes = open_detector("haar", scheduled=scheduled).detect(portrait)
    assert [on_face(box) for box in boxes] == [True]
    assert boxes[0].width == boxes[0].height


@pytest.mark.parametrize("scheduled", [False, True])
def test_yunet_finds_the_one_face(portrait: Image, at_home: Path, scheduled: bool) -> None:
    boxes = open_detector("yunet", scheduled=scheduled).detect(portrait)
    assert [on_face(box) for box in boxes] == [True]
    assert 0.6 <= boxes[0].score <= 1


@pytest.mark.parametrize("name", DETECTORS)
def test_gray_and_colour_and_other_sizes_agree(portrait: Image, at_home: Path, name: str) -> None:
    detector = open_detector(name)
    colour = detector.detect(portrait)[0]
    gray = detector.detect(cv2.cvtColor(portrait, cv2.COLOR_BGR2GRAY))[0]
    cut = detector.detect(np.ascontiguousarray(portrait[:400, 40:]))[0]
    large = detector.detect(cv2.resize(portrait, (1280, 960)))[0]
    assert colour.iou(gray) > 0.8
    assert colour.iou(Box(cut.x + 40, cut.y, cut.width, cut.height)) > 0.8
    assert colour.iou(Box(large.x // 2, large.y // 2, large.width // 2, large.height // 2)) > 0.8


def test_haar_and_yunet_draw_the_same_box(portrait: Image, at_home: Path) -> None:
    first, second = (open_detector(name).detect(portrait)[0] for name in DETECTORS)
    assert first.iou(second) > 0.75


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("shape", [(480, 640, 3), (480, 640), (20, 20), (1, 1, 3), (3, 900)])
def test_no_face_where_there_is_none(at_home: Path, name: str, shape: tuple[int, ...]) -> None:
    assert open_detector(name).detect(np.full(shape, 120, np.uint8)) == []


def test_auto_is_haar_until_yunet_is_installed() -> None:
    assert chosen_detector() == "haar"


def test_auto_is_yunet_once_it_is_installed(at_home: Path) -> None:
    assert chosen_detector() == "yunet"


def test_an_unknown_detector_is_named() -> None:
    with pytest.raises(UsageError, match="'mtcnn': use auto, yunet, haar"):
        open_detector("mtcnn")


def test_yunet_without_weights_says_how_to_get_them() -> None:
    with pytest.raises(DetectorError, match="emotion-edge detectors get yunet"):
        open_detector("yunet")


def test_weights_that_were_changed_are_refused(at_home: Path) -> None:
    at_home.write_bytes(at_home.read_bytes()[:-1] + b"x")
    with pytest.raises(DetectorError, match="SHA-256"):
        open_detector("auto")


def test_weights_that_opencv_refuses_end_in_one_line(zoo: bytes) -> None:
    path = yunet.weights_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(zoo)
    with pytest.raises(DetectorError, match=r"refuses .*yunet.* 4\.8 or later") as caught:
        open_detector("yunet")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_cascade_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="not a cascade file"):
        HaarDetector(cascade=tmp_path / "absent.xml")


def test_debian_keeps_the_cascade_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(cv2.data.haarcascades)
    for cascade in ("haarcascade_frontalface_alt2.xml", "haarcascade_eye.xml"):
        shutil.copyfile(folder / cascade, tmp_path / cascade)
    monkeypatch.delattr(cv2, "data")
    monkeypatch.setattr(haar, "_DEBIAN", tmp_path / "absent")
    with pytest.raises(DetectorError, match="opencv-data"):
        HaarDetector()
    monkeypatch.setattr(haar, "_DEBIAN", tmp_path)
    assert HaarDetector().detect(np.zeros((100, 100), np.uint8)) == []


class FakeCascade:
    """Returns one square with so many hits; other ones for a window, which is not 4:3."""

    def __init__(self, hits: int, window_hits: int = 0) -> None:
        self.hits = hits
        self.window_hits = window_hits

    def detectMultiScale2(
        self, image: Image, *_: float, **__: object
    ) -> tuple[list[tuple[int, ...]], list[int]]:
        whole = image.shape[0] * 4 == image.shape[1] * 3
        hits = self.hits if whole else self.window_hits
        return ([(100, 100, 100, 100)], [hits]) if hits else ([], [])


@pytest.mark.parametrize(
    ("first", "window", "faces"), [(0, 20, 1), (0, 2, 0), (0, 0, 0), (20, 0, 1)]
)
def test_a_face_of_the_second_cascade_needs_the_first_ones_agreement(
    monkeypatch: pytest.MonkeyPatch, first: int, window: int, faces: int
) -> None:
    detector = HaarDetector(size=640, eyes=False, thorough=True)
    monkeypatch.setattr(haar, "_LEANS_DEG", ())
    monkeypatch.setattr(detector, "_cascade", FakeCascade(first, window))
    monkeypatch.setattr(detector, "_second", FakeCascade(5))
    assert len(detector.detect(FRAME)) == faces


@pytest.mark.parametrize(("window", "faces"), [(20, 1), (2, 0)])
def test_a_face_found_in_large_steps_must_show_in_a_second_look(
    monkeypatch: pytest.MonkeyPatch, window: int, faces: int
) -> None:
    detector = HaarDetector(size=None, eyes=False, again=True)
    monkeypatch.setattr(detector, "_cascade", FakeCascade(1, window))
    assert len(detector.detect(FRAME)) == faces


@pytest.mark.parametrize("angle", [-20.0, 20.0])
def test_haar_finds_a_leaning_face_in_a_still(portrait: Image, angle: float) -> None:
    middle = (FACE.x + FACE.width / 2, FACE.y + FACE.height / 2)
    turn = cv2.getRotationMatrix2D(middle, angle, 1.0)
    leaning = cv2.warpAffine(portrait, turn, (640, 480), borderMode=cv2.BORDER_REPLICATE)
    assert [on_face(box) for box in open_detector("haar").detect(leaning)] == [True]


def test_an_opencv_without_cascades_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(DetectorError, match="opencv-python-headless<5"):
        HaarDetector()


# The schedule.


class Fake:
    """Returns the given boxes, and logs the size of each image it receives."""

    def __init__(self, *boxes: Box) -> None:
        self.boxes = list(boxes)
        self.asked: list[tuple[int, ...]] = []

    def detect(self, image: Image) -> list[Box]:
        self.asked.append(image.shape[:2])
        return list(self.boxes)


FRAME = np.zeros((480, 640), np.uint8)


def test_an_empty_still_scene_is_searched_seldom_and_a_changing_one_often() -> None:
    full = Fake()
    detector = ScheduledDetector(full, Fake(), every=3, idle_every=15)
    assert [detector.detect(FRAME) for _ in range(30)] == [[]] * 30
    assert len(full.asked) == 2
    flicker = [FRAME, FRAME + 200]
    assert [detector.detect(flicker[i % 2]) for i in range(30)] == [[]] * 30
    assert 7 <= len(full.asked) - 2 <= 11


def test_what_comes_into_view_is_looked_for_right_away() -> None:
    full = Fake()
    detector = ScheduledDetector(full, Fake(Box(24, 24, 48, 48)), every=3, idle_every=1000)
    for _ in range(10):
        detector.detect(FRAME)
    assert len(full.asked) == 1
    full.boxes = [Box(300, 200, 100, 100)]
    moved = FRAME.copy()
    moved[200:300, 300:400] = 180
    assert detector.detect(moved) == full.boxes


def test_sensor_noise_is_no_change() -> None:
    full = Fake()
    detector = ScheduledDetector(full, Fake(), every=3, idle_every=1000)
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = rng.normal(120, 3, (480, 640, 3))
        detector.detect(np.clip(noise, 0, 255).astype(np.uint8))
    assert len(full.asked) == 1


def test_a_known_face_that_moves_is_no_change() -> None:
    full, window = Fake(Box(300, 200, 100, 100)), Fake(Box(24, 24, 48, 48))
    detector = ScheduledDetector(full, window, every=3, full_every=1000)
    detector.detect(FRAME)
    for step in range(20):
        moved = FRAME.copy()
        moved[200:300, 300 + step : 400 + step] = 180
        detector.detect(moved)
    assert len(full.asked) == 1


def test_what_is_not_sure_counts_only_if_its_window_shows_it() -> None:
    sure, faint = Box(300, 200, 100, 100, 0.9), Box(50, 50, 100, 100, 0.4)
    for shown in ([], [Box(30, 30, 50, 50, 0.7)]):
        detector = ScheduledDetector(Fake(sure, faint), Fake(*shown), sure=0.6, likely=0.5)
        assert len(detector.detect(FRAME)) == 1 + len(shown)


def test_a_known_face_is_followed_at_a_lower_score_than_a_new_one_needs() -> None:
    faint, window = Box(300, 200, 100, 100, 0.4), Fake(Box(24, 24, 48, 48, 0.4))
    detector = ScheduledDetector(Fake(faint), window, sure=0.6, likely=0.5, full_every=5)
    assert detector.detect(FRAME) == []
    window.boxes = [Box(24, 24, 48, 48, 0.5)]
    while not detector.detect(FRAME):
        pass
    window.boxes = [Box(24, 24, 48, 48, 0.4)]
    assert [len(detector.detect(FRAME)) for _ in range(30)] == [1] * 30


def test_a_face_that_only_a_part_shows_is_kept_and_reported_in_pixels_of_the_frame() -> None:
    full, window, part = Fake(), Fake(Box(24, 24, 60, 60)), Fake()
    detector = ScheduledDetector(
        full, window, part, part_every=4, part_size=320, reach=0.4, window_size=1000
    )
    for _ in range(200):
        detector.detect(FRAME)
    assert 8 <= len(part.asked) <= 40
    assert set(part.asked) == {(320, 320)}
    part.boxes = [Box(100, 100, 60, 60)]
    while not (found := detector.detect(FRAME)):
        pass
    assert found[0].x - 100 in (0, 160, 320) and found[0].y - 100 in (0, 160)
    part.boxes = []
    assert [len(detector.detect(FRAME)) for _ in range(100)] == [1] * 100  # whole searches too


def test_each_part_is_searched_in_the_first_frames() -> None:
    part = Fake()
    detector = ScheduledDetector(Fake(), Fake(), part, part_every=50)
    for _ in range(10):
        detector.detect(FRAME + 128)
    assert len(part.asked) == 6  # 3 x 2 of them


@pytest.mark.parametrize(("score", "faces"), [(0.7, 1), (0.5, 0)])
def test_a_faint_face_in_a_part_counts_once_its_window_shows_it(score: float, faces: int) -> None:
    part, window = Fake(Box(80, 60, 60, 60, 0.5)), Fake(Box(15, 15, 60, 60, score))
    detector = ScheduledDetector(Fake(), window, part, sure=0.75, likely=0.6, reach=0.25)
    detector.detect(FRAME)
    assert len(detector.detect(FRAME)) == faces


def test_the_part_that_changed_is_searched_first() -> None:
    class Seen(Fake):
        def detect(self, image: Image) -> list[Box]:
            self.asked.append((int(image.max()),))
            return []

    part = Seen()
    detector = ScheduledDetector(Fake(), Fake(), part, part_every=4)
    for _ in range(100):
        detector.detect(FRAME)
    part.asked.clear()
    moved = FRAME.copy()
    moved[440:, 600:] = 200
    for _ in range(8):
        detector.detect(moved)
    assert part.asked[0] == (200,)


def test_a_known_face_is_looked_for_in_its_window_and_the_frame_at_intervals() -> None:
    full, window = Fake(Box(300, 200, 100, 100)), Fake(Box(24, 24, 48, 48))
    detector = ScheduledDetector(full, window, full_every=10, window_every=2, still_every=2)
    counts = [len(detector.detect(FRAME)) for _ in range(40)]
    assert counts == [1] * 40
    assert len(full.asked) == 4
    assert set(full.asked) == {(480, 640)}
    assert 16 <= len(window.asked) <= 20
    assert all(max(shape) <= 96 for shape in window.asked)


def test_a_face_that_holds_still_is_looked_at_less_often_than_one_that_moves() -> None:
    looks = []
    for step in (0, 10):
        full, window = Fake(Box(100, 200, 100, 100)), Fake(Box(40 + step, 40, 100, 100))
        detector = ScheduledDetector(
            full, window, full_every=1000, window_every=2, still_every=5, window_size=1000
        )
        for _ in range(41):
            detector.detect(FRAME)
        looks.append(len(window.asked))
    still, moving = looks
    assert 8 <= still <= 10
    assert 19 <= moving <= 21


def test_a_faint_face_of_another_size_does_not_replace_a_known_one() -> None:
    known = Box(300, 200, 100, 100, 0.9)
    window = Fake(Box(40, 40, 100, 100, 0.7))
    detector = ScheduledDetector(
        Fake(known), window, sure=0.6, likely=0.5, full_every=1000, window_size=1000
    )
    for _ in range(6):
        detector.detect(FRAME)
    window.boxes = [Box(0, 0, 180, 180, 0.5)]
    assert [detector.detect(FRAME)[0].width for _ in range(10)] == [100] * 10
    window.boxes = [Box(0, 0, 180, 180, 0.6)]  # a sure one does: someone came closer
    assert any(detector.detect(FRAME)[0].width == 180 for _ in range(10))


def test_a_known_face_comes_before_a_faint_one_that_overlaps_it() -> None:
    class Places(Fake):
        def detect(self, image: Image) -> list[Box]:
            # Both windows show something likely where they were asked to look.
            return [Box(image.shape[1] // 4, image.shape[0] // 4, 100, 100, 0.5)]

    known, faint = Box(300, 200, 100, 100, 0.9), Box(340, 200, 100, 100, 0.4)
    full = Fake(known)
    detector = ScheduledDetector(
        full, Places(), sure=0.6, likely=0.5, full_every=6, window_size=1000, reach=0.5
    )
    for _ in range(4):
        detector.detect(FRAME)
    full.boxes = [faint]
    assert all(detector.detect(FRAME)[0].iou(known) > 0.9 for _ in range(6))


def test_a_box_found_in_a_window_comes_back_in_pixels_of_the_frame() -> None:
    box = Box(300, 200, 100, 100)
    # A window reaches 40 px beyond the box each way, and its 180 px are shrunk to 90.
    detector = ScheduledDetector(Fake(box), Fake(Box(25, 15, 50, 50)), reach=0.4, window_size=90)
    detector.detect(FRAME)
    assert detector.detect(FRAME) == [Box(310, 190, 100, 100)]


def test_a_lost_face_is_looked_for_in_the_whole_frame_at_once_and_then_gone() -> None:
    full, window = Fake(Box(300, 200, 100, 100)), Fake(Box(24, 24, 48, 48))
    detector = ScheduledDetector(full, window, full_every=1000, window_every=2)
    for _ in range(20):
        detector.detect(FRAME)
    before = len(full.asked)
    full.boxes, window.boxes = [], []
    counts = [len(detector.detect(FRAME)) for _ in range(10)]
    assert sum(counts) <= 3  # frames between looks, and one look that may miss it
    assert counts[4:] == [0] * 6
    assert len(full.asked) > before


def test_a_false_face_of_one_frame_is_reported_once() -> None:
    full, window = Fake(Box(300, 200, 100, 100)), Fake()
    detector = ScheduledDetector(full, window)
    assert len(detector.detect(FRAME)) == 1
    full.boxes = []
    assert [len(detector.detect(FRAME)) for _ in range(6)] == [0] * 6


def test_two_windows_never_end_on_one_face() -> None:
    full = Fake(Box(100, 100, 100, 100), Box(180, 100, 100, 100))
    window = Fake(Box(0, 0, 1, 1))

    class OneFace(Fake):
        def detect(self, image: Image) -> list[Box]:
            # Both windows see only the face at (140, 100): the left one from x=60, the right 140.
            self.asked.append(image.shape)
            left = 80 if len(self.asked) % 2 else 0
            return [Box(left, 40, 100, 100)]

    window = OneFace()
    detector = ScheduledDetector(full, window, window_size=1000)
    detector.detect(FRAME)
    full.boxes = [Box(140, 100, 100, 100)]
    assert detector.detect(FRAME) == full.boxes


def test_a_frame_of_another_size_starts_afresh() -> None:
    full = Fake(Box(300, 200, 100, 100))
    detector = ScheduledDetector(full, Fake(Box(24, 24, 48, 48)))
    detector.detect(FRAME)
    detector.detect(np.zeros((240, 320), np.uint8))
    assert full.asked == [(480, 640), (240, 320)]


def test_a_known_face_outside_a_window_of_nothing_is_lost() -> None:
    full = Fake(Box(640, 480, 10, 10))
    detector = ScheduledDetector(full, Fake(Box(0, 0, 9, 9)), reach=0)
    detector.detect(FRAME)
    full.boxes = []
    assert detector.detect(FRAME) == []


@pytest.mark.parametrize("name", DETECTORS)
def test_the_schedule_follows_a_moving_face(portrait: Image, at_home: Path, name: str) -> None:
    detector = open_detector(name, scheduled=True)
    start = detector.detect(portrait)[0]
    for step in range(1, 25):
        boxes = detector.detect(np.roll(portrait, 4 * step, axis=1))
        moved = Box(start.x + 4 * step, start.y, start.width, start.height)
        assert [box.iou(moved) > 0.6 for box in boxes] == [True]


# Geometry.

sizes = st.integers(1, 300)
boxes = st.builds(Box, st.integers(-99, 500), st.integers(-99, 500), sizes, sizes, st.floats(0, 1))


@given(st.lists(boxes, max_size=8))
def test_distinct_keeps_every_face_once_and_the_surest_always(found: list[Box]) -> None:
    kept = distinct(found)
    assert set(kept) <= set(found)
    assert distinct(kept) == kept
    assert [box.area for box in kept] == sorted((box.area for box in kept), reverse=True)
    if found:
        assert max(box.score for box in found) in {box.score for box in kept}


def test_a_box_inside_another_is_the_same_face() -> None:
    outer, inner = Box(0, 0, 100, 100, 0.9), Box(30, 30, 30, 30, 0.8)
    assert distinct([inner, outer]) == [outer]


@settings(deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 640))
def test_reduce_keeps_the_longer_side_to_the_limit(height: int, width: int, limit: int) -> None:
    small, span = reduce(np.zeros((height, width), np.uint8), limit)
    assert max(small.shape) == min(max(height, width), limit)
    assert span == pytest.approx(max(1, max(height, width) / limit))


def test_an_extent_scales_and_shifts_a_box_about_its_centre() -> None:
    assert Extent().box(10, 20, 40, 40, 0.5) == Box(10, 20, 40, 40, 0.5)
    assert Extent(side=1.5, down=0.1).box(10, 20, 40, 40, 0.5) == Box(0, 14, 60, 60, 0.5)
    assert Extent().box(10, 10, 20, 80, 1.0) == Box(0, 30, 40, 40, 1.0)


def test_a_box_by_landmarks_moves_towards_the_back_of_a_turned_head() -> None:
    extent = Landmarks(side=1.0, down=0.0, aside=0.1)

    def centre(nose: float, turned: bool = False) -> tuple[float, float]:
        points = ((-10, -10), (10, -10), (nose, 0), (-10, 10), (10, 10))
        if turned:  # lying on its side: down is to the left
            points = tuple((-y, x) for x, y in points)
        box = extent.box(900, 900, tuple((500 + x, 500 + y) for x, y in points), 1.0)
        return box.x + box.width / 2, box.y + box.height / 2

    assert centre(0) == (500, 500)
    assert centre(-5)[0] > 503 and abs(centre(-5)[1] - 500) < 1
    assert centre(5)[0] < 497
    assert centre(5, turned=True)[1] < 497 and abs(centre(5, turned=True)[0] - 500) < 3


# emotion-edge detectors.


def answer(monkeypatch: pytest.MonkeyPatch, *answers: bytes | Exception) -> list[str]:
    """Let the network give these, one for each request; the addresses asked for."""
    asked: list[str] = []
    rest = list(answers)

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        assert timeout > 0
        asked.append(url)
        reply = rest.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return io.BytesIO(reply)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return asked


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Bytes that pass for OpenCV's file."""
    data = b"weights" * 1000
    monkeypatch.setattr(yunet, "SHA256", hashlib.sha256(data).hexdigest())
    return data


def run(*words: str) -> int:
    return cli.main(["detectors", *words])


def test_get_fetches_verifies_and_leaves_nothing_beside(
    zoo: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answer(monkeypatch, zoo)
    assert run("get", "yunet") == 0
    assert asked == [yunet.URLS[0]]
    path = yunet.weights_path()
    assert path.read_bytes() == zoo
    assert [file.name for file in path.parent.iterdir()] == [yunet.FILE]
    assert str(path) in capsys.readouterr().out


def test_get_takes_the_mirror_when_the_zoo_gives_another_file(
    zoo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer(monkeypatch, b"version https://git-lfs.github.com/spec/v1", zoo)
    assert run("get", "yunet") == 0
    assert asked == list(yunet.URLS)


def test_get_without_a_network_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, URLError("Name or service not known"), TimeoutError("timed out"))
    assert run("get", "yunet") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "github.com: Name or service not known" in error
    assert "--from FILE" in error
    assert not yunet.weights_path().exists()


def test_get_keeps_another_file_unless_told(
    zoo: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = yunet.weights_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    source = tmp_path / "copy.onnx"
    source.write_bytes(zoo)
    with pytest.raises(OutputExists):
        command.get_weights("yunet", source)
    assert path.read_bytes() == b"mine"
    command.get_weights("yunet", source, overwrite=True)
    assert path.read_bytes() == zoo
    asked = answer(monkeypatch)
    assert command.get_weights("yunet") == path
    assert asked == []


def test_get_from_a_wrong_or_absent_file_leaves_what_is_there(zoo: bytes, tmp_path: Path) -> None:
    path = yunet.weights_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(zoo)
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"other")
    with pytest.raises(DetectorError, match="SHA-256"):
        command.get_weights("yunet", wrong, overwrite=True)
    with pytest.raises(DetectorError, match="No such file"):
        command.get_weights("yunet", tmp_path / "absent", overwrite=True)
    assert path.read_bytes() == zoo


def test_list_tells_what_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list") == 0
    out = capsys.readouterr().out
    assert "haar   ready" in out
    assert "yunet  absent" in out
    assert "auto   haar" in out
    path = yunet.weights_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"broken")
    assert run("list") == 0
    assert "yunet  broken" in capsys.readouterr().out


@needs_weights
def test_list_after_get_from_a_local_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("get", "yunet", "--from", str(WEIGHTS)) == 0
    assert run("list") == 0
    out = capsys.readouterr().out
    assert "yunet  ready" in out
    assert "auto   yunet" in out
