"""Finds exchangeable parts by name: ours in a table, other packages' through entry points.

A part is a settings class that opens what it describes. A line of our table reads like an entry
point, ``"demo": "emotion_edge.cameras.demo:DemoSettings"``, and another package offers its part by
the same in its ``pyproject.toml``::

    [project.entry-points."emotion_edge.cameras"]
    thermal = "thermal_camera:ThermalSettings"

A part is imported when it is first used. Other packages are looked up when a name is not one of
ours, and when parts are listed.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from emotion_edge.errors import PluginError, UsageError
from emotion_edge.settings import Settings

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

S = TypeVar("S", bound=Settings)


class Registry(Mapping[str, type[S]], Generic[S]):
    """Our parts of one kind; as a mapping it holds ours only, ``find`` and ``others`` the rest."""

    def __init__(self, what: str, group: str, base: type[S], ours: Mapping[str, str]) -> None:
        """what: the kind in words. group: of the entry points. base: of every part.

        ours: ``module:class`` by name.
        """
        self.what = what
        self.group = group
        self._base = base
        self._ours = ours

    def __getitem__(self, name: str) -> type[S]:
        """One of ours; imports its module."""
        module, _, attribute = self._ours[name].partition(":")
        part: type[S] = getattr(importlib.import_module(module), attribute)
        return part

    def __iter__(self) -> Iterator[str]:
        return iter(self._ours)

    def __len__(self) -> int:
        return len(self._ours)

    def find(self, name: str) -> type[S] | None:
        """One of ours or another package's, None for neither. Raises PluginError."""
        if name in self._ours:
            return self[name]
        offered = self._offered().get(name)
        return None if offered is None else self._load(offered)

    def require(self, name: str, *also: str) -> type[S]:
        """``find``, but raises UsageError for a name that no package offers.

        also: further names that the error lists.
        """
        found = self.find(name)
        if found is None:
            raise UsageError(
                f"no {self.what} named {name!r}: use {', '.join([*also, *self, *self._offered()])}"
            )
        return found

    def others(self) -> tuple[dict[str, type[S]], list[str]]:
        """Other packages' parts by name, and a line for each one that cannot be used."""
        found: dict[str, type[S]] = {}
        troubles = []
        for name, offered in self._offered().items():
            try:
                found[name] = self._load(offered)
            except PluginError as error:
                troubles.append(str(error))
        return found, troubles

    def _offered(self) -> dict[str, EntryPoint]:
        from importlib.metadata import entry_points  # slow to import, and seldom used

        return {each.name: each for each in entry_points(group=self.group) if each.name not in self}

    def _load(self, offered: EntryPoint) -> type[S]:
        package = f" of the package {offered.dist.name}" if offered.dist else ""
        who = f"the {self.what} {offered.name!r}{package}"
        try:
            part = offered.load()
        except Exception as error:  # another package's code may raise anything
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise PluginError(
                f"{who} cannot be imported ({reason}): update or remove it"
            ) from error
        if not (isinstance(part, type) and issubclass(part, self._base)):
            raise PluginError(
                f"{who} is {part!r}: {offered.value} must name a subclass of {self._base.__name__}"
            )
        return part
