"""Simulates kiosks that report to a real Mosquitto and are scraped by a real Prometheus.

Each kiosk has the MQTT sink and the metrics sink of the device, with a connection and a port of its
own; only its camera is made up. Broker, Prometheus, subscriber and kiosks share this machine's
loopback and its cores. For each size:

1. *steady*: every kiosk sees a frame each ``--period`` seconds, whose faces change, and reports an
   event with it. A subscriber counts what arrives: each event and each state has a number, so a
   message that is lost or comes twice is seen. The latency is from the call of the sink to the
   subscriber's callback.
2. *restart*: the broker ends for ``--down`` seconds while the kiosks continue. Reported are the
   time until the last one is back, how many came back in the busiest second, and what was lost:
   events, which are queued, and kiosks whose newest state did not arrive.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.roofline import bar
from emotion_edge.archive.local import end_with_parent
from emotion_edge.bench import measure as bench
from emotion_edge.bench.report import (
    add_output_arguments,
    check_outputs,
    emit,
    progress_of,
    table,
)
from emotion_edge.commands.flags import numbers
from emotion_edge.errors import EmotionEdgeError, MissingExtra, UsageError
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.sinks.metrics import MetricsSettings, MetricsSink
from emotion_edge.sinks.mqtt import MqttSettings, MqttSink
from emotion_edge.values import Box, Emotion, Event, Face, Frame, Observation

HELP = "kiosks against a real broker and Prometheus: messages/s, losses, latency, a restart"
_PER_PROCESS = 60  # kiosks: paho waits with select, whose descriptors end at 1,023
_BETWEEN_S = 0.2  # between two kiosks of a process that start: a fleet does not boot in one second
_SCRAPE_S = 15
_PATIENCE_S = 240.0  # for connections, for the last messages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--kiosks", type=numbers, default=(10, 100, 1000), metavar="N,..", help="sizes of fleets"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of the steady phase")
    parser.add_argument("--period", type=float, default=5.0, help="seconds between two frames")
    parser.add_argument("--down", type=float, default=10.0, help="seconds without the broker")
    parser.add_argument(
        "--spread", type=float, default=5.0, help="the sink's reconnect_spread_s, in seconds"
    )
    parser.add_argument(
        "--max-burst",
        type=float,
        default=0.5,
        help="largest share of the fleet that may come back within one second",
    )
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Measure each size. 1 when a message was lost or kiosks came back all at one time."""
    check_outputs(options)
    if not options.kiosks or min(options.kiosks) < 1:
        raise UsageError(f"--kiosks is {options.kiosks}: give numbers from 1 up, as 10,100")
    if options.period <= 0 or options.seconds < options.period:
        raise UsageError("--period must be above 0 and --seconds at least as long")
    _allow_many_files(max(options.kiosks))
    settings = {
        name: getattr(options, name) for name in ("kiosks", "seconds", "period", "down", "spread")
    }
    show = progress_of(options)
    with bench.document("fleet", settings) as result:
        result["versions"] = {name: _version(name) for name in ("mosquitto", "prometheus")}
        result["rows"] = [_measure(count, options, show) for count in options.kiosks]
        result["bars"] = [one for row in result["rows"] for one in judge(row, options.max_burst)]
    emit(options, result, result["rows"], table(result["bars"]))
    return 0 if all(one["holds"] for one in result["bars"]) else 1


def judge(row: dict[str, Any], max_burst: float) -> list[dict[str, Any]]:
    """The limits of one size."""
    count = row["kiosks"]
    bars = [
        bar(f"{count} kiosks: messages lost", row["lost"], "<=", 0),
        bar(f"{count} kiosks: events lost in the restart", row["lost in restart"], "<=", 0),
        bar(f"{count} kiosks: scraped", row["scraped"], ">=", count),
    ]
    if count >= 100:  # of a few, two may well draw the same second
        share = round(row["back in busiest s"] / count, 3)
        name = f"{count} kiosks: share back in the busiest second"
        bars.append(bar(name, share, "<=", max_burst))
    return bars


