"""The folder of a run: its list, its chunks, and what a kill leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emotion_edge.archive import output
from emotion_edge.archive.job import Job, check_out, images_in, listed_in
from emotion_edge.archive.recipe import unreadable
from emotion_edge.archive.run import Progress, WorkerDied, carry_out
from emotion_edge.errors import EmotionEdgeError, ImageError, OutputExists, SinkError, UsageError

LABELS = ["happy", "sad"]


def record(file: str) -> dict[str, object]:
    face = {"box": [0, 0, 8, 8], "score": 1.0, "label": "happy", "confidence": 0.75}
    face |= {"probabilities": {"happy": 0.75, "sad": 0.25}}
    return {"schema": 1, "type": "image", "file": file, "width": 9, "height": 8, "faces": [face]}


def listed(folder: Path, names: list[str]) -> Path:
    path = folder / "list.txt"
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return path


class Here:
    """Workers in this process. dies: names whose process ends with them."""

    workers = 1

    def __init__(self, dies: set[str] = frozenset(), stop_after: int = 10**9) -> None:
        self.dies, self.stop_after = dies, stop_after
        self.seen: list[str] = []

    def run(self, chunks):
        for chunk in chunks:
            if len(self.seen) >= self.stop_after:
                raise KeyboardInterrupt
            try:
                yield chunk, self.alone(chunk[1])
            except WorkerDied:
                yield chunk, None

    def alone(self, paths):
        if self.dies & set(paths):
            raise WorkerDied
        self.seen += paths
        return [unreadable(path, "bad") if "bad" in path else record(path) for path in paths]


def begun(job: Job, source: Path, **others: object) -> bool:
    return job.begin(source, {"labels": LABELS, **others}, workers=1)


def files(out: Path) -> list[str]:
    return [json.loads(line)["file"] for line in out.read_text("utf-8").splitlines()]


def test_a_run_is_continued_and_every_image_is_there_once(tmp_path: Path) -> None:
    names = [f"bad{i}.jpg" if i % 10 == 0 else f"{i}.jpg" for i in range(100)]
    source, out = listed(tmp_path, names), tmp_path / "out.jsonl"
    first, second = Here(stop_after=30), Here()
    with Job(out) as job, pytest.raises(KeyboardInterrupt):
        assert not begun(job, source)
        carry_out(job, first, Progress(quiet=True))
    assert not out.exists()
    with Job(out) as job:
        assert begun(job, source)
        carry_out(job, second, Progress(quiet=True))
        summary = output.write(job)
    assert sorted(first.seen + second.seen) == sorted(names)
    assert files(out) == [name for name in names if "bad" not in name]
    assert files(output.unreadable_file(out)) == [name for name in names if "bad" in name]
    assert (summary.images, summary.unreadable, summary.faces) == (100, 10, 90)
    assert json.loads(output.manifest_file(out).read_text())["images"] == 100
    assert not job.folder.exists()


def test_parquet_holds_the_records(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra [parquet] is not installed")
    source, out = listed(tmp_path, ["a.jpg", "bad.jpg", "b.jpg"]), tmp_path / "out.parquet"
    with Job(out) as job:
        begun(job, source)
        carry_out(job, Here(), Progress(quiet=True))
        output.write(job)
    table = parquet.read_table(out)
    assert table.column("file").to_pylist() == ["a.jpg", "b.jpg"]
    face = table.to_pylist()[0]["faces"][0]
    assert face["probabilities"] == {"happy": 0.75, "sad": 0.25}
    assert face["landmarks"] is None
    assert json.loads(table.schema.metadata[b"emotion_edge"])["labels"] == LABELS


def test_a_path_that_is_listed_twice_is_labelled_once(tmp_path: Path) -> None:
    source = listed(tmp_path, ["b.jpg", "a.jpg", "b.jpg", "", "c.jpg", "a.jpg"])
    with Job(tmp_path / "out.jsonl") as job:
        begun(job, source)
        assert [path for _, own in job.to_do(set()) for path in own] == ["b.jpg", "a.jpg", "c.jpg"]
        assert job.manifest["repeated"] == 2


def test_an_image_that_kills_its_process_is_found_and_listed(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(64 * 8)]
    source, out = listed(tmp_path, names), tmp_path / "out.jsonl"
    with Job(out) as job:
        begun(job, source)
        carry_out(job, Here(dies={"100.jpg", "101.jpg"}), Progress(quiet=True))
        output.write(job)
    assert files(out) == [name for name in names if name not in ("100.jpg", "101.jpg")]
    assert files(output.unreadable_file(out)) == ["100.jpg", "101.jpg"]


def test_processes_that_always_die_stop_the_run(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(512)]
    with Job(tmp_path / "out.jsonl") as job, pytest.raises(EmotionEdgeError, match="in a row died"):
        begun(job, listed(tmp_path, names))
        carry_out(job, Here(dies=set(names)), Progress(quiet=True))
    assert not job.finished()


def test_other_settings_or_another_list_are_refused(tmp_path: Path) -> None:
    source, out = listed(tmp_path, ["a.jpg"]), tmp_path / "out.jsonl"
    with Job(out) as job:
        begun(job, source)
    with (
        Job(out) as job,
        pytest.raises(UsageError, match="unfinished run with model None, not 'x'"),
    ):
        begun(job, source, model="x")
    listed(tmp_path, ["a.jpg", "b.jpg"])
    with Job(out) as job, pytest.raises(UsageError, match=r"source_sha256.*--restart"):
        begun(job, source)
    with Job(out) as job:
        assert not job.begin(source, {"labels": LABELS}, workers=1, restart=True)
        assert job.total == 2


def test_a_damaged_chunk_is_dropped_and_done_again(tmp_path: Path) -> None:
    source, out = listed(tmp_path, ["a.jpg", "b.jpg"]), tmp_path / "out.jsonl"
    with Job(out) as job:
        begun(job, source)
        carry_out(job, Here(), Progress(quiet=True))
        (job.folder / "00000001.jsonl").write_bytes(b"")
        with pytest.raises(SinkError, match="repeat the command"):
            output.write(job)
    assert not out.exists()
    with Job(out) as job:
        begun(job, source)
        again = Here()
        carry_out(job, again, Progress(quiet=True))
        output.write(job)
    assert again.seen == ["b.jpg"]
    assert files(out) == ["a.jpg", "b.jpg"]


def test_a_kill_between_the_output_and_the_folder_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = listed(tmp_path, ["a.jpg"]), tmp_path / "out.jsonl"
    with Job(out) as job:
        begun(job, source)
        carry_out(job, Here(), Progress(quiet=True))
        monkeypatch.setattr(Job, "_clear", lambda self: None)
        output.write(job)
    monkeypatch.undo()
    assert files(out) == ["a.jpg"] and job.folder.exists()
    with Job(out) as job:
        assert job.was_placed()
    assert files(out) == ["a.jpg"] and not job.folder.exists()


def test_two_runs_do_not_write_the_same_output(tmp_path: Path) -> None:
    with Job(tmp_path / "out.jsonl"), pytest.raises(SinkError, match="another process"):
        Job(tmp_path / "out.jsonl").__enter__()
    assert not any(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_keeps_the_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = listed(tmp_path, ["a.jpg", "b.jpg"]), tmp_path / "out.jsonl"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with Job(out) as job:
        begun(job, source)
        carry_out(job, Here(), Progress(quiet=True))
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(SinkError, match="No space left on device"):
            output.write(job)
        assert len(job.finished()) == 2
    assert not out.exists()


def test_a_folder_is_searched_with_its_folders_but_not_in_circles(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "sub/c.webp", "sub/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "circle").symlink_to(tmp_path)
    found = [os.path.relpath(path, tmp_path) for path in images_in(tmp_path)]
    assert found == ["a.png", "b.JPG", "sub/c.webp"]


def test_a_folder_that_cannot_be_read_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ImageError, match="closed"):
        list(images_in(tmp_path))


def test_a_list_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"a.jpg\nx\0y\n")
    with pytest.raises(ImageError, match="line 2"):
        list(listed_in(path))
    path.write_bytes(b"caf\xe9.jpg\r\n")
    assert [os.fsencode(name) for name in listed_in(path)] == [b"caf\xe9.jpg"]


def test_an_output_is_checked_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").touch()
    with pytest.raises(OutputExists):
        check_out(tmp_path / "old.jsonl", overwrite=False)
    check_out(tmp_path / "old.jsonl", overwrite=True)
    with pytest.raises(UsageError, match=r"\.parquet"):
        check_out(tmp_path / "x.csv", overwrite=False)


def test_a_source_without_images(tmp_path: Path) -> None:
    with Job(tmp_path / "out.jsonl") as job, pytest.raises(ImageError, match="no images"):
        begun(job, tmp_path / "list.txt" if listed(tmp_path, []) else tmp_path)
    assert not job.folder.exists()


MILLION = """
import json, resource, sys
from pathlib import Path
from emotion_edge.archive.job import Job
from emotion_edge.archive.run import Progress, carry_out

