"""Answers as HTML: faces to choose from, bars, models side by side, the model card.

Every picture is a data URL inside the page, and so is every download: nothing is left on the
server for the browser to come back for.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import cv2
import numpy as np

from emotion_edge.annotate import annotate, colour_of
from emotion_edge.model.labels import EMOJI
from emotion_edge.values import Box, Emotion, Image, Observation
from emotion_edge.web.answers import picture_record
from emotion_edge.web.images import Picture
from emotion_edge.web.models import Installed, Opinion

_SHOWN_SIDE = 1200  # pixels of the longer side of the picture in the page


def result(picture: Picture, observation: Observation, model: str) -> str:
    """A picture with its faces, the chosen face's bars, and the downloads."""
    faces = observation.faces
    timings = observation.timings
    facts = [f"{picture.width} × {picture.height} pixels", escape(model)]
    facts.append(f"faces found in {timings['detect']:.0f} ms")
    if faces:
        facts.append(f"read in {timings['classify'] / len(faces):.2f} ms each")
    panels = [_panel(i, face.shown) for i, face in enumerate(faces)]
    chosen = "".join(
        f'<button type="button" class="ee-chip" data-face="{i}" aria-pressed="{_yes(i == 0)}">'
        f"{_emoji(face.label)} {i + 1}</button>"
        for i, face in enumerate(faces)
    )
    several = (
        f'<p class="ee-count">{len(faces)} faces: choose one here or in the picture.</p>'
        f'<div class="ee-chips">{chosen}</div>'
        if len(faces) > 1
        else ""
    )
    annotated = _data_url(annotate(picture.image, faces), 92)
    record = json.dumps(picture_record(picture, observation, model), indent=2, ensure_ascii=False)
    as_json = "data:application/json;base64," + base64.b64encode(record.encode()).decode()
    downloads = (
        f'<p class="ee-downloads"><a download="emotions.jpg" href="{annotated}">Annotated picture'
        f'</a><a download="emotions.json" href="{as_json}">JSON</a></p>'
    )
    side = "".join(panels) or NO_FACE
    return (
        f'<div class="ee-result">{_figure(picture.image, [f.box for f in faces], faces=faces)}'
        f'<div class="ee-side">{several}{side}{_notes(picture)}'
        f'<p class="ee-facts">{" · ".join(facts)}</p>{downloads if faces else ""}</div></div>'
    )


NO_FACE = (
    '<div class="ee-none"><p class="ee-verdict"><span class="ee-emoji">🔍</span> No face found</p>'
    "<p>Try a picture in which a face looks towards the camera, well lit, and at least a tenth "
    "of the picture wide.</p></div>"
)


def comparison(picture: Picture, boxes: Sequence[Box], opinions: Sequence[Opinion]) -> str:
    """Two models' opinions of the same faces, with their latencies and the difference."""
    first, second = opinions
    if not boxes:
        return f'<div class="ee-result">{_figure(picture.image, [])}<div>{NO_FACE}</div></div>'
    same = sum(a.label == b.label for a, b in zip(first.emotions, second.emotions, strict=True))
    furthest = max(_furthest(a, b) for a, b in zip(first.emotions, second.emotions, strict=True))
    columns = "".join(
        f"<tr><th>{mark} {escape(o.model.name)}</th><td>{_size(o.model.size)}</td>"
        f"<td>{o.milliseconds:.2f} ms</td></tr>"
        for mark, o in ((_A, first), (_B, second))
    )
    many = len(boxes)
    agree = "the same label" if same == many else f"the same label on {same} of {many} faces"
    if many == 1 and same == 0:
        agree = "different labels"
    ratio = first.milliseconds / max(second.milliseconds, 1e-6)
    quicker, times = (second, ratio) if ratio > 1 else (first, 1 / ratio)
    speed = (
        f"{escape(quicker.model.name)} is {times:.1f} times as fast"
        if times >= 1.05
        else "both take the same time"
    )
    panels = "".join(
        f'<div class="ee-panel" data-panel="{i}"{"" if i == 0 else " hidden"}>{_pairs(a, b)}</div>'
        for i, (a, b) in enumerate(zip(first.emotions, second.emotions, strict=True))
    )
    chips = "".join(
        f'<button type="button" class="ee-chip" data-face="{i}" aria-pressed="{_yes(i == 0)}">'
        f"Face {i + 1}</button>"
        for i in range(many)
    )
    return (
        f'<div class="ee-result">{_figure(picture.image, boxes)}<div class="ee-side">'
        f'<table class="ee-table"><thead><tr><th>Model</th><th>File</th><th>One face</th></tr>'
        f"</thead><tbody>{columns}</tbody></table>"
        f'<p class="ee-difference">They give <b>{agree}</b>; a probability differs by at most '
        f"<b>{100 * furthest:.1f} points</b>; {speed}.</p>"
        f"{f'<div class=ee-chips>{chips}</div>' if many > 1 else ''}{panels}{_notes(picture)}"
        f'<p class="ee-facts">The time is the median of 20 runs of cropping and reading one '
        f"face on this device.</p></div></div>"
    )


