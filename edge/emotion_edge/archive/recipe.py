"""Labels images the same way in every process: a recipe that can be sent to it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from emotion_edge.detectors import open_detector
from emotion_edge.detectors.stills import unsearched
from emotion_edge.errors import EmotionEdgeError, ModelError
from emotion_edge.factory import load
from emotion_edge.model.backend import Backend
from emotion_edge.model.preprocessing import read_image
from emotion_edge.model.shipped import model_path
from emotion_edge.pipeline import Pipeline
from emotion_edge.records import image_record
from emotion_edge.values import Image, Observation

Result = dict[str, Any]
"""An image's record, or ``{"unreadable": FILE, "reason": TEXT}``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How single images are labelled.

    model: a shipped name or a file. detector: its name, or ``auto``.
    min_face, max_seconds: of the detector; None for its own.
    precision, unsure_below: as in ``factory.load``.
    """

    model: str
    detector: str = "auto"
    min_face: int | None = None
    max_seconds: float | None = None
    backend: Backend = dataclasses.field(default_factory=Backend)
    precision: float | None = None
    unsure_below: float | None = None

    def open(self) -> Pipeline:
        """The pipeline. Raises what ``open_detector`` and ``load`` raise."""
        limits = {"min_face": self.min_face, "max_seconds": self.max_seconds}
        detector = open_detector(
            self.detector,
            changes={name: value for name, value in limits.items() if value is not None},
        )
        return load(
            self.model,
            detector=detector,
            backend=self.backend,
            precision=self.precision,
            unsure_below=self.unsure_below,
        )

    def model_sha256(self) -> str:
        """Of the model's file, hexadecimal. Raises ModelError."""
        return hashlib.sha256(model_path(self.model).read_bytes()).hexdigest()


def record_of(pipeline: Pipeline, image: Image, observation: Observation, file: str) -> Result:
    """The record of an image that ``pipeline`` has just processed."""
    height, width = image.shape[:2]
    share = unsearched(pipeline.detector)
    about: dict[str, Any] = {"unsearched": round(share, 3)} if share else {}
    return image_record(observation.faces, width, height, file=file, **about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a worker needs next to the paths.

    folder: what relative paths are relative to. model_sha256: of the model's file, which must be
        the same on every machine.
    """

    recipe: Recipe
    folder: str
    model_sha256: str


def label(work: Work, paths: Sequence[str]) -> list[Result]:
    """The results of these images, in their order; runs in a worker.

    Raises what opening the pipeline raises, ModelError for another model's file.
    """
    pipeline = _opened(work)
    return [_labelled(pipeline, work.folder, path) for path in paths]


@functools.lru_cache(maxsize=1)
def _opened(work: Work) -> Pipeline:
    cv2.setNumThreads(1)  # each core has a process of its own
    pipeline = work.recipe.open()
    found = work.recipe.model_sha256()
    if found != work.model_sha256:
        raise ModelError(
            f"{work.recipe.model} on {os.uname().nodename} has the SHA-256 {found[:12]}..., not "
            f"{work.model_sha256[:12]}...: install the same version of emotion-edge everywhere"
        )
    return pipeline


def _labelled(pipeline: Pipeline, folder: str, file: str) -> Result:
    path = Path(folder, file)
    try:
        # A pipe or a device would block the worker, or never end.
        if not stat.S_ISREG(path.stat().st_mode):
            return unreadable(file, "it is not a regular file")
        image = read_image(path)
        return record_of(pipeline, image, pipeline.image(image), file)
    except (EmotionEdgeError, cv2.error, MemoryError) as error:
        return unreadable(file, str(error) or type(error).__name__)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        return unreadable(file, f"cannot read it: {getattr(error, 'strerror', None) or error}")


def unreadable(file: str, reason: str) -> Result:
    """The result of an image that has no record."""
    return {"unreadable": file, "reason": " ".join(reason.split())}
