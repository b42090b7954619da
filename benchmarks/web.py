"""Checks that ``emotion-edge web`` keeps nothing that visitors send: memory and files under load.

A server is started, and images of phone size are sent to it: the first half one at a time, each by
a visitor with a session of their own; the second half by ``--sessions`` visitors, of whom
``--concurrent`` are active at the same time. After each upload the server's resident memory is
read. It starts from the moment the server is ready, before it has opened a model, and must not
have grown by more than ``--max-growth`` MB at the end. No file may be left, and no
descriptor more than after the first visit.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from benchmarks.roofline import bar
from emotion_edge.bench import measure as bench
from emotion_edge.bench.measure import Model
from emotion_edge.bench.report import (
    add_output_arguments,
    check_outputs,
    emit,
    progress_of,
    table,
)
from emotion_edge.errors import EmotionEdgeError, UsageError
from emotion_edge.model.shipped import DEFAULT, model_path

HELP = "memory of the web page under hundreds of uploads; exit 1 past a limit"
_VARIANTS = 8  # different images that are sent in turn


@dataclass(slots=True)
class Course:
    """What was seen after each upload; lists of equal length."""

    rss_mb: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    busy: int = 0
    """Responses 503, after which the visitor tried again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--uploads", type=int, default=300, help="(default 300)")
    parser.add_argument("--sessions", type=int, default=50, help="of the second half (default 50)")
    parser.add_argument("--concurrent", type=int, default=4, help="sessions at a time (default 4)")
    parser.add_argument("--megapixels", type=float, default=12.0, help="of an image (default 12)")
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--detector", default="haar", help="haar or yunet (default haar)")
    parser.add_argument("--max-growth", type=float, default=50.0, metavar="MB")
    parser.add_argument("--plot", type=Path, metavar="STEM", help="write STEM.png and STEM.svg")
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Serve, send, judge."""
    check_outputs(options, options.plot)
    for name in ("uploads", "sessions", "concurrent", "megapixels"):
        if getattr(options, name) <= 0:
            raise UsageError(f"--{name} {getattr(options, name)}: give a number above 0")
    if options.uploads < 2 * options.sessions:
        raise UsageError(
            f"{options.uploads} uploads for {options.sessions} sessions; expected at least "
            f"{2 * options.sessions}, one for each session of the second half"
        )
    progress = progress_of(options)
    path = model_path(options.model)
    settings = {
        name: getattr(options, name)
        for name in (
            "uploads", "sessions", "concurrent", "megapixels", "detector", "max_growth"
        )
    }  # fmt: skip
    images = phone_images(options.megapixels, _VARIANTS)
    alone = options.uploads // 2
    shares = [
        len(part) for part in np.array_split(range(options.uploads - alone), options.sessions)
    ]
    with bench.document("web", settings) as result, serving(path, options.detector) as server:
        start = server.rss_mb()
        descriptors = 0
        course = Course()
        lock = threading.Lock()

        def visit(number: int, uploads: int) -> None:
            """One session: the page, then its images."""
            visitor = Visitor(server.address)
            visitor.open()
            for k in range(uploads):
                taken, busy = visitor.upload(images[(number + k) % len(images)])
                with lock:
                    course.rss_mb.append(round(server.rss_mb(), 1))
                    course.seconds.append(round(taken, 3))
                    course.busy += busy
                    progress(f"upload {len(course.rss_mb)}: {course.rss_mb[-1]:.0f} MB")
            visitor.close()

        for number in range(alone):
            visit(number, 1)
            if number == 0:  # threads, the model and the detector have been opened by now
                time.sleep(1)
                descriptors = server.descriptors()
        with ThreadPoolExecutor(options.concurrent) as pool:
            for done in [pool.submit(visit, n, share) for n, share in enumerate(shares)]:
                done.result()
        time.sleep(2)  # connections close
        end = server.rss_mb()
        left = server.files()
        result["model"] = bench.describe(Model.read(path))
        result["bars"] = [
            bar("memory growth at the end, MB", round(end - start, 1), "<=", options.max_growth),
            bar("files left", len(left), "<=", 0),
            bar("descriptors left", server.descriptors() - descriptors, "<=", 0),
        ]
        result["course"] = {"rss_mb": course.rss_mb, "seconds": course.seconds}
        result["rows"] = [
            {
                "model": options.model,
                "detector": options.detector,
                "uploads": options.uploads,
                "sessions": alone + options.sessions,
                "MB at start": round(start, 1),
                "first upload": course.rss_mb[0],
                "most": max(course.rss_mb),
                "at end": round(end, 1),
                "growth MB": round(end - start, 1),
                "503": course.busy,
                "held": "yes" if all(one["holds"] for one in result["bars"]) else "no",
            }
        ]
    if options.plot:
        plot(course.rss_mb, start, end, alone, options.plot)
    emit(options, result, result["rows"], table(result["bars"]))
    return 0 if all(one["holds"] for one in result["bars"]) else 1


def phone_images(megapixels: float, count: int) -> list[bytes]:
    """JPEG files as large as a phone's, each with a face and different from the others."""
    from emotion_edge.web.page import example_bytes

    small = cv2.imdecode(np.frombuffer(example_bytes("smile.jpg"), np.uint8), cv2.IMREAD_COLOR)
    if small is None:
        raise UsageError("the page's example image cannot be decoded: install the package again")
    height, width = small.shape[:2]
    scale = (megapixels * 1e6 / (height * width)) ** 0.5
    large = cv2.resize(small, (round(width * scale), round(height * scale)))
    rng = np.random.default_rng(0)
    noise = rng.integers(-6, 7, large.shape, dtype=np.int16)
    files = []
    for number in range(count):
        image = np.clip(large + np.roll(noise, 97 * number, axis=1), 0, 255).astype(np.uint8)
        files.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
    return files


