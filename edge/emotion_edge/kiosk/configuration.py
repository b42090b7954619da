"""The settings of ``emotion-edge run``, from flags and ``kiosk.toml``.

A key is written with dots: ``camera.source``, ``tracker.half_life_s``, ``sinks.mqtt.host``. Every
flag sets a key, ``--set KEY=VALUE`` sets any, and a flag wins over the file::

    model = "fast"
    detector = "yunet"

    [camera]
    source = "picamera2"

    [cameras.demo]                    # settings of one camera or one detector
    faces = 3

    [sinks.jsonl]
    path = "emotions.jsonl"
    existing = "append"

    [[sinks.mqtt]]                    # more than one of a kind: double brackets
    host = "homeassistant.local"

Files in a folder ``conf.d`` next to the file are laid over it, in the order of their names.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from emotion_edge import settings
from emotion_edge.cameras import CAMERAS
from emotion_edge.detectors import AUTO, DETECTORS
from emotion_edge.errors import UsageError
from emotion_edge.files import is_image_name
from emotion_edge.kiosk.drift import DriftSettings
from emotion_edge.kiosk.thermal import ThermalSettings
from emotion_edge.kiosk.visits import VisitSettings
from emotion_edge.model.backend import Backend
from emotion_edge.model.shipped import DEFAULT
from emotion_edge.registry import Registry
from emotion_edge.settings import Settings, key
from emotion_edge.sinks import SINKS, SinkSettings
from emotion_edge.sinks.aggregate import AggregateSettings
from emotion_edge.tracker import TrackerSettings
from emotion_edge.zones import ZoneSettings

DROP_INS = "conf.d"
"""The folder next to a configuration file whose ``*.toml`` files are laid over it."""

REGISTRIES: dict[str, Registry[Any]] = {
    "cameras": CAMERAS,
    "detectors": DETECTORS,
    "sinks": SINKS,
}
"""The tables with one table for each of their parts: ``[sinks.mqtt]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraConfig(Settings):
    """Where frames come from, and when a camera is given up."""

    source: str = key(
        "auto",
        "a camera's name, `/dev/videoN`, an address, a video, a photo or a folder of photos.",
        filled=True,
    )
    width: int = key(640, "width to request from the camera, in pixels.", ge=16, le=16384)
    height: int = key(480, "height to request from the camera, in pixels.", ge=16, le=16384)
    fps: float = key(
        0.0, "frames per second to request; 0 leaves the choice to the camera.", ge=0, le=1000
    )
    paced: bool | None = key(
        None,
        "whether a file keeps to its frame rate; unset: a virtual camera does, a file does not.",
    )
    rotate: Literal[0, 90, 180, 270] = key(
        0, "degrees clockwise by which frames are turned, for a camera that is not upright."
    )
    flip: bool = key(False, "mirror frames left to right, after `rotate`.")
    wait: bool = key(
        False, "wait for a camera that is absent or busy at the start; otherwise that is an error."
    )
    frozen_s: float = key(
        5.0,
        "seconds without a new frame after which the camera is opened again.",
        ge=0.1,
        le=86400,
    )
    identical_s: float = key(
        10.0,
        "seconds of identical frames after which it is opened again; 0 for a camera that may film "
        "darkness, where every frame can be black.",
        ge=0,
        le=86400,
    )
    retry_s: float = key(
        30.0, "the longest pause between two attempts to open it, in seconds.", ge=0.1, le=86400
    )
    give_up_s: float = key(
        300.0,
        "seconds without any frame after which the run ends with status 3, so that systemd "
        "restarts it; 0 never gives up.",
        ge=0,
        le=1e9,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plain(Settings):
    """The keys outside the tables of ``REGISTRIES``.

    aggregate: None for single faces. visits: None to follow none. drift: None to measure none.
    """

    site: str = key("", "the name of this place, for the metrics of a fleet: `emotion_edge_info`.")
    model: str = key(DEFAULT, "a shipped model's name, or a `.tflite` file.", filled=True)
    detector: str = key(AUTO, "a detector's name, or `auto` for the best one installed.")
    precision: float | None = key(
        None,
        "share of the labels shown that should be right; other faces are `unsure`. Unset: the "
        "model's own default. `tracker.unsure_below` takes precedence.",
        gt=0,
        le=1,
    )
    frames: int = key(0, "stop after this many frames; 0: never.", ge=0, le=10**12)
    seconds: float = key(0.0, "stop after this many seconds; 0: never.", ge=0, le=1e9)
    quiet: bool = key(False, "no labels on standard output.")
    strict: bool = key(
        False, "reject a key that this version does not have; otherwise it is ignored and counted."
    )
    state_dir: Path | None = key(
        None,
        "folder for what outlasts a restart; unset: systemd's `STATE_DIRECTORY`, otherwise "
        "`~/.local/state/emotion-edge`.",
    )
    keep_paused: bool = key(
        False, "a pause outlasts a restart of the service; otherwise it starts to film."
    )
    faces: Literal["show", "emoji", "blur"] = key(
        "show",
        "`emoji` or `blur` hides faces from the page, recordings and the window; labels stay.",
    )
    overwrite: bool = key(False, "replace files that exist.")
    camera: CameraConfig = key(CameraConfig(), "where frames come from.")
    backend: Backend = key(Backend(), "what runs the network.")
    tracker: TrackerSettings = key(TrackerSettings(), "how faces are followed.")
    thermal: ThermalSettings = key(ThermalSettings(), "when to lower the frame rate.")
    zones: ZoneSettings = key(ZoneSettings(), "where faces are counted.")
    aggregate: AggregateSettings | None = key(None, "counts over a period in place of faces.")
    visits: VisitSettings | None = key(None, "one record for each person in front of the camera.")
    drift: DriftSettings | None = key(None, "comparison of the site with its first days.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(_Plain):
    """Everything that defines a run.

    sinks: one for each output, in the order of the file.
    cameras, detectors: settings by name, checked, as ``open_camera`` and ``open_detector`` take
        them.
    ignored: a line for each key that this version does not have.
    """

    sinks: tuple[SinkSettings, ...] = ()
    cameras: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    detectors: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()


Layers = Sequence[tuple[str, Mapping[str, Any]]]
"""The files of a configuration, by path, in the order in which each is laid over the earlier."""


def load_config(path: str | Path, drafts: Mapping[Path, Mapping[str, Any]] | None = None) -> Config:
    """Read and check a configuration file and its drop-ins. Raises UsageError.

    drafts: as ``read_layers`` takes them.
    """
    layers = read_layers(path, drafts)
    return build(combined(layers), str(path), layers=layers)


def read_layers(path: str | Path, drafts: Mapping[Path, Mapping[str, Any]] | None = None) -> Layers:
    """A configuration file, then each ``conf.d/*.toml`` next to it, in the order of their names.

    drafts: the content of drop-ins that are not written yet, by path.
    Hidden files are skipped: one may be half-written. Raises UsageError for a file that cannot be
    read or is not TOML.
    """
    drafts = drafts or {}
    try:
        found = set((Path(path).parent / DROP_INS).glob("*.toml"))
    except OSError as error:
        raise UsageError(f"cannot read {Path(path).parent / DROP_INS}: {error.strerror}") from error
    drop_ins = sorted(file for file in {*found, *drafts} if not file.name.startswith("."))
    for file in drop_ins:
        if file.exists() and not file.is_file():  # reading a named pipe would never end
            raise UsageError(f"{file} is not a file: remove it or rename it")
    return [
        (str(file), drafts[file] if file in drafts else settings.read_toml(file))
        for file in (Path(path), *drop_ins)
    ]


def combined(layers: Layers) -> dict[str, Any]:
    """One set of tables: a later value replaces an earlier one, and tables are merged.

    Outputs in double brackets, ``[[sinks.mqtt]]``, are added to earlier ones of their kind.
    Raises UsageError where a file has a table and another has a value.
    """
    merged: dict[str, Any] = {}
    for path, tables in layers:
        _lay(merged, tables, path)
    return merged


def _lay(below: dict[str, Any], above: Mapping[str, Any], path: str, prefix: str = "") -> None:
    for name, value in above.items():
        old = below.get(name)
        dotted = f"{prefix}{name}"
        if isinstance(value, list) and prefix == "sinks." and old is not None:
            below[name] = [*(old if isinstance(old, list) else [old]), *_copy(value)]
        elif isinstance(value, dict) and isinstance(old, dict):
            _lay(old, value, path, f"{dotted}.")
        elif old is not None and isinstance(value, dict) != isinstance(old, dict):
            raise UsageError(
                f"{path}: {dotted} does not fit an earlier file, where it is {_kind(old)}: "
                f"write it as {_kind(old)} too"
            )
        else:
            below[name] = _copy(value)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else "a value"


def build(
    tables: Mapping[str, Any], where: str = "the configuration", *, layers: Layers = ()
) -> Config:
    """A configuration from nested tables, each value checked.

    where: what errors name: the file. layers: the files, to name the one that is at fault.
    An unknown key is in ``Config.ignored``; with ``strict`` it is an error.
    Raises UsageError for a missing key, a value of another type, or one out of range; PluginError
    for a broken part of another package.
    """
    config, errors = examine(tables, where, layers=layers)
    if config is None:
        raise UsageError(errors[0])
    return config


def examine(
    tables: Mapping[str, Any], where: str, *, layers: Layers = ()
) -> tuple[Config | None, list[str]]:
    """The configuration, None for an invalid one, and a line for each error.

    Raises PluginError for a broken part of another package.
    """
    problems = settings.Problems(collect=True, tolerant=tables.get("strict") is not True)
    config = _build(tables, where, problems)

    def named(line: str) -> str:
        """The same, naming the first file that has the problem."""
        about = line.removeprefix(f"{where}: ")
        for count in range(1, len(layers) + 1) if len(layers) > 1 else ():
            found = settings.Problems(collect=True)
            _build(combined(layers[:count]), where, found)
            if line in found.errors:
                return f"{layers[count - 1][0]}: {about}"
        return line

    if config is not None:
        config = dataclasses.replace(config, ignored=tuple(map(named, problems.ignored)))
    return config, [named(line) for line in problems.errors]


def _build(tables: Mapping[str, Any], where: str, problems: settings.Problems) -> Config | None:
    """The configuration, or None when there are errors."""
    plain = {name: value for name, value in tables.items() if name not in REGISTRIES}
    values = settings.partial(_Plain, plain, where=where, known=_Known(), problems=problems)
    detector = values.get("detector", AUTO)
    if detector != AUTO and DETECTORS.find(detector) is None:
        choice = ", ".join([AUTO, *DETECTORS])
        problems.add(UsageError(f"{where}: detector is {detector!r}; expected one of {choice}"))
    values |= {
        name: dict(_parts(name, tables, where, problems)) for name in ("cameras", "detectors")
    }
    outputs = list(_sinks(tables, where, problems, overwrite=values.get("overwrite", False)))
    records = sum(sink.prints_records for sink in outputs)
    if records > 1:
        problems.add(UsageError(f"{where}: {records} outputs write to standard output: give files"))
    if values.get("quiet", False) or records:
        outputs = [sink for sink in outputs if not sink.prints]
    elif not any(sink.prints for sink in outputs):
        outputs.insert(0, SINKS["console"]())
    try:
        config = Config(**values, sinks=tuple(outputs))
        _check_files(config)
        _check_ports(config)
    except UsageError as error:
        problems.add(UsageError(f"{where}: {error}"))
    return None if problems.errors else config


def _check_files(config: Config) -> None:
    """Raises UsageError when two outputs write to one file, or one to the source of the run."""
    source = Path(config.camera.source)
    written: set[Path] = set()
    for sink in config.sinks:
        if sink.file is None:
            continue
        file = Path(os.path.realpath(sink.file))
        if file in written:
            raise UsageError(f"2 outputs write to {sink.file}: give each its own file")
        written.add(file)
        if source.is_file() and file == Path(os.path.realpath(source)):
            raise UsageError(f"{sink.file} is the source of the run: give the output another name")
        if (
            source.is_dir()
            and is_image_name(file)
            and file.parent == Path(os.path.realpath(source))
        ):
            raise UsageError(
                f"{sink.file} is named like an image of the run's folder: give the output another "
                "name or folder"
            )


def _check_ports(config: Config) -> None:
    """Raises UsageError when two outputs listen on one port of the same or of every address."""
    taken: dict[int, set[str]] = {}
    for host, port in (sink.listens for sink in config.sinks if sink.listens):
        others = taken.setdefault(port, set())
        if port and (host in others or (others and {host, *others} & {"0.0.0.0", "::"})):
            raise UsageError(f"2 outputs listen on port {port}: give each its own port")
        others.add(host)


def merge(tables: Mapping[str, Any], overrides: Mapping[str, object]) -> dict[str, Any]:
    """Lay dotted keys over nested tables; the tables stay as they are.

    A key that ends in a dot only adds its table. Where the file has several sinks of a kind, a
    flag's goes to one more of them.
    """
    merged: dict[str, Any] = {name: _copy(value) for name, value in tables.items()}
    added: set[str] = set()
    for dotted, value in overrides.items():
        *path, last = dotted.split(".")
        table = merged
        for depth, name in enumerate(path):
            inner = table.setdefault(name, {})
            if isinstance(inner, list):
                where = ".".join(path[: depth + 1])
                if where not in added:
                    added.add(where)
                    inner.append({})
                inner = inner[-1]
            if not isinstance(inner, dict):
                raise UsageError(f"{'.'.join(path[: depth + 1])} is a table, not {inner!r}")
            table = inner
        if last:
            table[last] = value
    return merged


def parse_value(dotted: str, text: str) -> Any:
    """A flag's text as a value for its key. Raises UsageError for an unknown key."""
    registry, _, rest = dotted.partition(".")
    name, _, last = rest.partition(".")
    if registry in REGISTRIES and last:
        part = REGISTRIES[registry].find(name)
        hint = settings.keys(part).get(last) if part else None
    else:
        hint = settings.keys(_Plain).get(dotted)
    if hint is None:
        raise settings.unknown_key("--set", dotted, keys())
    return settings.parse_text(hint, text)


def keys() -> dict[str, Any]:
    """Every key that can be set, dotted, with its type; imports every part of ours."""
    found = settings.keys(_Plain)
    for prefix, part in _ours():
        found |= settings.keys(part, prefix)
    return found


def reference() -> Iterator[tuple[str, str, str]]:
    """Every key with its default as TOML writes it, and what it does."""
    yield from settings.reference(_Plain)
    for prefix, part in _ours():
        yield from settings.reference(part, prefix)


def effective(config: Config) -> Iterator[str]:
    """The whole configuration as TOML, defaults included and secrets hidden."""
    lines = list(settings.as_toml(_Plain(**{name: getattr(config, name) for name in _OWN})))
    yield from lines
    for registry in ("cameras", "detectors"):
        for name, table in getattr(config, registry).items():
            part = REGISTRIES[registry].require(name)
            yield from ("", f"[{registry}.{name}]", *settings.table_as_toml(part, table))
    for sink in config.sinks:
        yield from ("", f"[[sinks.{sink_name(sink)}]]", *settings.as_toml(sink))


def sink_name(sink: SinkSettings) -> str:
    """The name of its kind: of its flag and its table."""
    ours = (name for name, kind in SINKS.items() if kind is type(sink))
    others = (name for name, kind in SINKS.others()[0].items() if kind is type(sink))
    return next(chain(ours, others), type(sink).__name__)


def guide_table() -> Iterator[str]:
    """The lines of the table in edge/README.md.

    Keys that every sink has are in it once, as ``sinks.NAME.KEY``.
    """
    shared = settings.keys(SinkSettings)
    seen: set[str] = set()
    yield from ("| key | default | meaning |", "|---|---|---|")
    for dotted, default, meaning in reference():
        registry, _, rest = dotted.partition(".")
        last = rest.rpartition(".")[2]
        shown = f"sinks.NAME.{last}" if registry == "sinks" and last in shared else dotted
        if shown not in seen:
            seen.add(shown)
            yield f"| `{shown}` | `{default}` | {meaning.replace('``', '`')} |"


def _ours() -> Iterator[tuple[str, type[Settings]]]:
    for prefix, registry in REGISTRIES.items():
        for name, part in registry.items():
            yield f"{prefix}.{name}", part


_OWN = tuple(each.name for each in dataclasses.fields(_Plain))


class _Known:
    """``keys``, made only for an error."""

    def __iter__(self) -> Iterator[str]:
        return iter(keys())


def _parts(
    registry: str, tables: Mapping[str, Any], where: str, problems: settings.Problems
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The checked tables of ``[cameras]`` or ``[detectors]``, which need not be complete."""
    for name, table in _table(tables, registry, where, problems).items():
        part = REGISTRIES[registry].find(name)
        if part is None:
            problems.add_unknown(settings.unknown_key(where, f"{registry}.{name}", keys()))
            continue
        prefix = f"{registry}.{name}"
        try:
            yield (
                name,
                settings.partial(
                    part, table, where=where, prefix=prefix, known=_Known(), problems=problems
                ),
            )
        except UsageError as error:
            problems.add(error)


def _sinks(
    tables: Mapping[str, Any], where: str, problems: settings.Problems, *, overwrite: bool
) -> Iterator[SinkSettings]:
    for name, value in _table(tables, "sinks", where, problems).items():
        kind = SINKS.find(name)
        if kind is None:
            problems.add_unknown(settings.unknown_key(where, f"sinks.{name}", keys()))
            continue
        existing = {"existing": "overwrite", "overwrite": True} if overwrite else {}
        replaced = {key: value for key, value in existing.items() if key in settings.keys(kind)}
        for one in value if isinstance(value, list) else [value]:
            table = {**one, **replaced} if isinstance(one, dict) else one
            try:
                yield settings.from_table(
                    kind,
                    table,
                    where=where,
                    prefix=f"sinks.{name}",
                    known=_Known(),
                    problems=problems,
                )
            except UsageError as error:
                problems.add(error)


def _table(
    tables: Mapping[str, Any], name: str, where: str, problems: settings.Problems
) -> dict[str, Any]:
    value = tables.get(name, {})
    if not isinstance(value, dict):
        problems.add(UsageError(f"{where}: {name} is {value!r}; write it as a table, [{name}]"))
        return {}
    return value


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    print("\n".join(guide_table()))
