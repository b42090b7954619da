"""The seven classes of FER2013, in the order of its ``emotion`` column."""

from __future__ import annotations

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

UNSURE = "unsure"
"""Shown in place of a label when no class reaches the threshold."""

CONVENTIONS = {
    "people": "people: the label most people would give (FER+ majority)",
    "fer2013": "fer2013: the original FER2013 labels, for comparison with published figures",
}
"""What a model's labels mean, by the name in its manifest."""

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
