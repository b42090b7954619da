"""What "the same as on x86" means, for a network's outputs and for a pipeline's records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 1
"""How many steps of the output scale an integer output may lie from x86's."""


AGREEMENT = 0.95
"""Share of equal labels required of TFLite's built-in kernels, which round differently from
XNNPACK, on x86-64 too. A wrong kernel scores far lower. Images whose two best labels are
within a few steps of each other (most of them show no face) may change their label."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a model's outputs lie from the reference's.

    inputs: how many were compared. unequal: output bytes that differ. largest: steps of the
    output scale. labels: inputs whose most probable label (the first of equals) differs.
    """

    inputs: int
    unequal: int
    largest: int
    labels: int

    @property
    def accepted(self) -> bool:
        """Something was compared, no output is further than ``STEPS``, and every label is equal."""
        return self.inputs > 0 and self.largest <= STEPS and self.labels == 0

    @property
    def agrees(self) -> bool:
        """``AGREEMENT`` of the labels at least are equal: for kernels that round otherwise."""
        return self.inputs > 0 and self.inputs - self.labels >= AGREEMENT * self.inputs


def compare_outputs(reference: NDArray[np.int8], other: NDArray[np.int8]) -> Difference:
    """Two runs of one model over the same inputs: int8 or uint8 ``(inputs, labels)`` each.

    Raises ValueError when they cannot be of the same inputs and model.
    """
    if reference.shape != other.shape or reference.dtype != other.dtype:
        raise ValueError(
            f"outputs of {other.shape} {other.dtype}; the reference has {reference.shape} "
            f"{reference.dtype}: compare runs of one model over the same inputs"
        )
    if not np.issubdtype(reference.dtype, np.integer):
        raise ValueError(f"outputs are {reference.dtype}; steps are counted on integer outputs")
    steps = np.abs(reference.astype(np.int64) - other)
    labels = reference.argmax(axis=1) != other.argmax(axis=1)
    return Difference(
        inputs=len(reference),
        unequal=int(np.count_nonzero(steps)),
        largest=int(steps.max(initial=0)),
        labels=int(np.count_nonzero(labels)),
    )


def compare_frames(
    reference: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What differs in boxes, labels and track ids, a line for each frame; empty when nothing does.

    Each: the observations of one source, as ``emotion_edge.records.observation_record`` gives
    them, in order.
    """
    found = []
    if len(reference) != len(other):
        found.append(f"{len(other)} frames instead of {len(reference)}")
    for one, two in zip(reference, other, strict=False):
        expected, seen = _essence(one), _essence(two)
        if expected != seen:
            found.append(f"frame {one['frame']}: {seen} instead of {expected}")
    return found


def _essence(record: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [(tuple(face["box"]), face["label"], face.get("track")) for face in record["faces"]]