def card(one: Installed) -> str:
    """What a model says of itself, for people."""
    manifest = one.manifest
    spec = manifest.input
    rows = {
        "File": f"{escape(one.path.name)}, {_size(one.size)}",
        "Variant": escape(manifest.variant),
        "Input": f"{spec.width} × {spec.height} pixels, {escape(spec.colour)}, uint8",
        "Labels": ", ".join(f"{_emoji(label)} {escape(label)}" for label in manifest.labels),
        "Licence": escape(manifest.licence) or "not stated",
        "SHA-256": f"<code>{escape(manifest.model_sha256)}</code>",
    }
    parts = [f"<h3>{escape(one.name)}</h3>"]
    if manifest.gate.get("passed") is False:
        failures = "; ".join(map(str, manifest.gate.get("failures", ())))
        parts.append(
            f'<p class="ee-note">Written although its gate failed: {escape(failures)}.</p>'
        )
    parts.append(_rows(rows))
    for split, figures in reversed(list(manifest.accuracy.items())):
        if isinstance(figures, Mapping):
            parts.append(_accuracy(split, figures, manifest.labels))
    for title, facts in (
        ("Training", manifest.training),
        ("Calibration", manifest.calibration),
        ("Gate", manifest.gate),
        ("Made with", manifest.versions),
    ):
        if facts:
            parts.append(f"<details><summary>{title}</summary>{_rows(_flat(facts))}</details>")
    parts.append(LIMITS)
    return f'<div class="ee-card">{"".join(parts)}</div>'


LIMITS = """
<h4>Limits</h4>
<ul>
<li>It names the expression a face <em>shows</em>. What a person feels cannot be read from a
picture; do not decide anything about a person by it.</li>
<li>FER2013 is a collection from the web: frontal faces, many of them acted, labels by few people.
Untrained people agree with its labels on about two faces of three.</li>
<li>Ages, skin colours and head coverings are unevenly represented, and nobody knows by how much:
expect it to be wrong more often for faces that are rare in the data.</li>
<li>Disgust and fear have the fewest examples or the least agreement; see the recall above.</li>
<li>Turned, hidden, dark or very small faces are read worse, or not found at all.</li>
</ul>
"""


def bars(emotion: Emotion) -> str:
    """All probabilities, the most probable first."""
    ranked = sorted(
        zip(emotion.labels, emotion.probabilities, strict=True), key=lambda pair: -pair[1]
    )
    return '<ul class="ee-bars">' + "".join(_bar(label, p) for label, p in ranked) + "</ul>"


def failure(message: str) -> str:
    """A picture that could not be read."""
    return f'<div class="ee-error" role="alert"><b>Not read:</b> {escape(message)}</div>'


_A, _B = '<i class="ee-mark ee-a"></i>', '<i class="ee-mark ee-b"></i>'


