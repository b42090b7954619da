"""``emotion-edge demo``: a short run that leaves a clip, a contact sheet and its records."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np

from emotion_edge.cameras import list_cameras
from emotion_edge.commands import run as run_command
from emotion_edge.commands.flags import named_path
from emotion_edge.errors import SinkError, UsageError
from emotion_edge.files import write_whole
from emotion_edge.model.shipped import DEFAULT
from emotion_edge.privacy import Hiding
from emotion_edge.sinks.encoding import players
from emotion_edge.values import Image

HELP = "film two portraits that come alive, or yourself, and leave a clip and a contact sheet"

_COLUMNS, _ROWS = 3, 3
_TILE = 420  # pixels across
_GAP = 8  # pixels between two images of the sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--camera", default="demo", help="demo (the default), auto, /dev/video0")
    parser.add_argument("--frames", type=int, default=180, metavar="N", help="end after N frames")
    parser.add_argument("--model", default=DEFAULT, help="a shipped name or a .tflite file")
    parser.add_argument(
        "--faces",
        choices=get_args(Hiding),
        default="show",
        help="hide the faces in the clip and the contact sheet; labels stay",
    )
    parser.add_argument(
        "--out",
        type=named_path,
        default=Path("demo"),
        metavar="FOLDER",
        help="for the files (demo)",
    )


def run(options: argparse.Namespace) -> int:
    """Run, draw the contact sheet, and end with what was seen, where it is, and what is next."""
    if options.frames < 1:
        raise UsageError(f"--frames {options.frames}: use 1 or more")
    clip, records = options.out / "annotated.mp4", options.out / "emotions.jsonl"
    sheet = options.out / "contact-sheet.jpg"
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(
            f"cannot make the folder {options.out} ({error.strerror}): give another --out folder"
        ) from error
    words = ["--camera", options.camera, "--model", options.model, "--frames", str(options.frames)]
    words += ["--faces", options.faces]
    words += ["--jsonl", str(records), "--record", str(clip), "--overwrite"]
    if options.camera.partition(":")[0] == "demo":
        # As fast as the machine is, and with a label for weak expressions too.
        words += ["--set", "camera.paced=false", "--set", "sinks.record.preset=ultrafast"]
        words += ["--unsure-below", "0"]
    parser = argparse.ArgumentParser()
    run_command.add_arguments(parser)
    status = run_command.run(parser.parse_args(words))
    if status:
        return status
    seen = [json.loads(line) for line in records.read_text().splitlines()]
    seen = [record for record in seen if record["type"] == "observation"]
    if seen:
        _, data = cv2.imencode(".jpg", contact_sheet(clip, moments(seen)))
        write_whole(sheet, data.tobytes())
    print(f"\nSeen:  {summary(seen)}")
    print(f"Files: {clip} ({players(clip)}), {sheet}, {records}")
    print(f"Next:  {_next_step()}")
    return 0


def summary(seen: list[dict[str, Any]]) -> str:
    """``2 faces at most in 180 frames: happy 61%, neutral 14%``, of observation records."""
    labels = Counter(face["label"] for record in seen for face in record["faces"])
    most = max((len(record["faces"]) for record in seen), default=0)
    shares = ", ".join(f"{label} {n / labels.total():.0%}" for label, n in labels.most_common())
    faces = f"{most} face{'s' * (most != 1)} at most" if most else "no face"
    return f"{faces} in {len(seen)} frame{'s' * (len(seen) != 1)}" + (
        f": {shares}" if shares else ""
    )


def moments(seen: list[dict[str, Any]]) -> list[float]:
    """Seconds into the clip of the nine most different moments, in order.

    The most certain frame of the longest run of each set of labels comes first, then what lies
    evenly between. Frames without a face are among them only if no frame has one.
    """
    times = [_seconds(record, seen[0]) for record in seen]
    labels = [tuple(sorted(face["label"] for face in record["faces"])) for record in seen]
    certain = [min((face["confidence"] for face in each["faces"]), default=0.0) for each in seen]
    runs: dict[tuple[str, ...], tuple[int, int]] = {}  # length and best frame of the longest
    start = 0
    for worn, same in groupby(labels):
        length = len(list(same))
        middle = start + length // 2
        best = max(range(start, start + length), key=lambda i: (certain[i], -abs(i - middle)))
        runs[worn] = max(runs.get(worn, (0, 0)), (length, best))
        start += length
    wanted = _COLUMNS * _ROWS
    if any(runs):
        runs.pop((), None)
    longest = sorted(runs.values(), reverse=True)[:wanted]
    chosen = {best for _, best in longest}
    for index in np.linspace(0, len(seen) - 1, 4 * wanted).round().astype(int).tolist():
        if labels[index] not in runs:
            continue
        if len(chosen) < wanted and min(abs(index - other) for other in chosen) > len(seen) / 20:
            chosen.add(index)
    return [times[index] for index in sorted(chosen)]


def contact_sheet(clip: Path, seconds: list[float]) -> Image:
    """The clip's frames at these times, in rows, uint8 BGR. Raises SinkError without a frame."""
    video = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG)
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = {min(round(at * video.get(cv2.CAP_PROP_FPS)), count - 1) for at in seconds}
    tiles: list[Image] = []
    for index in range(count):
        if video.grab() and index in wanted:  # the others need no conversion to BGR
            _, image = video.retrieve()
            height = round(_TILE * image.shape[0] / image.shape[1])
            small = cv2.resize(image, (_TILE, height), interpolation=cv2.INTER_AREA)
            tiles.append(np.asarray(small, dtype=np.uint8))
    video.release()
    if not tiles:
        raise SinkError(f"{clip} has no frame for a contact sheet: is the disk full?")
    bordered = [_bordered(tile) for tile in tiles]
    blank = np.zeros_like(bordered[0])
    bordered += [blank] * (-len(bordered) % _COLUMNS)
    rows = [np.hstack(bordered[i : i + _COLUMNS]) for i in range(0, len(bordered), _COLUMNS)]
    return np.asarray(np.vstack(rows), dtype=np.uint8)


def _bordered(tile: Image) -> Image:
    side = _GAP // 2
    return np.pad(tile, ((side, side), (side, side), (0, 0)))


def _seconds(record: dict[str, Any], first: dict[str, Any]) -> float:
    """Of a record since the first one."""
    if "media_time_s" in record:
        return float(record["media_time_s"] - first["media_time_s"])
    passed = datetime.fromisoformat(record["time"]) - datetime.fromisoformat(first["time"])
    return passed.total_seconds()


def _next_step() -> str:
    program = sys.argv[0] if Path(sys.argv[0]).name == "emotion-edge" else "emotion-edge"
    if any(not camera.trouble for camera in list_cameras()):
        return f"{program} run --camera auto --page, then open http://127.0.0.1:8080"
    return f"{program} image YOUR-PHOTO.jpg --annotate out, or plug a camera in"
