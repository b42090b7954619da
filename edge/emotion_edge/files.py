"""Writes files whole or not at all, and names their sizes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from emotion_edge.errors import SinkError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".pgm")
"""What a folder of images is searched for; all are formats that OpenCV decodes."""


def is_image_name(path: Path) -> bool:
    """Whether the file's name ends like an image's."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def printable(path: str | os.PathLike[str]) -> str:
    """A file's name on one line: line feeds and other control characters as ``\\n``, ``\\x1b``."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in os.fspath(path)
    )


@contextlib.contextmanager
def replacing(path: Path, failure: Callable[[str], Exception] = SinkError) -> Iterator[Path]:
    """A temporary name next to ``path`` to write to; it replaces ``path`` at the end of the block.

    So no reader finds half a file, and a full disk leaves the old one. Missing folders are made.
    failure: makes the error to raise when the file cannot be written; nothing is left behind then.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except FileExistsError as error:  # from mkdir
        raise failure(f"cannot write {path}: {error.filename} is not a folder") from error
    except OSError as error:
        raise failure(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(
    path: Path, content: str | bytes, failure: Callable[[str], Exception] = SinkError
) -> Path:
    """Write a file with ``replacing``; text as UTF-8. Returns ``path``."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path, failure) as part:
        part.write_bytes(data)
    return path


def size_text(size: int) -> str:
    """Bytes for a person: ``293 kB``, ``1,928 kB``."""
    return f"{size / 1000:,.0f} kB"