def _figure(image: Image, boxes: Sequence[Box], *, faces: Sequence[Any] = ()) -> str:
    """The picture with a button over each face; places are percentages, so that it may shrink."""
    height, width = image.shape[:2]
    scale = min(1.0, _SHOWN_SIDE / max(height, width))
    small = np.asarray(
        cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8
    )
    buttons = []
    for i, box in enumerate(boxes):
        label = faces[i].label if faces else ""
        colour = css_colour(label) if faces else "#f4f4f5"
        tag = (
            f"{_emoji(label)} {escape(label)} {faces[i].shown.confidence:.0%}"
            if faces
            else f"Face {i + 1}"
        )
        style = (
            f"left:{100 * box.x / width:.3f}%;top:{100 * box.y / height:.3f}%;"
            f"width:{100 * box.width / width:.3f}%;height:{100 * box.height / height:.3f}%;"
            f"--face:{colour}"
        )
        edge = " ee-low" if box.y < 0.14 * height else ""
        edge += " ee-right" if box.x + box.width / 2 > 0.6 * width else ""
        buttons.append(
            f'<button type="button" class="ee-box{edge}" style="{style}" data-face="{i}" '
            f'aria-pressed="{_yes(i == 0)}" aria-label="Face {i + 1}: {escape(label)}">'
            f"<span>{tag}</span></button>"
        )
    return (
        f'<figure class="ee-figure" style="--ratio:{width / height:.4f}"><div>'
        f'<img src="{_data_url(small, 88)}" alt="The picture you sent">{"".join(buttons)}'
        "</div></figure>"
    )


def _panel(index: int, emotion: Emotion) -> str:
    return (
        f'<div class="ee-panel" data-panel="{index}"{"" if index == 0 else " hidden"}>'
        f'<p class="ee-verdict"><span class="ee-emoji">{_emoji(emotion.label)}</span> '
        f"{escape(emotion.label)} <small>{emotion.confidence:.0%}</small></p>{bars(emotion)}</div>"
    )


def _bar(label: str, probability: float) -> str:
    return (
        f'<li><span class="ee-name">{_emoji(label)} {escape(label)}</span>'
        f'<span class="ee-track"><i style="width:{100 * probability:.2f}%;'
        f'background:{css_colour(label)}"></i></span>'
        f'<span class="ee-value">{100 * probability:.1f}%</span></li>'
    )


def _pairs(first: Emotion, second: Emotion) -> str:
    """Two bars for each label of either model, and by how much the second differs."""
    of_first = dict(zip(first.labels, first.probabilities, strict=True))
    of_second = dict(zip(second.labels, second.probabilities, strict=True))
    ranked = sorted({**of_first, **of_second}, key=lambda label: -of_first.get(label, 0.0))
    rows = []
    for label in ranked:
        a, b = of_first.get(label, 0.0), of_second.get(label, 0.0)
        rows.append(
            f'<li><span class="ee-name">{_emoji(label)} {escape(label)}</span>'
            f'<span class="ee-track ee-double"><i class="ee-a" style="width:{100 * a:.2f}%"></i>'
            f'<i class="ee-b" style="width:{100 * b:.2f}%"></i></span>'
            f'<span class="ee-value">{100 * (b - a):+.1f}</span></li>'
        )
    verdict = '<p class="ee-verdict ee-two">'
    for mark, emotion in ((_A, first), (_B, second)):
        verdict += (
            f"<span>{mark} {_emoji(emotion.label)} {escape(emotion.label)} "
            f"<small>{emotion.confidence:.0%}</small></span>"
        )
    verdict += "</p>"
    return f'{verdict}<ul class="ee-bars">{"".join(rows)}</ul>'


def _furthest(first: Emotion, second: Emotion) -> float:
    """The largest difference of a probability; a label that one lacks counts as 0 there."""
    a = dict(zip(first.labels, first.probabilities, strict=True))
    b = dict(zip(second.labels, second.probabilities, strict=True))
    return max(abs(a.get(label, 0.0) - b.get(label, 0.0)) for label in a | b)


