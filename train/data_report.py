"""Reports what a data set contains, before training on it.

Counts by class and split, a contact sheet for each class, twins within and across splits,
conflicting labels among twins, files that could not be read.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train import files, plots, targets
from train.augment import Augmentation, augment
from train.data import CACHE, Dataset, load_fer2013, read_cached
from train.files import refuse_existing, write_json, write_text
from train.near_duplicates import THRESHOLD, Pairs
from train.readers import SPLITS, Table

Positions = NDArray[np.int64]


def twin_counts(table: Table, pairs: Pairs) -> dict[str, Any]:
    """Near-duplicates and faces of equal pixels, within and across splits.

    Flat images have no correlation, so equal ones are identical but not near-duplicates.
    """
    near = (pairs.first, pairs.second)
    exact = _identical(table.images)

    def conflicts(first: Positions, second: Positions) -> int:
        return int((table.labels[first] != table.labels[second]).sum())

    def rows(a: int, b: int, one: Positions, two: Positions, *, agreeing: bool) -> int:
        """Images of split ``a`` with such a partner in ``b``, perhaps only of the same label."""
        if agreeing:
            same = table.labels[one] == table.labels[two]
            one, two = one[same], two[same]
        here, there = table.usage[one], table.usage[two]
        found = (one[(here == a) & (there == b)], two[(there == a) & (here == b)])
        return len(np.unique(np.concatenate(found)))

    codes = [code for code in range(len(SPLITS)) if (table.usage == code).any()]
    return {
        "threshold": THRESHOLD,
        "pairs": len(pairs.first),
        "conflicting_pairs": conflicts(*near),
        "identical_pairs": len(exact[0]),
        "conflicting_identical_pairs": conflicts(*exact),
        "table": [
            {
                "images_of": SPLITS[a],
                "with_a_twin_in": SPLITS[b],
                "near": rows(a, b, *near, agreeing=False),
                "near_same_label": rows(a, b, *near, agreeing=True),
                "identical": rows(a, b, *exact, agreeing=False),
                "identical_same_label": rows(a, b, *exact, agreeing=True),
            }
            for a in codes
            for b in codes
        ],
    }


def _identical(images: NDArray[np.uint8]) -> tuple[Positions, Positions]:
    """Every pair of faces with equal pixels, int64 (P,) and (P,)."""
    places: dict[bytes, list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault(image.tobytes(), []).append(place)
    pairs = [pair for same in places.values() for pair in itertools.combinations(same, 2)]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _examples(table: Table, pairs: Pairs) -> tuple[NDArray[np.uint8], list[str]]:
    """Up to ten pairs of twins that are not identical, side by side, and their labels."""
    near = np.flatnonzero(~pairs.identical)
    picked = near[:: max(1, len(near) // 10)][:10]
    places = np.stack([pairs.first[picked], pairs.second[picked]], axis=1).ravel()
    return table.images[places], [table.classes[label] for label in table.labels[places]]


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
    table, pairs, _ = read_cached(path, Path(cache))
    twins = twin_counts(table, pairs)
    text = [
        f"# Data report: {data.source}\n",
        f"SHA-256 of images, labels and splits: `{data.sha256}`\n",
        "## Counts\n",
        files.table(
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
        f"{twins['pairs']:,} pairs, {twins['conflicting_pairs']:,} of them with different labels. "
        f"Equal in every pixel are {twins['identical_pairs']:,} pairs, "
        f"{twins['conflicting_identical_pairs']:,} of them with different labels; images of one "
        "colour, which have no correlation, are counted there alone.\n",
        files.table(
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
        "".join(f"- {name}\n" for name in data.unreadable) or "None.\n",
    ]
    first = data.splits[names[0]]
    if first.votes is not None:
        wanted, clear = targets.majority(first.votes)
        agree = float(np.mean((wanted == first.labels)[clear]))
        text.append(
            f"## FER+\n\n{int(clear.sum()):,} of {len(first):,} {first.name} rows have a majority "
            f"for one of the seven emotions; the original label agrees on {100 * agree:.1f}%. "
            f"{int(targets.not_a_face(first.votes).sum()):,} rows show no face, most voters say; "
            "`fit` drops them.\n"
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
    faces, captions = _examples(table, pairs)
    if len(faces):
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


def augmentation_figure(
    data: Dataset, how: Augmentation, stem: Path, *, faces: int = 6, seed: int = 0
) -> None:
    """A row for each face: as it is, then seven draws of the augmentation."""
    train = data.split("Training")
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(train), faces, replace=False)
    target = np.zeros((faces, 1), np.float32)
    calm = targets.calm_faces(train.select(rows)) if how.talk else None
    draws = [train.images[rows]]
    draws += [
        np.rint(augment(train.images[rows], target, how, rng, calm)[0][..., 0]).astype(np.uint8)
        for _ in range(7)
    ]
    sheet = np.stack(draws, axis=1).reshape(-1, *train.images.shape[1:])
    captions = [
        data.labels[train.labels[row]] if draw == 0 else "" for row in rows for draw in range(8)
    ]
    plots.contact_sheet(sheet, captions, stem, "As it is, then augmented", columns=8)
