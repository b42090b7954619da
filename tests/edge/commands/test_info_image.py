"""The commands ``info`` and ``image``."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_edge.cameras import find_camera, open_camera
from emotion_edge.cameras.demo import HOPPER
from emotion_edge.cli import main
from emotion_edge.model import manifest as manifests
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.model.shipped import shipped_models

TINY = str(Path(__file__).parents[1] / "tiny.tflite")


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(HOPPER, tmp_path_factory.mktemp("photos") / "portrait.jpg"))


@pytest.mark.parametrize("name", [TINY, *shipped_models()])
def test_info_fits_a_screen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("model ")
    assert len(lines) < 30
    assert all(len(line) < 700 for line in lines)


@pytest.mark.parametrize("name", list(shipped_models()))
def test_info_says_what_a_shipped_model_reaches(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", name, "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert main(["info", name]) == 0
    text = capsys.readouterr().out
    accuracy = manifest["accuracy"]["PrivateTest"]["converted"]["accuracy"]
    assert f"{accuracy:.1%}" in text
    assert "passed" in text


def test_info_shows_facts_of_another_make_as_they_stand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, manifest = manifests.load(TINY)
    theirs = replace(
        manifest, accuracy={"test": 0.91, "field": {"converted": {}}}, gate={"passed": True}
    )
    path = tmp_path / "theirs.tflite"
    path.write_bytes(manifests.attach(model, theirs))
    assert main(["info", str(path)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"test 0.91", 'field {"converted": {}}', 'gate {"passed": true}'} <= set(lines)


def test_image_names_each_face(portrait: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", str(portrait), "--model", TINY, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["file"] == str(portrait)
    assert len(record["faces"]) == 1
    face = record["faces"][0]
    assert face["label"] in face["probabilities"]
    assert main(["image", str(portrait), "--model", TINY]) == 0
    assert face["label"] in capsys.readouterr().out


def test_image_says_when_there_is_no_face(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wall.png"
    cv2.imwrite(str(path), np.full((200, 200, 3), 128, np.uint8))
    assert main(["image", str(path), "--model", TINY]) == 0
    assert "no face found" in capsys.readouterr().out


def test_a_bad_file_does_not_stop_the_others(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("plain text")
    assert main(["image", str(bad), str(portrait), "--model", TINY]) == 2
    output = capsys.readouterr()
    assert "bad.jpg is not an image" in output.err and output.err.count("\n") == 1
    assert "portrait.jpg" in output.out


def test_a_folder_and_files_of_the_same_name(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/face.png", "b/face.png", "b/face.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.full((40, 40, 3), 128, np.uint8))
    out = tmp_path / "out"
    words = ["image", str(tmp_path / "a" / "face.png"), str(tmp_path / "b"), "--json"]
    assert main([*words, "--model", TINY, "--annotate", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    files = [json.loads(line)["file"] for line in lines]
    assert files == [str(tmp_path / n) for n in ("a/face.png", "b/face.jpg", "b/face.png")]
    assert sorted(path.name for path in out.iterdir()) == [
        "a-face-png-emotions.png",
        "b-face-png-emotions.png",
        "face-jpg-emotions.png",
    ]


def test_an_annotated_copy_never_replaces_an_image(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(portrait, tmp_path / "a.jpg")
    shutil.copy(portrait, tmp_path / "a-emotions.png")
    before = (tmp_path / "a-emotions.png").read_bytes()
    words = ["image", str(tmp_path), "--model", TINY, "--annotate", str(tmp_path), "--overwrite"]
    assert main(words) == 2
    assert "is one of the images: give another --annotate folder" in capsys.readouterr().err
    assert (tmp_path / "a-emotions.png").read_bytes() == before


def test_a_file_name_prints_on_one_line(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "a\nfake: happy\x1b[2J.jpg", tmp_path / "b\nfake.jpg"
    shutil.copy(portrait, good)
    bad.write_text("no image")
    assert main(["image", str(good), str(bad), "--model", TINY]) == 2
    output = capsys.readouterr()
    assert "a\\nfake: happy\\x1b[2J.jpg: " in output.out and output.out.count("\n") == 1
    assert "b\\nfake.jpg is not an image" in output.err and output.err.count("\n") == 1
    assert "\x1b" not in output.out


def test_an_unsure_face_shows_whose_share_the_number_is(
    portrait: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", str(portrait), "--model", TINY, "--unsure-below", "1"]) == 0
    assert re.search(r"unsure \(\w+ \d+%\) at ", capsys.readouterr().out)


def animation(path: Path, frames: int) -> Path:
    images = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    first, *others = (
        images.fromarray(np.full((64, 64, 3), 40 * number, np.uint8)) for number in range(frames)
    )
    first.save(path, save_all=True, append_images=others, duration=100)
    return path


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_of_an_animation_the_first_frame_is_read_and_that_is_said(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", str(animation(tmp_path / f"a{suffix}", 3)), "--model", TINY]) == 0
    told = capsys.readouterr().err
    assert f"a{suffix}: the first of 3 frames" in told
    assert ("emotion-edge run --camera" in told) == (suffix == ".gif")
    assert main(["image", str(animation(tmp_path / f"b{suffix}", 1)), "--model", TINY]) == 0
    assert "frames" not in capsys.readouterr().err


def test_an_animated_gif_is_a_video_and_a_still_one_an_image(tmp_path: Path) -> None:
    assert find_camera(animation(tmp_path / "a.gif", 3)).stream
    assert not find_camera(animation(tmp_path / "b.gif", 1)).stream
    with open_camera(animation(tmp_path / "a.gif", 3)) as camera:
        assert len(list(iter(lambda: camera.read(1.0), None))) == 3


def test_an_empty_folder_does_not_stop_the_others(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", str(tmp_path), str(portrait), "--model", TINY]) == 2
    output = capsys.readouterr()
    assert "has no images in it" in output.err and "portrait.jpg" in output.out


def test_a_terminal_without_emoji_gets_the_label(
    portrait: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for encoding, first in (("latin-1", True), ("utf-8", False)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["image", str(portrait), "--model", TINY]) == 0
        stream.seek(0)
        assert (stream.read().split(": ")[1].split()[0] in EMOTIONS) == first


def test_no_empty_folder_is_left_without_a_copy(tmp_path: Path) -> None:
    words = ["image", str(tmp_path / "none.jpg"), "--annotate", str(tmp_path / "out")]
    assert main([*words, "--model", TINY]) == 2
    assert main([*words, "--model", "none"]) == 2
    assert not any(tmp_path.iterdir())


def test_annotated_copies_are_kept_unless_told(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["image", str(portrait), "--model", TINY, "--annotate", str(tmp_path / "out")]
    assert main(words) == 0
    copy = tmp_path / "out" / "portrait-emotions.png"
    drawn = cv2.imread(str(copy))
    assert drawn.shape == cv2.imread(str(portrait)).shape
    assert not np.array_equal(drawn, cv2.imread(str(portrait)))
    copy.write_bytes(b"mine")
    assert main(words) == 2
    assert copy.read_bytes() == b"mine"
    assert main([*words, "--overwrite"]) == 0
    assert copy.read_bytes() != b"mine"
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_an_unknown_model_names_the_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "nomodel"]) == 2
    assert "fast" in capsys.readouterr().err


def test_a_pipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert main(["image", str(tmp_path / "pipe.jpg")]) != 0
    assert "pipe.jpg is not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["image", ""], ["image", "x.jpg", "--annotate", ""], ["label", "", "--out", "x.jsonl"]],
)
def test_an_empty_name_is_not_the_current_folder(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "an empty name" in capsys.readouterr().err


@pytest.mark.parametrize("out", [".", "/", "x.txt"])
def test_label_refuses_a_name_without_a_format(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", str(tmp_path), "--out", out]) == 2
    assert "give a name that ends with .jsonl or .parquet" in capsys.readouterr().err
