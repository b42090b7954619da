"""Renders answers as HTML: faces to choose from, bars, models side by side, the model card.

Every image is a data URL inside the answer, and so is every download: the browser never has to
come back to the server for one, so the server keeps none.
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
from emotion_edge.model.labels import CONVENTIONS, EMOJI, UNSURE
from emotion_edge.values import Box, Emotion, Face, Image, Observation
from emotion_edge.web.api import image_record
from emotion_edge.web.images import DecodedImage
from emotion_edge.web.models import Installed, Opinion

_SHOWN_SIDE = 1200  # pixels of the longer side of the image in the page
_SAVED_WIDTH = 1920  # pixels: the copy to save travels inside the answer


def result(decoded: DecodedImage, observation: Observation, model: str) -> str:
    """An image with its faces, the chosen face's bars, and the downloads."""
    faces = observation.faces
    if not faces:
        return _layout(_figure(decoded.image, ()), NO_FACE + _notes(decoded), "No face found.")
    timings = observation.timings
    height, width = decoded.image.shape[:2]
    whole = [face.box for face in faces] == [Box(0, 0, width, height)]
    facts = [
        f"{decoded.width} × {decoded.height} pixels",
        escape(model),
        "the whole image as one face" if whole else f"faces found in {timings['detect']:.0f} ms",
        f"read in {_milliseconds(timings['classify'] / len(faces))}{' each' * (len(faces) > 1)}",
    ]
    panels = "".join(_panel(i, face, len(faces)) for i, face in enumerate(faces))
    annotated = _data_url(annotate(decoded.image, faces, width=_SAVED_WIDTH), 90)
    record = json.dumps(image_record(decoded, observation, model), indent=2, ensure_ascii=False)
    as_json = "data:application/json;base64," + base64.b64encode(record.encode()).decode()
    downloads = (
        f'<p class="ee-downloads"><a download="emotions.jpg" href="{annotated}">Save the image'
        f'</a><a download="emotions.json" href="{as_json}">Save as JSON</a></p>'
    )
    side = (
        f'{_chips(faces)}{panels}{_notes(decoded)}<p class="ee-facts">{" · ".join(facts)}</p>'
        f"{downloads}"
    )
    return _layout(_figure(decoded.image, faces), side, _summary(faces))


NO_FACE = """
<h2 class="ee-verdict"><span class="ee-emoji" aria-hidden="true">🔍</span> No face found</h2>
<p>Faces are found best when they look towards the camera, are well lit, and are at least 24
pixels wide.</p>
<p>Does the image show a face and nothing else?</p>
<p><button type="button" class="ee-button ee-whole">Treat the whole image as one face</button></p>
"""


def comparison(decoded: DecodedImage, opinions: Sequence[Opinion]) -> str:
    """Two models' answers for the same faces, with their latencies and the difference."""
    first, second = opinions
    count = len(first.faces)
    if not count:
        return _layout(_figure(decoded.image, ()), NO_FACE + _notes(decoded), "No face found.")
    pairs = list(zip(first.faces, second.faces, strict=True))
    same = sum(a.label == b.label for a, b in pairs)
    furthest = max(_furthest(a.emotion, b.emotion) for a, b in pairs)
    columns = "".join(
        f'<tr><th scope="row">{mark} {escape(o.model.name)}</th><td>{_size(o.model.size)}</td>'
        f"<td>{o.milliseconds:.2f} ms</td></tr>"
        for mark, o in ((_A, first), (_B, second))
    )
    if same == count:
        faces = {1: "", 2: " to both faces"}.get(count, f" to all {count} faces")
        agree = f"the same label{faces}"
    elif count == 1:
        agree = "different labels"
    else:
        agree = f"the same label to {same} of {count} faces"
    ratio = first.milliseconds / max(second.milliseconds, 1e-6)
    quicker, times = (second, ratio) if ratio > 1 else (first, 1 / ratio)
    speed = (
        f"{escape(quicker.model.name)} is {times:.1f} times as fast"
        if times >= 1.05
        else "both take the same time"
    )
    panels = "".join(
        f'<div class="ee-panel" data-panel="{i}"{"" if i == 0 else " hidden"}>{_pairs(a, b)}</div>'
        for i, (a, b) in enumerate(pairs)
    )
    difference = (
        f"They give <b>{agree}</b>; their probabilities differ by at most "
        f"<b>{100 * furthest:.1f} points</b>; {speed}."
    )
    side = (
        '<table class="ee-table"><thead><tr><th scope="col">Model</th><th scope="col">File</th>'
        f'<th scope="col">One face</th></tr></thead><tbody>{columns}</tbody></table>'
        f'<p class="ee-difference">{difference}</p>{_chips(first.faces, labels=False)}{panels}'
        f'{_notes(decoded)}<p class="ee-facts">Time to crop and read one face on this device, '
        "median of 20 runs.</p>"
    )
    boxes = _figure(decoded.image, first.faces, labels=False)
    return _layout(boxes, side, f"They give {agree}.")