def _measure(count: int, options: argparse.Namespace, show: Any) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        broker = stack.enter_context(Broker(folder))
        subscriber = stack.enter_context(Subscriber(broker.port))
        show(f"{count} kiosks: connecting")
        fleet = stack.enter_context(
            Fleet(count, broker.port, period=options.period, spread=options.spread)
        )
        prometheus = stack.enter_context(Prometheus(folder, fleet.targets))
        show(f"{count} kiosks: {options.seconds:g} s")
        # --- steady ---
        fleet.settled()
        subscriber.forget()
        start, cpu, kiosks_cpu = time.monotonic(), broker.cpu_s, sum(fleet.cpu_s)
        fleet.tell("go")
        time.sleep(options.seconds)
        fleet.tell("pause")
        seconds = time.monotonic() - start
        steady = fleet.settled()
        kiosks_cpu = sum(fleet.cpu_s) - kiosks_cpu
        expected = Counter[str]()
        for kiosk in steady:
            expected["event"] += kiosk["events"]
            expected["state"] += kiosk["frames"]
        subscriber.wait_for(expected)
        lost = sum(expected.values()) - subscriber.distinct("event") - subscriber.distinct("state")
        received, latencies = subscriber.received, np.array(subscriber.latencies_ms)
        row: dict[str, Any] = {
            "kiosks": count,
            "messages/s": round(received / seconds, 1),
            "lost": int(lost),
            "twice": int(subscriber.repeated),
            "p50 ms": round(float(np.percentile(latencies, 50)), 2),
            "p99 ms": round(float(np.percentile(latencies, 99)), 2),
            "broker MB": round(broker.memory_mb, 1),
            "broker ms per message": round(1000 * (broker.cpu_s - cpu) / max(1, received), 3),
            "kiosk ms per frame": round(1000 * kiosks_cpu / max(1, expected["state"]), 2),
        }
        show(f"{count} kiosks: Prometheus")
        row["scraped"] = prometheus.wait_for(count)
        row["series"] = prometheus.number('count({job="kiosks"})')
        row["prometheus MB"] = round(prometheus.memory_mb, 1)
        # --- restart ---
        show(f"{count} kiosks: the broker restarts")
        subscriber.forget()
        before = steady
        fleet.tell("go")
        time.sleep(min(2.0, options.seconds))
        broker.stop()
        time.sleep(options.down)
        broker.start()
        returned = time.time()
        after = fleet.reconnected(2, _PATIENCE_S)
        fleet.tell("pause")
        after = fleet.settled()
        events = sum(new["events"] - old["events"] for new, old in zip(after, before, strict=True))
        newest = {(f"{number:06}", kiosk["frames"] - 1) for number, kiosk in enumerate(after)}
        subscriber.wait_for(Counter(event=events))
        back = [kiosk["connected"][-1] - returned for kiosk in after]
        busiest = max(Counter(int(moment) for moment in back).values())
        return row | {
            "back after s": round(max(back), 1),
            "back in busiest s": busiest,
            "queued at most": max(kiosk["queued"] for kiosk in after),
            "lost in restart": events
            - subscriber.distinct("event")
            + len(subscriber.without("state", newest)),
        }


# --- the parts -----------------------------------------------------------------------------------


