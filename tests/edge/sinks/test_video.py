from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_edge.errors import OutputExists, SinkError
from emotion_edge.sinks import encoding
from emotion_edge.sinks.video import VideoSettings, VideoSink
from emotion_edge.values import Frame, Observation

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(params=["ffmpeg", "opencv"])
def encoder(request, monkeypatch) -> str:
    """Run the test with each encoder of .mp4."""
    if request.param == "opencv":
        monkeypatch.setattr(encoding, "ffmpeg", lambda: None)
    elif encoding.ffmpeg() is None:
        pytest.skip("ffmpeg with libx264 is not installed")
    return request.param


def read(path: Path) -> tuple[list[np.ndarray], float]:
    video = cv2.VideoCapture(str(path))
    frames = []
    while True:
        there, frame = video.read()
        if not there:
            return frames, video.get(cv2.CAP_PROP_FPS)
        frames.append(frame)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".MP4"])
def test_a_video_with_boxes(suffix, tmp_path, observation, face, encoder) -> None:
    path = tmp_path / f"clip{suffix}"
    gray = np.full((240, 320, 3), 90, np.uint8)
    with VideoSink(VideoSettings(path=path, reserve_mb=0), fps=20, paced=False) as sink:
        assert str(path) in sink.announcement and "RECORDING" in sink.announcement
        for index in range(12):
            sink.write(Observation(Frame(gray, index, index), (face("happy"),)))
        assert not path.exists()  # it gets its name when it is complete
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    frames, fps = read(path)
    assert (len(frames), fps) == (12, 20)
    assert frames[0].shape == (240, 320, 3)
    blue, green, red = frames[6].reshape(-1, 3).astype(int).T
    assert ((red > 180) & (green > 160) & (blue < 130)).sum() > 200  # happy is yellow


def test_odd_sizes_and_a_change_of_size(tmp_path, observation) -> None:
    path = tmp_path / "clip.avi"
    with VideoSink(VideoSettings(path=path, reserve_mb=0), paced=False) as sink:
        sink.write(observation(0, size=(321, 241)))
        sink.write(observation(1, size=(640, 480)))
    frames, _ = read(path)
    assert [frame.shape for frame in frames] == [(242, 322, 3)] * 2


@pytest.mark.parametrize("camera_fps", [5, 15, 60])
def test_a_live_recording_runs_at_real_speed(camera_fps, tmp_path, observation) -> None:
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


def test_no_frame_leaves_no_file(tmp_path) -> None:
    with VideoSink(VideoSettings(path=tmp_path / "clip.mp4", reserve_mb=0)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_it_ends_before_the_disk_is_full_with_a_complete_file(
    tmp_path, observation, monkeypatch, encoder
) -> None:
    path, free = tmp_path / "clip.mp4", [5e9]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e10, 0, free[0]))
    monkeypatch.setattr("emotion_edge.sinks.video._SPACE_CHECK_S", 0.0)
    with VideoSink(VideoSettings(path=path), paced=False) as sink:
        for index in range(5):
            sink.write(observation(index))
        free[0] = 5e7
        for _ in range(2):
            with pytest.raises(SinkError, match="has 50 MB free, less than the 100 MB"):
                sink.write(observation(9))
        assert len(read(path)[0]) == 5
    assert [each.name for each in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_full_disk_or_no_folder_is_reported_before_the_first_frame(tmp_path, monkeypatch) -> None:
    with (
        pytest.raises(SinkError, match="use a folder that exists"),
        VideoSink(VideoSettings(path=tmp_path / "absent" / "clip.avi")),
    ):
        pass
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e10, 0, 0))
    with (
        pytest.raises(SinkError, match="free some space"),
        VideoSink(VideoSettings(path=tmp_path / "clip.avi")),
    ):
        pass


# Records numbered frames until it is killed.
RECORDER = """
import sys, time
from pathlib import Path
import numpy as np
from emotion_edge.sinks import encoding
from emotion_edge.sinks.video import VideoSettings
from emotion_edge.sinks.video import VideoSink
from emotion_edge.values import Frame, Observation
path, frames, encoder = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if encoder == "opencv":
    encoding.ffmpeg = lambda: None
noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
with VideoSink(VideoSettings(path=path, reserve_mb=0), fps=10, paced=False) as sink:
    for index in range(frames):
        sink.write(Observation(Frame(np.roll(noise, index, 1), index, index), ()))
    print("now", flush=True)
    time.sleep(600)
"""


