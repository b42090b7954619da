"""All the forms of FER2013 say the same, and bad ones say what is wrong."""

from __future__ import annotations

import errno
import gzip
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_edge.model.labels import EMOTIONS
from train.data import Dataset, load_fer2013
from train.errors import DataError
from train.files import replacing, write_text
from train.readers import class_order, read_folder


def kaggle(data: Dataset, folder: Path) -> Path:
    """The same faces as Kaggle lays them out, but lossless."""
    for split in data.splits.values():
        side = "train" if split.name == "Training" else "test"
        for image, label, row in zip(split.images, split.labels, split.rows, strict=True):
            target = folder / side / data.labels[label]
            target.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target / f"{split.name}_{row}.png"), image)
    return folder


def contents(data: Dataset) -> dict[str, list[tuple[int, bytes]]]:
    """Labels and pixels of each split, in an order that does not depend on the source."""
    return {
        name: sorted(
            (int(label), image.tobytes())
            for image, label in zip(split.images, split.labels, strict=True)
        )
        for name, split in data.splits.items()
    }


def test_csv_plain_gzip_zip_and_both_headers_are_equal(
    small: Path, cache: Path, tmp_path: Path
) -> None:
    plain = load_fer2013(small / "fer2013.csv", clean=False, cache=cache)
    text = (small / "fer2013.csv").read_text()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fer2013/fer2013.csv", text)
        archive.writestr("fer2013/README", "not this one")
    rows = [line.split(",") for line in text.splitlines()[1:]]
    lines = ["emotion, Usage, pixels", *(f"{e},{u},{p}" for e, p, u in rows)]
    (tmp_path / "c.csv").write_text("\n".join(lines) + "\n")
    for name in ("a.csv.gz", "b.zip", "c.csv"):
        other = load_fer2013(tmp_path / name, clean=False, cache=cache)
        assert other.sha256 == plain.sha256, name
    assert {name: len(split) for name, split in plain.splits.items()} == {
        "Training": 280,
        "PublicTest": 70,
        "PrivateTest": 70,
    }


def test_kaggle_folder_and_zip_hold_the_same_faces(
    small: Path, cache: Path, tmp_path: Path
) -> None:
    plain = load_fer2013(small / "fer2013.csv", clean=False, cache=cache)
    folder = kaggle(plain, tmp_path / "fer2013")
    zipped = tmp_path / "archive.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    for source in (folder, zipped):
        other = load_fer2013(source, clean=False, cache=cache)
        assert other.labels == EMOTIONS  # folders sort alphabetically, labels must not
        assert contents(other) == contents(plain)
        assert other.split("PublicTest").votes is None  # no row numbers to join by


def test_the_cache_answers_the_same(small: Path, tmp_path: Path) -> None:
    first = load_fer2013(small / "fer2013.csv", cache=tmp_path)
    assert list(tmp_path.glob("*.npz"))
    again = load_fer2013(small / "fer2013.csv", cache=tmp_path)
    assert contents(first) == contents(again)
    assert first.dropped == again.dropped


def test_votes_join_by_row(small: Path, cache: Path) -> None:
    data = load_fer2013(small / "fer2013.csv", cache=cache, clean=False)
    for split in data.splits.values():
        assert split.votes is not None
        assert split.votes.shape == (len(split), 10)
        order = [4, 5, 6, 1, 3, 2, 0]
        assert (split.votes[:, order].argmax(axis=1) == split.labels).all()


def test_other_class_names_become_the_labels_with_a_stratified_tenth_held_out(
    tmp_path: Path, cache: Path
) -> None:
    rng = np.random.default_rng(1)
    for name, count in (("wink", 30), ("Blink", 20)):
        (tmp_path / "eyes" / name).mkdir(parents=True)
        for i in range(count):
            face = rng.integers(0, 256, (60, 60), np.uint8)
            cv2.imwrite(str(tmp_path / "eyes" / name / f"{i}.png"), face)
    (tmp_path / "eyes" / "wink" / "broken.png").write_bytes(b"not an image")
    data = load_fer2013(tmp_path / "eyes", cache=cache)
    assert data.labels == ("Blink", "wink")
    assert data.unreadable == ("wink/broken.png",)
    assert np.bincount(data.split("PublicTest").labels).tolist() == [2, 3]
    assert np.bincount(data.split("Training").labels).tolist() == [18, 27]
    assert data.split("Training").images.shape[1:] == (48, 48)


def test_class_order_is_ferplus_aware() -> None:
    order = class_order({"happiness", "contempt", "Anger"})
    assert order == {"Anger": (0, "angry"), "happiness": (1, "happy"), "contempt": (2, "contempt")}


def damaged(kind: str, small: Path, folder: Path) -> Path:
    lines = (small / "fer2013.csv").read_text().splitlines()
    path = folder / "fer2013.csv"
    if kind == "columns":
        lines[0] = "emotion,Usage"
    elif kind == "length":
        emotion, pixels, usage = lines[3].split(",")
        lines[3] = f"{emotion},{pixels[:-4]},{usage}"
    elif kind == "label":
        lines[5] = "9" + lines[5][1:]
    elif kind == "usage":
        lines[2] = lines[2].replace("Training", "Trianing")
    elif kind == "number":
        lines[4] = lines[4].replace(" ", " x", 1)
    elif kind == "cut":
        path = folder / "fer2013.csv.gz"
        path.write_bytes(gzip.compress("\n".join(lines).encode())[:-2000])
        return path
    elif kind == "empty":
        (folder / "faces" / "happy").mkdir(parents=True)
        return folder / "faces"
    elif kind == "absent":
        return folder / "nothing.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("columns", "lacks the column pixels"),
        ("length", r"row 2 .* has 2303 pixels, expected 2304"),
        ("label", "row 4 .* has label 9, expected 0 to 6"),
        ("usage", "row 1 .* has Usage 'Trianing'"),
        ("number", "row 3 .* not a number"),
        ("cut", "cut off or corrupt"),
        ("empty", "class folder happy of faces is empty"),
        ("absent", "no data at"),
    ],
)
def test_bad_sources_say_what_is_wrong(kind: str, words: str, small: Path, tmp_path: Path) -> None:
    source = damaged(kind, small, tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        load_fer2013(source, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("before")
    full = pytest.raises(DataError, match=r"cannot write .*kept\.txt: No space left")
    with full, replacing(kept) as part:
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    assert kept.read_text() == "before"
    with pytest.raises(DataError, match="cannot write"):
        write_text(kept / "below.txt", "a file, not a folder")


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        folder = tmp_path / "real" / label
        folder.mkdir(parents=True)
        for number in range(3):
            face = np.random.default_rng(number).integers(0, 256, (48, 48), np.uint8)
            cv2.imwrite(str(folder / f"{number}.png"), face)
        (tmp_path / "links").mkdir(exist_ok=True)
        (tmp_path / "links" / label).symlink_to(folder)
    (tmp_path / "real" / "cat" / "loop").symlink_to(tmp_path / "real" / "cat")
    found = read_folder(tmp_path / "links")
    assert found.classes == ("cat", "dog") and len(found.labels) == 6
