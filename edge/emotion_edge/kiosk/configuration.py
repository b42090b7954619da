"""What ``emotion-edge run`` can be told, by flags and by ``kiosk.toml``: one set of dataclasses.

A key is written with dots: ``camera.source``, ``tracker.half_life_s``, ``sinks.mqtt.host``. Every
flag sets a key, ``--set KEY=VALUE`` sets any, and a flag wins over the file::

    model = "fast"
    detector = "yunet"

    [camera]
    source = "picamera2"

    [sinks.jsonl]
    path = "emotions.jsonl"
    existing = "append"

    [[sinks.mqtt]]                    # more than one of a kind: double brackets
    host = "homeassistant.local"
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from emotion_edge.errors import UsageError
from emotion_edge.kiosk.thermal import HeatSettings
from emotion_edge.model.backend import Backend
from emotion_edge.model.shipped import DEFAULT
from emotion_edge.sinks.settings import (
    SETTINGS,
    STANDARD_OUTPUT,
    AggregateSettings,
    ConsoleSettings,
    SinkSettings,
)
from emotion_edge.tracker import TrackerSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraConfig:
    """Where frames come from, and how patient to be.

    source: what ``cameras.open_camera`` understands: ``auto``, ``demo``, ``picamera2``,
        ``/dev/videoN``, an address, a video, a folder of photos.
    width, height: pixels asked for.
    fps: frames per second asked for; 0 leaves the choice to the camera.
    paced: whether a file keeps to its frame rate; unset: a drawn camera does, a file does not.
    wait: whether a camera that is absent or busy at the start is waited for; else that is an
        error.
    frozen_s: seconds without a new frame after which the camera is opened again.
    identical_s: seconds of the same picture after which it is opened again; 0 for a camera that
        may film darkness, where every frame can be black.
    retry_s: the longest pause between two attempts to open it, in seconds.
    give_up_s: seconds without any frame after which the run ends with status 3, so that systemd
        starts it afresh; 0 never gives up.
    """

    source: str = "auto"
    width: int = 640
    height: int = 480
    fps: float = 0.0
    paced: bool | None = None
    wait: bool = False
    frozen_s: float = 5.0
    identical_s: float = 10.0
    retry_s: float = 30.0
    give_up_s: float = 300.0

    def __post_init__(self) -> None:
        for name in ("fps", "identical_s", "give_up_s"):
            if getattr(self, name) < 0:
                raise UsageError(f"[camera] {name} is {getattr(self, name)!r}: use 0 or more")
        for name in ("width", "height", "frozen_s", "retry_s"):
            if not getattr(self, name) > 0:
                raise UsageError(f"[camera] {name} is {getattr(self, name)!r}: use more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a run needs to know.

    model: a shipped model's name, or a ``.tflite`` file.
    detector: ``auto``, ``haar`` or ``yunet``.
    frames: end after so many; 0 never does.
    seconds: end after so long; 0 never does.
    quiet: no lines on standard output.
    overwrite: replace files that exist.
    sinks: one for each output, in the order of the file.
    aggregate: counts over a period instead of faces; None: faces.
    """

    model: str = DEFAULT
    detector: Literal["auto", "haar", "yunet"] = "auto"
    frames: int = 0
    seconds: float = 0.0
    quiet: bool = False
    overwrite: bool = False
    camera: CameraConfig = field(default_factory=CameraConfig)
    backend: Backend = field(default_factory=Backend)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    heat: HeatSettings = field(default_factory=HeatSettings)
    sinks: tuple[SinkSettings, ...] = ()
    aggregate: AggregateSettings | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "seconds"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)!r}: use 0 or more")


def read_toml(path: str | Path) -> dict[str, Any]:
    """A configuration file as nested tables.

    Raises UsageError when it cannot be read or is no TOML.
    """
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error


def parse_value(key: str, text: str) -> object:
    """A flag's text as the type its key wants.

    Raises UsageError for an unknown key, and for a text that is no such value.
    """
    kinds = keys()
    if key not in kinds:
        raise _unknown("--set", key)
    for kind in _alternatives(kinds[key]):
        if kind is bool and text in ("true", "false"):
            return text == "true"
        if kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
        if typing.get_origin(kind) is tuple:
            try:
                return [float(part) for part in text.split(",") if part.strip()]
            except ValueError:
                continue
        if kind in (str, Path) or typing.get_origin(kind) is Literal:
            return text
    raise UsageError(f"--set {key}={text}: expected {_in_words(kinds[key])}")


