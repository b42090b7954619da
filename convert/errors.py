"""Errors of the converter; they belong to the tree of ``emotion_edge.errors``."""

from __future__ import annotations

from emotion_edge.errors import EmotionEdgeError, ModelError


class ConversionError(ModelError):
    """A float model cannot be read, or cannot become the variant that was asked for."""


class GateFailed(EmotionEdgeError):
    """The converted model loses more than the bar allows; nothing was written."""

    exit_code = 5