@dataclass(frozen=True, slots=True)
class Server:
    """A running ``emotion-edge web``. folder: its temporary files."""

    process: subprocess.Popen[str]
    address: str
    folder: Path

    def rss_mb(self) -> float:
        """Resident memory, MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def descriptors(self) -> int:
        """Open files and sockets."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def files(self) -> list[Path]:
        """Files that the server has written."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


@contextmanager
def serving(model: Path, detector: str) -> Iterator[Server]:
    """Start a server on a free port; stop it at the end.

    Raises EmotionEdgeError when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="emotion-edge-benchmark-") as folder:
        command = [sys.executable, "-m", "emotion_edge", "web", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--model", str(model), "--detector", detector],
            env={**os.environ, "TMPDIR": folder},
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            if len(words) < 2:
                raise EmotionEdgeError("emotion-edge web did not start: its message is above")
            try:
                yield Server(process, words[1], Path(folder))
            finally:
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                process.kill()


class Visitor:
    """A browser's requests, over a connection of its own."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)

    def open(self) -> None:
        """Load the page."""
        self._request("GET", "/")

    def upload(self, image: bytes) -> tuple[float, int]:
        """Send an image until it is answered; the last attempt's seconds and the number of 503."""
        for attempt in range(1000):
            start = time.monotonic()
            status, wait = self._request("POST", "/page/faces", image)
            if status != 503:
                return time.monotonic() - start, attempt
            time.sleep(wait)
        raise EmotionEdgeError("the server was busy a thousand times in a row")

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, float]:
        self._connection.request(method, path, body)
        response = self._connection.getresponse()
        text = response.read()
        if response.status not in (200, 503):
            raise EmotionEdgeError(f"{method} {path}: status {response.status}: {text[:200]!r}")
        return response.status, float(response.headers.get("retry-after", 0))


def plot(rss_mb: Sequence[float], start: float, end: float, alone: int, stem: Path) -> None:
    """Memory after each upload."""
    from train import plots

    with plots.figure(7.0, 3.4) as (page, axes):
        uploads = range(1, len(rss_mb) + 1)
        axes.plot(uploads, rss_mb, label="after each upload", **plots.series(0, markers=False))
        for value, label, style, at, side in (
            (start, "at start", "--", 1, "left"),
            (end, "at the end", ":", len(rss_mb), "right"),
        ):
            axes.axhline(value, color="0.4", linewidth=1, linestyle=style)
            text = f"{label}: {value:.0f} MB"
            axes.annotate(
                text,
                (at, value),
                (0, -3),
                textcoords="offset points",
                fontsize=9,
                ha=side,
                va="top",
            )
        axes.axvline(alone + 0.5, color="0.7", linewidth=1)
        axes.annotate("one visitor at a time ", (alone, 0), ha="right", va="bottom", fontsize=9)
        axes.annotate(" several at the same time", (alone + 1, 0), va="bottom", fontsize=9)
        axes.set_ylim(0, 1.2 * max(*rss_mb, end))
        axes.set_xlabel("uploads")
        axes.set_ylabel("server's resident memory, MB")
        axes.set_title("emotion-edge web: memory under uploads")
        plots.save(page, stem)
