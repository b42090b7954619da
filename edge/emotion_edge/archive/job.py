"""Keeps a run that can be continued: its list of images, its settings, and its finished chunks.

The folder of ``records.parquet`` is ``records.parquet.parts``, next to it::

    images.jsonl        the images, one JSON text per line, frozen when the run begins
    manifest.json       the settings, the number of images and the length of a chunk
    00000000.jsonl      the results of chunk 0: one line per image, in the order of the list
    lock                held while a process works on it

Other files in the folder are left alone. Each of these files appears under its name only when it is
complete, so a chunk is finished if its file exists.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from emotion_edge.archive.recipe import Result
from emotion_edge.errors import ImageError, OutputExists, SinkError, UsageError
from emotion_edge.files import IMAGE_SUFFIXES, is_image_name, replacing
from emotion_edge.records import to_json

_LONGEST = 64  # images of a chunk: what a worker repeats after a crash
_EACH = 8  # chunks per worker at least, so that all end at about the same time
_DIGEST = 16  # bytes; two of a million paths collide once in 10^26 runs
_OWN = re.compile(
    r"(images|\d{8})\.jsonl|manifest\.json|about|output|unreadable"
    r"|\.(images|manifest|about|placed|\d{8})\.\d+(\.jsonl?)?"  # of ``replacing``, after a kill
)


class Job:
    """The folder of one run, locked while it is open: a context manager."""

    def __init__(self, out: Path) -> None:
        """out: the file to write. Nothing is touched yet."""
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")
        self.manifest: dict[str, Any] = {}
        self._lock: int | None = None
        self._made: list[Path] = []  # folders above ``folder`` that were not there before

    def __enter__(self) -> Self:
        """Make and lock the folder. Raises SinkError, also when another process has the lock."""
        try:
            self._made = [above for above in self.folder.parents if not above.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._unlock()
            raise SinkError(
                f"another process is writing {self.out}: wait for it, or give another --out"
            ) from None
        except OSError as error:
            self._unlock()
            raise SinkError(f"cannot write {self.folder}: {error.strerror or error}") from error
        return self

    def __exit__(self, *error: object) -> None:
        """Unlock; a folder without a run in it is removed, unless it holds other files.

        So are the folders above it that were made for it and hold nothing else.
        """
        if not self._manifest_file.exists():
            self._clear()
            with contextlib.suppress(OSError):
                (self.folder / "lock").unlink()
                for folder in (self.folder, *self._made):
                    folder.rmdir()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- beginning ---

    @property
    def joined(self) -> Path:
        """Where the output is written before it gets its name."""
        return self.folder / "output"

    @property
    def _manifest_file(self) -> Path:
        return self.folder / "manifest.json"

    def begin(
        self, source: Path, settings: Mapping[str, Any], *, workers: int, restart: bool = False
    ) -> bool:
        """Freeze the list of images, or continue with the one of an earlier run.

        source: a folder, with all folders in it, or a text file with one path per line.
        settings: JSON values; they must be those of the run to continue.
        restart: drop what an earlier run has done.
        Returns whether it continues. Raises UsageError, ImageError or SinkError.
        """
        if restart:
            self._clear()
        settings = {**settings, **_identity(source)}
        if self._manifest_file.exists():
            self.manifest = _read_json(self._manifest_file)
            for name, value in settings.items():
                if self.manifest.get(name) != value:
                    raise UsageError(
                        f"{self.folder} contains an unfinished run with {name} "
                        f"{self.manifest.get(name)!r}, not {value!r}: repeat its command to "
                        "continue it, or add --restart to drop it"
                    )
            return True
        self._clear()  # the chunks of a --restart that was killed
        paths = images_in(source) if source.is_dir() else listed_in(source)
        total, repeated = self._freeze(paths)
        if not total:
            raise ImageError(
                f"{source} has no images in it: "
                + (
                    f"put {', '.join(IMAGE_SUFFIXES)} files there"
                    if source.is_dir()
                    else "give a file with one path per line"
                )
            )
        chunk = max(1, min(_LONGEST, total // (max(1, workers) * _EACH)))
        self.manifest = {**settings, "images": total, "repeated": repeated, "chunk": chunk}
        self.store("manifest.json", [json.dumps(self.manifest, indent=1)])
        return False

    def _freeze(self, paths: Iterable[str]) -> tuple[int, int]:
        """Write the list, each path once. Returns how many there are, and how many were repeats.

        16 bytes of memory per path.
        """
        digests = bytearray()

        def lines() -> Iterator[str]:
            for path in paths:
                digests.extend(hashlib.blake2b(os.fsencode(path), digest_size=_DIGEST).digest())
                yield json.dumps(path)

        file = self.store("images.jsonl", lines())
        found = np.frombuffer(digests, dtype=f"V{_DIGEST}").view("<u8").reshape(-1, 2)
        order = np.lexsort((found[:, 1], found[:, 0]))  # stable: the first of equals comes first
        same = np.zeros(len(found), dtype=bool)
        same[order[1:]] = (found[order[1:]] == found[order[:-1]]).all(axis=1)
        repeated = int(same.sum())
        if repeated:
            with file.open(encoding="utf-8") as all_lines:
                kept = (
                    line.rstrip("\n")
                    for line, drop in zip(all_lines, same, strict=True)
                    if not drop
                )
                self.store("images.jsonl", kept)
        return len(found) - repeated, repeated

    # --- chunks ---

    @property
    def total(self) -> int:
        """Number of images."""
        return int(self.manifest["images"])

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.total // int(self.manifest["chunk"]))

    def size(self, number: int) -> int:
        """Number of images in a chunk."""
        chunk = int(self.manifest["chunk"])
        return min(chunk, self.total - number * chunk)

    def finished(self) -> set[int]:
        """The chunks that are finished."""
        return {int(path.stem) for path in self.folder.glob("[0-9]" * 8 + ".jsonl")}

    def to_do(self, finished: set[int]) -> Iterator[tuple[int, list[str]]]:
        """The other chunks with their paths, read as they are needed."""
        with (self.folder / "images.jsonl").open(encoding="utf-8") as lines:
            for number in range(self.chunks):
                own = list(itertools.islice(lines, self.size(number)))
                if number not in finished:
                    yield number, [json.loads(line) for line in own]

    def finish(self, number: int, results: Sequence[Result]) -> None:
        """Keep the results of a chunk. Raises SinkError; the chunk is then still to do."""
        self.store(f"{number:08}.jsonl", map(to_json, results))

    def results(self) -> Iterator[Result]:
        """Every result of a finished run, in the order of the list.

        Raises SinkError when a chunk is damaged, and drops it.
        """
        for number in range(self.chunks):
            path = self.folder / f"{number:08}.jsonl"
            try:
                own = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            except (OSError, ValueError):
                own = []
            if len(own) != self.size(number):
                path.unlink(missing_ok=True)
                raise SinkError(
                    f"{path} is damaged and was dropped: repeat the command to label its images"
                )
            yield from own

    def store(self, name: str, lines: Iterable[str]) -> Path:
        """Write a file of the folder, whole or not at all, and to the disk. Raises SinkError."""
        path = self.folder / name
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        return path

    # --- the end ---

    def place(self, files: Mapping[Path, Path]) -> None:
        """Move complete files of the folder to their names, the output last, and remove the folder.

        A kill at any moment leaves either a run to continue, or the output and ``placed``.
        """
        try:
            for target, file in files.items():
                if target == self.out:
                    self.store("placed", [])
                file.replace(target)
        except OSError as error:
            raise SinkError(f"cannot write {self.out}: {error.strerror or error}") from error
        self._clear()

    def was_placed(self) -> bool:
        """Whether an earlier run wrote the output and was killed before it removed the folder."""
        if not (self.folder / "placed").exists() or not self.out.exists():
            return False
        if self.joined.exists():
            return False
        self._clear()
        return True

    def _clear(self) -> None:
        """Remove the run, and ``placed`` last: until then it says that the rest is of no use."""
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if _OWN.fullmatch(path.name):
                    path.unlink()
            (self.folder / "placed").unlink(missing_ok=True)


def check_out(out: Path, *, overwrite: bool) -> None:
    """Raise OutputExists or UsageError for an output that cannot be written."""
    check_name(out)
    if out.exists() and not overwrite:
        raise OutputExists(out)


def check_name(out: Path) -> None:
    """Raise UsageError for an output whose name says no format."""
    if out.suffix not in (".jsonl", ".parquet"):
        raise UsageError(f"--out is {out}: give a name that ends with .jsonl or .parquet")
    if out.is_dir():
        raise UsageError(f"--out is the folder {out}: give the name of a file")


def images_in(folder: Path) -> Iterator[str]:
    """The images of a folder and the folders in it, by name; links to folders are not followed.

    Holds the names of one folder at a time.
    Raises ImageError for a folder that cannot be read: its images would be missing in silence.
    """

    def failed(error: OSError) -> None:
        raise ImageError(
            f"cannot read the folder {error.filename} ({error.strerror}): check its permissions"
        ) from error

    for root, folders, files in os.walk(folder, onerror=failed):
        folders.sort()
        for name in sorted(files):
            if is_image_name(Path(name)):
                yield str(Path(root, name))


def listed_in(file: Path) -> Iterator[str]:
    """The paths of a list, one per line, as they are written; empty lines are skipped.

    So is a byte order mark, with which some editors on Windows begin a text.

    Raises ImageError when it cannot be read or is not a list.
    """
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if b"\0" in line:
                    raise ImageError(
                        f"line {number} of {file} is not text: give a folder, or a file with one "
                        "path per line"
                    )
                if path := os.fsdecode(line.rstrip(b"\r\n")):
                    yield path
    except OSError as error:
        raise ImageError(f"cannot read {file}: {error.strerror or error}") from error


def _identity(source: Path) -> dict[str, str]:
    """What makes a source the same: a folder's path; a list's content and where it is read from."""
    if source.is_dir():
        return {"source": str(source), "folder": str(Path.cwd())}
    try:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"cannot read {source}: {error.strerror or error}") from error
    return {"source": str(source), "source_sha256": digest, "folder": str(Path.cwd())}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is not an object")
        return found
    except (OSError, ValueError) as error:
        raise SinkError(f"cannot read {path} ({error}): add --restart to begin again") from error
