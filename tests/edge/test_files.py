"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from emotion_edge.errors import DetectorError, SinkError
from emotion_edge.files import replacing, size_text, write_whole


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    with replacing(path) as part:
        part.write_text("half")
        assert not path.exists() and part.suffix == ".json"
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "a.txt", "old: é")
    with pytest.raises(ValueError, match="stop"), replacing(path) as part:
        part.write_text("half")
        raise ValueError("stop")
    with pytest.raises(SinkError, match=r"cannot write .*a\.txt: disk full"), replacing(path):
        raise OSError(28, "disk full")
    assert path.read_text(encoding="utf-8") == "old: é"
    assert list(tmp_path.iterdir()) == [path]


def test_the_caller_names_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DetectorError, match=r"cannot write .*file/a: .*/file is not a folder"):
        write_whole(tmp_path / "file" / "a", b"", DetectorError)


@pytest.mark.parametrize(("size", "text"), [(292_512, "293 kB"), (1_927_800, "1,928 kB")])
def test_sizes_are_in_thousands_of_bytes(size: int, text: str) -> None:
    assert size_text(size) == text
