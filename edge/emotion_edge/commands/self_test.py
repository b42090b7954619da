"""Tests a release before a kiosk runs it: installation, configuration, models, fifty frames.

``update.py`` runs this module in the new release, as a process of its own::

    RELEASE/bin/python -m emotion_edge.commands.self_test --config /etc/emotion-edge/kiosk.toml

It opens neither the kiosk's camera nor its outputs. ``--compare FILE`` compares a model file with
the active one instead. The last line of standard error says what is wrong; the status is then 1.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from emotion_edge.cameras import open_camera
from emotion_edge.commands import doctor
from emotion_edge.errors import EmotionEdgeError, MissingExtra, ModelError
from emotion_edge.kiosk.board import read_board
from emotion_edge.kiosk.configuration import Config, load_config
from emotion_edge.kiosk.service import open_pipeline
from emotion_edge.model import manifest as manifests
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.manifest import Manifest
from emotion_edge.model.shipped import model_path, shipped_models
from emotion_edge.values import Box, Frame

FRAMES = 50
_ALLOWED_DROP = 0.3
"""Points of accuracy that a new model may lose: the gate's own bar, where it states none."""


def run(config: Config) -> str:
    """Test this installation with a configuration; a line that says what was tested.

    Raises EmotionEdgeError for the first thing that is wrong.
    """
    board = read_board()
    checks = chain(
        doctor.system(board),
        doctor.runtime(),
        doctor.opencv(board),
        doctor.numpy(board),
        doctor.models(),
        doctor.detectors(),
    )
    for finding in checks:
        if finding.state == "bad":
            raise EmotionEdgeError(f"{finding.what} {finding.fix}".strip())
    pipeline = open_pipeline(config)
    classifier = pipeline.classifier
    frames = faces = 0
    for frames, frame in enumerate(_frames(classifier.colour), 1):
        faces += len(pipeline.process(frame).faces)
        # A test pattern has no face, and the network must run on every frame.
        side = min(frame.image.shape[:2])
        total = sum(classifier.classify(frame.image, Box(0, 0, side, side)).probabilities)
        if not math.isfinite(total) or abs(total - 1) > 0.05:
            raise ModelError(f"frame {frames}: the probabilities sum to {total:.3f}, not 1")
    if frames < FRAMES:
        raise EmotionEdgeError(f"the test camera ended after {frames} of {FRAMES} frames")
    return f"{frames} frames, {faces} faces, model {config.model}"


def _frames(colour: bool) -> Iterator[Frame]:
    """Frames of the demo's portraits where they are installed, otherwise of a test pattern."""
    for name in ("demo", "pattern"):
        try:
            with open_camera(name, colour=colour, paced=False) as camera:
                for _ in range(FRAMES):
                    frame = camera.read(30.0)
                    if frame is None:
                        return
                    yield frame
            return
        except MissingExtra:
            continue


def compare(path: str | Path, config: Config, *, force: bool = False) -> tuple[str, str]:
    """Compare a model file with the one that the configuration names, by their manifests.

    force: accept one that is worse. Returns the configured name, and a line for the user.
    Raises ModelError when the file cannot take the active one's place, or is worse.
    """
    if config.model not in shipped_models():
        raise ModelError(
            f"the configuration names the file {config.model}: replace that file, or set "
            f"model to one of {', '.join(shipped_models())}"
        )
    old = manifests.load(model_path(config.model))[1]
    data, new = manifests.load(path)
    TFLiteClassifier(data, new)
    worse = list(_differences(old, new))
    text = f"{Path(path).name}: " + (_figures(old, new) or "no figures in common")
    if worse and not force:
        raise ModelError(f"{text}; {'; '.join(worse)}: not installed without --force")
    return config.model, "; ".join([text, *worse])


def _differences(old: Manifest, new: Manifest) -> list[str]:
    """What speaks against the new model; empty when nothing does."""
    found = []
    if new.labels != old.labels:
        found.append(f"its labels are {', '.join(new.labels)}, not {', '.join(old.labels)}")
    if new.convention != old.convention:
        found.append(
            f"its convention is {new.convention or 'not stated'}, not "
            f"{old.convention or 'not stated'}"
        )
    if not new.gate.get("passed"):
        found.append("it has not passed the converter's gate")
    both = _both(old, new)
    if both is None:
        found.append("its manifest has no accuracy on a split of the active model's")
    else:
        split, before, after = both
        bar = new.gate.get("bar", {}).get("drop_points", _ALLOWED_DROP)
        if before - after > bar / 100:
            found.append(f"on {split} it loses {100 * (before - after):.1f} points")
    return found


def _figures(old: Manifest, new: Manifest) -> str:
    both = _both(old, new)
    if both is None:
        return ""
    split, before, after = both
    return f"{after:.1%} on {split}, the active model {before:.1%}"


def _both(old: Manifest, new: Manifest) -> tuple[str, float, float] | None:
    """A split, and the accuracy of both models on it."""
    for split in (str(old.gate.get("split")), *old.accuracy):
        try:
            before = float(old.accuracy[split]["converted"]["accuracy"])
            after = float(new.accuracy[split]["converted"]["accuracy"])
        except (KeyError, TypeError, ValueError):
            continue
        return split, before, after
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line that ``update.py`` uses; see the module."""
    parser = argparse.ArgumentParser(prog="python -m emotion_edge.commands.self_test")
    parser.add_argument("--config", metavar="FILE")
    parser.add_argument("--compare", metavar="FILE")
    parser.add_argument("--force", action="store_true")
    options = parser.parse_args(arguments)

    try:
        config = load_config(options.config) if options.config else Config()
        if options.compare:
            configured, text = compare(options.compare, config, force=options.force)
            print(json.dumps({"configured": configured, "text": text}))
        else:
            print(run(config))
    except EmotionEdgeError as error:
        print(f"self-test: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
