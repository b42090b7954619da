"""A file of complete records that is rotated when it is full, and a sink that writes one."""

from __future__ import annotations

import errno
import fcntl
import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, Self

from emotion_edge.errors import OutputExists, SinkError
from emotion_edge.settings import REQUIRED, key
from emotion_edge.sinks import Content, Kept, Sink, SinkSettings
from emotion_edge.values import Observation

STANDARD_OUTPUT = Path("-")
"""The path of a record file that means standard output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFileSettings(SinkSettings):
    """A file of records that grows, and is rotated when it is full."""

    metavar: ClassVar[str] = "FILE"
    positional: ClassVar[str] = "path"

    path: Path = key(
        REQUIRED,
        "the newest file; older ones are `PATH.1` (the newest of them), `PATH.2`, ... `-` is "
        "standard output.",
    )
    existing: Literal["refuse", "overwrite", "append"] = key(
        "refuse", "what to do with a file of that name: `refuse`, `overwrite` or `append`."
    )
    rotate_mb: float = key(
        100.0, "megabytes (10**6 bytes) at which the file is rotated; 0 never does.", ge=0, le=1e6
    )
    keep: int = key(5, "how many older files are kept; the oldest is deleted.", ge=0, le=1000)
    interval_s: float = key(
        0.0,
        "shortest time between two observations, in seconds; 0 writes every one. Events are always "
        "written.",
        ge=0,
        le=1e6,
    )

    def receipt(self, content: Content) -> list[Kept]:
        """Records, until rotation deletes them."""
        if self.prints_records:
            return [Kept(str(content), "standard output", "as long as its reader keeps it")]
        until = (
            f"until {self.keep + 1} files of {self.rotate_mb:g} MB are full, then the oldest is "
            "deleted"
            if self.rotate_mb
            else "until someone deletes the file"
        )
        return [Kept(str(content), str(self.path.absolute()), until)]

    @property
    def file(self) -> Path | None:
        """The newest file."""
        return None if self.prints_records else self.path

    @property
    def prints_records(self) -> bool:
        """Whether the path is ``-``."""
        return self.path == STANDARD_OUTPUT


class RecordFile:
    """Appends records, each by one system call and without a buffer of its own.

    What ``write`` returned from survives the end of the process by any signal. A write that stops
    half-way (full disk, quota) is undone, so a file never holds half a record, except after a power
    cut; ``append`` removes that part. It does not sync each record to the disk, which wears out an
    SD card: closing and rotating do.
    """

    def __init__(
        self,
        settings: RecordFileSettings,
        *,
        header: bytes = b"",
        whole: Callable[[bytes], bool] = lambda line: False,
    ) -> None:
        """Nothing is opened yet.

        header: first bytes of every file.
        whole: whether a last line without a line feed is a whole record, that append must keep.
        """
        self._path = settings.path
        self._existing = settings.existing
        self._limit = round(settings.rotate_mb * 1e6)
        self._keep = settings.keep
        self._header = header
        self._whole = whole
        self._file = -1
        self._size = 0

    def open(self) -> None:
        """Open, as ``existing`` says.

        Raises OutputExists, or SinkError when the file cannot be opened or another process
        writes to it.
        """
        older = self._older()
        if self._existing == "refuse" and self._path != STANDARD_OUTPUT:
            for path in (self._path, *older):
                if path.is_file():
                    raise OutputExists(path)
        try:
            self._open(fresh=self._existing != "append")
            if self._existing == "overwrite":
                for path in older:
                    path.unlink()
        except OSError as error:
            self.close()
            raise _problem(self._path, error) from error
        except SinkError:
            self.close()
            raise

    def write(self, record: bytes) -> None:
        """Append one record, whole or not at all. Raises SinkError."""
        try:
            if self._file < 0:
                # Closed by a rotation that failed.
                self._open(fresh=False)
            full = self._limit and self._size + len(record) > self._limit
            if full and self._size > len(self._header):
                self._rotate()
            self._append(record)
        except BrokenPipeError:
            if self._path == STANDARD_OUTPUT:  # | head: its reader has seen enough
                raise
            raise SinkError(f"cannot write {self._path}: its reader has left") from None
        except OSError as error:
            raise _problem(self._path, error) from error

    def close(self) -> None:
        """Ask the disk to write through, and close; safe to call twice. Raises SinkError."""
        file, self._file = self._file, -1
        if file < 0:
            return
        try:
            try:
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            if error.errno != errno.EINVAL:  # what a pipe answers to fsync
                raise _problem(self._path, error) from error

    def _open(self, *, fresh: bool) -> None:
        if self._path == STANDARD_OUTPUT:
            try:
                self._file = os.dup(1)
            except OSError as error:
                raise SinkError(
                    "cannot write to standard output, which is closed: give a file"
                ) from error
            self._limit = 0
            self._append(self._header)
            return
        if self._path.exists() and not self._path.is_file():
            # A pipe or a device: nothing to lock, to cut or to rotate.
            self._file = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            self._limit = 0
            self._append(self._header)
            return
        # No O_TRUNC: nothing may be emptied before the lock is held.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SinkError(
                f"{self._path} is being written by another process: stop it or choose another name"
            ) from None
        if fresh:
            os.ftruncate(self._file, 0)
        self._size = os.fstat(self._file).st_size
        if self._size:
            self._repair()
        else:
            self._append(self._header)

    def _repair(self) -> None:
        """Check the header and remove half a record at the end of an existing file."""
        first = os.pread(self._file, len(self._header), 0)
        if first != self._header:
            raise SinkError(
                f"{self._path} has other columns than this run would write "
                f"({first[:40].decode(errors='replace')!r}...): choose another name or overwrite"
            )
        start = max(0, self._size - 1_000_000)
        end = os.pread(self._file, self._size - start, start)
        rest = end[end.rfind(b"\n") + 1 :]
        if not rest:
            return
        if self._whole(rest):
            self._append(b"\n")
        elif len(rest) < len(end):
            self._size -= len(rest)
            os.ftruncate(self._file, self._size)
        else:
            raise SinkError(
                f"{self._path} does not look like a file of records: choose another name"
            )

    def _append(self, record: bytes) -> None:
        written = 0
        try:
            while written < len(record):
                # A second round only after a short write: the disk is full, and says so now.
                written += os.write(self._file, record[written:])
        except OSError:
            if written:
                os.ftruncate(self._file, self._size)
            raise
        self._size += written

    def _rotate(self) -> None:
        self.close()
        names = [self._path, *(self._numbered(n) for n in range(1, self._keep + 1))]
        for young, old in reversed(list(pairwise(names))):
            if young.exists():
                young.replace(old)
        if not self._keep:
            self._path.unlink()
        self._open(fresh=False)

    def _older(self) -> list[Path]:
        """The rotated files that are there."""
        names = (self._numbered(n) for n in range(1, max(self._keep, 1) + 1))
        return [path for path in names if path.exists()]

    def _numbered(self, n: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{n}")


class RecordSink(Sink):
    """Observations in a file, ``interval_s`` apart at least.

    What is written for one is whole when ``write`` returns, and stays so after ``kill -9``.
    """

    name = "records"

    def __init__(self, name: str, settings: RecordFileSettings, file: RecordFile) -> None:
        """name: the sink's. file: as the settings say."""
        self.name = f"{name} {settings.path}"
        self._file = file
        self._interval_ns = settings.interval_s * 1e9
        self._due_ns = 0.0

    @abstractmethod
    def record(self, observation: Observation) -> bytes:
        """What is written for an observation; where it is empty, nothing is."""

    def __enter__(self) -> Self:
        """Open the file. Raises SinkError or OutputExists."""
        self._file.open()
        return self

    def write(self, observation: Observation) -> None:
        """Append an observation. Raises SinkError when it cannot; no part is then written."""
        now = observation.frame.captured_ns
        if now >= self._due_ns and (record := self.record(observation)):
            self._file.write(record)
            self._due_ns = now + self._interval_ns

    def __exit__(self, *error: object) -> None:
        """Ask the disk to write through, and close. Raises SinkError."""
        self._file.close()


def _problem(path: Path, error: OSError) -> SinkError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "free some space" if full else "check the folder and its permissions"
    return SinkError(f"cannot write {path}: {error.strerror}: {advice}, or choose another place")
