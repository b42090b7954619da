"""Labels the faces in images."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import cv2

from emotion_edge.annotate import annotate
from emotion_edge.archive.recipe import record_of
from emotion_edge.cameras.photos import frame_count, photos_in
from emotion_edge.commands.flags import add_recipe_arguments, named_path, recipe
from emotion_edge.detectors.stills import unsearched
from emotion_edge.errors import EmotionEdgeError, ImageError, OutputExists, SinkError, UsageError
from emotion_edge.files import printable, write_whole
from emotion_edge.model.labels import EMOJI, UNSURE
from emotion_edge.model.preprocessing import read_image
from emotion_edge.privacy import Hiding, hidden
from emotion_edge.values import Image

HELP = "name the emotions in images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "files", nargs="+", type=named_path, metavar="FILE", help="an image, or a folder of images"
    )
    add_recipe_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON line per image")
    parser.add_argument(
        "--annotate",
        type=named_path,
        metavar="FOLDER",
        help="write annotated copies to this folder",
    )
    parser.add_argument(
        "--faces",
        choices=get_args(Hiding),
        default="show",
        help="hide the faces in annotated copies; labels stay",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace annotated copies")


def run(options: argparse.Namespace) -> int:
    """Classify every face of every image; a bad file is reported and the others are processed."""
    failed: list[EmotionEdgeError] = []

    def report(error: EmotionEdgeError) -> None:
        if options.debug:
            raise error
        print(f"emotion-edge: {printable(str(error))}", file=sys.stderr)
        failed.append(error)

    files: list[Path] = []
    for path in options.files:
        try:
            files += photos_in(path) if path.is_dir() else [path]
        except EmotionEdgeError as error:
            report(ImageError(str(error)))  # bad input, though the folder is read as a camera's
    pipeline = recipe(options).open()
    made = options.annotate is not None and not options.annotate.exists()
    targets = _targets(files, options.annotate, overwrite=options.overwrite)
    for path, target in targets.items():
        try:
            image = read_image(path)
        except EmotionEdgeError as error:
            report(error)
            continue
        name = printable(path)
        if (frames := frame_count(path)) > 1:
            every = f": emotion-edge run --camera {name} reads all" if path.suffix == ".gif" else ""
            print(f"emotion-edge: {name}: the first of {frames} frames{every}", file=sys.stderr)
        observation = pipeline.image(image)
        faces = observation.faces
        if share := unsearched(pipeline.detector):
            print(
                f"emotion-edge: {name}: out of time; {share:.0%} of the image was not "
                "searched for small faces: raise --max-seconds or --min-face",
                file=sys.stderr,
            )
        if options.json:
            record = record_of(pipeline, image, observation, str(path))
            # JSON is UTF-8; a terminal of another encoding gets escapes, which mean the same.
            print(json.dumps(record, ensure_ascii=not _utf8()))
        elif not faces:
            print(f"{name}: no face found")
        else:
            for face in faces:
                box, emoji = face.box, EMOJI.get(face.label, "")
                label = f"{emoji} {face.label}" if emoji and _encodes(emoji) else face.label
                confidence = f"{face.shown.confidence:.0%}"
                if face.label == UNSURE:  # the number is another label's
                    confidence = f"({face.shown.label} {confidence})"
                print(f"{name}: {label} {confidence} at {box.x},{box.y} {box.width}x{box.height}")
        if target is not None:
            _write(target, annotate(hidden(image, faces, how=options.faces), faces))
            print(f"{name}: annotated copy in {printable(target)}", file=sys.stderr)
    if made:
        with contextlib.suppress(OSError):  # it holds copies
            options.annotate.rmdir()
    return failed[0].exit_code if failed else 0


def _targets(
    files: Iterable[Path], folder: Path | None, *, overwrite: bool
) -> dict[Path, Path | None]:
    """Each file's annotated copy, which is never one of the files.

    Raises OutputExists, UsageError or SinkError before any work is done.
    """
    paths = list(dict.fromkeys(files))
    if folder is None:
        return dict.fromkeys(paths)
    targets = {path: folder / f"{name}-emotions.png" for path, name in _names(paths).items()}
    inputs = {os.path.realpath(path) for path in paths}
    for path, target in targets.items():
        if os.path.realpath(target) in inputs:
            raise UsageError(
                f"the annotated copy of {printable(path)} would replace {printable(target)}, which "
                "is one of the images: give another --annotate folder"
            )
        if target.exists() and not overwrite:
            raise OutputExists(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(
            f"cannot make the folder {folder} ({error.strerror}): give another --annotate folder"
        ) from error
    return dict(targets)


def _names(paths: list[Path]) -> dict[Path, str]:
    """A different name for each file: its own, with its folders where two would be the same."""
    candidates = {path: _candidates(path) for path in paths}
    names = {path: next(candidates[path]) for path in paths}
    while True:
        count = Counter(names.values())
        same = [path for path in paths if count[names[path]] > 1]
        longer = {path: next(candidates[path], names[path]) for path in same}
        if all(longer[path] == names[path] for path in same):
            return names  # different at last; ``a.jpg`` and ``./a.jpg`` share one copy
        names |= longer


def _candidates(path: Path) -> Iterator[str]:
    """``photo``, ``photo-jpg``, ``party-photo-jpg``, ``2026-party-photo-jpg``, ..."""
    path = path.absolute()
    yield path.stem
    name = path.name.replace(".", "-")
    yield name
    for folder in path.parent.parts[:0:-1]:
        name = f"{folder}-{name}"
        yield name


def _utf8() -> bool:
    return _encoding().lower().replace("-", "") == "utf8"


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "ascii"


def _encodes(text: str) -> bool:
    """Whether standard output can encode a text."""
    try:
        text.encode(_encoding())
    except UnicodeEncodeError:
        return False
    return True


def _write(path: Path, image: Image) -> None:
    _, data = cv2.imencode(".png", image)
    write_whole(path, data.tobytes())
