"""``python -m convert attach``: add a manifest to a .tflite file made elsewhere."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from emotion_edge.errors import ManifestError
from emotion_edge.model import manifest as manifests
from emotion_edge.model.backend import LITERT
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.manifest import Manifest

HELP = "add a manifest and TFLite metadata to a .tflite made elsewhere"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", type=Path, metavar="FILE.tflite")
    parser.add_argument("--manifest", type=Path, required=True, metavar="M.json")
    parser.add_argument("--out", type=Path, help="write to OUT instead of changing FILE")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")


def run(options: argparse.Namespace) -> int:
    """Check the manifest against the model, then write both."""
    from convert import inspection, metadata, publish
    from convert.arguments import json_object

    try:
        text = options.manifest.read_bytes()
        data = options.file.read_bytes()
    except OSError as error:
        raise ManifestError(
            f"cannot read {error.filename}: {error.strerror}; give a .tflite and a manifest"
        ) from error
    network, _ = manifests.split(data, str(options.file))
    # The hash is computed here: people who write a manifest by hand can omit it.
    manifest = Manifest.from_json(
        json.dumps({"model_sha256": "", **json_object(text, options.manifest)})
    )
    if manifest.variant == "int8":
        inspection.require_integer(network, options.file.name)
    TFLiteClassifier(network, replace(manifest, model_sha256=""), LITERT)
    described = metadata.with_metadata(network, manifest) + data[len(network) :]
    out = options.out or options.file
    publish.write_bytes(
        out,
        manifests.attach(described, manifest),
        overwrite=options.overwrite or options.out is None,
    )
    print(f"{out}: attached the manifest of {manifest.name} ({manifest.variant})")
    return 0
