"""Saves the zones drawn on the live page as a drop-in of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emotion_edge.errors import UsageError
from emotion_edge.files import write_whole
from emotion_edge.kiosk.configuration import DROP_INS, Config
from emotion_edge.settings import read_toml
from emotion_edge.zones import as_toml

NAME = "60-zones.toml"
"""In the folder ``conf.d``; it takes precedence over an operator's ``50-site.toml``."""

_HEAD = "# Written by the live page, which replaces it when zones are saved.\n"


class ZoneFile:
    """The drop-in of one configuration."""

    def __init__(
        self, config: str | Path, read: Callable[[Mapping[Path, Mapping[str, Any]]], Config]
    ) -> None:
        """config: the configuration file.

        read: the configuration with drafts of drop-ins; raises UsageError.
        """
        self._read = read
        self.path = Path(config).parent / DROP_INS / NAME

    def draft(self, areas: Sequence[str]) -> Config:
        """The configuration as it will be once these areas are saved; nothing is written.

        Raises UsageError for one that is not valid, where another place sets the zones, or where
        the file has keys that saving would lose.
        """
        try:
            present = self.path.is_file()
        except OSError as error:
            raise UsageError(f"cannot read {self.path}: {error.strerror}") from error
        if present:
            lost = read_toml(self.path)
            if isinstance(zones := lost.get("zones"), dict):
                zones.pop("areas", None)
            if lost not in ({}, {"zones": {}}):
                raise UsageError(
                    f"{self.path} has keys other than zones.areas, which saving would remove: "
                    "move them to another file"
                )
        config = self._read({self.path: {"zones": {"areas": list(areas)}}})
        if config.zones.areas != tuple(areas):
            raise UsageError(
                f"zones.areas is set on the command line or in a file after {NAME}, which takes "
                "precedence: remove it there"
            )
        return config

    def save(self, areas: Sequence[str]) -> Path:
        """Write the file whole or not at all. Raises SinkError when it cannot be written."""
        return write_whole(self.path, f"{_HEAD}{as_toml(areas)}")
