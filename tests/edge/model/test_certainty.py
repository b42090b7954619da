"""From a wanted precision to the threshold below which a face is unsure."""

from __future__ import annotations

import pytest

from emotion_edge.errors import UsageError
from emotion_edge.model.certainty import point, unsure_below
from emotion_edge.model.manifest import InputSpec, Manifest

CERTAINTY = {
    "unsure_below": 0.6,
    "curve": [[0.0, 0.80, 1.0], [0.5, 0.91, 0.9], [0.6, 0.95, 0.8], [0.7, 0.949, 0.7]],
}


def manifest(certainty: dict[str, object]) -> Manifest:
    spec = InputSpec(48, 48, 1, "gray")
    return Manifest("m", "int8", "", ("a", "b"), spec, certainty=certainty)


def test_a_precision_becomes_the_threshold_with_most_labels() -> None:
    assert point(manifest(CERTAINTY), 0.9).threshold == 0.5
    assert point(manifest(CERTAINTY), 0.93).coverage == 0.8


def test_what_is_set_by_hand_wins_then_precision_then_the_models_own() -> None:
    model = manifest(CERTAINTY)
    assert unsure_below(model) == 0.6
    assert unsure_below(model, None, 0.9) == 0.5
    assert unsure_below(model, 0.0, 0.9) == 0.0
    assert unsure_below(manifest({})) == 0.0
    assert unsure_below(None) == 0.0


@pytest.mark.parametrize(
    ("certainty", "precision", "message"),
    [
        (CERTAINTY, 0.99, "does not reach precision 0.99; its highest is 0.950"),
        ({}, 0.9, "has no accuracy-coverage curve"),
        (CERTAINTY, 1.5, "precision 1.5: give a share between 0 and 1"),
    ],
)
def test_a_precision_out_of_reach_is_refused(
    certainty: dict[str, object], precision: float, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        point(manifest(certainty), precision)


@pytest.mark.parametrize("chosen", [-0.1, 1.5, 75, float("nan")])
def test_a_threshold_that_is_not_a_probability_is_an_error(chosen: float) -> None:
    with pytest.raises(UsageError, match="give a probability from 0 to 1"):
        unsure_below(None, chosen)
