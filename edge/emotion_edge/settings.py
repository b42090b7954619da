"""Settings: frozen dataclasses whose keys carry their meaning and their valid range.

A key is written with dots: ``camera.source``, ``sinks.mqtt.host``. A table of a TOML file becomes
settings by ``from_table``, the text of ``--set KEY=TEXT`` a value by ``parse_text``::

    @dataclass(frozen=True, slots=True, kw_only=True)
    class LampSettings(Settings):
        pin: int = key(REQUIRED, "number of the GPIO pin.", ge=0, le=27)
        warm: float = key(2.0, "seconds until it is warm.", ge=0, le=60)
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from emotion_edge.errors import UsageError

T = TypeVar("T")

_ALIKE = 0.6
"""Likeness below which a key in another table is not what was meant."""

REQUIRED: Any = dataclasses.MISSING
"""In place of a default: the key must be given."""


def key(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    filled: bool = False,
    secret: bool = False,
) -> Any:
    """A field of settings.

    help: what the key does, in the documentation's words, with its unit.
    ge, gt, le: the valid range of a number, or of each number of a list.
    filled: whether an empty text is refused.
    secret: whether ``repr`` omits it, and nothing prints it.
    """
    about = {"help": help, "ge": ge, "gt": gt, "le": le, "filled": filled, "secret": secret}
    return dataclasses.field(default=default, metadata=about, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Base of all settings: making one checks each value's type and range, and raises UsageError.

    A whole number becomes a float, a text a path and a list a tuple where the key's type says so.
    """

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value = checked(type(self), each.name, getattr(self, each.name))
            object.__setattr__(self, each.name, value)
        self.check()

    def check(self) -> None:
        """Check rules between keys; raises UsageError."""


class Problems:
    """Receives what is wrong with a table: raises it, or collects it to report everything."""

    def __init__(self, *, collect: bool = False, tolerant: bool = False) -> None:
        """collect: whether to go on after an error. tolerant: whether unknown keys are ignored."""
        self._collect = collect
        self._tolerant = tolerant
        self.errors: list[str] = []
        self.ignored: list[str] = []
        """One line for each unknown key."""

    def add(self, error: UsageError) -> None:
        """Raise the error, or keep it."""
        if not self._collect:
            raise error
        if str(error):  # an empty one has been reported already
            self.errors.append(str(error))

    def add_unknown(self, error: UsageError) -> None:
        """The same for a key that does not exist, unless those are ignored."""
        if self._tolerant:
            self.ignored.append(str(error))
        else:
            self.add(error)


def checked(kind: type, name: str, value: Any, prefix: str = "") -> Any:
    """A value as the type of this key of a dataclass; raises UsageError when it is not valid.

    prefix: what the message puts in front of the key.
    """
    hint, about = _hints(kind)[name], _fields(kind)[name].metadata
    try:
        valid = _converted(hint, value)
    except TypeError:
        raise UsageError(f"{prefix}{name} is {value!r}; expected {_in_words(hint)}") from None
    members = valid if isinstance(valid, tuple) else (valid,)
    if any("\0" in str(each) for each in members if isinstance(each, str | Path)):
        # No system call takes one, and Python raises ValueError in place of OSError.
        raise UsageError(f"{prefix}{name} is {value!r}: a text cannot hold a NUL character")
    if not all(_in_range(number, about) for number in members if _is_number(number)):
        raise UsageError(f"{prefix}{name} is {value!r}: use {_range_in_words(about)}")
    if about.get("filled") and not str(valid).strip():
        raise UsageError(f"{prefix}{name} is empty: expected {_in_words(hint)}")
    return valid


def from_table(
    kind: type[T],
    table: Any,
    *,
    where: str,
    prefix: str = "",
    known: Iterable[str] | None = None,
    problems: Problems | None = None,
) -> T:
    """Settings from a table of a TOML file; a field that holds settings is a table of its own.

    where: what errors name, as a rule the file.
    prefix: the table's dotted name, empty for the file itself.
    known: every key of the file, for the suggestion in the error for an unknown one; None for the
        table's own. It is read only for that error.
    problems: receives what is wrong with single keys; None raises it.
    Raises UsageError for an unknown key, a missing one, a value of another type or out of range.
    """
    annotated: Any = kind  # mypy refuses a type variable where a cache requires a hashable
    known = keys(kind, prefix) if known is None else known
    problems = Problems() if problems is None else problems
    before = len(problems.errors)
    values = partial(kind, table, where=where, prefix=prefix, known=known, problems=problems)
    if len(problems.errors) > before:
        raise UsageError("")  # reported already, and without its values nothing can be made
    for name, each in _fields(annotated).items():
        missing = each.default is REQUIRED and each.default_factory is dataclasses.MISSING
        if missing and name not in values:
            raise UsageError(
                f"{where}: [{prefix}] needs {name}, {_in_words(_hints(annotated)[name])}"
                if prefix
                else f"{where}: {name} is missing: give {_in_words(_hints(annotated)[name])}"
            )
    try:
        return kind(**values)
    except UsageError as error:
        raise UsageError(
            f"{where}: [{prefix}] {error}" if prefix else f"{where}: {error}"
        ) from None