def merge(tables: Mapping[str, Any], overrides: Mapping[str, object]) -> dict[str, Any]:
    """Lay dotted keys over nested tables; the tables stay as they are.

    Where a sink stands in the file more than once, a flag's goes to one more of them.
    """
    merged: dict[str, Any] = {
        key: _copy(value) if isinstance(value, dict | list) else value
        for key, value in tables.items()
    }
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
        if last:  # "sinks.window." only says that the table is there
            table[last] = value
    return merged


def build(tables: Mapping[str, Any], where: str = "the configuration") -> Config:
    """A configuration from nested tables, each value checked.

    where: what errors name: the file.
    Raises UsageError for an unknown key (naming the nearest known one), a missing key, a value of
    another type, or one out of range.
    """
    tables = dict(tables)
    sinks = _table(tables.pop("sinks", {}), "sinks", where)
    overwrite = tables.get("overwrite") is True
    outputs: list[SinkSettings] = []
    for kind, value in sinks.items():
        if kind not in SETTINGS:
            raise _unknown(where, f"sinks.{kind}")
        for one in value if isinstance(value, list) else [value]:
            table = dict(_table(one, f"sinks.{kind}", where))
            names = {f.name for f in dataclasses.fields(SETTINGS[kind])}
            if overwrite and "existing" in names:
                table["existing"] = "overwrite"
            elif overwrite and "overwrite" in names:
                table["overwrite"] = True
            outputs.append(_dataclass(SETTINGS[kind], table, f"sinks.{kind}", where))
    parts: dict[str, Any] = {}
    for name, section in _SECTIONS.items():
        if name in tables:
            table = _table(tables.pop(name), name, where)
            parts[name] = _dataclass(section, table, name, where)
    config = _dataclass(Config, tables, "", where, **parts, sinks=tuple(outputs))
    to_stdout = sum(getattr(sink, "path", None) == STANDARD_OUTPUT for sink in outputs)
    if to_stdout > 1:
        raise UsageError(f"{where}: {to_stdout} outputs write to standard output: give files")
    quiet = config.quiet or to_stdout  # labels would mix with the records
    if not quiet and not any(isinstance(sink, ConsoleSettings) for sink in outputs):
        config = dataclasses.replace(config, sinks=(ConsoleSettings(), *outputs))
    elif quiet:
        heard = tuple(sink for sink in outputs if not isinstance(sink, ConsoleSettings))
        config = dataclasses.replace(config, sinks=heard)
    return config


def load_config(path: str | Path) -> Config:
    """Read and check a configuration file. Raises UsageError."""
    return build(read_toml(path), str(path))


def keys() -> dict[str, Any]:
    """Every key that can be set, dotted, with its type."""
    found: dict[str, Any] = {}
    for prefix, section in _tables():
        hints = typing.get_type_hints(section)
        for each in dataclasses.fields(section):
            if prefix or each.name not in {*_SECTIONS, "sinks"}:
                found[f"{prefix}.{each.name}" if prefix else each.name] = hints[each.name]
    return found


_SECTIONS: dict[str, type] = {
    "camera": CameraConfig,
    "backend": Backend,
    "tracker": TrackerSettings,
    "heat": HeatSettings,
    "aggregate": AggregateSettings,
}


