"""Re-reads the configuration while running (SIGHUP, ``systemctl reload``).

The new configuration is read, checked and its model loaded next to the run that goes on. Only then
does that run end, and the next one begin in the same process. Whatever is wrong with the new
configuration is reported in one line, and the previous one stays active.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from emotion_edge.errors import EmotionEdgeError, OutputExists
from emotion_edge.kiosk import receipt
from emotion_edge.kiosk.configuration import Config
from emotion_edge.kiosk.control import Control
from emotion_edge.kiosk.service import Service, Summary, to_stderr
from emotion_edge.kiosk.state import state_folder
from emotion_edge.kiosk.watchdog import Watchdog
from emotion_edge.kiosk.zone_file import ZoneFile
from emotion_edge.settings import keys


class Runs:
    """One run after another, each with the newest valid configuration."""

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config],
        *,
        service: Callable[..., Service] = Service,
        tell: Callable[[str], None] | None = None,
        receipts: bool = False,
        zone_file: ZoneFile | None = None,
    ) -> None:
        """Load the first run's model.

        read: reads the configuration again; raises EmotionEdgeError.
        service: makes a run. tell: takes a line for a person; by default standard error.
        receipts: whether each run without labels on standard output reports what it keeps.
        zone_file: where ``set_zones`` saves; None to keep zones until the end of the process.
        Raises ModelError, DetectorError or UsageError.
        """
        self._read = read
        self._receipts = receipts
        self._service = service
        self._tell = tell or to_stderr
        self._watchdog = Watchdog()
        self._control = Control(self.reload, self._tell, self.set_zones)
        self._control.remember(_kept(config), start=True)
        self._zone_file = zone_file
        self._areas: tuple[str, ...] | None = None  # set by hand, where there is no file
        self._changing = threading.Lock()  # one reload at a time
        self._lock = threading.Lock()  # of what follows
        self._ended = False
        self._config = config
        self._present, self._stop = self._make(config)
        self._next: tuple[Config, Service, threading.Event] | None = None

    def run(self) -> tuple[Config, Summary]:
        """Work until a run ends by itself or is stopped; returns the last one.

        Raises what ``Service.run`` raises. When a new configuration's camera or outputs cannot be
        opened, the previous configuration runs again instead.
        """
        previous: Config | None = None
        while True:
            self._control.remember(_kept(self._config))
            if self._receipts and not any(sink.prints for sink in self._config.sinks):
                for line in receipt.lines(self._config):
                    self._tell(line)
            try:
                summary = self._present.run()
            except EmotionEdgeError as error:
                if previous is None or self._present.opened:
                    raise
                self._tell(f"reload failed: {error}; the previous configuration runs again")
                with self._lock:
                    self._config, previous = previous, None
                    self._present, self._stop = self._make(self._config)
                    if self._ended:
                        self._stop.set()
                continue
            with self._lock:
                if self._next is None or self._ended:
                    return self._config, summary
                previous = _continued(self._config, self._config)
                (self._config, self._present, self._stop), self._next = self._next, None

    def stop(self) -> None:
        """End the present run, and begin no other."""
        with self._lock:
            self._ended = True
            self._stop.set()

    def reload(self) -> None:
        """Read the configuration; when it is valid, let the next run begin with it."""
        with self._changing:
            try:
                config = self._read()
                if self._areas is not None:
                    config = _with_areas(config, self._areas)
                with self._lock:
                    present = self._config
                if config == present:
                    self._tell("reload: the configuration has not changed")
                    return
                config = _continued(config, present)
                made = self._make(config)
            except EmotionEdgeError as error:
                self._tell(f"reload rejected: {error}; the previous configuration stays active")
                return
            self._begin(config, *made)
        self._tell("reload: the new configuration is valid and becomes active")

    def set_zones(self, areas: Sequence[str]) -> Path | None:
        """Let the next run begin with these zones (``zones.areas``), and save them.

        Returns the file, None where there is none. Raises EmotionEdgeError, and nothing changes,
        when the zones are not valid or the file cannot be written.
        """
        with self._changing:
            with self._lock:
                present = self._next[0] if self._next is not None else self._config
            if self._zone_file is not None:
                config = self._zone_file.draft(areas)
            else:
                config = _with_areas(present, areas)
            config = _continued(config, present)
            made = self._make(config)
            saved = self._zone_file.save(areas) if self._zone_file is not None else None
            if saved is None:
                self._areas = tuple(areas)
            self._begin(config, *made)
        self._tell(f"zones: {', '.join(name for name, _ in config.zones.polygons()) or 'none'}")
        return saved

    def _begin(self, config: Config, service: Service, stop: threading.Event) -> None:
        """End the present run; this one follows."""
        with self._lock:
            if not self._ended:
                self._next = (config, service, stop)
                self._watchdog.reloading()
                self._stop.set()

    def _make(self, config: Config) -> tuple[Service, threading.Event]:
        stop = threading.Event()
        made = self._service(config, stop=stop, watchdog=self._watchdog, control=self._control)
        return made, stop


def _kept(config: Config) -> Path | None:
    """Where a pause is kept, None where it is not."""
    return state_folder(config.state_dir) if config.keep_paused else None


def _with_areas(config: Config, areas: Sequence[str]) -> Config:
    """The same with these zones. Raises UsageError."""
    zones = dataclasses.replace(config.zones, areas=tuple(areas))
    return dataclasses.replace(config, zones=zones)


def _continued(config: Config, present: Config) -> Config:
    """Let files of records that this process writes go on: they exist by now.

    Raises OutputExists for a recording, which cannot be continued.
    """
    ours = {sink.file for sink in present.sinks if sink.file is not None}
    sinks = []
    for sink in config.sinks:
        if sink.file in ours:
            if "existing" in keys(type(sink)):
                sink = dataclasses.replace(sink, existing="append")  # type: ignore[call-arg]
            elif getattr(sink, "overwrite", None) is False:
                raise OutputExists(sink.file)
        sinks.append(sink)
    return dataclasses.replace(config, sinks=tuple(sinks))
