"""Fits the linear heads of a trunk, and merges a mix of them into one dense layer.

A trunk has two conventions to answer in. The label head was trained on FER2013's original labels,
the votes head on FER+'s ten votes per face. Both are linear in the same features, and so is
everything between them:

    logits = (1 - mix) * label head + mix * votes head - tau * log(share of each class in the votes)

``tau`` takes back a part of the class shares that the votes head learned (logit adjustment, Menon
et al. 2021, arXiv:2007.07314): FER+ calls 36% of the faces neutral and 1% disgusted, so without
it a subtle fear is always called neutral. The result is divided by a temperature and stored as one
dense layer. :class:`Heads` holds the parts, a few kilobytes next to the exported model, so any
other point can be exported later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_edge.model.labels import EMOTIONS
from train import targets
from train.data import VOTE_OF_EMOTION, VOTES, Split
from train.errors import ConfigError, DataError
from train.files import replacing
from train.metrics import mean_recall

Floats = NDArray[np.float32]
Head = tuple[Floats, Floats]
"""Kernel (features, classes) and bias (classes,)."""

EIGHT = (*EMOTIONS, "contempt")
_MIXES = (-0.1, -0.05, 0.0, 0.02, 0.04, 0.06, 0.1, 0.25, 0.5, 0.75, 1.0)
_TAUS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one trunk by name: ``label``, ``votes``, and ``eight`` (with contempt).

    ``shares`` are the class shares in the votes that ``votes`` and ``eight`` were trained on,
    float32 (7,) and (8,).
    """

    heads: Mapping[str, Head]
    shares: Mapping[str, Floats]

    def folded(
        self, *, mix: float = 0.0, tau: float = 0.0, classes: int = 7, temperature: float = 1.0
    ) -> Head:
        """One dense layer for a point of the curve; ``mix`` applies to seven classes only.

        Raises ConfigError when the trunk lacks a head that the point needs.
        """
        needed = ("eight",) if classes == len(EIGHT) else ("label", "votes")
        if classes == len(EMOTIONS) and not mix:
            needed = ("label",)
        absent = [name for name in needed if name not in self.heads]
        if absent:
            raise ConfigError(
                f"the model has no {absent[0]} head, which mix {mix:g}, tau {tau:g} and {classes} "
                f"classes need; it has {', '.join(self.heads)}"
            )
        if classes == len(EIGHT):
            kernel, bias = self.heads["eight"]
            shares = self.shares["eight"]
        else:
            kernel, bias = self.heads["label"]
            if mix:
                votes_kernel, votes_bias = self.heads["votes"]
                kernel = np.asarray((1 - mix) * kernel + mix * votes_kernel, np.float32)
                bias = np.asarray((1 - mix) * bias + mix * votes_bias, np.float32)
            shares = self.shares.get("votes", np.ones(len(bias), np.float32))
        bias = np.asarray(bias - np.float32(tau) * np.log(shares), np.float32)
        scale = np.float32(temperature)
        return (kernel / scale).astype(np.float32), (bias / scale).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write ``.npz``, whole or not at all."""
        arrays = {f"{name}/kernel": head[0] for name, head in self.heads.items()}
        arrays |= {f"{name}/bias": head[1] for name, head in self.heads.items()}
        arrays |= {f"{name}/shares": value for name, value in self.shares.items()}
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Heads:
        """Read what :meth:`save` wrote. Raises ConfigError when there is no such file."""
        if not path.is_file():
            raise ConfigError(f"no heads at {path}: it is written next to an exported model")
        with np.load(path) as store:
            names = {key.partition("/")[0] for key in store.files}
            heads = {
                name: (store[f"{name}/kernel"], store[f"{name}/bias"])
                for name in sorted(names)
                if f"{name}/kernel" in store
            }
            shares = {name: store[f"{name}/shares"] for name in names if f"{name}/shares" in store}
        return cls(heads, shares)


def fit_head(features: Floats, shares: Floats, *, decay: float = 1e-3) -> Head:
    """Multinomial logistic regression towards class shares: float32 (F, C) and (C,).

    ``features`` is (N, F); ``shares`` (N, C) sums to one, or to zero in rows to ignore. ``decay``
    is the weight decay on standardised features. L-BFGS to convergence.
    """
    from scipy.optimize import minimize

    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    x = ((features - mean) / spread).astype(np.float32)
    count, classes = len(x), shares.shape[1]
    weight = shares.sum(axis=1, keepdims=True)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        table = flat.reshape(-1, classes).astype(np.float32)
        logits = x @ table[:-1] + table[-1]
        logits -= logits.max(axis=1, keepdims=True)
        likelihood = np.exp(logits)
        total = likelihood.sum(axis=1, keepdims=True)
        value = -float((shares * (logits - np.log(total))).sum()) / count
        value += decay / 2 * float((table[:-1] ** 2).sum())
        error = (likelihood / total * weight - shares) / count
        slope = np.concatenate([x.T @ error + decay * table[:-1], error.sum(axis=0)[None]])
        return value, slope.astype(np.float64).ravel()

    start = np.zeros((x.shape[1] + 1) * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300})
    table = found.x.reshape(-1, classes)
    kernel = table[:-1] / spread[:, None]
    return kernel.astype(np.float32), (table[-1] - mean @ kernel).astype(np.float32)


def eight_shares(votes: NDArray[np.uint8]) -> Floats:
    """Votes for the seven emotions and contempt as shares of one, float32 (N, 8); zeros where
    there are none."""
    columns = [*VOTE_OF_EMOTION, VOTES.index("contempt")]
    eight = votes[:, columns].astype(np.float32)
    return np.asarray(eight / np.maximum(eight.sum(axis=1, keepdims=True), 1))


def class_shares(shares: Floats) -> Floats:
    """The share of each class over all rows, float32 (C,)."""
    total = shares.sum(axis=0)
    return np.asarray(total / total.sum(), np.float32)


def adjusted(label: Floats, votes: Floats, shares: Floats, *, mix: float, tau: float) -> Floats:
    """Logits (N, 7) of a point of the curve, from those of the two heads."""
    return (1 - mix) * label + mix * votes - np.float32(tau) * np.log(shares)


def curve(label: Floats, votes: Floats, shares: Floats, split: Split) -> list[dict[str, float]]:
    """Figures on ``split`` for each mix and tau, from the logits (N, 7) of the two heads.

    ``original``: accuracy on original labels; ``ferplus``: on FER+'s majority; ``recall``: mean
    recall of its seven classes; ``recall_six``: of the six without disgust.
    """
    if split.votes is None:
        raise DataError("the curve between the two conventions needs FER+ votes")
    truth, clear = targets.majority(split.votes)
    rows = []
    for mix in _MIXES:
        for tau in _TAUS if mix > 0 else (0.0,):
            logits = adjusted(label, votes, shares, mix=mix, tau=tau)
            predicted = logits.argmax(axis=1)
            seven, six = mean_recall(truth[clear], predicted[clear])
            rows.append(
                {
                    "mix": mix,
                    "tau": tau,
                    "original": float(np.mean(predicted == split.labels)),
                    "ferplus": float(np.mean(predicted[clear] == truth[clear])),
                    "recall": seven,
                    "recall_six": six,
                }
            )
    return rows


def best_for_people(rows: list[dict[str, float]]) -> dict[str, float]:
    """The row with the highest mean of FER+ majority accuracy and mean recall without disgust.

    PublicTest has 13 faces that most people call disgusted: with disgust in the mean, one of them
    weighs as much as 30 other faces, and they alone would decide. Smaller tau wins a tie.
    """
    return max(rows, key=lambda row: (row["ferplus"] + row["recall_six"], -row["tau"]))


def describe(record: Mapping[str, Any]) -> str:
    """The curve of a record as text, the exported point marked."""
    lines = []
    if "curve" in record:
        lines.append("  mix    tau  original  FER+ majority  mean recall  without disgust")
        for row in record["curve"]:
            here = (row["mix"], row["tau"]) == (record["mix"], record["tau"])
            figures = [100 * row[key] for key in ("original", "ferplus", "recall", "recall_six")]
            lines.append(
                f"{row['mix']:5g}  {row['tau']:5g}  {figures[0]:8.1f}  {figures[1]:13.1f}  "
                f"{figures[2]:11.1f}  {figures[3]:15.1f}{'  <- exported' if here else ''}"
            )
    public = record["PublicTest"]
    lines.append(
        f"{record['convention']} convention, mix {record['mix']:g}, tau {record['tau']:g}, "
        f"temperature {record['temperature']:.3f}: accuracy {public['accuracy']:.1%} of "
        f"{public['images']} PublicTest faces, calibration error "
        f"{public['calibration_error']:.1%}"
    )
    return "\n".join(lines)
