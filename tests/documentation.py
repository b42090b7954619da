"""The commands of the documentation, and a place where they can be typed.

A comment that readers do not see says what is not run here, and why: before a block, for all of it
or for the lines that hold one of the parts named::

    <!-- not run: it needs a Raspberry Pi -->
    <!-- not run: they fetch 8 GB: `peers --install`, `peers --data` -->

Everything else is typed as it stands, but for ``STAND_INS`` (what a reader has and a test has not)
and ``SHORTER`` (what a reader has time for). Files of the reader's own are those of ``OWN``.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_MADE = {"runs", "demo", "dist", "build", "data", "__pycache__"}
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part in _MADE or part[0] == "." for part in page.relative_to(ROOT).parts)
)

STAND_INS = (
    (r"--data PATH", "--data fer2013.csv"),
    (r"CAMERA=auto", "CAMERA=demo"),
    (r"--camera (auto|picamera2|/dev/\S+|rtsp:\S+)", "--camera demo"),
    (r"--mqtt homeassistant\.local", "--mqtt 127.0.0.1:9"),
    (r"--cpus \d+", f"--cpus {min(os.sched_getaffinity(0))}"),
)
"""Pattern and replacement: no test has a camera, a broker or this machine's fourth core."""

SHORTER = {
    "make demo": "FRAMES=5",
    "emotion-edge demo": "--frames 5",
    "emotion-edge run": "--set frames=5",
    "emotion-edge bench": "--warmup 1 --rounds 2 --runs 2 --restarts 1",
    # The soft labels of the checkout are of all faces.
    "python -m train fit": "--set fit.epochs=1 --set targets.soft_labels=",
    "python -m train soften": "--views 1",
    "python -m train sweep": "--trials 1 --set fit.epochs=1",
    # A few faces decide nothing, and the networks are not trained: every file is written.
    "python -m convert": "--max-drop 100 --min-agreement 0 --max-recall-drop 100 --force",
    "python -m convert explain": "--max-drop 100",
    "python -m benchmarks latency": "--warmup 1 --rounds 2 --runs 2 --restarts 1",
    "python -m benchmarks pipeline": "--frames 10 --live 1 --sizes 320x240 --faces 1",
    "python -m benchmarks accuracy": "--rounds 1 --restarts 1",
    "python -m benchmarks roofline": "--rounds 1 --restarts 1",
    "python -m benchmarks faces": "--count 8 --sequences 1 --empty 2 --turned 2",
    "python -m benchmarks steady": "--count 7",
    "python -m benchmarks web": "--uploads 4 --sessions 1 --concurrent 1 --megapixels 0.5",
    "python -m benchmarks soak": "--frames 200 --settle 50 --max-growth 1000 --max-drift 1000",
    "python -m benchmarks board": "--quick --soak 0",
    "python -m benchmarks compare": "--least 100",
    "python -m benchmarks compare --identical": "--identical 1",
}
"""Words appended to a command that begins so; the longest beginning counts."""

JUDGES = re.compile(r"python -m benchmarks steady")
"""Ends with 1 where its figures miss their bar, as those of a few faces do."""

UNTOUCHED = re.compile(r"python -m convert (cards|inspect|attach)")
SERVER = re.compile(r"emotion-edge (web\b|run\b.* --page\b)")
SLOW = re.compile(r"\b(python -m (train|convert|benchmarks)|emotion-edge bench)\b")
"""What imports TensorFlow or measures for long."""


@dataclass(frozen=True, slots=True)
class Block:
    """Commands that belong together. line: of the page. kept_back: command to reason."""

    page: Path
    line: int
    commands: tuple[str, ...]
    kept_back: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def run(self) -> tuple[str, ...]:
        """The commands that are run."""
        return tuple(one for one in self.commands if one not in self.kept_back)


def blocks() -> Iterator[Block]:
    """Every block of commands of every page. Raises ValueError for a mark that marks nothing."""
    marks_and_block = re.compile(
        r"((?:^ *<!-- not run: [^>]* -->\n\s*)*)"
        r"^ *```(console|sh|bash)\n(.*?)^ *```$",
        re.DOTALL | re.MULTILINE,
    )
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        known = 0
        for found in marks_and_block.finditer(text):
            marks, kind, body = found.groups()
            lines = [line.strip() for line in body.replace("\\\n", " ").splitlines()]
            commands = tuple(
                re.sub(r"\s+", " ", line.removeprefix("$ "))
                for line in lines
                if line.startswith("$ ") or (kind != "console" and line and line[0] != "#")
            )
            line = text.count("\n", 0, found.start(2)) + 1
            reasons = re.findall(r"<!-- not run: ([^>]*?) -->", marks)
            known += len(reasons)
            kept_back: dict[str, str] = {}
            for reason in reasons:
                parts = re.findall(r"`([^`]+)`", reason) or [""]
                for part in parts:
                    chosen = [command for command in commands if part in command]
                    if not chosen:
                        raise ValueError(f"{page}:{line}: no command has {part!r}: {reason}")
                    kept_back |= dict.fromkeys(chosen, reason)
            yield Block(page, line, commands, kept_back)
        if len(re.findall(r"^ *<!-- not run:", text, re.MULTILINE)) != known:
            raise ValueError(f"{page}: a mark 'not run' stands before no block of commands")


