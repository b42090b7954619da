"""When to say "unsure": a threshold from the model's own accuracy-coverage curve.

A model shows a label only where its probability reaches a threshold. The higher the threshold,
the more of the labels shown are right (precision) and the fewer faces get one (coverage). The
converter measures this curve on PublicTest, which the model was not trained on, and stores it in
the manifest; the device turns a wanted precision into a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

from emotion_edge.errors import UsageError
from emotion_edge.model.manifest import Manifest

DEFAULT_PRECISION = 0.95
"""Share of the labels shown that should agree with most people."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the curve.

    threshold: probability below which ``unsure`` is shown, 0..1.
    precision: share of the labels shown that are right. coverage: share of faces with a label.
    """

    threshold: float
    precision: float
    coverage: float


def curve(manifest: Manifest) -> tuple[Point, ...]:
    """The points that the manifest holds, by rising threshold; empty where it holds none."""
    return tuple(Point(*map(float, row)) for row in manifest.certainty.get("curve", ()))


def point(manifest: Manifest, precision: float) -> Point:
    """The point of the curve that shows most labels at this precision or a higher one.

    Raises UsageError when the model has no curve, or never reaches this precision.
    """
    points = curve(manifest)
    if not 0 < precision <= 1:
        raise UsageError(f"precision {precision:g}: give a share between 0 and 1, e.g. 0.9")
    if not points:
        raise UsageError(
            f"the model {manifest.name} has no accuracy-coverage curve in its manifest, so "
            "precision cannot be chosen: give --unsure-below instead"
        )
    reached = [each for each in points if each.precision >= precision]
    if not reached:
        best = max(points, key=lambda each: each.precision)
        raise UsageError(
            f"the model {manifest.name} does not reach precision {precision:g}; its highest is "
            f"{best.precision:.3f}"
        )
    return max(reached, key=lambda each: each.coverage)


def unsure_below(
    manifest: Manifest | None, chosen: float | None = None, precision: float | None = None
) -> float:
    """The probability below which ``unsure`` is shown; 0 for never.

    chosen: what the user set, which wins. precision: what the user asked for, if anything.
    Without either, the model's own default, and 0 for a model without a curve.
    Raises UsageError for a choice that is not a probability, and as :func:`point` does.
    """
    if chosen is not None:
        if not 0 <= chosen <= 1:
            raise UsageError(f"unsure_below is {chosen:g}: give a probability from 0 to 1")
        return chosen
    if precision is not None:
        if manifest is None:
            raise UsageError("precision needs a model with a manifest")
        return point(manifest, precision).threshold
    return 0.0 if manifest is None else manifest.unsure_below or 0.0
