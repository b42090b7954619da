"""What the networks are trained towards: labels, calibrated votes, raw votes, a teacher.

FER2013's labels are noisy (two people agree on about two faces in three) and the ten votes of
FER+ are not, but the votes follow another convention, so votes taken raw cost points against
the original labels. Calibrated votes are the way out: a logistic regression from the votes to
the original label, fitted on clean Training rows only and cross-fitted over folds, so that no
row's own label enters its own target. p(label | votes) is an estimate of the label's
distribution for that photograph: the same expectation as the label, a fraction of its variance.
It is the cheapest form of learning with privileged information (Vapnik and Vashist 2009;
Lopez-Paz et al. 2016): the votes exist at training time and never on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emotion_edge.model.labels import EMOTIONS
from train.data import VOTE_OF_EMOTION, VOTES, Split
from train.errors import ConfigError, DataError
from train.mouths import is_frontal

Floats = NDArray[np.float32]


def one_hot(labels: NDArray[np.int64], classes: int) -> Floats:
    """float32 (N, classes)."""
    return np.eye(classes, dtype=np.float32)[labels]


def not_a_face(votes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Rows that more than half of FER+'s voters called no face, bool (N,)."""
    return np.asarray(votes[:, VOTES.index("NF")] * 2 > votes.sum(axis=1))


def vote_shares(votes: NDArray[np.uint8]) -> Floats:
    """Votes for the seven emotions as shares of one, float32 (N, 7); zeros without votes."""
    seven = votes[:, list(VOTE_OF_EMOTION)].astype(np.float32)
    return np.asarray(seven / np.maximum(seven.sum(axis=1, keepdims=True), 1))


def majority(votes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The emotion with most votes, int64 (N,), and where it has more than half of all, bool."""
    seven = votes[:, list(VOTE_OF_EMOTION)]
    return (
        seven.argmax(axis=1).astype(np.int64),
        seven.max(axis=1).astype(np.int64) * 2 > votes.sum(axis=1),
    )


CONVENTIONS = ("people", "fer2013")
"""What a model answers: the label most people give (FER+'s majority), or FER2013's own label."""


def require_convention(convention: str, labels: Sequence[str]) -> None:
    """Raises DataError for ``people`` unless the labels are in the order of FER+'s votes."""
    eight = (*EMOTIONS, "contempt")
    if convention == "people" and tuple(labels) not in (EMOTIONS, eight):
        raise DataError(
            f"the people convention has the labels {', '.join(eight)} in this order, or "
            f"the first seven; the model's are {', '.join(labels)}: use --convention fer2013"
        )


def judged(
    split: Split, convention: str, classes: int = 7
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that a convention has a truth for, and their truth, both int64.

    ``fer2013``: every row, its original label. ``people``: the rows where one of the seven
    emotions has more than half of all votes; with eight classes, the rows of
    :func:`ferplus_protocol`. Raises DataError for ``people`` without votes.
    """
    if convention not in CONVENTIONS:
        raise ConfigError(f"convention {convention!r}: use {' or '.join(CONVENTIONS)}")
    if convention == "fer2013":
        return np.arange(len(split)), split.labels
    if split.votes is None:
        raise DataError(
            "the people convention is scored on FER+'s votes: put fer2013new.csv next to the data "
            "or name it with --votes"
        )
    truth, keep = majority(split.votes) if classes == 7 else ferplus_protocol(split.votes)
    rows = np.flatnonzero(keep)
    return rows, truth[rows]


def ferplus_protocol(votes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """FER+'s own test protocol over eight classes: truth int64 (N,) and rows to keep, bool (N,).

    As in microsoft/FERPlus: single votes are dropped as outliers; a row counts when one label has
    more than half of the votes left and is an emotion, contempt included; rows of unknown
    expression or without a face are dropped. Position 7 is contempt.
    """
    count = np.where(votes > 1, votes, 0).astype(np.int64)
    peak = count.argmax(axis=1)
    column = {VOTES.index("contempt"): 7}
    column |= {code: position for position, code in enumerate(VOTE_OF_EMOTION)}
    truth = np.array([column.get(int(code), -1) for code in peak], np.int64)
    return truth, (count.max(axis=1) * 2 > count.sum(axis=1)) & (truth >= 0)


def calm_faces(split: Split) -> NDArray[np.bool_]:
    """Frontal faces that most of FER+'s voters call neutral, bool (N,)."""
    if split.votes is None:
        raise ConfigError("talk in [augment] needs FER+: put fer2013new.csv next to the data")
    label, clear = majority(split.votes)
    return np.asarray(clear & (label == EMOTIONS.index("neutral")) & is_frontal(split.images))


def calibrated_votes(split: Split, classes: int, *, folds: int = 5, seed: int = 0) -> Floats:
    """p(original label | votes), cross-fitted, float32 (N, classes)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold

    if split.votes is None:
        raise DataError(
            "calibrated votes need FER+: put fer2013new.csv next to the data, or give --votes"
        )
    share = split.votes / np.maximum(split.votes.sum(axis=1, keepdims=True), 1)
    # The square root tells one vote from none, which the share itself hardly does.
    features = np.hstack([share, np.sqrt(share)])
    result = np.zeros((len(split), classes), np.float32)
    for fit, held in KFold(folds, shuffle=True, random_state=seed).split(features):
        model = LogisticRegression(max_iter=500).fit(features[fit], split.labels[fit])
        result[np.ix_(held, model.classes_)] = model.predict_proba(features[held])
    return result


def label_targets(
    split: Split, classes: int, *, label_share: float, smoothing: float = 0.0, seed: int = 0
) -> Floats:
    """Targets of the label head, float32 (N, classes).

    ``label_share`` of each is its original label and the rest its calibrated votes; 1 needs no
    FER+. ``smoothing`` moves that share to the uniform distribution.
    """
    target = one_hot(split.labels, classes)
    if label_share < 1:
        calibrated = calibrated_votes(split, classes, seed=seed)
        target = label_share * target + (1 - label_share) * calibrated
    if smoothing:
        target = (1 - smoothing) * target + smoothing / classes
    return target.astype(np.float32)


def vote_targets(split: Split, fallback: Floats) -> Floats:
    """Targets of the votes head: FER+'s shares; ``fallback`` where no emotion got a vote."""
    if split.votes is None:
        raise DataError("a votes head needs FER+: put fer2013new.csv next to the data")
    share = vote_shares(split.votes)
    return np.where(share.sum(axis=1, keepdims=True) > 0, share, fallback)


def class_weights(labels: NDArray[np.int64], classes: int, power: float = 1.0) -> Floats:
    """Weights inverse to frequency to the ``power``, mean one over the rows, float32 (classes,)."""
    count = np.bincount(labels, minlength=classes).astype(np.float64)
    weight = np.where(count > 0, 1 / np.maximum(count, 1) ** power, 0)
    return np.asarray(weight / (weight[labels].mean()), np.float32)


def join_heads(heads: Sequence[Floats], shares: Sequence[float]) -> Floats:
    """Targets side by side, each scaled by its share of the loss, float32 (N, heads*classes).

    Cross-entropy is linear in its target, so the scale is the weight of the head in the loss.
    """
    return np.concatenate(
        [np.float32(share) * head for head, share in zip(heads, shares, strict=True)], axis=1
    ).astype(np.float32)