class _Program:
    """A server in a process of its own, as a context manager."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._cpu_before = 0.0

    def command(self) -> list[str]:
        """What starts it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it accepts a connection."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_text = (self.folder / f"{self.name}.log").read_text(errors="replace")
                raise EmotionEdgeError(
                    f"{self.name} did not start: {' '.join(log_text.split()[-30:])}"
                )
            time.sleep(0.05)

    def stop(self) -> None:
        """End it as systemd does."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._cpu_before = self.cpu_s
            self._process.terminate()
            self._process.wait()
            self._process = None

    @property
    def memory_mb(self) -> float:
        """Resident at most, in MB of 10^6 bytes."""
        assert self._process is not None
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        return float("nan")

    @property
    def cpu_s(self) -> float:
        """Processor seconds, those before a restart too."""
        assert self._process is not None
        text = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return self._cpu_before + (int(text[11]) + int(text[12])) / os.sysconf("SC_CLK_TCK")


class Broker(_Program):
    """Mosquitto, with what it must keep over a restart."""

    name = "mosquitto"

    def command(self) -> list[str]:
        """Anonymous, on loopback only."""
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"persistence true\npersistence_location {self.folder}/\n"
            # The subscriber's backlog of a restart; 1,000 by default, the rest would be dropped.
            "max_queued_messages 0\nmax_inflight_messages 1000\n"
            f"user {getpass.getuser()}\n"
        )
        return [_program("mosquitto"), "-c", str(config)]


class Prometheus(_Program):
    """Prometheus, which scrapes every kiosk."""

    name = "prometheus"

    def __init__(self, folder: Path, targets: Sequence[str]) -> None:
        super().__init__(folder)
        self._targets = targets

    def command(self) -> list[str]:
        """With a store that is thrown away."""
        config = self.folder / "prometheus.yml"
        jobs = [{"job_name": "kiosks", "static_configs": [{"targets": list(self._targets)}]}]
        config.write_text(  # JSON is YAML
            json.dumps({"global": {"scrape_interval": f"{_SCRAPE_S}s"}, "scrape_configs": jobs})
        )
        return [
            _program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def number(self, query: str) -> int:
        """The value of a query, 0 where there is none."""
        words = urllib.parse.urlencode({"query": query})
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/api/v1/query?{words}", timeout=30
            ) as answer:
                found = json.load(answer)["data"]["result"]
        except (urllib.error.URLError, OSError, ValueError):
            return 0
        return int(float(found[0]["value"][1])) if found else 0

    def wait_for(self, count: int) -> int:
        """How many kiosks are scraped, once all are, or after a while."""
        deadline = time.monotonic() + 3 * _SCRAPE_S + 30
        while (up := self.number('count(up{job="kiosks"} == 1)')) < count:
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        return up


class Subscriber:
    """Counts what arrives, in a session that outlives the broker; a context manager."""

    def __init__(self, port: int) -> None:
        try:
            from paho.mqtt import client as paho
        except ImportError as error:
            raise MissingExtra("the fleet benchmark", "mqtt", "paho.mqtt") from error
        self._lock = threading.Lock()
        self._subscribed = threading.Event()
        self.forget()
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id="subscriber", clean_session=False
        )
        client.reconnect_delay_set(1, 1)
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = self._on_message
        self._client, self._port = client, port

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        if not self._subscribed.wait(_PATIENCE_S):
            raise EmotionEdgeError("the broker did not accept a subscription")
        return self

    def __exit__(self, *error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def forget(self) -> None:
        """Count from zero."""
        with self._lock:
            self.received = self.repeated = 0
            self.latencies_ms: list[float] = []
            self._seen: dict[str, set[tuple[str, int]]] = {"event": set(), "state": set()}

    def distinct(self, kind: str) -> int:
        """Different messages of a kind: ``event`` or ``state``."""
        with self._lock:
            return len(self._seen[kind])

    def without(self, kind: str, wanted: set[tuple[str, int]]) -> set[tuple[str, int]]:
        """Those of the ``wanted`` messages (kiosk, number) that did not arrive, after a moment."""
        deadline = time.monotonic() + 15
        while True:
            with self._lock:
                missing = wanted - self._seen[kind]
            if not missing or time.monotonic() > deadline:
                return missing
            time.sleep(0.1)

    def wait_for(self, expected: Counter[str]) -> None:
        """Return when so many are here, or when nothing has come for 15 seconds."""
        last, since = -1, time.monotonic()
        while any(self.distinct(kind) < count for kind, count in expected.items()):
            if self.received != last:
                last, since = self.received, time.monotonic()
            elif time.monotonic() - since > 15:
                return
            time.sleep(0.05)

    def _on_connect(self, client: Any, _data: Any, flags: Any, *_: Any) -> None:
        if not flags.session_present:
            client.subscribe("fleet/#", qos=1)

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        now = time.monotonic_ns()
        kiosk, _, kind = message.topic.removeprefix("fleet/").partition("/")
        with self._lock:
            self.received += 1
            if kind not in self._seen:
                return
            record = json.loads(message.payload)
            if kind == "event":
                number = record["details"]["number"]
                self.latencies_ms.append((now - record["details"]["sent_ns"]) / 1e6)
            else:
                number = record["frame"]
            self.repeated += (kiosk, number) in self._seen[kind]
            self._seen[kind].add((kiosk, number))


class Fleet:
    """The kiosks, in as many processes as they need; a context manager."""

    def __init__(self, count: int, port: int, *, period: float, spread: float) -> None:
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self.targets: list[str] = []
        self.cpu_s: list[float] = []
        context = multiprocessing.get_context("spawn")
        for first in range(0, count, _PER_PROCESS):
            numbers = range(first, min(count, first + _PER_PROCESS))
            ours, theirs = context.Pipe()
            process = context.Process(
                target=simulate, args=(numbers, port, period, spread, theirs), daemon=True
            )
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        for pipe in self._pipes:
            self.targets += self._receive(pipe)
        self.reconnected(1, _PATIENCE_S)
        return self

    def __exit__(self, *error: object) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send("end")
        for process in self._processes:
            process.join(20)
            process.kill()

    def tell(self, word: str) -> None:
        """``go`` or ``pause``."""
        for pipe in self._pipes:
            pipe.send(word)

    def report(self) -> list[dict[str, Any]]:
        """The state of each kiosk."""
        self.tell("report")
        answers = [self._receive(pipe) for pipe in self._pipes]
        self.cpu_s = [answer["cpu_s"] for answer in answers]
        return [kiosk for answer in answers for kiosk in answer["kiosks"]]

    def settled(self) -> list[dict[str, Any]]:
        """The states once the broker has confirmed everything, or after a while."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            states = self.report()
            done = all(kiosk["ready"] and not kiosk["unacknowledged"] for kiosk in states)
            if done or time.monotonic() > deadline:
                return states
            time.sleep(0.2)

    def reconnected(self, times: int, patience: float) -> list[dict[str, Any]]:
        """The states once every kiosk has connected so many times. Raises EmotionEdgeError."""
        deadline = time.monotonic() + patience
        while True:
            states = self.report()
            missing = sum(len(kiosk["connected"]) < times or not kiosk["ready"] for kiosk in states)
            if not missing:
                return states
            if time.monotonic() > deadline:
                raise EmotionEdgeError(
                    f"{missing} of {len(states)} kiosks did not connect within {patience:g} s: "
                    "the machine is too slow or too busy for so many; use fewer --kiosks"
                )
            time.sleep(0.2)

    @staticmethod
    def _receive(pipe: Connection) -> Any:
        if not pipe.poll(_PATIENCE_S):
            raise EmotionEdgeError("a process of kiosks does not answer: use fewer --kiosks")
        try:
            answer = pipe.recv()
        except EOFError as error:
            raise EmotionEdgeError("a process of kiosks ended: see the lines above") from error
        if isinstance(answer, EmotionEdgeError):
            raise answer
        return answer


