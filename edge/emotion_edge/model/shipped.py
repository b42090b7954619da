"""Finds the models that the package ships, and those that an update put in their place."""

from __future__ import annotations

import sys
from pathlib import Path

from emotion_edge.errors import ModelError

DEFAULT = "fast"
_PACKAGE = Path(__file__).parents[1]
_WHEEL = _PACKAGE / "shipped"
_CHECKOUT = _PACKAGE.parents[1] / "models"
_UPDATED = Path(sys.prefix, "share/emotion-edge/models")
"""Files that ``emotion-edge update --model`` installed in place of shipped ones."""


def shipped_models() -> dict[str, Path]:
    """The int8 files by name: from the wheel or the checkout that is running, or updated."""
    found = {
        path.name.removesuffix("-int8.tflite"): path
        for folder in (_CHECKOUT, _WHEEL, _UPDATED)
        for path in sorted(folder.glob("**/*-int8.tflite"))
    }
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def _place(name: str) -> tuple[bool, bool, str]:
    """The default first, then the models that answer what people would say."""
    return name != DEFAULT, name.endswith("-fer2013"), name


def model_path(name: str | Path = DEFAULT) -> Path:
    """The file of a shipped model, or the file of that path.

    Raises ModelError if there is neither.
    """
    models = shipped_models()
    if str(name) in models:
        return models[str(name)]
    path = Path(name)
    if path.is_file():
        return path
    raise ModelError(
        f"no model named {name}, and no such file; shipped: {', '.join(models) or 'none'}: "
        "use one of these or the path of a .tflite file (the fer2013 models are in the "
        "repository's models/ folder, not in the wheel)"
    )
