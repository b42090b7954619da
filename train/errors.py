"""Errors of the workstation side; they belong to the tree of ``emotion_edge.errors``."""

from __future__ import annotations

from emotion_edge.errors import EmotionEdgeError, UsageError


class DataError(EmotionEdgeError, ValueError):
    """A data set cannot be read, or contains something it must not."""


class ConfigError(UsageError):
    """A configuration file has an unknown key or a value that cannot be used."""


class TrainingError(EmotionEdgeError, RuntimeError):
    """A training run cannot continue: the loss is not a number, or a checkpoint does not fit."""
