"""Puts the shipped int8 models and a kiosk's files into the wheel (a hatchling build hook).

Only the models that answer what people would say: those of the ``fer2013`` convention are for
comparison with the literature, which is done in a checkout, and would double the wheel's size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DEFAULT = "models/fast/fast-int8.tflite"


class ShippedModels(BuildHookInterface[Any]):
    """``models/NAME/NAME-int8.tflite`` becomes ``emotion_edge/shipped/NAME-int8.tflite``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files; ``version`` is ``editable`` for an install from the checkout."""
        root = Path(self.root)
        if version == "editable":  # reads models/ where it stands
            return
        if not (root / DEFAULT).is_file():
            raise FileNotFoundError(
                f"no {DEFAULT}: a wheel carries the default model; "
                "make it with python -m convert models/fast/fast.keras --data FER2013 "
                f"--out {DEFAULT}"
            )
        for path in sorted(root.glob("models/*/*-int8.tflite")):
            if path.parent.name.endswith("-fer2013"):
                continue
            build_data["force_include"][str(path)] = f"emotion_edge/shipped/{path.name}"
        # What an update installs on a kiosk in addition to the package: kiosk/update.py.
        edge = root / "edge"
        for path in sorted([*edge.glob("systemd/*"), *edge.glob("constraints-*.txt")]):
            build_data["force_include"][str(path)] = f"emotion_edge/device/{path.name}"
