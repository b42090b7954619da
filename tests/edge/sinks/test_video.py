from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_edge.errors import OutputExists, SinkError
from emotion_edge.sinks.settings import VideoSettings
from emotion_edge.sinks.video import VideoSink
from emotion_edge.values import Frame, Observation

Usage = namedtuple("Usage", "total used free")


def read(path: Path) -> tuple[list[np.ndarray], float]:
    video = cv2.VideoCapture(str(path))
    pictures = []
    while True:
        there, picture = video.read()
        if not there:
            return pictures, video.get(cv2.CAP_PROP_FPS)
        pictures.append(picture)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".MP4"])
def test_a_video_with_boxes(suffix, tmp_path, observation, face) -> None:
    path = tmp_path / f"clip{suffix}"
    gray = np.full((240, 320, 3), 90, np.uint8)
    with VideoSink(VideoSettings(path=path, reserve_mb=0), fps=20, paced=False) as sink:
        assert str(path) in sink.announcement and "RECORDING" in sink.announcement
        for index in range(12):
            sink.write(Observation(Frame(gray, index, index), (face("happy"),)))
        assert not path.exists()  # its name comes with its completeness
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    pictures, fps = read(path)
    assert (len(pictures), fps) == (12, 20)
    assert pictures[0].shape == (240, 320, 3)
    blue, green, red = pictures[6].reshape(-1, 3).astype(int).T
    assert ((red > 180) & (green > 160) & (blue < 130)).sum() > 200  # happy is yellow


def test_odd_sizes_and_a_change_of_size(tmp_path, observation) -> None:
    path = tmp_path / "clip.avi"
    with VideoSink(VideoSettings(path=path, reserve_mb=0), paced=False) as sink:
        sink.write(observation(0, size=(321, 241)))
        sink.write(observation(1, size=(640, 480)))
    pictures, _ = read(path)
    assert [picture.shape for picture in pictures] == [(242, 322, 3)] * 2


@pytest.mark.parametrize("camera_fps", [5, 15, 60])
def test_a_live_recording_runs_at_lifes_speed(camera_fps, tmp_path, observation) -> None:
    path = tmp_path / "clip.avi"
    with VideoSink(VideoSettings(path=path, fps=15, reserve_mb=0)) as sink:
        for index in range(2 * camera_fps):  # two seconds
            sink.write(observation(index, at_s=100 + index / camera_fps))
    assert len(read(path)[0]) == pytest.approx(30, abs=3)


def test_an_hour_without_a_camera_is_not_filled_up(tmp_path, observation) -> None:
    path = tmp_path / "clip.avi"
    with VideoSink(VideoSettings(path=path, fps=10, reserve_mb=0)) as sink:
        for at_s in (0.0, 0.1, 0.2, 3600.0, 3600.1, 3600.2):
            sink.write(observation(0, at_s=at_s))
    assert len(read(path)[0]) == 6


def test_an_existing_video_is_kept_unless_told_otherwise(tmp_path, observation) -> None:
    path = tmp_path / "clip.avi"
    path.write_bytes(b"precious")
    with pytest.raises(OutputExists), VideoSink(VideoSettings(path=path)):
        pass
    with VideoSink(VideoSettings(path=path, overwrite=True, reserve_mb=0)) as sink:
        sink.write(observation(0))
        assert path.read_bytes() == b"precious"
    assert len(read(path)[0]) == 1


def test_no_picture_leaves_no_file(tmp_path) -> None:
    with VideoSink(VideoSettings(path=tmp_path / "clip.mp4", reserve_mb=0)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_it_ends_before_the_disk_is_full_with_a_complete_file(
    tmp_path, observation, monkeypatch
) -> None:
    path, free = tmp_path / "clip.mp4", [5e9]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e10, 0, free[0]))
    monkeypatch.setattr("emotion_edge.sinks.video._LOOK_S", 0.0)
    with VideoSink(VideoSettings(path=path), paced=False) as sink:
        for index in range(5):
            sink.write(observation(index))
        free[0] = 5e7
        for _ in range(2):
            with pytest.raises(SinkError, match=r"50 MB are free .* fewer than the 100 MB kept"):
                sink.write(observation(9))
        assert len(read(path)[0]) == 5
    assert [each.name for each in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_full_disk_or_no_folder_is_said_before_the_first_picture(tmp_path, monkeypatch) -> None:
    with (
        pytest.raises(SinkError, match="give a folder that exists"),
        VideoSink(VideoSettings(path=tmp_path / "absent" / "clip.avi")),
    ):
        pass
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e10, 0, 0))
    with (
        pytest.raises(SinkError, match="free some space"),
        VideoSink(VideoSettings(path=tmp_path / "clip.avi")),
    ):
        pass