class Nothing:
    workers = 8
    def run(self, chunks):
        for number, paths in chunks:
            yield (number, paths), [{"unreadable": path, "reason": "x"} for path in paths]

def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

folder = Path(sys.argv[1])
with (folder / "list.txt").open("w") as file:
    for i in range(1_000_000):
        file.write(f"/archive/2024/camera-{i % 97}/image-of-a-long-name-{i:09}.jpg\\n")
with Job(folder / "out.jsonl") as job:
    before = resident()
    job.begin(folder / "list.txt", {}, workers=8)
    frozen = resident()
    every = set(range(job.chunks))
    seen = sum(len(paths) for _, paths in job.to_do(set()))
    left = sum(len(paths) for _, paths in job.to_do(every - {0, 7, job.chunks - 1}))
    print(json.dumps([job.total, seen, left, frozen - before, resident() - before]))
"""


def test_a_million_paths_take_little_memory(tmp_path: Path) -> None:
    """A list of strings alone would be 110 MB."""
    done = subprocess.run(
        [sys.executable, "-c", MILLION, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    total, seen, left, _, most = json.loads(done.stdout)
    assert (total, seen, left) == (1_000_000, 1_000_000, 3 * 64)
    assert most < 90, done.stdout


def test_progress_gives_the_rate_of_this_run_and_the_time_left() -> None:
    now = 0.0
    progress = Progress(quiet=True, clock=lambda: now)
    progress.begin(1000, 4000)
    for _ in range(10):
        now += 1.0
        progress.add(100, 1)
    assert progress.line().endswith(
        "2,000 of 4,000 images, 10 unreadable  100.0 images/s  20 s left"
    )
    assert progress.labelled == 1000


def test_a_folder_that_was_there_keeps_its_files(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    folder = tmp_path / "out.jsonl.parts"
    folder.mkdir()
    notes = folder / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(ImageError), Job(out) as job:
        begun(job, tmp_path / "missing.txt")
    assert notes.read_text() == "mine"
    source = listed(tmp_path, ["a.jpg", "b.jpg"])
    with Job(out) as job:
        begun(job, source)
        carry_out(job, Here(), Progress(quiet=True))
        output.write(job)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert notes.read_text() == "mine"


def test_a_restart_keeps_files_of_others(tmp_path: Path) -> None:
    source = listed(tmp_path, ["a.jpg"])
    with Job(tmp_path / "out.jsonl") as job:
        begun(job, source)
        (job.folder / "more").mkdir()
        (job.folder / "notes.txt").write_text("mine")
    with Job(tmp_path / "out.jsonl") as job:
        assert not job.begin(source, {"labels": LABELS}, workers=1, restart=True)
        assert (job.folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["00000000.jsonl", "20261121.jsonl", "images.jsonl"])
def test_an_output_may_be_named_as_a_file_of_the_run(tmp_path: Path, name: str) -> None:
    source = listed(tmp_path, ["a.jpg", "b.jpg"])
    with Job(tmp_path / name) as job:
        begun(job, source)
        carry_out(job, Here(), Progress(quiet=True))
        output.write(job)
    files = [json.loads(line)["file"] for line in (tmp_path / name).read_text().splitlines()]
    assert files == ["a.jpg", "b.jpg"]


def test_a_list_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa.jpg\r\nb.jpg\r\n")
    assert list(listed_in(path)) == ["a.jpg", "b.jpg"]
