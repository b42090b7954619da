from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_edge.cameras import open_camera
from emotion_edge.cameras.damage import fault
from emotion_edge.cameras.video import VideoFile
from emotion_edge.errors import CameraError, CameraNotFound
from emotion_edge.values import Frame
from tests.edge.cameras.fakes import (
    Events,
    FakeCapture,
    damage,
    random_image,
    truncate_jpegs,
    write_video,
)


def read_all(camera: VideoFile) -> list[Frame]:
    found = []
    with camera:
        while (frame := camera.read(1.0)) is not None:
            found.append(frame)
    return found


@pytest.mark.parametrize(
    ("name", "codec"), [("clip.avi", "MJPG"), ("clip.mp4", "mp4v"), ("clip.mkv", "MJPG")]
)
def test_every_frame_at_the_files_own_times(tmp_path: Path, name: str, codec: str) -> None:
    write_video(tmp_path / name, frames=40, fps=20, codec=codec)
    events = Events()
    camera = open_camera(tmp_path / name, on_event=events)
    assert isinstance(camera, VideoFile) and not camera.live
    found = read_all(camera)
    assert [frame.index for frame in found] == list(range(40))
    steps = np.diff([frame.captured_ns for frame in found])
    np.testing.assert_allclose(steps, 50e6, atol=1e6)
    assert {frame.source for frame in found} == {str(tmp_path / name)}
    np.testing.assert_allclose([frame.media_time_s for frame in found], np.arange(40) / 20)
    assert found[0].image.shape == (64, 96, 3)
    assert events == [] and not camera.truncated and camera.fps == pytest.approx(20)


