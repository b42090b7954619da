"""``emotion-edge run``: labels the faces of a camera, a video or a folder of images."""

from __future__ import annotations

import argparse
import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_edge import cameras, detectors
from emotion_edge.commands.flags import BACKEND_HELP
from emotion_edge.errors import CameraError, SinkError, UsageError
from emotion_edge.files import printable
from emotion_edge.kiosk import configuration
from emotion_edge.registry import Registry
from emotion_edge.sinks import SINKS

HELP = "label the faces of a camera, a video or a folder of images"


@dataclass(frozen=True, slots=True)
class Flag:
    """A short way to set a key of the configuration.

    help: empty to show the help of the key.
    metavar: what it takes, None for a switch. optional: whether the value can be omitted.
    switch: what a switch sets its key to. repeat: whether it can be given several times, each
        adding to a list.
    """

    name: str
    key: str
    help: str
    metavar: str | None = None
    optional: bool = False
    switch: bool = True
    repeat: bool = False


FLAGS = (
    Flag("--camera", "camera.source", "", "SOURCE"),
    Flag("--width", "camera.width", "", "N"),
    Flag("--height", "camera.height", "", "N"),
    Flag("--fps", "camera.fps", "", "N"),
    Flag("--rotate", "camera.rotate", "turn frames clockwise by 90, 180 or 270 degrees", "DEG"),
    Flag("--flip", "camera.flip", "mirror frames left to right"),
    Flag("--paced", "camera.paced", "show a file at its own speed"),
    Flag("--model", "model", "", "NAME"),
    Flag("--detector", "detector", "", "NAME"),
    Flag("--runtime", "backend.runtime", BACKEND_HELP["runtime"], "NAME"),
    Flag("--threads", "backend.threads", BACKEND_HELP["threads"], "N"),
    Flag("--no-xnnpack", "backend.xnnpack", BACKEND_HELP["xnnpack"], switch=False),
    Flag("--delegate", "backend.delegate", BACKEND_HELP["delegate"], "FILE.so"),
    Flag("--precision", "precision", "", "P"),
    Flag("--unsure-below", "tracker.unsure_below", "", "P"),
    Flag(
        "--zone",
        "zones.areas",
        "a zone: 'NAME: x,y x,y x,y', shares of the image; repeat it for more",
        "ZONE",
        repeat=True,
    ),
    Flag("--frames", "frames", "", "N"),
    Flag("--seconds", "seconds", "", "S"),
    Flag("--aggregate", "aggregate.period_s", "counts over S seconds, no faces; 60", "S", True),
    Flag("--visits", "visits.gap_s", "follow visits; S seconds bridge a loss; 2", "S", True),
    Flag("--faces", "faces", "", "HOW"),
    Flag("--quiet", "quiet", ""),
    Flag("--overwrite", "overwrite", ""),
)


class _Help(argparse.HelpFormatter):
    """Describes cameras, detectors and sinks when help is printed: a run need not import them."""

    def add_argument(self, action: argparse.Action) -> None:
        """Fill in what only the parts themselves can say."""
        kind, _, name = action.dest.partition(".")
        if action.dest == "camera.source":
            action.help = f"{cameras.usage()}{_offered(cameras.CAMERAS)}"
        elif action.dest == "detector":
            action.help = f"{detectors.names()}{_offered(detectors.DETECTORS)}"
        elif action.dest == "sink":
            action.help = f"any output, by name{_offered(SINKS)}"
        elif kind == "sinks":
            part = SINKS[name]
            action.help, action.metavar = part.help, part.metavar or None
            action.nargs = None if part.positional else "?" if part.metavar else 0
        elif not action.help:
            action.help = _meanings()[action.dest].rstrip(".").replace("`", "").replace("%", "%%")
        super().add_argument(action)


@functools.cache
def _meanings() -> dict[str, str]:
    """The help of every key of the configuration."""
    return {key: meaning for key, _, meaning in configuration.reference()}