def killed(path: Path, frames: int, encoder: str) -> None:
    """Run the recorder and kill it after so many frames."""
    with subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(path), str(frames), encoder],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("codec", "suffix", "frames", "kept_frames"),
    [
        ("ffmpeg", ".mp4", 60, 60),  # completes the file by itself once its input has ended
        ("opencv", ".mp4", 120, 50),  # a fragment has five seconds
        ("opencv", ".mp4", 30, 0),
        ("opencv", ".avi", 40, 1),  # OpenCV holds back up to 256 kB
    ],
)
def test_a_killed_recording_is_kept_reported_and_plays(
    codec, suffix, frames, kept_frames, tmp_path, observation, until
) -> None:
    if codec == "ffmpeg" and encoding.ffmpeg() is None:
        pytest.skip("ffmpeg with libx264 is not installed")
    path = tmp_path / f"hall{suffix}"
    killed(path, frames, codec)
    part = tmp_path / f"hall.recording{suffix}"
    assert [each.name for each in tmp_path.iterdir()] == [part.name]
    if codec == "ffmpeg":
        until(lambda: len(read(part)[0]) == frames)
    (tmp_path / f"hall.interrupted-1{suffix}").write_bytes(b"of an earlier run")
    kept = tmp_path / f"hall.interrupted-2{suffix}"
    with VideoSink(VideoSettings(path=path, reserve_mb=0)) as sink:
        assert f"is kept as {kept} (" in sink.announcement
        assert (not kept_frames) == ("cut before the first frames" in sink.announcement)
        assert bool(kept_frames) == ("play it up to the cut" in sink.announcement)
        assert bool(kept_frames) == bool(re.search(r"about \d+:\d\d", sink.announcement))
        sink.write(observation(0))
    assert len(read(path)[0]) == 1
    if kept_frames:
        assert kept_frames <= len(read(kept)[0]) <= frames
    assert (tmp_path / f"hall.interrupted-1{suffix}").read_bytes() == b"of an earlier run"


def test_killed_before_the_first_frame_leaves_nothing_to_report(tmp_path) -> None:
    path = tmp_path / "hall.mp4"
    killed(path, 0, "opencv")
    with VideoSink(VideoSettings(path=path, reserve_mb=0)) as sink:
        assert "interrupted" not in sink.announcement
    assert list(tmp_path.iterdir()) == []


def test_two_recordings_to_one_file_are_refused(tmp_path, observation) -> None:
    settings = VideoSettings(path=tmp_path / "hall.avi", reserve_mb=0)
    with VideoSink(settings, paced=False) as sink:
        sink.write(observation(0))
        with pytest.raises(SinkError, match="another process is recording"), VideoSink(settings):
            pass
        sink.write(observation(1))
    assert len(read(settings.path)[0]) == 2


def test_a_folder_that_cannot_be_written_is_an_error_at_the_start(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # a test may run as root, who may write anywhere
    with (
        pytest.raises(SinkError, match="Permission denied: check the folder and its permissions"),
        VideoSink(VideoSettings(path=tmp_path / "hall.mp4", reserve_mb=0)),
    ):
        pass


def test_an_ffmpeg_that_dies_ends_the_recording_with_its_reason(
    tmp_path, observation, monkeypatch
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nread -r _; echo 'Out of space' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(encoding, "ffmpeg", lambda: str(program))
    settings = VideoSettings(path=tmp_path / "out" / "hall.mp4", reserve_mb=0)
    settings.path.parent.mkdir()
    with VideoSink(settings, paced=False) as sink:
        with pytest.raises(SinkError, match=r"ffmpeg ended .*: Out of space: check the disk"):
            for index in range(1000):
                sink.write(observation(index))
        with pytest.raises(SinkError, match="Out of space"):  # and it stays ended
            sink.write(observation(0))


def test_the_announcement_names_the_players(tmp_path, encoder) -> None:
    with VideoSink(VideoSettings(path=tmp_path / "hall.mp4", reserve_mb=0)) as sink:
        browsers = "H.264: browsers" if encoder == "ffmpeg" else "browsers do not"
        assert browsers in sink.announcement
