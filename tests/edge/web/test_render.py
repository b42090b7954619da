from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="the [web] extra is not installed")

from emotion_edge.model import manifest as manifests
from emotion_edge.model.labels import UNSURE
from emotion_edge.values import Box, Emotion, Face, Frame, Observation
from emotion_edge.web import render
from emotion_edge.web.images import DecodedImage
from emotion_edge.web.models import Installed, Opinion

from .conftest import TINY

EVIL = '<script>alert("x")</script>'
VOID = {"img", "br", "input"}


class Balance(HTMLParser):
    """Fails on a tag that is not closed, or closed out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(html: str) -> list[str]:
    parser = Balance()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser.seen


def installed(**changes: object) -> Installed:
    _, manifest = manifests.load(TINY)
    return Installed("fast int8", Path("fast.tflite"), replace(manifest, **changes), 654_321)


def decoded(*notes: str) -> DecodedImage:
    return DecodedImage(np.full((300, 400, 3), 128, np.uint8), 400, 300, notes)


def seen(*labels: str) -> Observation:
    faces = tuple(
        Face(Box(20 + 90 * i, 50, 60, 60), Emotion((label, "sad"), (0.75, 0.25)), label)
        for i, label in enumerate(labels)
    )
    timings = {"detect": 4.0, "classify": 0.8, "track": 0.0, "age": 5.0}
    return Observation(Frame(decoded().image, 0, 0), faces, timings)


def test_each_face_has_a_box_a_chip_and_a_panel() -> None:
    html = render.result(decoded("A note."), seen("happy", "angry"), "fast int8")
    parse(html)
    for face in (0, 1):
        assert html.count(f'data-face="{face}"') == 2
        assert html.count(f'data-panel="{face}"') == 1
    assert html.count(" hidden") == 1
    # The same number in the image, in the chip and above the bars.
    assert "<b>2</b><i> 😠 angry 75%</i>" in html and ">2 😠</button>" in html
    assert 'data-summary="2 faces: 1 happy, 75%; 2 angry, 75%."' in html
    assert "left:5.000%;top:16.667%;width:15.000%;height:20.000%" in html
    assert "75.0%" in html and "0.40 ms each" in html and "A note." in html


def test_one_face_needs_no_number() -> None:
    html = render.result(decoded(), seen("happy"), "fast int8")
    parse(html)
    assert "<b>1</b>" not in html and "ee-chip" not in html
    assert 'data-summary="One face: happy, 75%."' in html


def test_the_facts_fit_what_was_done() -> None:
    html = render.result(decoded(), seen("happy"), "fast int8")
    assert "faces found in 4 ms" in html and "read in 0.80 ms<" in html.replace(" · ", "<")
    whole = Face(Box(0, 0, 400, 300), Emotion(("happy", "sad"), (0.75, 0.25)), "happy")
    timings = {"detect": 0.0, "classify": 46.66}
    observation = Observation(Frame(decoded().image, 0, 0), (whole,), timings)
    html = render.result(decoded(), observation, "fast int8")
    assert "the whole image as one face" in html and "faces found" not in html
    assert "read in 47 ms" in html and "each" not in html


def test_no_face_offers_the_whole_image_and_no_downloads() -> None:
    html = render.result(decoded(), seen(), "fast int8")
    parse(html)
    assert "No face found" in html and "download" not in html
    assert "Treat the whole image as one face" in html


def test_a_close_call_is_not_sure_and_names_both_labels() -> None:
    emotion = Emotion(("happy", "sad", "angry"), (0.38, 0.41, 0.21))
    face = Face(Box(20, 50, 60, 60), emotion, UNSURE)
    observation = Observation(Frame(decoded().image, 0, 0), (face,), {"detect": 1, "classify": 1})
    html = render.result(decoded(), observation, "fast int8")
    parse(html)
    assert "Not sure <small>sad 41% or happy 38%</small>" in html
    assert "not sure" in html and UNSURE not in html.replace("ee-", "")
    assert "not sure 4" not in html and "not sure, 4" not in html  # 41% is the probability of sad
    one = Opinion(installed(), (face,), 1.0)
    compared = render.comparison(decoded(), [one, one])
    assert "not sure</span>" in compared and "not sure <small>" not in compared


def test_a_box_beyond_the_edge_is_drawn_within_the_image() -> None:
    emotion = Emotion(("happy", "sad"), (0.75, 0.25))
    face = Face(Box(-40, 200, 200, 200), emotion, "happy")
    observation = Observation(Frame(decoded().image, 0, 0), (face,), {"detect": 1, "classify": 1})
    html = render.result(decoded(), observation, "fast int8")
    assert "left:0.000%;top:66.667%;width:40.000%;height:33.333%" in html


@pytest.mark.parametrize(
    "html",
    [
        render.result(decoded(EVIL), seen(EVIL), EVIL),
        render.bars(Emotion((EVIL, "b"), (0.5, 0.5))),
        render.card(installed(licence=EVIL, training={EVIL: EVIL, "nested": {"a": [EVIL]}},
                              accuracy={EVIL: {"protocol": EVIL, "n": 3}})),
    ],
)  # fmt: skip
def test_text_from_outside_stays_text(html: str) -> None:
    assert "script" not in parse(html)


def opinion(
    name: str, milliseconds: float, *happy: float, labels: tuple[str, str] = ("happy", "sad")
) -> Opinion:
    faces = []
    for i, p in enumerate(happy):
        emotion = Emotion(labels, (p, 1 - p))
        faces.append(Face(Box(20 + 90 * i, 50, 60, 60), emotion, emotion.label))
    return Opinion(replace(installed(), name=name), tuple(faces), milliseconds)


def test_a_comparison_names_the_difference() -> None:
    html = render.comparison(decoded(), [opinion("a", 0.5, 0.8), opinion("b", 1.0, 0.3)])
    parse(html)
    assert "different labels" in html and "50.0 points" in html and "a is 2.0 times as fast" in html
    same = render.comparison(decoded(), [opinion("a", 0.5, 0.8), opinion("b", 0.5, 0.7)])
    assert "the same label" in same and "10.0 points" in same and "the same time" in same
    two = render.comparison(decoded(), [opinion("a", 0.5, 0.8, 0.9), opinion("b", 0.5, 0.7, 0.1)])
    assert "the same label to 1 of 2 faces" in two and "<b>2</b>" in two
    none = render.comparison(decoded(), [opinion("a", 0), opinion("b", 0)])
    parse(none)
    assert "No face found" in none


def test_a_comparison_of_models_with_other_labels() -> None:
    other = opinion("b", 1.0, 0.1, labels=("happy", "contempt"))
    html = render.comparison(decoded(), [opinion("a", 1.0, 0.8), other])
    parse(html)
    assert "contempt" in html and "90.0 points" in html


def test_the_card_shows_what_the_converter_measured() -> None:
    accuracy = {
        "PrivateTest": {
            "n": 3589,
            "protocol": "clean",
            "float": {"accuracy": 0.701},
            "converted": {
                "accuracy": 0.7,
                "accuracy_interval": [0.685, 0.715],
                "macro_f1": 0.682,
                # JSON sorts the labels; the rows below keep the model's order.
                "recall": {"happy": 0.88, "angry": 0.56},
                "confusion": [[56, 44], [12, 88]],
                "without_twins": 0.689,
                "without_twins_images": 3075,
                "ferplus": {"accuracy": 0.8, "images": 2720},
            },
            "agreement_percent": 99.1,
        }
    }
    one = installed(
        labels=("angry", "happy"), accuracy=accuracy, training={"epochs": 60}, gate={"passed": True}
    )
    html = render.card(one)
    parse(html)
    for fact in ("70.0%", "68.5% to 71.5%", "99.1%", "68.9% of 3075", "80.0% of 2720", "epochs",
                 "654 kB"):  # fmt: skip
        assert fact in html
    rows = re.findall(r"<tr><th[^>]*>[^<]*<span>(\w+)</span></th>(.*?)</tr>", html)
    assert [(label, re.findall(r">(\d+)</td>", cells)) for label, cells in rows] == [
        ("angry", ["56", "44"]),
        ("happy", ["12", "88"]),
    ]
    bars = re.findall(r'ee-name">\S+ (\w+)</span>.*?([\d.]+)%</span>', html)
    assert bars == [("angry", "56.0"), ("happy", "88.0")]
    assert "What a person feels" in html and "failed its accuracy gate" not in html


def test_the_card_states_the_convention_and_when_it_is_not_sure() -> None:
    html = render.card(replace(installed(convention="people"), unsure_below=0.52))
    assert "the label most people would give" in html and "below 52%" in html
    html = render.card(installed(convention=""))
    assert "not stated" in html and "never said" in html


def test_the_card_of_a_model_that_failed_says_so() -> None:
    html = render.card(installed(gate={"passed": False, "failures": ["too <few> agree"]}))
    parse(html)
    assert "failed its accuracy gate: too &lt;few&gt; agree" in html


def test_a_card_without_figures_is_still_a_card() -> None:
    html = render.card(installed(accuracy={}, training={}, calibration={}, gate={}, versions={}))
    parse(html)
    assert "Limits" in html and "Accuracy" not in html
