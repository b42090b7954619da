"""The steps of ``make test-pi-machine``, inside the machine; started by systemd at every boot.

Reads one JSON object a line from the host, ``{"step": name}``, and answers ``{"say": text}`` lines
and then ``{"ok": bool, "text": what was found}``. It runs on Debian's Python and its standard
library alone; what is tested runs in the environment that the installer makes.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import threading
import time
import traceback
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CARGO = Path("/srv/cargo")
PORT = Path("/dev/virtio-ports/machine")
CONFIG = Path("/etc/emotion-edge/kiosk.toml")
JSONL = Path("/var/lib/emotion-edge/emotions.jsonl")
PYTHON = "/opt/emotion-edge/current/bin/python"
COMMAND = "/opt/emotion-edge/current/bin/emotion-edge"
FROZEN = Path("/run/virtual-camera/frozen")
UNIT = "emotion-edge.service"

KIOSK = """\
quiet = true
detector = "haar"
[camera]
source = "picamera2"
fps = 5
wait = true
frozen_s = 20
identical_s = 60
retry_s = 5
[sinks.jsonl]
path = "emotions.jsonl"
existing = "append"
[sinks.metrics]
stale_s = 15
[sinks.mqtt]
host = "127.0.0.1"
topic = "machine"
interval_s = 1
"""
# Emulation is slow: starting and stopping get more time. The watchdog and everything else stay as
# they ship.
DROP_IN = """\
[Service]
TimeoutStartSec=900
TimeoutStopSec=60
Environment=VIRTUAL_CAMERA_FPS=5
"""


PIPELINE = "emotion_edge/pipeline.py"
UPDATE = ("--wheels", str(CARGO / "wheels"), "--trial", "20", "--patience", "240")
UPDATE_S = 1800
"""Longest time for an update under emulation, which builds and tests a release, in seconds."""
# What makes a release that passes its self-test and never sees a frame of a camera.
BLIND = """
import os as _os, time as _time
if "INVOCATION_ID" in _os.environ and _os.environ.get("NOTIFY_SOCKET"):
    Pipeline.process = lambda *_: _time.sleep(10**6)
"""


class Failed(Exception):
    """What a step expected and what it found instead."""


def say(text: str) -> None:
    """Send a line to show to the user."""
    send({"say": text})


def send(message: dict[str, Any]) -> None:
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


def run(*command: str, check: bool = True, seconds: float = 600) -> str:
    """The command's output. Raises Failed with its last lines when it fails."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    if check and done.returncode != 0:
        last = " | ".join(done.stdout.strip().splitlines()[-8:])
        raise Failed(f"{' '.join(command[:4])} ended with status {done.returncode}: {last}")
    return done.stdout


def follow(*command: str | Path, env: dict[str, str], said: tuple[str, ...] = ("",)) -> str:
    """Run a command and show the lines that begin with ``said`` as they come; return the last line.

    env: added to this process's own. Raises Failed with the command's last lines when it fails.
    """
    lines = [""]
    with subprocess.Popen(
        command,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith(said):
                say(line.rstrip())
    if process.returncode != 0:
        last = " | ".join(lines[-8:])
        raise Failed(f"{command[0]} ended with status {process.returncode}: {last}")
    return lines[-1]


def until(what: str, happened: Callable[[], Any], seconds: float) -> Any:
    """Wait until ``happened`` answers something true, and return that."""
    end = time.monotonic() + seconds
    while not (answer := happened()):
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds:g} s")
        time.sleep(0.5)
    return answer


class Records:
    """What the kiosk appends to its JSONL file from now on."""

    def __init__(self) -> None:
        self._at = JSONL.stat().st_size if JSONL.exists() else 0
        self._read: list[dict[str, Any]] = []  # and not yet handed out

    def new(self) -> list[dict[str, Any]]:
        """Whole lines since the last call, parsed."""
        self._look()
        found, self._read = self._read, []
        return found

    def _look(self) -> None:
        try:
            with JSONL.open("rb") as file:
                file.seek(self._at)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        self._at += len(whole) + len(newline)
        self._read += [json.loads(line) for line in whole.splitlines()]

    def event(self, kind: str, seconds: float) -> dict[str, Any]:
        """The next event of a kind; what comes after it stays to be looked at."""

        def look() -> dict[str, Any] | None:
            self._look()
            while self._read:
                record = self._read.pop(0)
                if record.get("kind") == kind:
                    return record
            return None

        found: dict[str, Any] = until(f"event {kind} in the JSONL file", look, seconds)
        return found

    def observations(self, count: int, seconds: float) -> list[dict[str, Any]]:
        """The next so many observations, or a few more."""
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            found.extend(r for r in self.new() if r["type"] == "observation")
            return len(found) >= count

        until(f"{count} observations in the JSONL file", enough, seconds)
        return found


