"""The page: four tabs, and a word on what it is not.

Gradio draws the tabs and calls the functions. Its image components are not used, for they write
what visitors send into a cache: ``assets/picker.js`` hands a picture over inside the event, and
``assets/live.js`` sends frames through the socket of ``live.py``.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

import gradio as gr

from emotion_edge.errors import EmotionEdgeError, ImageError
from emotion_edge.model.labels import EMOJI
from emotion_edge.web import render
from emotion_edge.web.images import Limits, Picture, read_picture
from emotion_edge.web.models import Models

_ASSETS = Path(__file__).parent / "assets"
_SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Ubuntu", "sans-serif")
_MONOSPACE = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace")


def appearance() -> dict[str, Any]:
    """Theme and style sheet, with fonts the visitor has already."""
    return {
        "theme": gr.themes.Base(
            primary_hue="teal",
            neutral_hue="slate",
            radius_size="lg",
            font=[gr.themes.Font(name) for name in _SYSTEM_FONTS],
            font_mono=[gr.themes.Font(name) for name in _MONOSPACE],
        ),
        "head": f"<style>{_asset('page.css')}</style>",
    }


def build(models: Models, limits: Limits) -> gr.Blocks:
    """The page over some models."""
    names = [one.name for one in models.installed]

    def read(event: gr.EventData) -> Picture:
        try:
            data = base64.b64decode(event._data["picture"], validate=True)
        except (KeyError, TypeError, binascii.Error) as error:
            raise ImageError("the event carries no picture: reload the page") from error
        return read_picture(data, limits)

    def look(model: str, event: gr.EventData) -> str:
        try:
            picture = read(event)
            return render.result(picture, models.look(picture.image, model), model)
        except EmotionEdgeError as error:
            return render.failure(str(error))

    def compare(first: str, second: str, event: gr.EventData) -> str:
        try:
            picture = read(event)
            boxes, opinions = models.compare(picture.image, (first, second))
            return render.comparison(picture, boxes, opinions)
        except EmotionEdgeError as error:
            return render.failure(str(error))

    def card(model: str) -> str:
        return render.card(models.find(model))

    private = {"api_visibility": "private"}
    with gr.Blocks(title="emotion-edge", analytics_enabled=False) as page:
        _html("head.html")
        with gr.Tabs():
            with gr.Tab("Picture"):
                model = _choice("Model", names, names[0])
                picker = _html("picker.html", "picker.js", LIMIT=limits.bytes)
                answer = _html(script="result.js")
                picker.submit(look, model, answer, show_progress="hidden", **private)
            with gr.Tab("Live"):
                _html("live.html", "live.js", MODELS=names, **_LABELS)
            with gr.Tab("Compare"):
                with gr.Row():
                    first = _choice("One model", names, names[0], always=True)
                    second = _choice("Another", names, names[-1], always=True)
                picker = _html("picker.html", "picker.js", LIMIT=limits.bytes)
                answer = _html(script="result.js")
                picker.submit(compare, [first, second], answer, show_progress="hidden", **private)
            with gr.Tab("Model card"):
                model = _choice("Model", names, names[0])
                shown = _html()
                shown.value = render.card(models.installed[0])
                model.change(card, model, shown, show_progress="hidden", **private)
            with gr.Tab("API"):
                _html("api.html", "api.js")
    return page


_LABELS = {
    "EMOJI": EMOJI,
    "COLOURS": {label: render.css_colour(label) for label in EMOJI},
    "OTHER": render.css_colour(""),
}
"""What ``live.js`` knows of labels."""


def _choice(label: str, names: list[str], value: str, *, always: bool = False) -> gr.Dropdown:
    """A choice of models; hidden where there is only one and nothing to choose."""
    visible: bool | str = True if always or len(names) > 1 else "hidden"
    return gr.Dropdown(names, value=value, label=label, visible=visible, interactive=True)


def _html(markup: str | None = None, script: str | None = None, **constants: Any) -> gr.HTML:
    """A component from two files of ``assets``; the script sees the constants."""
    given = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in constants.items())
    return gr.HTML(
        _asset(markup) if markup else "",
        js_on_load=given + _asset(script) if script else None,
        apply_default_css=False,
    )


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
