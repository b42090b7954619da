"""Shows the manifest of a model file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from emotion_edge.files import size_text
from emotion_edge.model import manifest as manifests
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.labels import CONVENTIONS
from emotion_edge.model.shipped import DEFAULT, model_path, shipped_models

HELP = "show what a model is: labels, input, accuracy, training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("model", nargs="?", help=f"a shipped name or a .tflite file ({DEFAULT})")
    parser.add_argument("--json", action="store_true", help="print the whole manifest")


def run(options: argparse.Namespace) -> int:
    """Print a model's manifest, after checking that the file matches it and runs."""
    path = model_path(options.model or DEFAULT)
    model, manifest = manifests.load(path)
    TFLiteClassifier(model, manifest)
    if options.json:
        print(manifest.to_json())
        return 0
    spec = manifest.input
    rows: list[tuple[str, str]] = [
        ("model", f"{manifest.name} ({manifest.variant})"),
        ("file", f"{path}, {size_text(path.stat().st_size)}"),
        ("sha256", manifest.model_sha256),
        ("labels", ", ".join(manifest.labels)),
        ("convention", CONVENTIONS.get(manifest.convention, "not stated")),
        ("input", f"{spec.width}x{spec.height} {spec.colour}, crop margin {spec.margin:g}"),
        ("licence", manifest.licence or "not stated"),
    ]
    if manifest.certainty:
        rows += _rows_of(_certainty, "unsure below", manifest.certainty)
    for split, result in manifest.accuracy.items():
        rows += _rows_of(_accuracy, split, result)
    if manifest.gate:
        rows += _rows_of(_gate, "gate", manifest.gate)
    for section in ("calibration", "training", "versions"):
        facts = [
            f"{key} {value}"
            for key, value in getattr(manifest, section).items()
            if isinstance(value, str | int | float) and "sha256" not in key
        ]
        if facts:
            rows.append((section, ", ".join(facts)))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}")
    if options.model is None:
        print(f"\nshipped models: {', '.join(shipped_models())}")
    return 0


def _rows_of(
    describe: Callable[[str, Any], list[tuple[str, str]]], name: str, facts: Any
) -> list[tuple[str, str]]:
    """Rows for facts; those of another shape than our converter's are shown as JSON."""
    try:
        return describe(name, facts)
    except (AttributeError, KeyError, TypeError, ValueError):
        return [(name, json.dumps(facts, ensure_ascii=False))]


def _certainty(name: str, facts: Any) -> list[tuple[str, str]]:
    if "unsure_below" not in facts:
        return [(name, "never, unless --precision or --unsure-below is given")]
    return [
        (
            name,
            f"{facts['unsure_below']:.2f}: {facts['precision']:.1%} of the labels shown agree with "
            f"most people; {facts['coverage']:.0%} of faces with a majority get one "
            f"({facts['coverage_all']:.0%} of all faces)",
        )
    ]


def _accuracy(split: str, result: Any) -> list[tuple[str, str]]:
    """A split's figures: of this file, and in brackets those of the float model."""
    own, source = result["converted"], result["float"]
    parts = [f"{own['accuracy']:.1%} of {result['n']} (float model {source['accuracy']:.1%})"]
    if "without_twins" in own:
        parts.append(
            _compared("without near-duplicates", own["without_twins"], source["without_twins"])
        )
    if "recall_six" in own:
        parts.append(f"mean recall without disgust {own['recall_six']:.1%}")
    if "original_labels" in own:
        parts.append(f"original labels {own['original_labels']['accuracy']:.1%}")
    elif "ferplus" in own:
        share, other = own["ferplus"]["accuracy"], source["ferplus"]["accuracy"]
        parts.append(_compared("FER+ majority", share, other))
    parts.append(f"same answer as the float model on {result['agreement_percent']:.1f}%")
    recall = ", ".join(f"{label} {share:.0%}" for label, share in own["recall"].items())
    return [(split, "; ".join(parts)), (f"{split} recall", recall)]


def _compared(name: str, own: float, source: float) -> str:
    return f"{name} {own:.1%} (float {source:.1%})"


def _gate(name: str, gate: Any) -> list[tuple[str, str]]:
    verdict = "passed" if gate["passed"] else f"FAILED, forced: {'; '.join(gate['failures'])}"
    return [(name, f"{verdict} (on {gate['split']}, {gate['runtime']})")]