# --- in a process of kiosks ----------------------------------------------------------------------


class _NotedSink(MqttSink):
    """The real sink, which also notes when it connects."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.connected_at: list[float] = []

    @property
    def ready(self) -> bool:
        """Whether the broker has all that is older than the next state."""
        return self._ready

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        super()._on_connect(client, data, flags, reason, more)
        if not reason.is_failure:
            self.connected_at.append(time.time())


class Kiosk:
    """One simulated kiosk: a made-up camera and the device's own sinks."""

    def __init__(self, number: int, port: int, spread: float) -> None:
        self.mqtt = _NotedSink(
            MqttSettings(
                host="127.0.0.1",
                port=port,
                topic=f"fleet/{number:06}",
                device=f"Kiosk {number}",
                # Every frame is published: the heaviest load that a kiosk can cause.
                interval_s=1e-6,
                change_interval_s=0,
                reconnect_spread_s=spread,
            ),
            EMOTIONS,
        )
        self.metrics = MetricsSink(MetricsSettings(host="127.0.0.1", port=0), EMOTIONS)
        self._rng = np.random.default_rng(number)
        self._image = np.zeros((480, 640), np.uint8)
        self.frames = self.events = self.queued = 0

    def see(self) -> None:
        """One frame with up to two faces, and one event."""
        now = time.monotonic_ns()
        faces = []
        for track in range(int(self._rng.integers(0, 3))):
            shares = self._rng.dirichlet(np.ones(len(EMOTIONS)))
            emotion = Emotion(EMOTIONS, tuple(float(share) for share in shares))
            box = Box(40 + 300 * track, 60, 120, 120, 0.9)
            faces.append(Face(box, emotion, emotion.label, track + 1, emotion))
        timings = {"detect": 6.0, "classify": 0.3, "track": 0.1, "age": 12.0}
        observation = Observation(Frame(self._image, now, self.frames), tuple(faces), timings, 0)
        sent = time.monotonic_ns()
        details = {"number": self.events, "sent_ns": sent}
        for sink in (self.metrics, self.mqtt):
            sink.write(observation)
            sink.event(Event("fleet.tick", "a simulated event", now, details))
        self.frames += 1
        self.events += 1
        self.queued = max(self.queued, self.mqtt.unacknowledged)

    def state(self) -> dict[str, Any]:
        """For the report."""
        return {
            "frames": self.frames,
            "events": self.events,
            "dropped": self.mqtt.dropped,
            "queued": self.queued,
            "unacknowledged": self.mqtt.unacknowledged,
            "ready": self.mqtt.ready,
            "connected": list(self.mqtt.connected_at),
        }


