"""The page: five tabs, and a note on the limits of its labels.

Gradio lays out the tabs and loads the theme. No Gradio event runs and no Gradio component takes an
image, because Gradio keeps each session's last values. The scripts in ``assets`` send images to
the paths of ``server`` instead, and frames to the socket of ``live``.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from emotion_edge.model.labels import EMOJI, UNSURE
from emotion_edge.web import render
from emotion_edge.web.api import EXAMPLE
from emotion_edge.web.images import READABLE, Limits
from emotion_edge.web.models import Models

_ASSETS = Path(__file__).parent / "assets"
_SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Ubuntu", "sans-serif")
_MONOSPACE = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace")

EXAMPLES = {
    "smile.jpg": "A smile",
    "portrait.jpg": "A portrait",
    "two.jpg": "Two people",
    "drawn-surprise.jpg": "A surprised drawing",
    "drawn-angry.jpg": "An angry drawing",
}
"""Images to try, in ``assets/examples``, with what they show."""


def appearance() -> dict[str, Any]:
    """Theme, style sheet and common script, with fonts that visitors have already."""
    return {
        "theme": gr.themes.Base(
            primary_hue="teal",
            neutral_hue="slate",
            radius_size="lg",
            font=[gr.themes.Font(name) for name in _SYSTEM_FONTS],
            font_mono=[gr.themes.Font(name) for name in _MONOSPACE],
        ),
        "head": '<link rel="icon" type="image/svg+xml" href="page/icon.svg">'
        f"<style>{_asset('page.css')}</style><script>{_asset('common.js')}</script>",
    }


def build(models: Models, limits: Limits) -> gr.Blocks:
    """The page over some models."""
    names = [one.name for one in models.installed]
    with gr.Blocks(title="emotion-edge", analytics_enabled=False) as page:
        _html("head.html")
        with gr.Tabs():
            with gr.Tab("Image"):
                _picker(names, limits, kind="faces")
            with gr.Tab("Live"):
                _html("live.html", "live.js", MODELS=names, **_LABELS)
            with gr.Tab("Compare"):
                _picker(names, limits, kind="compare")
            with gr.Tab("Model card"):
                _html("cards.html", "cards.js", cards=_cards(models))
            with gr.Tab("API"):
                _html(
                    "api.html",
                    "api.js",
                    readable=escape(READABLE),
                    example=escape(_example()),
                    limit=f"{limits.megabytes:g}",
                )
    return page


_LABELS = {
    "EMOJI": EMOJI,
    "UNSURE": UNSURE,
    "COLOURS": {label: render.css_colour(label) for label in EMOJI},
    "OTHER": render.css_colour(""),
}
"""What ``live.js`` needs to show a label."""


def _picker(names: list[str], limits: Limits, *, kind: str) -> gr.HTML:
    """Where an image is chosen and its answer shown. kind: ``faces`` or ``compare``."""
    comparing = kind == "compare"
    selects = _select("model", "Model A" if comparing else "Model", names, names[0])
    if comparing:
        selects += _select("other", "Model B", names, names[1 % len(names)])
    examples = "".join(
        f'<button type="button" class="ee-example" data-example="page/{name}" title="{title}">'
        f'<img src="page/{name}" alt="Example: {title}" height="44"></button>'
        for name, title in EXAMPLES.items()
    )
    return _html(
        "picker.html",
        "picker.js",
        selects=selects,
        examples=examples,
        explained=_COMPARE if comparing else _IMAGE,
        readable=escape(READABLE),
        KIND=kind,
        LIMIT=limits.bytes,
    )


_IMAGE = """
<h2>What you will see</h2>
<p>A box around each face, the expression the model reads in it, and the probability of each of
the expressions it can tell apart.</p>
<p>Try one of the examples above, or an image of your own.</p>
"""
_COMPARE = """
<h2>Two models, one image</h2>
<p>Both models read the same faces. You will see where their answers differ, how large each file is
and how long each model takes for one face on this device.</p>
<p>The Live tab compares two models on your camera.</p>
"""


def _select(name: str, label: str, names: list[str], value: str) -> str:
    """A labelled choice of models; hidden where there is only one."""
    options = "".join(
        f"<option{' selected' if one == value else ''}>{escape(one)}</option>" for one in names
    )
    hidden = " hidden" if len(names) < 2 else ""
    return f'<label{hidden}>{label} <select class="ee-{name}">{options}</select></label>'


def _cards(models: Models) -> str:
    names = [one.name for one in models.installed]
    select = f'<p class="ee-controls">{_select("model", "Model", names, names[0])}</p>'
    return select + "".join(
        f'<div data-card="{escape(one.name)}"{" hidden" if i else ""}>{render.card(one)}</div>'
        for i, one in enumerate(models.installed)
    )


def _example() -> str:
    """The API's example answer, one line for each field and face."""
    lines = []
    for key, value in EXAMPLE.items():
        text = json.dumps(value, ensure_ascii=False)
        if key == "faces":
            fields = (
                f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in value[0].items()
            )
            text = "[{" + ",\n    ".join(fields) + "}]"
        lines.append(f' "{key}": {text}')
    return "{" + ",\n".join(lines)[1:] + "}"


def _html(markup: str, script: str | None = None, **values: Any) -> gr.HTML:
    """A component from two files of ``assets``.

    values: those in lower case replace ``{{name}}`` in the markup; those in upper case become
    constants of the script.
    """
    html, constants = _asset(markup), ""
    for name, value in values.items():
        if name.isupper():
            constants += f"const {name} = {json.dumps(value)};\n"
        else:
            html = html.replace("{{" + name + "}}", value)
    return gr.HTML(
        html,
        js_on_load=constants + _asset(script) if script else None,
        apply_default_css=False,
    )


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def example_bytes(name: str) -> bytes:
    """An example image's file."""
    return (_ASSETS / "examples" / name).read_bytes()


def icon() -> str:
    """The page's icon, SVG."""
    return _asset("icon.svg")