def test_a_paced_file_keeps_to_its_times(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", frames=4, fps=20)
    with VideoFile(tmp_path / "clip.avi", paced=True) as camera:
        while (frame := camera.read(1.0)) is not None:
            assert time.monotonic_ns() >= frame.captured_ns


def test_gray(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", frames=2)
    assert read_all(VideoFile(tmp_path / "clip.avi", colour=False))[0].image.shape == (64, 96)


@pytest.mark.parametrize("name", ["clip.avi", "clip.mkv"])
def test_a_file_cut_in_the_middle_keeps_what_was_read(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / name, frames=40)
    whole = read_all(VideoFile(tmp_path / name))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    events = Events()
    camera = VideoFile(tmp_path / name, on_event=events)
    found = read_all(camera)
    assert 15 <= len(found) <= 21
    for a, b in zip(found, whole, strict=False):
        np.testing.assert_array_equal(a.image, b.image)
    assert camera.truncated and events.kinds[-1] == "camera.truncated"
    assert camera.damaged == len(events) - 1 <= 1  # the frame that the cut goes through
    assert f"is cut off: {len(found)} of 40 frames" in events[-1].message
    assert events[-1].details == {"read": len(found), "announced": 40}


@pytest.mark.parametrize(("name", "codec"), [("clip.avi", "MJPG"), ("clip.mp4", "mp4v")])
def test_reading_goes_on_after_damage(tmp_path: Path, name: str, codec: str) -> None:
    whole, damaged = tmp_path / f"whole-{name}", tmp_path / name
    write_video(whole, frames=100, codec=codec)
    damage(damaged, whole, 0.2, 0.5, 0.7)
    events = Events()
    camera = VideoFile(damaged, on_event=events)
    found = read_all(camera)
    assert 2 <= camera.damaged <= 12
    # An AVI whose chunk header is overwritten loses that frame without a trace.
    assert 99 <= len(found) + camera.damaged <= 100
    assert set(events.kinds) == {"camera.damaged"} and not camera.truncated
    assert sum(event.details["frames"] for event in events) == camera.damaged
    assert [frame.index for frame in found][-1] >= 98  # damaged frames are gaps
    times = [frame.media_time_s for frame in found]
    np.testing.assert_allclose(times, [frame.index / 20 for frame in found], atol=0.01)


def test_every_truncated_jpeg_is_reported_and_left_out(tmp_path: Path) -> None:
    write_video(tmp_path / "whole.avi", frames=40)
    assert truncate_jpegs(tmp_path / "clip.avi", tmp_path / "whole.avi", every=5) == 8
    events = Events()
    camera = VideoFile(tmp_path / "clip.avi", on_event=events)
    found = read_all(camera)
    assert [event.details["first"] for event in events] == list(range(4, 40, 5))
    assert events[0].message.endswith("frame 4 is cut off and left out")
    assert camera.damaged == 8 and len(found) == 32 and not camera.truncated


def test_jpegs_without_an_end_marker_are_that_encoders_habit(tmp_path: Path) -> None:
    write_video(tmp_path / "whole.avi", frames=10)
    data = (tmp_path / "whole.avi").read_bytes().replace(b"\xff\xd9", b"\0\0")
    (tmp_path / "clip.avi").write_bytes(data)
    events = Events()
    assert len(read_all(VideoFile(tmp_path / "clip.avi", on_event=events))) == 10
    assert events == []


def test_what_is_wrong_with_a_jpeg() -> None:
    whole = cv2.imencode(".jpg", random_image(0, (64, 96, 3)))[1].tobytes()
    progressive = cv2.imencode(
        ".jpg", random_image(0, (64, 96, 3)), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    )
    assert fault(whole) == fault(whole + bytes(100)) == fault(progressive[1].tobytes()) == ""
    assert fault(whole[:-2]) == fault(whole[: len(whole) // 2]) == fault(whole[:30]) == "cut off"
    assert fault(whole[:-2], ends=False) == ""
    assert fault(b"\0\0" + whole) == "overwritten"
    assert fault(whole[:-100] + b"\xff\x7f" + whole[-98:]) == "overwritten"


def test_a_cut_file_warns_where_nobody_listens(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", frames=40)
    data = (tmp_path / "clip.avi").read_bytes()
    (tmp_path / "clip.avi").write_bytes(data[: len(data) // 2])
    with pytest.warns(RuntimeWarning, match="is cut off"):
        read_all(VideoFile(tmp_path / "clip.avi"))


def test_an_mp4_without_its_index(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, codec="mp4v")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        CameraError, match=r"not a video that FFmpeg can read \([\d,]+ bytes\), or it was cut"
    ):
        read_all(VideoFile(path))


def test_opencv_and_ffmpeg_print_nothing(tmp_path: Path) -> None:
    for name, codec in (("clip.avi", "MJPG"), ("clip.mkv", "MJPG"), ("clip.mp4", "mp4v")):
        write_video(tmp_path / name, codec=codec)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    (tmp_path / "notes.mp4").write_text("not a video")
    # Its own process: FFmpeg reads its log level once, and other tests may have been first.
    script = """
import sys
from emotion_edge.cameras import open_camera
from emotion_edge.errors import CameraError
for spec in sys.argv[1:]:
    try:
        with open_camera(spec, on_event=lambda event: None) as camera:
            while camera.read(1) is not None:
                pass
    except CameraError:
        print(spec)
"""
    specs = [str(path) for path in sorted(tmp_path.iterdir())]
    specs += ["/dev/video99", "http://127.0.0.1:9/stream", "rtsp://127.0.0.1:9/stream"]
    done = subprocess.run(
        [sys.executable, "-c", script, *specs],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stderr == ""
    assert done.stdout.split() == [
        str(tmp_path / "clip.mp4"),
        str(tmp_path / "notes.mp4"),
        *specs[-3:],
    ]


def test_files_that_are_not_videos(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    for name in ("notes.txt", "empty.mp4"):
        with pytest.raises(CameraError, match="is not a video"):
            read_all(VideoFile(tmp_path / name))
    with pytest.raises(CameraNotFound, match="there is no video"):
        read_all(VideoFile(tmp_path / "absent.mp4"))
    with pytest.raises(CameraNotFound, match="no camera, file or folder"):
        open_camera(tmp_path / "absent.mp4")


def test_a_video_of_which_nothing_can_be_decoded(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    path.touch()
    camera = VideoFile(path, capture=lambda *_: FakeCapture([(True, None)]))
    with pytest.raises(CameraError, match="no frame of it can be decoded"):
        read_all(camera)


def test_a_container_without_times_advances_by_its_rate(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    path.touch()
    capture = FakeCapture([random_image(i) for i in range(5)])
    capture.properties = {cv2.CAP_PROP_FPS: 10.0, cv2.CAP_PROP_FRAME_COUNT: 5}
    found = read_all(VideoFile(path, capture=lambda *_: capture))
    assert list(np.diff([frame.captured_ns for frame in found])) == [100_000_000] * 4
    assert capture.released


def test_it_reads_again_from_the_start_and_stops(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", frames=3)
    stop = threading.Event()
    camera = VideoFile(tmp_path / "clip.avi", stop=stop)
    for _ in range(2):
        assert [frame.index for frame in read_all(camera)] == [0, 1, 2]
    with camera:
        assert camera.read(1) is not None
        stop.set()
        assert camera.read(1) is None
    with pytest.raises(CameraError, match="is not open"):
        camera.read(1)
