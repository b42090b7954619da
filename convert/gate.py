"""Compares the float and the converted model on the same images, and decides if it may ship.

Both run through ``emotion_edge``'s own classifier on LiteRT with XNNPACK, so that what is
measured is what the device does. The two answer the same images: their difference is judged in
pairs (McNemar 1947), which sees much smaller losses than two percentages side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.errors import ConversionError
from convert.float_model import FloatModel
from convert.images import Images
from convert.quantize import inputs
from emotion_edge import shares
from emotion_edge.errors import UsageError
from emotion_edge.model import certainty
from emotion_edge.model.backend import LITERT
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.manifest import Manifest
from train import evaluate, metrics, targets

Probabilities = NDArray[np.float32]

SMOOTHING = 1 / 512
"""Added to each probability before a logarithm: half a step of an int8 softmax."""

CLEAR = 0.1
"""Images on which float's two largest probabilities differ by more are not near ties."""

KERAS_TOLERANCE = 1e-3
"""How far a probability of the float32 ``.tflite`` may be from Keras'."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a converted model may lose.

    drop: points of accuracy. agreement: least share of equal predictions, percent.
    recall_points, recall_images: a class's recall may fall by the larger of the two.
    """

    drop: float = 0.3
    agreement: float = 98.0
    recall_points: float = 2.0
    recall_images: int = 2

    def __post_init__(self) -> None:
        # NaN fails each of these comparisons; in the gate's own it would let every model pass.
        if not (self.drop >= 0 and 0 <= self.agreement <= 100 and self.recall_points >= 0):
            raise UsageError(
                f"the bar {self}: drops are points of at least 0, the agreement 0 to 100 percent"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Float and converted model, image by image.

    float_figures, converted_figures: of ``train.evaluate.score``; shares are fractions of one.
    drop: accuracy lost, points (negative: gained). only_float, only_converted: images that just
    one of them gets right. p_value: exact McNemar. agreement: share of equal predictions, percent.
    clear_agreement: the same over the ``clear`` images that are not near ties in float (``CLEAR``).
    recall_change: by label, points and images. divergence_mean, divergence_worst: Kullback-Leibler
    of the converted probabilities from the float ones, nats, smoothed by 1/512; worst_row: the
    image of the largest. certainty: the accuracy-coverage curve of the converted model. prior: the
    class shares under which its probabilities hold (``emotion_edge.shares``).
    """

    split: str
    n: int
    protocol: str
    float_figures: Mapping[str, Any]
    converted_figures: Mapping[str, Any]
    drop: float
    only_float: int
    only_converted: int
    p_value: float
    agreement: float
    clear_agreement: float
    clear: int
    recall_change: Mapping[str, tuple[float, int]]
    divergence_mean: float
    divergence_worst: float
    worst_row: int
    certainty: Mapping[str, Any]
    prior: tuple[float, ...]

    def failures(self, bar: Bar) -> list[str]:
        """What the bar does not allow, one line each; empty when the model passes."""
        lines = []
        # Differences of shares: a billionth forgives their rounding.
        if self.drop > bar.drop + 1e-9:
            lines.append(f"accuracy falls by {self.drop:.2f} points, allowed are {bar.drop:g}")
        if self.agreement < bar.agreement - 1e-9:
            lines.append(
                f"{self.agreement:.2f}% of the predictions are equal, {bar.agreement:g}% are asked "
                f"({self.clear_agreement:.2f}% are equal without near ties)"
            )
        for label, (points, images) in self.recall_change.items():
            if -points > bar.recall_points + 1e-9 and -images > bar.recall_images:
                lines.append(
                    f"recall of {label} falls by {-points:.2f} points ({-images} images), allowed "
                    f"is the larger of {bar.recall_points:g} points and {bar.recall_images} images"
                )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def predict(model: bytes, manifest: Manifest, images: Images, *, threads: int = 1) -> Probabilities:
    """``(n, labels)`` probabilities from the class that runs on the device, LiteRT and XNNPACK."""
    classifier = TFLiteClassifier(model, manifest, replace(LITERT, threads=threads))
    return classifier.predict(images.faces)


def check_against_keras(
    model: FloatModel, manifest: Manifest, probabilities: Probabilities, images: Images, count: int
) -> float:
    """Largest difference between the float32 ``.tflite`` and Keras over the first images.

    Raises ConversionError above ``KERAS_TOLERANCE``: the converter changed the model.
    """
    spec = manifest.input
    worst = 0.0
    for at, x in enumerate(inputs(images.faces[:count], spec.scale, spec.offset)):
        row = np.asarray(model.network(x, training=False))[0]
        if model.output == "logits":
            row = metrics.softmax(row)
        worst = max(worst, float(np.abs(row - probabilities[at]).max()))
    if not worst <= KERAS_TOLERANCE:
        raise ConversionError(
            f"{model.name}: the float32 .tflite differs from Keras by {worst:.4f} (allowed "
            f"{KERAS_TOLERANCE}): the converter changed the model; report it with the model"
        )
    return worst


def compare(
    reference: Probabilities,
    converted: Probabilities,
    images: Images,
    *,
    flipped: tuple[Probabilities, Probabilities] | None = None,
) -> Comparison:
    """Judge the converted model's probabilities by the float model's, both ``(n, labels)``.

    flipped: the same for mirrored faces, where the flip-averaged accuracy is wanted.
    What counts as correct, and on which rows, is the convention of ``images``; agreement and
    divergence are over all rows.
    """
    labels, split, convention = images.labels, images.as_split(), images.convention
    rows, truth = targets.judged(split, convention, len(labels))
    first, second = reference.argmax(axis=1)[rows], converted.argmax(axis=1)[rows]
    mirrored = flipped or (None, None)
    ranked, same = np.sort(reference, axis=1), reference.argmax(axis=1) == converted.argmax(axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > CLEAR
    only_float = int(((first == truth) & (second != truth)).sum())
    only_converted = int(((first != truth) & (second == truth)).sum())
    change = {}
    for at, label in enumerate(labels):
        mask = truth == at
        lost = int((second[mask] == at).sum()) - int((first[mask] == at).sum())
        change[label] = (100 * lost / max(int(mask.sum()), 1), lost)
    divergence = metrics.kl_divergence(reference, converted, smoothing=SMOOTHING)
    return Comparison(
        split=images.split,
        n=len(truth),
        protocol=images.protocol,
        float_figures=evaluate.score(
            reference, split, labels, flipped=mirrored[0], convention=convention
        ),
        converted_figures=evaluate.score(
            converted, split, labels, flipped=mirrored[1], convention=convention
        ),
        drop=100 * (only_float - only_converted) / len(truth),
        only_float=only_float,
        only_converted=only_converted,
        p_value=metrics.mcnemar(only_float, only_converted),
        agreement=100 * float(same.mean()),
        clear_agreement=100 * float(same[clear].mean()) if clear.any() else 100.0,
        clear=int(clear.sum()),
        recall_change=change,
        divergence_mean=float(divergence.mean()),
        divergence_worst=float(divergence.max()),
        worst_row=int(divergence.argmax()),
        certainty=_certainty(converted, rows, truth, convention),
        prior=tuple(shares.fit_prior(converted[rows].astype(np.float64), truth).tolist()),
    )


def _certainty(
    probabilities: Probabilities,
    rows: NDArray[np.int64],
    truth: NDArray[np.int64],
    convention: str,
) -> dict[str, Any]:
    """The accuracy-coverage curve, and for ``people`` the default threshold and its coverage.

    ``coverage`` counts the faces that have a truth; ``coverage_all`` every face, those included
    on which people disagree.
    """
    points = metrics.coverage_curve(probabilities[rows], truth)
    facts: dict[str, Any] = {"images": len(rows), "curve": points}
    reached = [point for point in points if point[1] >= certainty.DEFAULT_PRECISION]
    if convention == "people" and reached:
        threshold, precision, coverage = max(reached, key=lambda point: point[2])
        facts |= {
            "unsure_below": threshold,
            "precision": precision,
            "coverage": coverage,
            "coverage_all": float((probabilities.max(axis=1) >= threshold).mean()),
        }
    return facts
