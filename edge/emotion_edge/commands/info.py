"""What a model file is, from its own manifest."""

from __future__ import annotations

import argparse
import json
from typing import Any

from emotion_edge import manifest as manifests
from emotion_edge.classifier import TFLiteClassifier
from emotion_edge.shipped import DEFAULT, model_path, shipped_models

HELP = "show what a model is: labels, input, accuracy, training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("model", nargs="?", help=f"a shipped name or a .tflite file ({DEFAULT})")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def run(options: argparse.Namespace) -> int:
    """Print a model's manifest, after proving that the file matches it and runs."""
    path = model_path(options.model or DEFAULT)
    model, manifest = manifests.load(path)
    TFLiteClassifier(model, manifest)
    if options.json:
        print(manifest.to_json())
        return 0
    spec = manifest.input
    rows: list[tuple[str, str]] = [
        ("model", f"{manifest.name} ({manifest.variant})"),
        ("file", f"{path}, {len(model) / 1000:.0f} kB"),
        ("sha256", manifest.model_sha256),
        ("labels", ", ".join(manifest.labels)),
        ("input", f"{spec.width}x{spec.height} {spec.colour}, crop margin {spec.margin:g}"),
        ("licence", manifest.licence or "not stated"),
    ]
    for section in ("accuracy", "calibration", "gate", "training", "versions"):
        rows += [
            (f"{section}.{key}", _text(value))
            for key, value in sorted(getattr(manifest, section).items())
        ]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}")
    if options.model is None:
        print(f"\nshipped models: {', '.join(shipped_models())}")
    return 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