def partial(
    kind: type,
    table: Any,
    *,
    where: str,
    prefix: str = "",
    known: Iterable[str] | None = None,
    problems: Problems | None = None,
) -> dict[str, Any]:
    """The checked values of a table that need not be complete.

    problems: receives what is wrong; None raises it, as UsageError.
    """
    problems = Problems() if problems is None else problems
    if not isinstance(table, dict):
        raise UsageError(f"{where}: {prefix} is {table!r}; write it as a table, [{prefix}]")
    values: dict[str, Any] = {}
    for name, value in table.items():
        dotted = f"{prefix}.{name}" if prefix else name
        if name not in _fields(kind):
            every = keys(kind, prefix) if known is None else known
            problems.add_unknown(unknown_key(where, dotted, every))
            continue
        inner = _inner(_hints(kind)[name])
        try:
            if inner is not None and not isinstance(value, inner):
                values[name] = from_table(
                    inner, value, where=where, prefix=dotted, known=known, problems=problems
                )
            else:
                within = f"{prefix}." if prefix else ""
                values[name] = checked(kind, name, value, f"{where}: {within}")
        except UsageError as error:
            problems.add(error)
    return values


def parse_text(hint: Any, text: str) -> Any:
    """A flag's text as TOML has it: a text with or without quotes, a number, ``8,4`` as a list.

    hint: the key's type. Text that cannot be such a value is returned unchanged, and ``checked``
        refuses it.
    """
    import tomllib

    kinds = _alternatives(hint)
    written = text
    if any(kind in (str, Path) or _is_word(kind) for kind in kinds):
        if not (len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"):
            return text
    elif not text.startswith("[") and any(typing.get_args(kind)[:1] == (str,) for kind in kinds):
        return [text]
    elif any(typing.get_origin(kind) is tuple for kind in kinds) and not text.startswith("["):
        written = f"[{text}]"
    try:
        read = tomllib.loads(f"value = {written}")
    except tomllib.TOMLDecodeError:
        return text
    return read["value"] if len(read) == 1 else text


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as nested tables. Raises UsageError when it cannot be read or is not TOML."""
    import tomllib

    try:
        # Windows' Notepad writes a byte order mark, which TOML does not have.
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a TOML file: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path} is not a TOML file: its brackets are nested too deep") from error


def keys(kind: type, prefix: str = "") -> dict[str, Any]:
    """Every key of a dataclass, dotted, with its type; those of its tables included."""
    found: dict[str, Any] = {}
    for name, hint in _hints(kind).items():
        if name not in _fields(kind):
            continue
        dotted = f"{prefix}.{name}" if prefix else name
        inner = _inner(hint)
        found |= {dotted: hint} if inner is None else keys(inner, dotted)
    return found


def as_toml(settings: Any) -> Iterator[str]:
    """``key = value`` for each key of settings, in TOML; tables have dotted keys.

    A secret is shown as ``"***"``, an unset key as a comment.
    """
    kind: Any = type(settings)  # mypy refuses a type where a cache requires a hashable
    for name, each in _fields(kind).items():
        value = getattr(settings, name)
        inner = _inner(_hints(kind)[name])
        if inner is not None and value is not None:
            yield from (
                f"{name}.{line}".replace(f"{name}.# ", f"# {name}.") for line in as_toml(value)
            )
        elif value is None:
            yield f"# {name} is unset"
        elif each.metadata.get("secret") and value:
            yield f'{name} = "***"'
        else:
            yield f"{name} = {_as_toml(value)}"


def table_as_toml(kind: type, table: Mapping[str, Any]) -> Iterator[str]:
    """The same for some values of a dataclass that is not complete."""
    for name, value in table.items():
        secret = _fields(kind)[name].metadata.get("secret") and value
        yield (
            f"# {name} is unset"
            if value is None
            else (f'{name} = "***"' if secret else f"{name} = {_as_toml(value)}")
        )


def without_credentials(text: str) -> str:
    """A text in which addresses have no user and no password: ``rtsp://***@camera/``."""
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", "***", text)


def _as_toml(value: Any) -> str:
    """A value as TOML writes it, without the credentials in addresses."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_as_toml(one) for one in value)}]"
    if isinstance(value, int | float):
        return f"{value:.15g}"
    # A JSON string is a TOML basic string, once no surrogates are left.
    text = without_credentials(str(value)).encode(errors="replace").decode()
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def reference(kind: type, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every key with its default as TOML writes it, and what it does."""
    for name, each in _fields(kind).items():
        dotted = f"{prefix}.{name}" if prefix else name
        inner = _inner(_hints(kind)[name])
        if inner is None:
            yield dotted, _default_in_words(each.default), each.metadata.get("help", "")
        else:
            yield from reference(inner, dotted)


def unknown_key(where: str, dotted: str, known: Iterable[str]) -> UsageError:
    """The error for a key that does not exist: the most similar one, or those of its table."""
    import difflib

    table, _, last = dotted.rpartition(".")
    known = list(known)
    tables = {name.rpartition(".")[0] for name in known}
    tables |= {name.partition(".")[0] for name in tables}

    def likeness(candidate: str) -> float:
        home, _, name = candidate.rpartition(".")
        ratio = difflib.SequenceMatcher(None, last, name).ratio()
        return ratio + (0.25 if home == table else 0.0)

    candidates = (*known, *sorted(tables - {""}))
    nearest = max(candidates, key=likeness)
    if likeness(nearest) < _ALIKE:
        homes = (each.rpartition(".") for each in candidates)
        siblings = sorted({name for home, _, name in homes if home == table})
        if siblings:
            return UsageError(
                f"{where}: unknown key {dotted}; keys of {table or 'a configuration'}: "
                + ", ".join(siblings)
            )
    return UsageError(f"{where}: unknown key {dotted}; did you mean {nearest}?")


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


@functools.cache
def _fields(kind: Any) -> Mapping[str, dataclasses.Field[Any]]:
    return {each.name: each for each in dataclasses.fields(kind)}


def _inner(hint: Any) -> type | None:
    """The dataclass of a field that holds one."""
    for kind in _alternatives(hint):
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return kind
    return None


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _converted(hint: Any, value: Any) -> Any:
    """The value as the annotation requires it; raises TypeError where it is something else."""
    for kind in _alternatives(hint):
        try:
            return _as_kind(kind, value)
        except TypeError:
            continue
    raise TypeError


def _as_kind(kind: Any, value: Any) -> Any:
    """The value as one member of an annotation; raises TypeError where it is something else."""
    origin = typing.get_origin(kind) or kind
    if origin is Literal and value in typing.get_args(kind):
        return value
    if origin is tuple:
        return _as_tuple(typing.get_args(kind), value)
    if kind is float and _is_number(value):
        return float(value)
    if kind is Path and isinstance(value, str | Path) and str(value):
        return _as_path(value)
    plain = isinstance(origin, type) and origin not in (float, Path)
    if plain and isinstance(value, origin) and (kind is not int or _is_number(value)):
        return value
    raise TypeError


def _as_tuple(members: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    fits = isinstance(value, list | tuple) and (members[-1] is ... or len(members) == len(value))
    if not fits:
        raise TypeError
    return tuple(_converted(members[0], one) for one in value)


def _as_path(value: str | Path) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{str(value)!r} is below a home folder, and this user has none: give the whole path"
        ) from None


def _is_word(kind: Any) -> bool:
    """Whether a type is a choice of texts."""
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    return any(isinstance(choice, str) for choice in choices)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_range(number: float, about: Mapping[str, Any]) -> bool:
    low, above, high = about.get("ge"), about.get("gt"), about.get("le")
    return (
        math.isfinite(number)
        and (low is None or number >= low)
        and (above is None or number > above)
        and (high is None or number <= high)
    )


def _range_in_words(about: Mapping[str, Any]) -> str:
    low, above, high = about.get("ge"), about.get("gt"), about.get("le")
    if low is not None:
        return f"{low:,.15g} to {high:,.15g}" if high is not None else f"{low:,.15g} or more"
    if above is not None:
        upper = f", at most {high:,.15g}" if high is not None else ""
        return f"a number above {above:,.15g}{upper}"
    return f"at most {high:,.15g}" if high is not None else "a finite number"


def _in_words(hint: Any) -> str:
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
    }
    parts = []
    for kind in _alternatives(hint):
        if typing.get_origin(kind) is Literal:
            parts.append(" or ".join(repr(value) for value in typing.get_args(kind)))
        elif typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)
            parts.append("a list of numbers" if inner[-1] is ... else f"{len(inner)} numbers")
        elif kind is not types.NoneType:  # which TOML cannot write
            parts.append(words.get(kind, "a table"))
    return " or ".join(parts)


def _default_in_words(value: Any) -> str:
    if value is REQUIRED:
        return "required"
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(f'{one:g}' for one in value)}]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"