def simulate(kiosks: range, port: int, period: float, spread: float, pipe: Connection) -> None:
    """Run these kiosks as ``pipe`` says; the target of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    _allow_many_files(len(kiosks))
    threading.stack_size(256 * 1024)  # hundreds of threads, none of which recurses
    # Each thread that waits for the interpreter's lock wakes up this often to ask for it.
    sys.setswitchinterval(0.1)
    with contextlib.ExitStack() as stack:
        fleet = [Kiosk(number, port, spread) for number in kiosks]
        try:
            for kiosk in fleet:
                stack.enter_context(kiosk.metrics)
                kiosk.mqtt.__enter__()
                time.sleep(_BETWEEN_S)
        except EmotionEdgeError as error:
            pipe.send(error)
            return
        pipe.send([kiosk.metrics.url.removeprefix("http://").rstrip("/") for kiosk in fleet])
        with contextlib.suppress(EOFError):
            _obey(pipe, fleet, period)
        os._exit(0)  # like a power cut: a farewell from each would take minutes


def _obey(pipe: Connection, fleet: Sequence[Kiosk], period: float) -> None:
    """Show each kiosk a frame every ``period`` seconds, one after the other, while asked to."""
    going = False
    turn, due = 0, time.monotonic()
    while True:
        wait = max(0.0, due - time.monotonic()) if going else 1.0
        if pipe.poll(wait):
            word = pipe.recv()
            if word == "end":
                return
            if word == "report":
                used = time.process_time()
                pipe.send({"cpu_s": used, "kiosks": [kiosk.state() for kiosk in fleet]})
            else:
                going, due = word == "go", time.monotonic()
        elif going:
            fleet[turn % len(fleet)].see()
            turn += 1
            due += period / len(fleet)


# --- helpers -------------------------------------------------------------------------------------


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise UsageError(f"{name} is not installed: sudo apt install {name}")
    return found


def _version(name: str) -> str:
    flag = "-h" if name == "mosquitto" else "--version"
    done = subprocess.run([_program(name), flag], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition("\n")[0].strip()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _allow_many_files(kiosks: int) -> None:
    """Raise the limit of descriptors, here and in what is started. Raises UsageError."""
    needed = 10 * kiosks + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot raise the limit of open files: {error}: ulimit -n") from error
    if hard < needed:
        raise UsageError(f"{kiosks} kiosks need {needed} open files, and {hard} are allowed")