def _accuracy(split: str, figures: Mapping[str, Any], labels: Sequence[str]) -> str:
    """One split's figures, as ``python -m convert`` writes them; what is absent is left out."""
    ours, floats = figures.get("converted", {}), figures.get("float", {})
    rows = {}
    if "accuracy" in ours:
        rows["Right"] = f"<b>{_percent(ours['accuracy'])}</b>, this very file"
        if "accuracy_interval" in ours:
            low, high = ours["accuracy_interval"]
            rows["Right"] += f" (95% interval {_percent(low)} to {_percent(high)})"
    if "accuracy" in floats:
        rows["Its float source"] = _percent(floats["accuracy"])
    if "agreement_percent" in figures:
        rows["Same answer as float"] = f"{figures['agreement_percent']:.1f}%"
    for name, title in (("macro_f1", "Macro-F1"), ("calibration_error", "Calibration error")):
        if name in ours:
            rows[title] = _percent(ours[name])
    for name, title in (
        ("without_twins", "Without twins of training faces"),
        ("twins", "Twins alone"),
    ):
        if name in ours:
            rows[title] = f"{_percent(ours[name])} of {ours.get(f'{name}_images', '?')}"
    if votes := ours.get("ferplus"):
        rows["Against FER+'s majority"] = f"{_percent(votes['accuracy'])} of {votes['images']}"
    if "n" in figures:
        rows["Pictures"] = str(figures["n"])
    if figures.get("protocol"):
        rows["Protocol"] = escape(str(figures["protocol"]))
    parts = [f"<h4>Accuracy on {escape(split)}</h4>", _rows(rows)]
    if recall := ours.get("recall"):
        parts.append("<h5>Found of each class (recall)</h5><ul class='ee-bars'>")
        parts += [_bar(label, recall[label]) for label in labels if label in recall]
        parts.append("</ul>")
    if confusion := ours.get("confusion"):
        parts.append(_confusion(labels, confusion))
    return "".join(parts)


def _confusion(labels: Sequence[str], rows: Sequence[Sequence[int]]) -> str:
    head = "".join(f'<th title="{escape(label)}">{_emoji(label)}</th>' for label in labels)
    body = []
    for label, row in zip(labels, rows, strict=True):
        total = max(sum(row), 1)
        cells = "".join(
            f'<td style="--share:{n / total:.3f}" class="{"ee-dark" if n / total > 0.5 else ""}">'
            f"{100 * n / total:.0f}</td>"
            for n in row
        )
        body.append(f"<tr><th>{_emoji(label)} <span>{escape(label)}</span></th>{cells}</tr>")
    return (
        "<h5>Confusion: of the faces of a row, how many percent were read as the column</h5>"
        f'<div class="ee-scroll"><table class="ee-confusion"><thead><tr><th></th>{head}</tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _rows(rows: Mapping[str, str]) -> str:
    """Pairs as a table. The values are HTML already."""
    return (
        '<table class="ee-rows">'
        + "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
        + "</table>"
    )


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested facts as escaped pairs: ``bar: drop points``."""
    found: dict[str, str] = {}
    for key, value in facts.items():
        name = prefix + escape(str(key)).replace("_", " ")
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}: ")
        elif isinstance(value, list | tuple):
            found[name] = escape(", ".join(map(str, value))) or "none"
        else:
            found[name] = escape("yes" if value is True else "no" if value is False else str(value))
    return found


def _notes(picture: Picture) -> str:
    return "".join(f'<p class="ee-note">{escape(note)}</p>' for note in picture.notes)


def _data_url(image: Image, quality: int) -> str:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def css_colour(label: str) -> str:
    """The label's colour, light enough for dark text; any other text gives the common one."""
    blue, green, red = colour_of(label)
    return f"rgb({red},{green},{blue})"


def _emoji(label: str) -> str:
    return EMOJI.get(label, "🙂")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _size(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _yes(value: bool) -> str:
    return "true" if value else "false"
