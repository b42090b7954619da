"""Photographs in, labels out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2

from emotion_edge.annotate import annotate
from emotion_edge.commands.flags import add_backend_arguments, backend
from emotion_edge.errors import EmotionEdgeError, OutputExists, SinkError, UsageError
from emotion_edge.factory import load
from emotion_edge.files import write_whole
from emotion_edge.model.labels import EMOJI
from emotion_edge.model.preprocessing import read_image
from emotion_edge.model.shipped import DEFAULT
from emotion_edge.records import SCHEMA, face_record
from emotion_edge.values import Image

HELP = "name the emotions in photographs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a photograph")
    parser.add_argument("--model", default=DEFAULT, help="a shipped name or a .tflite file")
    parser.add_argument("--detector", default="auto", help="auto, haar or yunet")
    add_backend_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON line for each file")
    parser.add_argument(
        "--annotate", type=Path, metavar="FOLDER", help="leave annotated copies in this folder"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace annotated copies")


def run(options: argparse.Namespace) -> int:
    """Classify every face of every file; a bad file is reported and the others go on."""
    targets = _targets(options)
    pipeline = load(options.model, detector=options.detector, backend=backend(options))
    failed: EmotionEdgeError | None = None
    for path, target in targets.items():
        try:
            image = read_image(path)
        except EmotionEdgeError as error:
            if options.debug:
                raise
            print(f"emotion-edge: {error}", file=sys.stderr)
            failed = error
            continue
        faces = pipeline.image(image).faces
        if options.json:
            record = {"schema": SCHEMA, "type": "image", "file": str(path)}
            height, width = image.shape[:2]
            record |= {"width": width, "height": height, "faces": [face_record(f) for f in faces]}
            print(json.dumps(record, ensure_ascii=False))
        elif not faces:
            print(f"{path}: no face found")
        else:
            for face in faces:
                box = face.box
                print(
                    f"{path}: {EMOJI.get(face.label, '')} {face.label} "
                    f"{face.shown.confidence:.0%} at {box.x},{box.y} {box.width}x{box.height}"
                )
        if target is not None:
            _write(target, annotate(image, faces))
            print(f"{path}: annotated copy in {target}", file=sys.stderr)
    return failed.exit_code if failed else 0


def _targets(options: argparse.Namespace) -> dict[Path, Path | None]:
    """Each file's annotated copy, refused before any work is done."""
    if options.annotate is None:
        return dict.fromkeys(options.files)
    targets = {path: options.annotate / f"{path.stem}-emotions.png" for path in options.files}
    if len(set(targets.values())) < len(targets):
        raise UsageError("two files of the same name cannot be annotated into one folder: rename")
    for target in targets.values():
        if target.exists() and not options.overwrite:
            raise OutputExists(target)
    try:
        options.annotate.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"cannot make the folder {options.annotate}: {error.strerror}") from error
    return dict(targets)


def _write(path: Path, image: Image) -> None:
    _, data = cv2.imencode(".png", image)
    write_whole(path, data.tobytes())
