"""What is measured inside a root: the installed package's answers, written to a file.

    python inside.py models --inputs FILE.npz --runtime litert --out FILE.npz
    python inside.py pipeline --scenes FOLDER --out FILE.json

Only what emotion-edge itself installs is imported.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import emotion_edge
from emotion_edge.cameras.photos import Photos
from emotion_edge.model import manifest
from emotion_edge.model.backend import Backend, installed, open_interpreter
from emotion_edge.model.shipped import shipped_models
from emotion_edge.records import observation_record


def models(inputs: Path, out: Path, backend: Backend) -> None:
    """Every shipped model's integer outputs, under its name, and what ran it.

    inputs: an ``.npz`` with uint8 images ``(n, height, width[, 3])`` under ``HxWxC``.
    """
    images = np.load(inputs)
    found: dict[str, Any] = {}
    for name, path in shipped_models().items():
        model, facts = manifest.load(path)
        spec = facts.input
        classifier = emotion_edge.TFLiteClassifier(model, facts, backend)
        interpreter = open_interpreter(model, backend)
        source = interpreter.get_input_details()[0]["index"]
        sink = interpreter.get_output_details()[0]["index"]
        rows = []
        start = time.perf_counter()
        for face in images[f"{spec.height}x{spec.width}x{spec.channels}"]:
            interpreter.set_tensor(source, classifier.tensor(face))
            interpreter.invoke()
            rows.append(interpreter.get_tensor(sink)[0])
        found[name] = np.stack(rows)
        # After the runs: LiteRT applies its default delegate when tensors are allocated.
        plan = [step["op_name"] for step in interpreter._get_ops_details()]
        found[f"{name}/delegated"] = np.array("DELEGATE" in plan)
        found[f"{name}/seconds"] = np.array(time.perf_counter() - start)
    versions = {**installed(), "numpy": np.__version__}
    found["versions"] = np.array(json.dumps(versions))
    np.savez(out, **found)


def pipeline(scenes: Path, out: Path) -> None:
    """Records by model and source: the photographs (each for itself) and the clip (tracked).

    scenes: has a folder of images for each of the two.
    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name in shipped_models():
        still = emotion_edge.load(name, detector="haar")
        tracked = emotion_edge.load(name, detector="haar", track=True)
        found[name] = {}
        for kind, pipe, fps in (("photographs", still, 1.0), ("clip", tracked, 15.0)):
            with Photos(scenes / kind, fps=fps) as camera:
                found[name][kind] = [observation_record(seen) for seen in pipe.stream(camera)]
    out.write_text(json.dumps(found))


def main() -> int:
    """See this file's head."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    answering = commands.add_parser("models")
    answering.add_argument("--inputs", type=Path, required=True)
    answering.add_argument("--runtime", choices=("litert", "tflite-runtime"), required=True)
    answering.add_argument("--no-xnnpack", dest="xnnpack", action="store_false")
    answering.add_argument("--out", type=Path, required=True)
    looking = commands.add_parser("pipeline")
    looking.add_argument("--scenes", type=Path, required=True)
    looking.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        if options.command == "models":
            models(
                options.inputs,
                options.out,
                Backend(runtime=options.runtime, xnnpack=options.xnnpack),
            )
        else:
            pipeline(options.scenes, options.out)
    except emotion_edge.EmotionEdgeError as error:
        with contextlib.suppress(OSError):
            options.out.unlink(missing_ok=True)
        print(f"inside: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