def as_typed(command: str, port: int) -> str:
    """A command with its stand-ins, shortened; what listens, listens on ``port``."""
    bare = re.sub(r"\s+#.*$", "", command)
    for pattern, text in STAND_INS:
        bare = re.sub(pattern, text, bare)
    bare = re.sub(r"localhost:7860", f"127.0.0.1:{port}", bare)
    bare = re.sub(r"--page( [\d.]+:\d+)?", f"--page 127.0.0.1:{port}", bare)
    bare = re.sub(r"emotion-edge web", rf"\g<0> --port {port}", bare)
    pieces = re.split(r"(\s(?:&&|\|)\s)", bare)
    return "".join(
        piece if number % 2 else _shortened(piece) for number, piece in enumerate(pieces)
    )


def _shortened(command: str) -> str:
    begins = [one for one in SHORTER if re.search(rf"(^|/){re.escape(one)}\b", command.strip())]
    if not begins or UNTOUCHED.search(command) or SERVER.search(command):
        return command
    return f"{command} {SHORTER[max(begins, key=len)]}"


_TESTERS = ("EMOTION_EDGE", "MAKE", "MFLAGS", "VENV", "DEMO_VENV", "PYTHON", "CAMERA", "FRAMES")
"""Variables of who runs the tests, by ``make VENV=...`` for instance: not the reader's."""


# --- a place to type ---------------------------------------------------------------------------


class Place:
    """A copy of the checkout with everything a reader has, as a context manager.

    Programs that do not end by themselves are asked once and stopped when it is left.
    """

    def __init__(self, folder: Path, own: dict[str, Callable[[Path], None]]) -> None:
        """folder: empty. own: file to maker, which is given where it shall lie."""
        self.folder = folder / "emotion-edge"
        self._own = own
        self._servers: list[subprocess.Popen[bytes]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def __enter__(self) -> Place:
        shutil.copytree(
            ROOT,
            self.folder,
            ignore=lambda folder, names: [
                name for name in names if name in _MADE or (name.startswith(".") and name != ".ci")
            ],
        )
        for venv in (".venv", ".venv-demo"):  # this one, called ready
            (self.folder / venv).mkdir()
            for entry in Path(sys.prefix).iterdir():
                if not entry.name.startswith("ready"):
                    (self.folder / venv / entry.name).symlink_to(entry)
            (self.folder / venv / "ready").touch()
        home = self.folder.parent / "home"
        home.mkdir()
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_TESTERS)
        } | {
            "HOME": str(home),
            "PATH": f"{self.folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, (self.folder / "edge", self.folder))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "MPLBACKEND": "agg",
            # No downloads: an attempt fails immediately.
            "http_proxy": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
            "no_proxy": "127.0.0.1,localhost",
        }
        return self

    def need(self, text: str) -> None:
        """Make the reader's own files that a text names."""
        for name, make in self._own.items():
            path = self.folder / name
            if re.search(rf"(^|[\s@=]){re.escape(name)}($|[\s/])", text) and not path.exists():
                make(path)

    def type(self, command: str) -> str:
        """Run a command and return what it printed. Fails the test where it fails."""
        typed = as_typed(command, self.port)
        self.need(typed)
        if SERVER.search(typed):
            return self._serve(typed)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", typed],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        judged = done.returncode == 1 and JUDGES.search(typed) and "Traceback" not in done.stdout
        if done.returncode and not judged:
            pytest.fail(f"$ {typed}\n{done.stdout[-3000:]}\nexit status {done.returncode}")
        return done.stdout

    def _serve(self, typed: str) -> str:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {typed}"], cwd=self.folder, env=self._environment
        )
        deadline = time.monotonic() + 180
        while server.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=60) as page:
                    self._servers.append(server)
                    return str(page.read().decode())
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        server.kill()
        pytest.fail(f"$ {typed}\ndid not answer; exit status {server.wait()}")

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.send_signal(signal.SIGTERM)
        statuses = [server.wait(60) for server in self._servers]
        assert not any(statuses), f"stopped with exit status {statuses}"
