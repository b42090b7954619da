"""What make test-pi would let pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.pi import compare

REFERENCE = np.array([[-128, 10, 127], [5, 4, -3]], np.int8)


def changed(row: int, column: int, value: int) -> Any:
    other = REFERENCE.copy()
    other[row, column] = value
    return compare.compare_outputs(REFERENCE, other)


def test_equal_outputs_pass() -> None:
    assert compare.compare_outputs(REFERENCE, REFERENCE) == compare.Difference(2, 0, 0, 0)
    assert compare.compare_outputs(REFERENCE, REFERENCE).accepted


def test_one_step_passes_and_two_do_not() -> None:
    assert changed(0, 1, 11) == compare.Difference(2, 1, 1, 0)
    assert changed(0, 1, 11).accepted
    assert changed(0, 1, 12) == compare.Difference(2, 1, 2, 0)
    assert not changed(0, 1, 12).accepted


def test_steps_do_not_wrap_around_in_eight_bits() -> None:
    assert changed(0, 0, 127).largest == 255


def test_a_label_that_changes_within_one_step_does_not_pass() -> None:
    difference = compare.compare_outputs(np.array([[5, 4]], np.int8), np.array([[4, 5]], np.int8))
    assert difference == compare.Difference(1, 2, 1, 1)
    assert not difference.accepted


def test_kernels_that_round_otherwise_keep_95_percent_of_the_labels() -> None:
    assert compare.Difference(inputs=500, unequal=900, largest=9, labels=25).agrees
    assert not compare.Difference(inputs=500, unequal=900, largest=9, labels=26).agrees
    assert not compare.Difference(inputs=500, unequal=900, largest=9, labels=25).accepted


def test_nothing_compared_is_no_proof() -> None:
    nothing = np.empty((0, 7), np.int8)
    assert not compare.compare_outputs(nothing, nothing).accepted
    assert not compare.compare_outputs(nothing, nothing).agrees


@pytest.mark.parametrize(
    "other", [REFERENCE[:1], REFERENCE.astype(np.uint8), REFERENCE.astype(np.float32)]
)
def test_outputs_of_another_kind_are_refused(other: Any) -> None:
    with pytest.raises(ValueError, match=r"the reference has|integer"):
        compare.compare_outputs(REFERENCE, other)


def record(frame: int, *faces: tuple[list[int], str, int | None]) -> dict[str, Any]:
    return {
        "frame": frame,
        "faces": [
            {"box": box, "label": label, "score": 0.5} | ({} if track is None else {"track": track})
            for box, label, track in faces
        ],
    }


@pytest.mark.parametrize(
    "other",
    [
        record(1, ([1, 2, 3, 5], "happy", 7)),
        record(1, ([1, 2, 3, 4], "sad", 7)),
        record(1, ([1, 2, 3, 4], "happy", 8)),
        record(1, ([1, 2, 3, 4], "happy", None)),
        record(1),
    ],
)
def test_a_box_a_label_or_a_track_that_differs_is_named(other: dict[str, Any]) -> None:
    first, second = record(0), record(1, ([1, 2, 3, 4], "happy", 7))
    assert compare.compare_frames([first, second], [first, second]) == []
    (line,) = compare.compare_frames([first, second], [first, other])
    assert line.startswith("frame 1: ")


def test_a_missing_frame_is_named() -> None:
    assert compare.compare_frames([record(0), record(1)], [record(0)]) == ["1 frames instead of 2"]
