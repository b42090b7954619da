"""``emotion-edge run``: a camera in, labels out, for a minute or for months."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from emotion_edge.cameras import SPECS
from emotion_edge.commands.flags import BACKEND_HELP
from emotion_edge.errors import CameraError, SinkError, UsageError
from emotion_edge.kiosk import configuration
from emotion_edge.sinks.settings import STANDARD_OUTPUT

HELP = "watch a camera, a video or a folder of photos"


@dataclass(frozen=True, slots=True)
class Flag:
    """A short way to set a key.

    key: the configuration key; one that ends in a dot only makes its table be there.
    metavar: None for a switch. optional: whether the value may be left out.
    switch: what a switch sets its key to.
    """

    name: str
    key: str
    help: str
    metavar: str | None = None
    optional: bool = False
    switch: bool = True


FLAGS = (
    Flag("--camera", "camera.source", SPECS, "SOURCE"),
    Flag("--width", "camera.width", "pixels across to ask the camera for", "N"),
    Flag("--height", "camera.height", "pixels down to ask the camera for", "N"),
    Flag("--fps", "camera.fps", "frames per second to ask the camera for", "N"),
    Flag("--paced", "camera.paced", "show a file at its own speed"),
    Flag("--model", "model", "a shipped name or a .tflite file", "NAME"),
    Flag("--detector", "detector", "auto, haar or yunet", "NAME"),
    Flag("--runtime", "backend.runtime", BACKEND_HELP["runtime"], "NAME"),
    Flag("--threads", "backend.threads", BACKEND_HELP["threads"], "N"),
    Flag("--no-xnnpack", "backend.xnnpack", BACKEND_HELP["xnnpack"], switch=False),
    Flag("--delegate", "backend.delegate", BACKEND_HELP["delegate"], "FILE.so"),
    Flag("--unsure-below", "tracker.unsure_below", "say unsure below this probability", "P"),
    Flag("--frames", "frames", "end after so many frames", "N"),
    Flag("--seconds", "seconds", "end after so many seconds", "S"),
    Flag("--jsonl", "sinks.jsonl.path", "one JSON record per frame; - is standard output", "FILE"),
    Flag("--csv", "sinks.csv.path", "one row a face, for a spreadsheet", "FILE"),
    Flag("--record", "sinks.video.path", "STORE the picture, annotated: .mp4 or .avi", "FILE"),
    Flag("--window", "sinks.window.", "show it in a window on this machine"),
    Flag("--page", "sinks.page", "show it over HTTP; 127.0.0.1:8080", "[HOST:]PORT", True),
    Flag("--mqtt", "sinks.mqtt", "tell an MQTT broker; localhost:1883", "HOST[:PORT]", True),
    Flag("--metrics", "sinks.metrics", "health and metrics; 127.0.0.1:9188", "[HOST:]PORT", True),
    Flag("--aggregate", "aggregate", "counts over so many seconds, no faces; 60", "S", True),
    Flag("--quiet", "quiet", "no labels on standard output"),
    Flag("--overwrite", "overwrite", "replace files that exist"),
)
_HOSTS = ("sinks.page", "sinks.mqtt", "sinks.metrics")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags; each sets a key of the configuration."""
    parser.add_argument("--config", metavar="FILE", help="a kiosk.toml; flags win over it")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any key of the configuration, e.g. tracker.half_life_s=0.5",
    )
    for flag in FLAGS:
        options: dict[str, Any] = {"dest": flag.key, "help": flag.help, "default": None}
        if flag.metavar is None:
            options |= {"action": "store_const", "const": flag.switch}
        else:
            options["metavar"] = flag.metavar
            if flag.optional:
                options |= {"nargs": "?", "const": ""}
        parser.add_argument(flag.name, **options)


def run(options: argparse.Namespace) -> int:
    """Run until the source ends, a limit is reached or somebody says stop.

    0 at the end and on SIGTERM, 130 on Ctrl-C, 3 when a video was cut off, 4 when an output was
    failing at the end; else an error is raised.
    """
    config = read(options)
    # Imported late, so that a wrong flag is answered at once.
    from emotion_edge.kiosk.service import Service

    stop = threading.Event()
    with _signals(stop) as received:
        summary = Service(config, stop=stop).run()
    print(f"emotion-edge: {summary}", file=sys.stderr)
    for sink, trouble in zip(config.sinks, summary.troubles, strict=True):
        path = getattr(sink, "path", None)
        if trouble:
            print(f"emotion-edge: incomplete at the end: {trouble}", file=sys.stderr)
        elif path not in (None, STANDARD_OUTPUT):
            print(f"emotion-edge: written: {path}", file=sys.stderr)
    lost = any(summary.troubles) and not received  # who stops a kiosk knows of no failure
    status = 130 if signal.SIGINT in received else 0
    if not status and (lost or summary.truncated):
        status = SinkError.exit_code if lost else CameraError.exit_code
    if summary.stuck:
        # A driver's thread hangs in the kernel: leaving in good order would wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def read(options: argparse.Namespace) -> configuration.Config:
    """The configuration that a file and flags give. Raises UsageError."""
    tables = configuration.read_toml(options.config) if options.config else {}
    merged = configuration.merge(tables, overrides(vars(options)))
    return configuration.build(merged, options.config or "emotion-edge run")


def overrides(options: Mapping[str, Any]) -> dict[str, object]:
    """Dotted keys and values of the flags that were given. Raises UsageError."""
    values: dict[str, object] = {}
    for text in options["set"]:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: expected KEY=VALUE")
        values[key.strip()] = configuration.parse_value(key.strip(), value.strip())
    for flag in FLAGS:
        given = options[flag.key]
        if given is None:
            continue
        if flag.key in _HOSTS:
            values |= _address(flag, given)
        elif flag.key == "aggregate":
            values["aggregate."] = None
            if given:
                values["aggregate.period_s"] = _parsed(flag, "aggregate.period_s", given)
        else:
            values[flag.key] = given if flag.metavar is None else _parsed(flag, flag.key, given)
    return values


def _address(flag: Flag, text: str) -> dict[str, object]:
    """``host:port``, either alone, or neither."""
    values: dict[str, object] = {f"{flag.key}.": None}
    if text.startswith("["):  # [::1]:8080
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.isdigit() and flag.key != "sinks.mqtt":
        host, port = "", text
    else:
        host, _, port = text.partition(":")
    if host:
        values[f"{flag.key}.host"] = host
    if port:
        values[f"{flag.key}.port"] = _parsed(flag, f"{flag.key}.port", port)
    return values


def _parsed(flag: Flag, key: str, text: str) -> object:
    try:
        return configuration.parse_value(key, text)
    except UsageError as error:
        raise UsageError(str(error).replace(f"--set {key}=", f"{flag.name} ", 1)) from None


@contextmanager
def _signals(stop: threading.Event) -> Iterator[set[int]]:
    """SIGTERM, SIGINT and SIGHUP set ``stop``; a second one ends the process at once."""
    # A handler runs between any two bytecodes of the main thread, which may just then hold the
    # lock that ``stop.set`` wants. So the handler does nothing, and a thread hears of the signal.
    received: set[int] = set()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    # What was ignored stays so: nohup.
    numbers = [
        number
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]

    def listen() -> None:
        while data := reader.recv(1):
            number = data[0]
            if number in numbers:
                if received:
                    os._exit(128 + number)
                received.add(number)
                stop.set()

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield received
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.close()
        listener.join()
        reader.close()