class Broker:
    """What Mosquitto passes on, from the moment of subscribing; its retained messages first."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, str]] = []
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-t", "#", "-F", "%t %p"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            topic, _, payload = line.rstrip("\n").partition(" ")
            self._messages.append((topic, payload))

    def wait(self, what: str, wanted: Callable[[str, str], bool], seconds: float) -> str:
        """The payload of the first message since the last wait for which ``wanted`` is true."""

        def look() -> tuple[str] | None:
            while self._messages:
                topic, payload = self._messages.pop(0)
                if wanted(topic, payload):
                    return (payload,)
            return None

        return str(until(f"{what} from the broker", look, seconds)[0])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@contextmanager
def broker() -> Iterator[Broker]:
    """A subscription to everything."""
    messages = Broker()
    try:
        yield messages
    finally:
        messages.close()


def http(path: str) -> tuple[int, str]:
    """Status and body of what the kiosk's metrics output answers; 0 when nothing does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:9188{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def health() -> dict[str, Any]:
    """``/healthz``; empty when nothing answers."""
    text = http("/healthz")[1]
    return json.loads(text) if text else {}


def metric(name: str) -> float:
    """One number of ``/metrics``."""
    text = http("/metrics")[1]
    row = re.search(rf"^emotion_edge_{re.escape(name)} (\S+)$", text, re.MULTILINE)
    if row is None:
        raise Failed(f"/metrics has no {name}")
    return float(row[1])


def show(*names: str) -> list[str]:
    """Properties of the service, as systemd shows them."""
    return [run("systemctl", "show", UNIT, "--value", "-p", name).strip() for name in names]


def set_source(source: str) -> None:
    """Let the kiosk look through another camera."""
    CONFIG.write_text(re.sub(r'source = ".*"', f'source = "{source}"', CONFIG.read_text()))


def press(device: str, button: str) -> None:
    """Press a button control of a V4L2 device, found by its name (videodev2.h)."""
    query, set_value, following = 0xC0445624, 0xC008561C, 0x80000000
    with Path(device).open("rb+", buffering=0) as camera:
        number = 0
        while True:
            control = bytearray(struct.pack("=I64x", number | following))
            fcntl.ioctl(camera, query, control)  # OSError after the last one
            number, _, name = struct.unpack_from("=II32s", control)
            if name.rstrip(b"\0").decode() == button:
                fcntl.ioctl(camera, set_value, struct.pack("=Ii", number, 1))
                return


# The steps, in the order in which the host calls them.


