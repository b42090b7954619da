from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emotion_edge
from emotion_edge.errors import OutputExists, SinkError
from emotion_edge.sinks.jsonl import JsonlSettings
from emotion_edge.sinks.record_file import RecordFile


def opened(path: Path, header: bytes = b"", whole: object = None, **settings: object) -> RecordFile:
    kwargs = {"whole": whole} if whole else {}
    file = RecordFile(JsonlSettings(path=path, **settings), header=header, **kwargs)
    file.open()
    return file


def test_a_record_is_in_the_file_when_write_returns(tmp_path) -> None:
    path = tmp_path / "r"
    file = opened(path)
    file.write(b"one\n")
    assert path.read_bytes() == b"one\n"
    file.write(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
    file.close()
    file.close()


def test_an_existing_file_is_kept_replaced_or_continued(tmp_path) -> None:
    path = tmp_path / "r"
    path.write_bytes(b"old\n")
    with pytest.raises(OutputExists, match="add --overwrite"):
        opened(path)
    assert path.read_bytes() == b"old\n"
    file = opened(path, existing="append")
    file.write(b"new\n")
    file.close()
    assert path.read_bytes() == b"old\nnew\n"
    file = opened(path, existing="overwrite")
    assert path.read_bytes() == b""
    file.close()


def test_rotated_files_of_an_older_run_count_as_existing(tmp_path) -> None:
    path, older = tmp_path / "r", tmp_path / "r.1"
    older.write_bytes(b"old\n")
    with pytest.raises(OutputExists, match=r"r\.1 exists"):
        opened(path)
    assert not path.exists()
    opened(path, existing="overwrite").close()
    assert not older.exists()


@settings(max_examples=50)
@given(
    records=st.lists(st.binary(min_size=1, max_size=150), max_size=40),
    limit=st.integers(1, 400),
    keep=st.integers(0, 3),
)
def test_rotation_keeps_the_newest_in_order_and_each_record_whole(
    tmp_path_factory, records, limit, keep
) -> None:
    path = tmp_path_factory.mktemp("rotation") / "r"
    header = b"head\n"
    lines = [record.hex().encode() + b"\n" for record in records]
    file = opened(path, header, rotate_mb=limit / 1e6, keep=keep)
    for line in lines:
        file.write(line)
    file.close()
    files = [path.with_name(f"r.{n}") for n in range(keep, 0, -1)] + [path]
    files = [each for each in files if each.exists()]
    assert sorted(files) == sorted(path.parent.iterdir())
    kept = []
    for each in files:
        data = each.read_bytes()
        assert data.startswith(header)
        body = data[len(header) :].splitlines(keepends=True)
        assert len(data) <= limit or len(body) <= 1  # a larger record has its own file
        kept += body
    # The newest records, none missing between them.
    expected = b"".join(lines).splitlines(keepends=True)
    assert kept == expected[len(expected) - len(kept) :]
    if lines:
        assert kept and path.read_bytes().endswith(lines[-1])


def test_without_a_limit_it_never_rotates(tmp_path) -> None:
    file = opened(tmp_path / "r", rotate_mb=0)
    for _ in range(100):
        file.write(b"x" * 1000 + b"\n")
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_two_runs_cannot_write_one_file(tmp_path) -> None:
    file = opened(tmp_path / "r")
    file.write(b"mine\n")
    for existing in ("append", "overwrite"):
        with pytest.raises(SinkError, match="being written by another process"):
            opened(tmp_path / "r", existing=existing)
    assert (tmp_path / "r").read_bytes() == b"mine\n"
    file.close()


def test_append_removes_half_a_record_and_keeps_a_whole_one(tmp_path) -> None:
    path = tmp_path / "r"
    path.write_bytes(b'{"a":1}\n{"a":')
    file = opened(path, existing="append", whole=lambda line: line.endswith(b"}"))
    file.write(b'{"a":2}\n')
    file.close()
    assert path.read_bytes() == b'{"a":1}\n{"a":2}\n'
    path.write_bytes(b'{"a":1}\n{"a":2}')  # an editor took the last line feed
    opened(path, existing="append", whole=lambda line: line.endswith(b"}")).close()
    assert path.read_bytes() == b'{"a":1}\n{"a":2}\n'


def test_append_leaves_a_foreign_file_alone(tmp_path) -> None:
    path = tmp_path / "r"
    path.write_bytes(b"something else without an end")
    with pytest.raises(SinkError, match="does not look like a file of records"):
        opened(path, existing="append")
    path.write_bytes(b"a;b;c\n1;2;3\n")
    with pytest.raises(SinkError, match="has other columns"):
        opened(path, b"a,b\n", existing="append")
    assert path.read_bytes() == b"a;b;c\n1;2;3\n"


def test_a_missing_folder_is_one_line(tmp_path) -> None:
    with pytest.raises(SinkError, match="No such file or directory: check the folder") as caught:
        opened(tmp_path / "absent" / "r")
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_whole_records_and_goes_on_when_there_is_room(tmp_path) -> None:
    """RLIMIT_FSIZE stands for the full disk: the kernel cuts the write where the room ends."""
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from emotion_edge.errors import SinkError
        from emotion_edge.sinks.record_file import RecordFile
        from emotion_edge.sinks.jsonl import JsonlSettings

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        file = RecordFile(JsonlSettings(path=Path(sys.argv[1])))
        file.open()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
        for _ in range(10):
            file.write(b"x" * 99 + b"\\n")
        for _ in range(3):
            try:
                file.write(b"y" * 99 + b"\\n")
            except SinkError as error:
                print(error)
        assert Path(sys.argv[1]).read_bytes() == (b"x" * 99 + b"\\n") * 10
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        file.write(b"z" * 99 + b"\\n")
        file.close()
        """
    )
    path = tmp_path / "r"
    said = _python(script, path)
    assert (
        said.splitlines()
        == [f"cannot write {path}: File too large: free some space, or choose another place"] * 3
    )
    assert path.read_bytes() == (b"x" * 99 + b"\n") * 10 + b"z" * 99 + b"\n"


def test_kill_in_mid_write_leaves_a_readable_file_with_all_that_was_acknowledged(tmp_path) -> None:
    script = textwrap.dedent(
        """
        import itertools, json, sys
        from pathlib import Path
        from emotion_edge.sinks.record_file import RecordFile
        from emotion_edge.sinks.jsonl import JsonlSettings

        file = RecordFile(JsonlSettings(path=Path(sys.argv[1])))
        file.open()
        for n in itertools.count():
            file.write(json.dumps({"n": n, "fill": "x" * (n % 9000)}).encode() + b"\\n")
            sys.stdout.write(f"{n}\\n")
            sys.stdout.flush()
        """
    )
    path = tmp_path / "r"
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, env=_environment()
    )
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(3000)]
    child.send_signal(signal.SIGKILL)
    said += child.stdout.readlines()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    acknowledged = max(int(line) for line in said if line.endswith(b"\n"))
    opened(path, existing="append").close()  # removes half a line, should there be one
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [record["n"] for record in records] == list(range(len(records)))
    assert len(records) > acknowledged


def test_a_rotation_that_fails_is_an_error_and_is_tried_again(tmp_path) -> None:
    path = tmp_path / "r"
    file = opened(path, rotate_mb=10 / 1e6, keep=1)
    file.write(b"12345678\n")
    blocked = path.with_name("r.1")
    (blocked / "inside").mkdir(parents=True)  # a folder that cannot be replaced
    for _ in range(2):
        with pytest.raises(SinkError, match="cannot write"):
            file.write(b"87654321\n")
    assert path.read_bytes() == b"12345678\n"
    (blocked / "inside").rmdir()
    blocked.rmdir()
    file.write(b"87654321\n")
    file.close()
    assert (path.read_bytes(), blocked.read_bytes()) == (b"87654321\n", b"12345678\n")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(emotion_edge.__file__).parents[1])}


def _python(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
