"""The seven classes of FER2013, in the order of its ``emotion`` column."""

from __future__ import annotations

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

UNSURE = "unsure"
"""Shown in place of a label when no class reaches the threshold."""

EMOJI = {
    "angry": "😠",
    "disgust": "🤢",
    "fear": "😨",
    "happy": "😀",
    "sad": "😢",
    "surprise": "😮",
    "neutral": "😐",
    "contempt": "😒",
    UNSURE: "🤔",
}