def _layout(figure: str, side: str, summary: str) -> str:
    """An answer: the image, the panel next to it, and one sentence for screen readers."""
    return (
        f'<div class="ee-result" data-summary="{escape(summary)}">{figure}'
        f'<div class="ee-side">{side}</div></div>'
    )


def _summary(faces: Sequence[Face]) -> str:
    each = [_read(face, ", ") for face in faces]
    if len(faces) == 1:
        return f"One face: {each[0]}."
    return f"{len(faces)} faces: " + "; ".join(f"{i + 1} {s}" for i, s in enumerate(each)) + "."


def card(one: Installed) -> str:
    """A model's manifest, for people."""
    manifest = one.manifest
    spec = manifest.input
    rows = {
        "File": f"{escape(one.path.name)}, {_size(one.size)}",
        "Variant": escape(manifest.variant),
        "Input": f"{spec.width} × {spec.height} pixels, {escape(spec.colour)}, uint8",
        "Answers": escape(CONVENTIONS.get(manifest.convention, "not stated")),
        "Not sure": f"when the highest probability is below {one.unsure_below:.0%}"
        if one.unsure_below
        else "never said",
        "Labels": ", ".join(f"{_emoji(label)} {escape(label)}" for label in manifest.labels),
        "Licence": escape(manifest.licence) or "not stated",
        "SHA-256": f"<code>{escape(manifest.model_sha256)}</code>",
    }
    parts = [f"<h2>{escape(one.name)}</h2>"]
    if manifest.gate.get("passed") is False:
        failures = "; ".join(map(str, manifest.gate.get("failures", ())))
        parts.append(
            '<p class="ee-note">This file was written although it failed its accuracy gate: '
            f"{escape(failures)}.</p>"
        )
    parts.append(_rows(rows))
    for split, figures in manifest.accuracy.items():
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
<h3>Limits</h3>
<ul>
<li>The model names the expression a face <em>shows</em>. What a person feels cannot be read from
an image; do not decide anything about a person by it.</li>
<li>Its training data, FER2013, were collected from the web: frontal faces, many of them acted,
each labelled by few people. Untrained people agree with these labels on about two faces of
three.</li>
<li>Ages, skin colours and head coverings are unevenly represented, to an unknown degree. Expect
more errors on faces that are rare in the data.</li>
<li>Disgust and fear have the fewest examples or the least agreement; see the recall above.</li>
<li>Faces that are turned, hidden, dark or very small are read less well, or not found.</li>
</ul>
"""


def bars(emotion: Emotion) -> str:
    """All probabilities, the most probable first."""
    ranked = sorted(
        zip(emotion.labels, emotion.probabilities, strict=True), key=lambda pair: -pair[1]
    )
    return '<ul class="ee-bars">' + "".join(_bar(label, p) for label, p in ranked) + "</ul>"


_A = '<i class="ee-mark ee-a" aria-hidden="true"></i>'
_B = '<i class="ee-mark ee-b" aria-hidden="true"></i>'


def _figure(image: Image, faces: Sequence[Face], *, labels: bool = True) -> str:
    """The image with a button over each face; positions are percentages, so that it may shrink.

    labels: write each face's label into its tag, and not only its number.
    """
    height, width = image.shape[:2]
    scale = min(1.0, _SHOWN_SIDE / max(height, width))
    small = np.asarray(
        cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8
    )
    boxes = "".join(
        _box(i, face, width, height, labels=labels, numbered=len(faces) > 1)
        for i, face in enumerate(faces)
    )
    return (
        f'<figure class="ee-figure" style="--ratio:{width / height:.4f}"><div>'
        f'<img src="{_data_url(small, 88)}" alt="The image you sent">{boxes}</div></figure>'
    )


def _box(index: int, face: Face, width: int, height: int, *, labels: bool, numbered: bool) -> str:
    """A button over a face. The page shortens its tag to the number where tags would overlap."""
    box = _inside(face.box, width, height)
    number = f"<b>{index + 1}</b>" if numbered else ""
    text = f"<i> {_emoji(face.label)} {escape(_read(face))}</i>" if labels else ""
    name = f"Face {index + 1}"
    if labels:
        name += f": {_read(face, ', ')}"
    style = (
        f"left:{100 * box.x / width:.3f}%;top:{100 * box.y / height:.3f}%;"
        f"width:{100 * box.width / width:.3f}%;height:{100 * box.height / height:.3f}%;"
        f"--face:{css_colour(face.label) if labels else '#f4f4f5'}"
    )
    return (
        f'<button type="button" class="ee-box" style="{style}" data-face="{index}" '
        f'aria-pressed="{_yes(index == 0)}" aria-label="{escape(name)}">'
        f'{f"""<span class="ee-tag">{number}{text}</span>""" if number or text else ""}</button>'
    )


def _inside(box: Box, width: int, height: int) -> Box:
    """The part of a box that lies inside the image."""
    left, top = max(0, box.x), max(0, box.y)
    right, bottom = min(width, box.x + box.width), min(height, box.y + box.height)
    return Box(left, top, max(1, right - left), max(1, bottom - top))


def _chips(faces: Sequence[Face], *, labels: bool = True) -> str:
    """A button for each face, numbered as in the image; nothing for a single face."""
    if len(faces) < 2:
        return ""
    chips = "".join(
        f'<button type="button" class="ee-chip" data-face="{i}" aria-pressed="{_yes(i == 0)}" '
        f'aria-label="Face {i + 1}">{i + 1}{f" {_emoji(face.label)}" if labels else ""}</button>'
        for i, face in enumerate(faces)
    )
    return (
        f'<p class="ee-count">{len(faces)} faces. Choose one here or in the image.</p>'
        f'<div class="ee-chips">{chips}</div>'
    )


def _panel(index: int, face: Face, count: int) -> str:
    return (
        f'<div class="ee-panel" data-panel="{index}"{"" if index == 0 else " hidden"}>'
        f"{_verdict(face, f'{index + 1} ' if count > 1 else '')}{bars(face.shown)}</div>"
    )


def _verdict(face: Face, number: str) -> str:
    shown = face.shown
    if face.label == UNSURE:
        ranked = sorted(zip(shown.probabilities, shown.labels, strict=True), reverse=True)
        between = " or ".join(f"{escape(label)} {p:.0%}" for p, label in ranked[:2])
        return (
            f'<h2 class="ee-verdict">{number}<span class="ee-emoji" aria-hidden="true">'
            f"{_emoji(UNSURE)}</span> Not sure <small>{between}</small></h2>"
        )
    return (
        f'<h2 class="ee-verdict">{number}<span class="ee-emoji" aria-hidden="true">'
        f"{_emoji(face.label)}</span> {escape(face.label)} "
        f"<small>{shown.confidence:.0%}</small></h2>"
    )


def _bar(label: str, probability: float) -> str:
    return (
        f'<li><span class="ee-name">{_emoji(label)} {escape(label)}</span>'
        f'<span class="ee-track"><i style="width:{100 * probability:.2f}%;'
        f'background:{css_colour(label)}"></i></span>'
        f'<span class="ee-value">{100 * probability:.1f}%</span></li>'
    )


def _pairs(first: Face, second: Face) -> str:
    """Two bars for each label of either model."""
    of_first = dict(zip(first.emotion.labels, first.emotion.probabilities, strict=True))
    of_second = dict(zip(second.emotion.labels, second.emotion.probabilities, strict=True))
    ranked = sorted({**of_first, **of_second}, key=lambda label: -of_first.get(label, 0.0))
    rows = []
    for label in ranked:
        a, b = of_first.get(label, 0.0), of_second.get(label, 0.0)
        rows.append(
            f'<li><span class="ee-name">{_emoji(label)} {escape(label)}</span>'
            f'<span class="ee-track ee-double"><i class="ee-a" style="width:{100 * a:.2f}%"></i>'
            f'<i class="ee-b" style="width:{100 * b:.2f}%"></i></span>'
            f'<span class="ee-value">{100 * a:.0f} | {100 * b:.0f}%</span></li>'
        )
    verdict = "".join(
        f"<span>{mark} {_emoji(face.label)} {escape(_shown(face.label))}"
        f"{f' <small>{_share(face)}</small>' if _share(face) else ''}</span>"
        for mark, face in ((_A, first), (_B, second))
    )
    return f'<h2 class="ee-verdict ee-two">{verdict}</h2><ul class="ee-bars">{"".join(rows)}</ul>'


def _furthest(first: Emotion, second: Emotion) -> float:
    """The largest difference of a probability; a label that one of them lacks counts as 0."""
    a = dict(zip(first.labels, first.probabilities, strict=True))
    b = dict(zip(second.labels, second.probabilities, strict=True))
    return max(abs(a.get(label, 0.0) - b.get(label, 0.0)) for label in a | b)


def _accuracy(split: str, figures: Mapping[str, Any], labels: Sequence[str]) -> str:
    """One split's figures, as ``python -m convert`` writes them; absent ones are omitted."""
    ours, floats = figures.get("converted", {}), figures.get("float", {})
    rows = {}
    if "accuracy" in ours:
        rows["Accuracy"] = f"<b>{_percent(ours['accuracy'])}</b>"
        if "accuracy_interval" in ours:
            low, high = ours["accuracy_interval"]
            rows["Accuracy"] += f" (95% interval {_percent(low)} to {_percent(high)})"
    if "accuracy" in floats:
        rows["Accuracy of its float source"] = _percent(floats["accuracy"])
    if "agreement_percent" in figures:
        rows["Same answer as float"] = f"{figures['agreement_percent']:.1f}%"
    for name, title in (("macro_f1", "Macro-F1"), ("calibration_error", "Calibration error")):
        if name in ours:
            rows[title] = _percent(ours[name])
    for name, title in (
        ("without_twins", "Without near-duplicates of training images"),
        ("twins", "Near-duplicates alone"),
    ):
        if name in ours:
            rows[title] = f"{_percent(ours[name])} of {ours.get(f'{name}_images', '?')}"
    if votes := ours.get("ferplus"):
        rows["Against the majority of FER+ votes"] = (
            f"{_percent(votes['accuracy'])} of {votes['images']}"
        )
    if "n" in figures:
        rows["Images"] = str(figures["n"])
    if figures.get("protocol"):
        rows["Protocol"] = escape(str(figures["protocol"]))
    parts = [f"<h3>Accuracy on {escape(split)}</h3>", _rows(rows)]
    if recall := ours.get("recall"):
        parts.append("<h4>Recall of each class</h4><ul class='ee-bars'>")
        parts += [_bar(label, recall[label]) for label in labels if label in recall]
        parts.append("</ul>")
    if confusion := ours.get("confusion"):
        parts.append(_confusion(labels, confusion))
    return "".join(parts)