def _offered(registry: Registry[Any]) -> str:
    """Other packages' parts, for a help text."""
    found, troubles = registry.others()
    for trouble in troubles:
        print(f"emotion-edge: {trouble}", file=sys.stderr)
    return "".join(f"; {name}: {part.help}" for name, part in found.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags; each sets a key of the configuration."""
    parser.formatter_class = _Help
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
            if flag.repeat:
                options["action"] = "append"
            if flag.optional:
                options |= {"nargs": "?", "const": ""}
        parser.add_argument(flag.name, **options)
    parser.add_argument("--sink", action="append", default=[], metavar="NAME[:VALUE]")
    for name in SINKS:
        parser.add_argument(f"--{name}", dest=f"sinks.{name}", nargs="?", const="", default=None)


def run(options: argparse.Namespace) -> int:
    """Run until the source ends, a limit is reached or a signal arrives.

    0 at the end and on SIGTERM, 130 on Ctrl-C, 3 when a video was cut off, 4 when an output was
    failing at the end. Raises an error of ours otherwise.
    """
    config = read(options)
    # Imported late, so that the error for a wrong flag comes immediately.
    from emotion_edge.kiosk.reload import Runs
    from emotion_edge.kiosk.zone_file import ZoneFile

    zone_file = None
    if options.config:
        zone_file = ZoneFile(options.config, lambda drafts: read(options, drafts))
    runs = Runs(config, lambda: read(options), receipts=bool(options.config), zone_file=zone_file)
    # A service gets SIGHUP from systemctl reload; on a terminal it means that the terminal closed.
    reloads = bool(options.config) and not (sys.stdin is not None and sys.stdin.isatty())
    with _signals(runs.stop, reload=runs.reload if reloads else None) as received:
        config, summary = runs.run()
    print(f"emotion-edge: {summary}", file=sys.stderr)
    for sink, trouble in zip(config.sinks, summary.troubles, strict=True):
        if trouble:
            print(f"emotion-edge: incomplete at the end: {printable(trouble)}", file=sys.stderr)
        elif sink.file is not None:
            print(f"emotion-edge: written: {printable(sink.file)}", file=sys.stderr)
    lost = any(summary.troubles) and not received  # a stopped service did not fail
    status = 130 if signal.SIGINT in received else 0
    if not status and (lost or summary.truncated):
        status = SinkError.exit_code if lost else CameraError.exit_code
    if summary.stuck:
        # A driver's thread hangs in the kernel, and a normal exit would wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def read(
    options: argparse.Namespace, drafts: Mapping[Path, Mapping[str, Any]] | None = None
) -> configuration.Config:
    """The configuration that a file and flags give. Raises UsageError.

    drafts: as ``configuration.read_layers`` takes them.
    """
    layers = configuration.read_layers(options.config, drafts) if options.config else []
    tables = configuration.combined(layers)
    values = overrides(vars(options))
    repeated = []  # the second and further outputs of one kind
    for name, table in outputs(vars(options)):
        if f"sinks.{name}." in values:
            repeated.append((name, table))
        else:
            values[f"sinks.{name}."] = None
            values |= {f"sinks.{name}.{key}": value for key, value in table.items()}
    merged = configuration.merge(tables, values)
    for name, table in repeated:
        sinks = merged["sinks"]
        sinks[name] = [*(sinks[name] if isinstance(sinks[name], list) else [sinks[name]]), table]
    return configuration.build(merged, options.config or "command line", layers=layers)


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
        if flag.optional and given == "":
            values[f"{flag.key.rpartition('.')[0]}."] = None
        elif flag.repeat and given is not None:
            parsed = (configuration.parse_value(flag.key, text) for text in given)
            values[flag.key] = [one for some in parsed for one in some]
        elif given is not None:
            values[flag.key] = (
                given if flag.metavar is None else configuration.parse_value(flag.key, given)
            )
    return values


def outputs(options: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Name and table of each output that a flag adds. Raises UsageError, PluginError."""
    given = [(name, f"--{name}", options[f"sinks.{name}"]) for name in SINKS]
    for text in options["sink"]:
        name, _, value = text.partition(":")
        given.append((name, f"--sink {name}", value))
    found = []
    for name, flag, text in given:
        if text is None:
            continue
        try:
            table = SINKS.require(name).from_flag(text)
        except UsageError as error:
            raise UsageError(f"{flag}: {error}") from None
        dotted = {key: f"sinks.{name}.{key}" for key in table}
        parsed = {key: configuration.parse_value(dotted[key], table[key]) for key in table}
        found.append((name, parsed))
    return found


@contextmanager
def _signals(
    stop: Callable[[], None], *, reload: Callable[[], None] | None = None
) -> Iterator[set[int]]:
    """SIGTERM, SIGINT and SIGHUP call ``stop``; a second one ends the process immediately.

    reload: called for SIGHUP instead, in a thread of its own.
    """
    # A handler runs between any two bytecodes of the main thread, which may hold the lock that
    # stopping needs. So the handler does nothing, and a thread receives the signal's number.
    received: set[int] = set()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    # An ignored signal stays ignored, as nohup expects.
    numbers = [
        number
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]

    def listen() -> None:
        while data := reader.recv(1):
            number = data[0]
            if number not in numbers:
                continue
            if number == signal.SIGHUP and reload is not None:
                threading.Thread(target=reload, name="reload", daemon=True).start()
                continue
            if received:
                os._exit(128 + number)
            received.add(number)
            stop()

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
