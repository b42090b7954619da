"""Finds faces in images.

To add a detector, write one file with a class that has ``FaceDetector``'s members and a
``DetectorSettings`` that opens it, and add one line to ``DETECTORS``. Another package registers its
settings class as an entry point in the group ``emotion_edge.detectors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from emotion_edge.registry import Registry
from emotion_edge.settings import Settings, from_table, key
from emotion_edge.values import Box, Image


class FaceDetector(Protocol):
    """Finds faces in one image."""

    def detect(self, image: Image) -> list[Box]:
        """Boxes in pixels of ``image`` (gray or BGR, uint8), the largest first.

        A box is a square of the extent of FER2013's crops, whatever the detector draws.
        """


class Weights(Protocol):
    """A detector's file that ``emotion-edge detectors get`` fetches."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it can be fetched, the first choice first."""

    def path(self) -> Path:
        """Where the detector looks for it."""

    def verify(self, data: bytes, name: object) -> None:
        """Raise DetectorError unless these bytes are the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings(Settings):
    """A detector that can be opened: the base of every detector's settings.

    help: what it is, in one line. weights: the file that it needs, None for no file.
    """

    help: ClassVar[str]
    weights: ClassVar[Weights | None] = None

    min_face: int = key(
        24,
        "side of the smallest face to find in a single image, in pixels; not for streams.",
        ge=8,
        le=16384,
    )
    max_seconds: float = key(
        10.0,
        "seconds after which a single image is no longer searched for small faces.",
        gt=0,
        le=3600,
    )

    @classmethod
    def installed(cls) -> bool:
        """Whether its weights, if it needs any, are on this machine."""
        return cls.weights is None or cls.weights.path().is_file()

    def open(self) -> FaceDetector:
        """For single images, which it searches finely. Raises DetectorError."""
        raise NotImplementedError

    def open_stream(self) -> FaceDetector:
        """For the frames of one stream; by default ``open``'s detector on a schedule."""
        from emotion_edge.detectors.scheduled import ScheduledDetector

        return ScheduledDetector(self.open())


DETECTORS: Registry[DetectorSettings] = Registry(
    "detector",
    "emotion_edge.detectors",
    DetectorSettings,
    {
        "yunet": "emotion_edge.detectors.yunet:YuNetSettings",
        "haar": "emotion_edge.detectors.haar:HaarSettings",
    },
)
"""By name, the one that ``auto`` prefers first."""

AUTO = "auto"


def chosen_detector(name: str = AUTO) -> str:
    """The name itself; for ``auto`` the first of ours that is installed."""
    if name != AUTO:
        return name
    return next(ours for ours, kind in DETECTORS.items() if kind.installed())


def open_detector(
    name: str = AUTO,
    *,
    scheduled: bool = False,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> FaceDetector:
    """A detector by name.

    name: one of ``DETECTORS`` or of another package's, or ``auto`` for the first that is installed.
    scheduled: for a stream of frames: see ``scheduled.ScheduledDetector``. Otherwise each image
        is searched on its own, and more finely.
    tables: settings by detector name, as in the configuration's ``[detectors.NAME]``.
    changes: settings for whichever detector it is; they override ``tables``.
    Raises UsageError for an unknown name or setting, DetectorError when the detector's file is
    absent or wrong, PluginError for a broken detector of another package.
    """
    name = chosen_detector(name)
    table = {**(tables or {}).get(name, {}), **(changes or {})}
    settings = from_table(DETECTORS.require(name, AUTO), table, where=f"detector {name}")
    return settings.open_stream() if scheduled else settings.open()


def names() -> str:
    """What ``open_detector`` accepts, for help texts."""
    return f"{', '.join([AUTO, *DETECTORS][:-1])} or {list(DETECTORS)[-1]}"
