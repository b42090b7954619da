from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_edge.cameras import find_camera, open_camera
from emotion_edge.cameras.photos import Photos
from emotion_edge.errors import CameraError, CameraNotFound, ImageError
from emotion_edge.values import Frame
from tests.edge.cameras.fakes import Events, random_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (10, 9, 1):
        cv2.imwrite(str(tmp_path / f"photo-{number}.png"), random_image(number))
    (tmp_path / "notes.txt").write_text("no photo")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def read_all(camera: Photos) -> list[Frame]:
    found = []
    with camera:
        while (frame := camera.read(1.0)) is not None:
            found.append(frame)
    return found


def test_a_folder_in_natural_order(folder: Path) -> None:
    camera = open_camera(folder)
    assert isinstance(camera, Photos) and not camera.live and camera.name == str(folder)
    found = read_all(camera)
    assert [path.name for path in camera.paths] == ["photo-1.png", "photo-9.png", "photo-10.png"]
    for frame, number in zip(found, (1, 9, 10), strict=True):
        np.testing.assert_array_equal(frame.image, random_image(number))
    assert [frame.index for frame in found] == [0, 1, 2]
    assert [frame.source for frame in found] == [str(path) for path in camera.paths]
    assert {frame.media_time_s for frame in found} == {0.0}
    assert list(np.diff([frame.captured_ns for frame in found])) == [1_000_000_000] * 2


def test_a_folder_may_be_called_like_a_camera(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(folder)
    (tmp_path / "video").symlink_to(folder)
    assert find_camera("photos") == find_camera(Path("photos")) == find_camera("photos:photos")
    assert find_camera("video") == find_camera("photos:video")
    elsewhere = {"photos": {"path": str(tmp_path)}}
    assert find_camera("photos", elsewhere) == find_camera(f"photos:{tmp_path}")


def test_one_photo_by_name_or_by_content(folder: Path) -> None:
    (folder / "unnamed").write_bytes((folder / "photo-1.png").read_bytes())
    for name in ("photo-1.png", "unnamed"):
        camera = open_camera(folder / name, colour=False)
        assert isinstance(camera, Photos)
        (frame,) = read_all(camera)
        assert frame.image.shape == (24, 32)


def test_a_damaged_photo_is_reported_and_left_out(folder: Path) -> None:
    (folder / "photo-9.png").write_bytes(b"damaged")
    events = Events()
    found = read_all(Photos(folder, on_event=events))
    assert [frame.index for frame in found] == [0, 2]
    assert events.kinds == ["camera.skipped"]
    assert "photo-9.png is not an image OpenCV can decode (7 bytes)" in events[0].message


def test_the_last_one_damaged_is_reported_too(folder: Path) -> None:
    (folder / "photo-10.png").write_bytes(b"damaged")
    events = Events()
    assert [frame.index for frame in read_all(Photos(folder, on_event=events))] == [0, 1]
    assert events.kinds == ["camera.skipped"]


def test_only_damaged_ones_are_an_error(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"damaged")
    events = Events()
    with pytest.raises(ImageError, match=r"b\.jpg is not an image"):
        read_all(Photos(tmp_path, on_event=events))
    assert events.kinds == ["camera.skipped"]
    with pytest.raises(ImageError, match=r"a\.jpg is not an image"):
        read_all(Photos(tmp_path / "a.jpg"))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CameraNotFound, match="has no images in it"):
        read_all(Photos(tmp_path))
    with pytest.raises(CameraNotFound, match="no image or folder"):
        read_all(Photos(tmp_path / "absent"))


def test_pace_stop_and_misuse(folder: Path) -> None:
    stop = threading.Event()
    camera = Photos(folder, fps=0.001, paced=True, stop=stop)
    with pytest.raises(CameraError, match="is not open"):
        camera.read(1)
    with camera:
        assert camera.read(1) is not None
        timer = threading.Timer(0.05, stop.set)
        timer.start()
        camera.read(200)
        timer.join()
        assert camera.read(200) is None