def boot() -> str:
    """Prepare what a Pi's image has: rights to the buffers' device, a camera, an archive of apt."""
    FROZEN.parent.mkdir(exist_ok=True)
    rule = Path("/etc/udev/rules.d/90-udmabuf.rules")
    if not rule.exists():
        rule.write_text('KERNEL=="udmabuf", GROUP="video", MODE="0660"\n')
        for old in Path("/etc/apt").glob("sources.list*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        Path("/etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{CARGO}/apt ./\n")
        run("udevadm", "control", "--reload")
    run("udevadm", "trigger", "--settle", "/dev/udmabuf")
    part = re.search(r"CPU part\s*: (\S+)", Path("/proc/cpuinfo").read_text())
    up = Path("/proc/uptime").read_text().split()[0]
    return (
        f"{os.uname().machine}, CPU part {part[1] if part else '?'}, Linux {os.uname().release}, "
        f"up {float(up):.0f} s"
    )


def install() -> str:
    """The installer as edge/README.md has it; wheels come from a folder in place of the network."""
    CONFIG.parent.mkdir(parents=True, exist_ok=True)
    CONFIG.write_text(KIOSK)
    drop_in = Path(f"/etc/systemd/system/{UNIT}.d/emulation.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(DROP_IN)
    wheel = next(CARGO.glob("emotion_edge-*.whl"))
    follow(
        *(CARGO / "edge/install-kiosk.sh", "--wheel", wheel),
        env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{CARGO}/wheels"},
        said=("+", "install-kiosk:"),
    )
    versions = run(
        PYTHON,
        "-c",
        "import platform, picamera2; from importlib.metadata import version;"
        "print('Python', platform.python_version(), *(f'{name} {version(name)}' for name in"
        " ('numpy', 'opencv-python-headless', 'ai-edge-litert', 'picamera2', 'emotion-edge')))",
    )
    return versions.strip().splitlines()[-1]


def labels() -> str:
    """The JSONL file names the faces of the photographs as this model does on x86."""
    records = Records()
    people = json.loads((CARGO / "expected.json").read_text())
    seen: dict[str, Counter[str]] = {person["name"]: Counter() for person in people}

    def enough() -> bool:
        for record in records.new():
            for face in record.get("faces", ()):
                for person in people:
                    if iou(face["box"], person["box"]) > 0.6:
                        seen[person["name"]][face["raw"]["label"]] += 1
        return all(names.total() >= 12 for names in seen.values())

    until("every person a dozen times", enough, 900)
    found = []
    for person in people:
        ((label, times),) = seen[person["name"]].most_common(1)
        if label not in person["labels"]:
            raise Failed(
                f"{person['name']} is {dict(seen[person['name']])}, not {person['labels']}"
            )
        # The rest are frames in which the next photograph stands where the last one's face was.
        found.append(f"{person['name']} {label} ({times} of {seen[person['name']].total()})")
    return "as on x86: " + ", ".join(found)


def iou(one: list[int], other: list[int]) -> float:
    """Overlap of two boxes (x, y, width, height), 0..1."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0, width) * max(0, height)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def mqtt() -> str:
    """The broker has the label, the state and Home Assistant's discovery."""
    with broker() as messages:
        messages.wait(
            "Home Assistant's discovery",
            lambda topic, _: topic.startswith("homeassistant/") and topic.endswith("/config"),
            60,
        )
        label = messages.wait(
            "a label", lambda topic, text: topic == "machine/label" and text != "none", 120
        )
        state = json.loads(
            messages.wait(
                "a state with a face", lambda t, p: t == "machine/state" and '"box"' in p, 120
            )
        )
    return f"label {label}; a state of {len(state['faces'])} faces"


def metrics() -> str:
    """Metrics, health, and the ``status`` command."""
    code, text = http("/healthz")
    if code != 200:
        raise Failed(f"/healthz answers {code}: {text}")
    before = metric("frames_total")
    until("a growing frames_total", lambda: metric("frames_total") > before, 60)
    if metric("camera_up") != 1:
        raise Failed("camera_up is not 1")
    run(COMMAND, "status", "--config", str(CONFIG))
    stage = {
        name: metric(f'stage_seconds_sum{{stage="{name}"}}')
        / metric(f'stage_seconds_count{{stage="{name}"}}')
        for name in ("detect", "classify")
    }
    mean = ", ".join(f"{name} {1000 * s:.0f} ms" for name, s in stage.items())
    return f"/healthz 200; {metric('frames_total'):.0f} frames, {mean} each under emulation"


def freeze() -> str:
    """A camera that goes silent is noticed, told and reopened."""
    records = Records()
    with broker() as messages:
        FROZEN.touch()
        try:
            begun = time.monotonic()
            lost = records.event("camera.lost", 120)
            noticed = time.monotonic() - begun
            messages.wait("camera offline", lambda *m: m == ("machine/camera", "offline"), 60)
            until("/healthz 503", lambda: http("/healthz")[0] == 503, 60)
            records.event("camera.retry", 120)  # it opens, and still nothing comes
        finally:
            FROZEN.unlink()
        records.event("camera.recovered", 180)
        messages.wait("camera online", lambda *m: m == ("machine/camera", "online"), 60)
        records.observations(3, 120)
    until("/healthz 200", lambda: http("/healthz")[0] == 200, 60)
    return f"{lost['details']['reason']} after {noticed:.0f} s, retried, recovered by itself"


def hang() -> str:
    """A process that hangs is restarted by systemd's watchdog."""
    pid, restarts, limit = show("MainPID", "NRestarts", "WatchdogUSec")
    begun = time.monotonic()
    os.kill(int(pid), signal.SIGSTOP)
    until("a restart", lambda: int(show("NRestarts")[0]) > int(restarts), 300)
    took = time.monotonic() - begun
    until("the service running", lambda: show("SubState") == ["running"], 300)
    Records().observations(3, 300)
    journal = run("journalctl", "-u", UNIT, "-n", "50", "--no-pager")
    if "Watchdog timeout" not in journal:
        raise Failed("the journal has no watchdog timeout")
    return f"watchdog of {limit} restarted it {took:.0f} s after SIGSTOP; labels again"


def disk() -> str:
    """A full disk stops the file, not the kiosk; with room again the file goes on, whole."""
    (restarts,) = show("NRestarts")
    filler = JSONL.with_name("filler")
    with broker() as messages:
        try:
            disk = os.statvfs(JSONL.parent)
            free = disk.f_bfree * disk.f_frsize
            most = free - (64 << 20)  # room for the file system's own notes
            if most > 0:
                run("fallocate", "-l", str(most), str(filler))
            for size in (1 << 20, 1 << 12):
                with filler.open("ab", buffering=0) as file, suppress(OSError):
                    while file.write(bytes(size)):
                        pass
            say(f"filled {free >> 20} MB")
            messages.wait(
                "sink.failed", lambda t, p: t == "machine/event" and '"sink.failed"' in p, 300
            )
            for _ in range(3):
                messages.wait(
                    "a state while the disk is full", lambda t, _: t == "machine/state", 60
                )
        finally:
            filler.unlink(missing_ok=True)
        messages.wait(
            "sink.recovered", lambda t, p: t == "machine/event" and '"sink.recovered"' in p, 180
        )
    Records().observations(3, 120)
    lines = JSONL.read_bytes().rpartition(b"\n")[0].splitlines()
    for line in lines:
        json.loads(line)
    if show("NRestarts") != [restarts]:
        raise Failed("the service was restarted")
    dropped = [s["dropped"] for s in health()["sinks"] if "jsonl" in s["name"]]
    return f"went on over MQTT; the file's {len(lines)} lines whole, {dropped[0]} counted dropped"


def loans() -> str:
    """Frames lent as views of libcamera's buffers: machine_loans.py."""
    run("systemctl", "stop", UNIT)
    try:
        return follow(
            *(PYTHON, CARGO / "machine_loans.py", CARGO / "frames"),
            env={"VIRTUAL_CAMERA_FPS": "0"},
        )
    finally:
        FROZEN.unlink(missing_ok=True)
        run("systemctl", "start", UNIT)


def vivid() -> str:
    """The OpenCV path on the kernel's virtual webcam: unplugged, plugged in, held by another."""
    run("modprobe", "vivid", "n_devs=1", "node_types=0x1", "allocators=0")
    device = str(until("/dev/video*", lambda: sorted(Path("/dev").glob("video*")), 60)[0])
    set_source(device)
    records = Records()
    run("systemctl", "restart", UNIT)
    try:
        opened = records.event("camera.opened", 120)
        records.observations(5, 180)
        again = run(COMMAND, "run", "--camera", device, "--frames", "1", check=False)
        if "in use by" not in again:
            raise Failed(f"a second program is not told that the camera is in use: {again[-300:]}")
        records.new()
        press(device, "Disconnect")
        lost = records.event("camera.lost", 120)
        back = records.event("camera.recovered", 180)
        records.observations(3, 120)
        return (
            f"{opened['message'].partition('granted ')[2]}; "
            f"{lost['details']['reason']}, back after {back['details']['away_s']:.1f} s"
        )
    finally:
        set_source("picamera2")
        run("systemctl", "restart", UNIT)


def update() -> str:
    """A good release, one that does not start, and one that never sees a frame."""
    wheel = next(CARGO.glob("emotion_edge-*.whl"))
    first = Path("/opt/emotion-edge/current").resolve()
    good = altered(wheel, "9.0.1")
    say(run(COMMAND, "update", "--wheel", good, *UPDATE, seconds=UPDATE_S))
    release = Path("/opt/emotion-edge/current").resolve()
    if not release.name.startswith("9.0.1-") or health()["version"] != "9.0.1":
        raise Failed(f"{release.name} is current, {health()} answers")
    Records().observations(3, 120)
    told = []
    for version, module, code in (
        ("9.0.2", "emotion_edge/cli.py", "raise ImportError('broken on purpose')"),
        ("9.0.3", PIPELINE, BLIND),
    ):
        until("/healthz 200", lambda: http("/healthz")[0] == 200, 600)
        said = run(
            COMMAND,
            "update",
            "--wheel",
            altered(wheel, version, module, code),
            *UPDATE,
            check=False,
            seconds=UPDATE_S,
        )
        say(said)
        if Path("/opt/emotion-edge/current").resolve() != release:
            raise Failed(f"{version} stayed: {said[-300:]}")
        told.append(said.strip().splitlines()[-1])
    if "broken on purpose" not in told[0] or "was rolled back: not healthy" not in told[1]:
        raise Failed(" | ".join(told))
    until("/healthz 200", lambda: http("/healthz")[0] == 200, 300)
    if health()["version"] != "9.0.1" or not first.exists():
        raise Failed(f"after the rollback {health()['version']} answers")
    return f"9.0.1 good; 9.0.2 and 9.0.3 refused: {told[1].partition('back: ')[2]}"


def cut() -> str:
    """The power goes while a release that never sees a frame is on trial."""
    wheel = altered(next(CARGO.glob("emotion_edge-*.whl")), "9.0.4", PIPELINE, BLIND)
    before = Path("/opt/emotion-edge/current").resolve().name
    Path("/var/lib/before-cut").write_text(before)
    run("systemd-run", "--unit=cut", COMMAND, "update", "--wheel", wheel, *UPDATE, "--force")
    until(
        "the switch",
        lambda: Path("/opt/emotion-edge/current").resolve().name.startswith("9.0.4-"),
        UPDATE_S,
    )
    # Without stopping services and without writing what is not on the disk.
    run("systemd-run", "--on-active=2", "systemctl", "reboot", "--force", "--force")
    return f"{before} replaced by 9.0.4 and cut off"


def resumed() -> str:
    """After a power cut during a trial, the timer judges the release and goes back."""
    before = Path("/var/lib/before-cut").read_text()
    until(
        "the release before the trial",
        lambda: Path("/opt/emotion-edge/current").resolve().name == before,
        1200,
    )
    until("/healthz 200", lambda: http("/healthz")[0] == 200, 300)
    until("no trial", lambda: not Path("/opt/emotion-edge/update.json").exists(), 60)
    Records().observations(3, 120)
    last = json.loads(Path("/opt/emotion-edge/updates.jsonl").read_text().splitlines()[-1])
    return str(last["result"])


def altered(wheel: Path, version: str, module: str = "", code: str = "") -> str:
    """A copy of the wheel with another version, and with a line added to one of its modules."""
    folder = Path("/var/tmp/wheels")
    folder.mkdir(exist_ok=True)
    path = folder / f"emotion_edge-{version}-py3-none-any.whl"
    old = wheel.name.split("-")[1]
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "emotion_edge/version.py" or name.endswith(".dist-info/METADATA"):
                data = data.replace(old.encode(), version.encode(), 1)
            if name.endswith(".dist-info/RECORD"):
                data = b"".join(line for line in data.splitlines(True) if b".py," not in line)
                data = data.replace(f"-{old}.dist".encode(), f"-{version}.dist".encode())
            if name == module:
                data += f"\n{code}\n".encode()
            target.writestr(name.replace(f"-{old}.dist-info", f"-{version}.dist-info"), data)
    return str(path)


def reboot() -> str:
    """Begin to restart the machine."""
    Path("/var/lib/before-reboot").write_text(str(JSONL.stat().st_size))
    # A little later: this process has to answer before it is ended, too.
    run("systemd-run", "--on-active=2", "--timer-property=AccuracySec=1", "systemctl", "reboot")
    return "asked systemd"


def rebooted() -> str:
    """After a restart of the machine the kiosk runs, without help, and its file goes on."""
    before = int(Path("/var/lib/before-reboot").read_text())
    until("the service running", lambda: show("SubState") == ["running"], 600)
    until("/healthz 200", lambda: http("/healthz")[0] == 200, 300)
    Records().observations(3, 120)
    with broker() as messages:
        label = messages.wait(
            "a label", lambda topic, text: topic == "machine/label" and text != "none", 120
        )
    if JSONL.stat().st_size <= before:
        raise Failed("the JSONL file did not grow")
    up = float(Path("/proc/uptime").read_text().split()[0])
    return f"running {up:.0f} s after power-on; label {label}"


def uninstall() -> str:
    """The installer takes everything away again."""
    run(str(CARGO / "edge/install-kiosk.sh"), "--uninstall", "--purge")
    left = [
        str(path)
        for path in (CONFIG.parent, JSONL.parent, Path("/opt/emotion-edge"))
        if path.exists()
    ]
    if left or show("LoadState") == ["loaded"]:
        raise Failed(f"left behind: {left}")
    return "nothing left"


STEPS = (
    boot,
    install,
    labels,
    mqtt,
    metrics,
    freeze,
    hang,
    disk,
    loans,
    vivid,
    update,
    reboot,
    rebooted,
    cut,
    resumed,
    uninstall,
)


def main() -> None:
    steps = {step.__name__: step for step in STEPS}
    send({"hello": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
    for line in io.BufferedReader(port):
        try:
            send({"ok": True, "text": steps[json.loads(line)["step"]]()})
        except Exception as error:
            if not isinstance(error, Failed):
                say(traceback.format_exc())
            say(run("journalctl", "-u", UNIT, "-n", "40", "--no-pager", check=False))
            send({"ok": False, "text": f"{error}" or type(error).__name__})


if __name__ == "__main__":
    while not PORT.exists():  # until udev has come round to it
        time.sleep(0.2)
    port = PORT.open("r+b", buffering=0)  # once: a port that is open is busy
    answers = io.BufferedWriter(port)
    main()
