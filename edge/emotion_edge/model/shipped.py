"""Finds the models that the package ships."""

from __future__ import annotations

from pathlib import Path

from emotion_edge.errors import ModelError

DEFAULT = "fast"
_PACKAGE = Path(__file__).parents[1]
_WHEEL = _PACKAGE / "shipped"
_CHECKOUT = _PACKAGE.parents[1] / "models"


def shipped_models() -> dict[str, Path]:
    """The shipped int8 files by name: from the wheel, or from the checkout that is running."""
    found = {
        path.name.removesuffix("-int8.tflite"): path
        for folder in (_CHECKOUT, _WHEEL)
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
