"""What a data set holds, before anyone trains on it.

Counts by class and split, a contact sheet for each class, twins within and across splits,
conflicting labels among twins, files that could not be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train import plots, targets
from train.augment import Augmentation, augment
from train.data import CACHE, Dataset, load_fer2013
from train.files import refuse_existing, table, write_json, write_text
from train.twins import THRESHOLD, find_pairs


def twin_counts(data: Dataset) -> dict[str, Any]:
    """Twins of the whole data set (read with ``clean=False``), by the rule of ``train.twins``."""
    names = list(data.splits)
    images = np.concatenate([data.splits[name].images for name in names])
    labels = np.concatenate([data.splits[name].labels for name in names])
    code = np.concatenate([np.full(len(data.splits[name]), i) for i, name in enumerate(names)])
    pairs = find_pairs(images)
    same_label = labels[pairs.first] == labels[pairs.second]

    def rows(a: int, b: int, mask: NDArray[np.bool_]) -> tuple[int, int]:
        """Images of split ``a`` with a twin in ``b``, and with one of the same label."""
        result = []
        for extra in (np.ones_like(mask), same_label):
            chosen = mask & extra
            one, two = pairs.first[chosen], pairs.second[chosen]
            here = np.concatenate(
                [one[(code[one] == a) & (code[two] == b)], two[(code[two] == a) & (code[one] == b)]]
            )
            result.append(len(np.unique(here)))
        return result[0], result[1]

    every = np.ones(len(pairs.first), np.bool_)
    found = []
    for a, name in enumerate(names):
        for b, other in enumerate(names):
            near, near_same = rows(a, b, every)
            exact, exact_same = rows(a, b, pairs.identical)
            found.append(
                {
                    "images_of": name,
                    "with_a_twin_in": other,
                    "near": near,
                    "near_same_label": near_same,
                    "identical": exact,
                    "identical_same_label": exact_same,
                }
            )
    return {
        "threshold": THRESHOLD,
        "pairs": len(pairs.first),
        "identical_pairs": int(pairs.identical.sum()),
        "conflicting_pairs": int((~same_label).sum()),
        "conflicting_identical_pairs": int((~same_label & pairs.identical).sum()),
        "table": found,
        "examples": _examples(images, labels, pairs.first, pairs.second, pairs.identical),
    }


def _examples(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    identical: NDArray[np.bool_],
) -> tuple[NDArray[np.uint8], list[tuple[int, int]]]:
    near = np.flatnonzero(~identical)
    picked = near[:: max(1, len(near) // 10)][:10]
    faces = [images[i] for pair in picked for i in (first[pair], second[pair])]
    names = [(int(labels[first[pair]]), int(labels[second[pair]])) for pair in picked]
    return (np.stack(faces) if faces else images[:0]), names


def report(
    path: Path,
    out: Path,
    *,
    votes: Path | None = None,
    cache: Path = CACHE,
    overwrite: bool = False,
) -> str:
    """Write ``data.md``, ``data.json`` and contact sheets into ``out``; returns the page."""
    refuse_existing(out / "data.md", overwrite)
    data = load_fer2013(path, votes=votes, clean=False, cache=cache)
    clean = load_fer2013(path, votes=votes, cache=cache)
    names = list(data.splits)
    counts = {
        name: np.bincount(data.splits[name].labels, minlength=len(data.labels)).tolist()
        for name in names
    }
    twins = twin_counts(data)
    faces, example_labels = twins.pop("examples")
    text = [
        f"# Data report: {data.source}\n",
        f"SHA-256 of images, labels and splits: `{data.sha256}`\n",
        "## Counts\n",
        table(
            ["class", *names, "share of Training"],
            [
                [
                    label,
                    *[f"{counts[name][i]:,}" for name in names],
                    f"{100 * counts[names[0]][i] / max(1, sum(counts[names[0]])):.1f}%",
                ]
                for i, label in enumerate(data.labels)
            ]
            + [["all", *[f"{sum(counts[name]):,}" for name in names], ""]],
        ),
        "## Twins\n",
        f"A twin is a pair of faces whose pixels correlate above {THRESHOLD}. "
        f"{twins['pairs']:,} pairs, {twins['identical_pairs']:,} of them identical; "
        f"{twins['conflicting_pairs']:,} pairs carry different labels "
        f"({twins['conflicting_identical_pairs']:,} of them identical).\n",
        table(
            ["images of", "with a twin in", "all", "same label", "identical", "same label"],
            [
                [
                    row["images_of"],
                    row["with_a_twin_in"],
                    f"{row['near']:,}",
                    f"{row['near_same_label']:,}",
                    f"{row['identical']:,}",
                    f"{row['identical_same_label']:,}",
                ]
                for row in twins["table"]
            ],
        ),
        *[f"`fit` drops {count:,} {why}.\n" for why, count in clean.dropped.items()],
        "## Files that could not be read\n",
        "\n".join(f"- {name}" for name in data.unreadable) or "None.",
        "\n",
    ]
    first = data.splits[names[0]]
    if first.votes is not None:
        wanted, clear = targets.majority(first.votes)
        agree = float(np.mean((wanted == first.labels)[clear]))
        text.append(
            f"## FER+\n\n{int(clear.sum()):,} of {len(first):,} {first.name} rows have a majority "
            f"for one of the seven emotions; the original label agrees on {100 * agree:.1f}%. "
            f"{int(targets.not_a_face(first.votes).sum()):,} rows are no face to most voters; "
            "`fit` leaves them out.\n"
        )
    out.mkdir(parents=True, exist_ok=True)
    for i, label in enumerate(data.labels):
        rows = np.flatnonzero(first.labels == i)[:40]
        if len(rows):
            plots.contact_sheet(
                first.images[rows],
                [f"row {first.rows[r]}" for r in rows],
                out / f"class-{label}",
                f"{label} ({counts[first.name][i]:,} in {first.name})",
            )
    if len(faces):
        captions = [data.labels[label] for pair in example_labels for label in pair]
        plots.contact_sheet(faces, captions, out / "twins", "Near twins, side by side")
    write_json(
        out / "data.json",
        {
            "source": data.source,
            "sha256": data.sha256,
            "labels": list(data.labels),
            "counts": counts,
            "twins": twins,
            "dropped": dict(clean.dropped),
            "unreadable": list(data.unreadable),
        },
    )
    page = "\n".join(text)
    write_text(out / "data.md", page)
    return page


def augmentation_picture(
    data: Dataset, how: Augmentation, stem: Path, *, faces: int = 6, seed: int = 0
) -> None:
    """A row for each face: as it is, then seven draws of the augmentation."""
    train = data.split("Training")
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(train), faces, replace=False)
    target = np.zeros((faces, 1), np.float32)
    draws = [train.images[rows]]
    draws += [
        np.rint(augment(train.images[rows], target, how, rng)[0][..., 0]).astype(np.uint8)
        for _ in range(7)
    ]
    sheet = np.stack(draws, axis=1).reshape(-1, *train.images.shape[1:])
    captions = [
        data.labels[train.labels[row]] if draw == 0 else "" for row in rows for draw in range(8)
    ]
    plots.contact_sheet(sheet, captions, stem, "As it is, then augmented", columns=8)