def _confusion(labels: Sequence[str], rows: Sequence[Sequence[int]]) -> str:
    head = "".join(
        f'<th scope="col" title="{escape(label)}">{_emoji(label)}'
        f'<span class="ee-hidden">{escape(label)}</span></th>'
        for label in labels
    )
    body = []
    for label, row in zip(labels, rows, strict=True):
        total = max(sum(row), 1)
        cells = "".join(
            f'<td style="--share:{n / total:.3f}">{100 * n / total:.0f}</td>' for n in row
        )
        body.append(
            f'<tr><th scope="row">{_emoji(label)} <span>{escape(label)}</span></th>{cells}</tr>'
        )
    return (
        "<h4>Confusion: percent of a row's faces that were read as the column</h4>"
        '<div class="ee-scroll"><table class="ee-confusion"><thead><tr><th scope="col">Label</th>'
        f"{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _rows(rows: Mapping[str, str]) -> str:
    """Pairs as a table. The values are HTML already."""
    return (
        '<table class="ee-rows">'
        + "".join(
            f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in rows.items()
        )
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


def _notes(decoded: DecodedImage) -> str:
    return "".join(f'<p class="ee-note">{escape(note)}</p>' for note in decoded.notes)


def _data_url(image: Image, quality: int) -> str:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def css_colour(label: str) -> str:
    """The label's colour, light enough for dark text; unknown labels share one."""
    blue, green, red = colour_of(label)
    return f"rgb({red},{green},{blue})"


def _read(face: Face, gap: str = " ") -> str:
    """A face's label and its probability, as visitors read them."""
    share = _share(face)
    return _shown(face.label) + (f"{gap}{share}" if share else "")


def _shown(label: str) -> str:
    """A label as visitors read it."""
    return "not sure" if label == UNSURE else label


def _share(face: Face) -> str:
    """The probability of a face's label; empty for ``unsure``: the greatest is another label's."""
    return "" if face.label == UNSURE else f"{face.shown.confidence:.0%}"


def _emoji(label: str) -> str:
    return EMOJI.get(label, "🙂")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _milliseconds(ms: float) -> str:
    """Two figures: ``0.21 ms``, ``4.7 ms``, ``47 ms``."""
    return f"{ms:.2f} ms" if ms < 1 else f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"


def _size(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _yes(value: bool) -> str:
    return "true" if value else "false"