def _tables() -> Iterator[tuple[str, type]]:
    yield "", Config
    yield from _SECTIONS.items()
    for kind, settings in SETTINGS.items():
        yield f"sinks.{kind}", settings


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _table(value: Any, name: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: {name} is {value!r}; write it as a table, [{name}]")
    return value


def _dataclass(kind: type[T], table: Mapping[str, Any], prefix: str, where: str, **rest: Any) -> T:
    """Make a settings dataclass of a table, each value checked against its annotation."""
    hints = typing.get_type_hints(kind)
    fields = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = dict(rest)
    for key, value in table.items():
        dotted = f"{prefix}.{key}" if prefix else key
        if key not in fields:
            raise _unknown(where, dotted)
        values[key] = _checked(hints[key], value, dotted, where)
    for name, each in fields.items():
        optional = (
            each.default is not dataclasses.MISSING
            or each.default_factory is not dataclasses.MISSING
        )
        if not optional and name not in values:
            raise UsageError(f"{where}: [{prefix}] needs {name}, {_in_words(hints[name])}")
    return kind(**values)


def _checked(hint: Any, value: Any, dotted: str, where: str) -> Any:
    """The value as the annotation wants it."""
    for kind in _alternatives(hint):
        if typing.get_origin(kind) is Literal:
            if value in typing.get_args(kind):
                return value
        elif typing.get_origin(kind) is tuple:
            if isinstance(value, list) and all(_is_number(one) for one in value):
                return tuple(float(one) for one in value)
        elif kind is float:
            if _is_number(value):
                return float(value)
        elif kind is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        elif kind is Path:
            if isinstance(value, str | Path) and str(value):
                try:
                    return Path(value).expanduser()
                except RuntimeError:
                    raise UsageError(
                        f"{where}: {dotted} is {str(value)!r} and this user has no home folder: "
                        "give the whole path"
                    ) from None
        elif isinstance(kind, type) and isinstance(value, kind):
            return value
    raise UsageError(f"{where}: {dotted} is {value!r}; expected {_in_words(hint)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone; None cannot be written in TOML."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(one for one in typing.get_args(hint) if one is not types.NoneType)
    return (hint,)


def _in_words(hint: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    parts = []
    for kind in _alternatives(hint):
        if typing.get_origin(kind) is Literal:
            parts.append(" or ".join(repr(value) for value in typing.get_args(kind)))
        elif typing.get_origin(kind) is tuple:
            parts.append("a list of numbers")
        else:
            parts.append(words.get(kind, "a path"))
    return " or ".join(parts)


def _unknown(where: str, dotted: str) -> UsageError:
    tables = {prefix for prefix, _ in _tables() if prefix}
    nearest = _nearest(dotted, [*keys(), *tables])
    return UsageError(f"{where}: unknown key {dotted}; did you mean {nearest}?")


def _nearest(dotted: str, known: Iterable[str]) -> str:
    """The known key most like it: in the same table first, then anywhere by its last word."""
    table, _, last = dotted.rpartition(".")

    def likeness(candidate: str) -> float:
        home, _, name = candidate.rpartition(".")
        ratio = difflib.SequenceMatcher(None, last, name).ratio()
        return ratio + (0.25 if home == table else 0.0)

    return max(known, key=likeness)


def reference() -> list[tuple[str, str, str]]:
    """Every key with its default as TOML writes it and its meaning, from the docstrings."""
    rows = []
    for prefix, section in _tables():
        meanings = _meanings(section)
        for each in dataclasses.fields(section):
            key = f"{prefix}.{each.name}" if prefix else each.name
            if key in keys():
                rows.append((key, _default(each), meanings[each.name]))
    return rows


def _meanings(section: type) -> dict[str, str]:
    """What ``name: text`` and ``name, other: text`` in the docstrings say of each field."""
    names = {each.name for each in dataclasses.fields(section)}
    said: dict[str, str] = {}
    for base in reversed(section.__mro__):
        current: list[str] = []
        for line in inspect.cleandoc(base.__doc__ or "").splitlines():
            head, colon, rest = line.partition(": ")
            listed = head.split(", ")
            if colon and set(listed) <= names:
                current = listed
                said |= dict.fromkeys(listed, rest)
            elif line.startswith(" "):
                said |= {name: f"{said[name]} {line.strip()}" for name in current}
            else:
                current = []
    told = dict(said)
    for name in names - said.keys():  # explained under another key
        told[name] = next((f"see {key}" for key, text in said.items() if name in text), "")
    return told


def _default(each: dataclasses.Field[Any]) -> str:
    value = each.default
    if value is dataclasses.MISSING:
        return "required"
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(f'{one:g}' for one in value)}]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


if __name__ == "__main__":  # the table of edge/README.md
    print("| key | default | meaning |\n|---|---|---|")
    for key, default, meaning in reference():
        print(f"| `{key}` | `{default}` | {meaning.replace('``', '`')} |")
