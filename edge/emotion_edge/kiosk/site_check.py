"""Judges a place: how often the label is what people show, and what is too dark, small or turned.

A check is a list of trials. In each, a person shows one expression, which the check asked for or an
observer typed. The frames of a trial are not independent, so a trial counts once: its answer is the
label that most of its frames have. No image is kept, only these numbers of the largest face.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from emotion_edge.head import is_facing
from emotion_edge.model.labels import UNSURE
from emotion_edge.shares import wilson_interval
from emotion_edge.values import Face, Image, Observation

DARK, BRIGHT = 60.0, 215.0
"""Mean brightness of a face, 0..255, below and above which it counts as too dark or too bright."""
GOOD = 120.0
"""The brightness to aim for."""
_FEW = 10
"""Trials below which nothing is suggested from the agreement."""
_OFTEN = 0.2
"""The share of frames from which a problem is worth an action."""


@dataclass(frozen=True, slots=True)
class Look:
    """One frame of a trial; with a face, what was seen of it.

    label: the most probable one, empty without a face. confidence: its probability, 0..1.
    shown: what the kiosk would show: the label or ``unsure``.
    side: the shorter side of the face's box, in pixels. share: that of the image's shorter side.
    brightness: mean gray level of the face, 0..255.
    facing: whether the head points at the camera; None where the detector does not say.
    """

    label: str = ""
    confidence: float = 0.0
    shown: str = ""
    side: int = 0
    share: float = 0.0
    brightness: float = 0.0
    facing: bool | None = None


@dataclass(slots=True)
class Trial:
    """One expression that a person showed. truth: its label. looks: one for each frame."""

    truth: str
    looks: list[Look] = field(default_factory=list)

    @property
    def seen(self) -> list[Look]:
        """The frames with a face."""
        return [look for look in self.looks if look.label]

    @property
    def answer(self) -> str:
        """The label of most frames; empty without a face."""
        counts = Counter(look.label for look in self.seen)
        return counts.most_common(1)[0][0] if counts else ""

    @property
    def confidence(self) -> float:
        """The median probability of the answer, 0..1."""
        found = [look.confidence for look in self.seen if look.label == self.answer]
        return statistics.median(found) if found else 0.0


@dataclass(frozen=True, slots=True)
class Suggestion:
    """key: of the configuration, or empty for an action. value: as TOML writes it, or empty."""

    key: str
    value: str
    reason: str


def look(observation: Observation) -> Look:
    """What one frame shows of its largest face."""
    if not observation.faces:
        return Look()
    face = max(observation.faces, key=lambda one: one.box.area)
    image = observation.frame.image
    side = min(face.box.width, face.box.height)
    return Look(
        label=face.shown.label,
        confidence=face.shown.confidence,
        shown=face.label,
        side=side,
        share=side / min(image.shape[:2]),
        brightness=_brightness(image, face),
        facing=_facing(face),
    )


def _brightness(image: Image, face: Face) -> float:
    box = face.box
    part = image[max(0, box.y) : box.y + box.height, max(0, box.x) : box.x + box.width]
    return float(np.mean(part)) if part.size else 0.0


def _facing(face: Face) -> bool | None:
    return is_facing(face.box.landmarks) if face.box.landmarks else None


def report(
    trials: Sequence[Trial],
    *,
    unsure_below: float,
    precision: float,
    input_side: int,
    smallest_face: float,
    planned_s: float,
    lasted_s: float,
    about: dict[str, str],
) -> dict[str, Any]:
    """The figures and suggestions of a check, as JSON has them.

    unsure_below: the threshold in use, 0..1. precision: the share of shown labels that should be
        right. input_side: of the network, in pixels. smallest_face: ``zones.smallest_face``.
    planned_s, lasted_s: seconds; a check that lasted less than planned is partial.
    about: what was checked, for people.
    """
    judged = [trial for trial in trials if trial.answer]
    looks = [look for trial in trials for look in trial.looks]
    seen = [look for look in looks if look.label]
    right = sum(trial.answer == trial.truth for trial in judged)
    shown = [trial for trial in judged if trial.confidence >= unsure_below]
    shown_right = sum(trial.answer == trial.truth for trial in shown)
    conditions = {
        "no_face": _share(not look.label for look in looks),
        "too_dark": _share(look.brightness < DARK for look in seen),
        "too_bright": _share(look.brightness > BRIGHT for look in seen),
        "too_small": _share(look.side < input_side for look in seen),
        "too_turned": _share(look.facing is False for look in seen),
        "unsure": _share(look.shown == UNSURE for look in seen),
    }
    by_label = {
        truth: [
            sum(trial.answer == truth for trial in judged if trial.truth == truth),
            sum(trial.truth == truth for trial in judged),
        ]
        for truth in dict.fromkeys(trial.truth for trial in judged)
    }
    suggestions = [
        *_threshold(judged, shown, shown_right, unsure_below, precision),
        *_size(trials, conditions["too_small"], input_side, smallest_face),
        *_light(seen, conditions),
        *_often(
            conditions["too_turned"],
            "faces point away from the camera: move it towards what people look at, at the height "
            "of their eyes",
        ),
        *_often(
            conditions["no_face"],
            "frames have no face: check the camera's angle and distance, and whether YuNet is "
            "installed (emotion-edge doctor)",
        ),
    ]
    return {
        "about": about,
        "complete": lasted_s >= planned_s,
        "planned_s": round(planned_s, 1),
        "lasted_s": round(lasted_s, 1),
        "trials": len(trials),
        "trials_with_a_face": len(judged),
        "frames": len(looks),
        "agreement": _rate(right, len(judged)),
        "agreement_of_shown": _rate(shown_right, len(shown)),
        "by_label": by_label,
        "mistaken_for": _mistakes(judged),
        "conditions": {name: round(share, 3) for name, share in conditions.items()},
        "median": {
            "brightness": _median(look.brightness for look in seen),
            "face_px": _median(look.side for look in seen),
            "confidence": _median(look.confidence for look in seen),
        },
        "unsure_below": unsure_below,
        "suggestions": [asdict(suggestion) for suggestion in suggestions],
    }


def _threshold(
    judged: Sequence[Trial],
    shown: Sequence[Trial],
    right: int,
    present: float,
    precision: float,
) -> list[Suggestion]:
    key = "tracker.unsure_below"
    if len(judged) < _FEW:
        count = len(judged)
        found = "1 trial with a face is" if count == 1 else f"{count} trials with a face are"
        return [Suggestion(key, "", f"{found} too few to suggest a threshold")]
    low, high = wilson_interval(right, len(shown)) if shown else (0.0, 0.0)
    if shown and high >= precision:
        return [
            Suggestion(
                key,
                f"{present:.2f}",
                f"keep it: {right} of {len(shown)} labels shown were right, which does not "
                f"contradict {precision:.0%} (95% interval {low:.0%} to {high:.0%})",
            )
        ]
    for threshold in sorted({trial.confidence for trial in judged if trial.confidence > present}):
        kept = [trial for trial in judged if trial.confidence >= threshold]
        good = sum(trial.answer == trial.truth for trial in kept)
        if len(kept) >= _FEW // 2 and good / len(kept) >= precision:
            return [
                Suggestion(
                    key,
                    f"{math.floor(threshold * 100) / 100:.2f}",
                    f"only {right} of {len(shown)} labels shown were right; from this value on "
                    f"{good} of {len(kept)}, and {len(judged) - len(kept)} of {len(judged)} faces "
                    "become unsure",
                )
            ]
    return [
        Suggestion(
            key,
            "",
            f"no threshold reaches {precision:.0%} here ({right} of {len(shown)} labels shown were "
            "right): improve light, distance or angle first",
        )
    ]


def _size(
    trials: Sequence[Trial], small: float, input_side: int, present: float
) -> list[Suggestion]:
    if small < 0.05:
        return []
    sides = [look.side / look.share for trial in trials for look in trial.seen if look.share]
    value = input_side / statistics.median(sides)
    pairs = [(look, trial.truth) for trial in trials for look in trial.seen]
    close = [look.label == truth for look, truth in pairs if look.side >= input_side]
    far = [look.label == truth for look, truth in pairs if look.side < input_side]
    compared = (
        f"; they agree on {_share(far):.0%} of frames, larger ones on {_share(close):.0%}"
        if close
        else ""
    )
    reason = (
        f"{small:.0%} of the faces are smaller than {input_side} pixels, the network's own "
        f"input{compared}"
    )
    if present >= value or not close or _share(far) >= _share(close):
        return [Suggestion("", "", f"{reason}: move the camera closer, or raise camera.width")]
    return [Suggestion("zones.smallest_face", f"{value:.2f}", f"{reason}: ignore them")]


def _light(seen: Sequence[Look], conditions: dict[str, float]) -> list[Suggestion]:
    if conditions["too_dark"] < _OFTEN and conditions["too_bright"] < _OFTEN:
        return []
    median = statistics.median(look.brightness for look in seen)
    # Gray levels are about the light to the power of 1/2.2.
    stops = 2.2 * math.log2(GOOD / max(median, 1.0))
    what = "dark" if conditions["too_dark"] >= conditions["too_bright"] else "bright"
    share = max(conditions["too_dark"], conditions["too_bright"])
    return [
        Suggestion(
            "",
            "",
            f"exposure {stops:+.1f} EV: {share:.0%} of the faces are too {what} (median gray "
            f"level {median:.0f}, aim for {GOOD:.0f}); "
            + (
                "light the faces from the front, or turn the camera away from windows"
                if what == "dark"
                else "avoid direct light on the faces"
            ),
        )
    ]


def _often(share: float, what: str) -> list[Suggestion]:
    """A suggestion for what happens often, in words that continue ``20% of the``."""
    return [Suggestion("", "", f"{share:.0%} of the {what}")] if share >= _OFTEN else []


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = ["# Site check", ""]
    if not report["complete"]:
        lines += [
            f"**PARTIAL: interrupted after {report['lasted_s']:.0f} of "
            f"{report['planned_s']:.0f} s.**",
            "",
        ]
    lines += [f"- {name}: {value}" for name, value in report["about"].items() if value]
    lines += [
        f"- {report['trials']} trials, {report['trials_with_a_face']} with a face, "
        f"{report['frames']} frames; no image was kept",
        "",
        "## Agreement",
        "",
        "| | right | of | share | 95% interval |",
        "|---|---|---|---|---|",
        _row("all faces", report["agreement"]),
        _row(
            f"faces shown a label (from {report['unsure_below']:.2f})", report["agreement_of_shown"]
        ),
    ]
    lines += [
        f"| {label} | {right} | {n} | | |" for label, (right, n) in report["by_label"].items()
    ]
    if report["mistaken_for"]:
        lines += ["", "Mistaken: " + ", ".join(report["mistaken_for"]) + "."]
    lines += ["", "## Conditions", "", "| share of frames | |", "|---|---|"]
    lines += [
        f"| {name.replace('_', ' ')} | {share:.0%} |"
        for name, share in report["conditions"].items()
    ]
    lines += ["", "## Suggestions", ""]
    for each in report["suggestions"]:
        setting = f"`{each['key']} = {each['value']}`: " if each["value"] else ""
        lines.append(f"- {setting}{each['reason']}.")
    lines += ["" if report["suggestions"] else "None.", ""]
    lines += [
        "People who are asked to show an expression exaggerate it. Expect less agreement in use."
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, rate: dict[str, Any]) -> str:
    if not rate["of"]:
        return f"| {name} | 0 | 0 | | |"
    low, high = rate["interval"]
    counts = f"{rate['right']} | {rate['of']} | {rate['share']:.0%}"
    return f"| {name} | {counts} | {low:.0%} to {high:.0%} |"


def _rate(right: int, n: int) -> dict[str, Any]:
    if not n:
        return {"right": 0, "of": 0, "share": None, "interval": None}
    interval = [round(end, 3) for end in wilson_interval(right, n)]
    return {"right": right, "of": n, "share": round(right / n, 3), "interval": interval}


def _mistakes(judged: Sequence[Trial]) -> list[str]:
    wrong = Counter((trial.truth, trial.answer) for trial in judged if trial.answer != trial.truth)
    return [f"{truth} for {answer} ({n})" for (truth, answer), n in wrong.most_common(5)]


def _share(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _median(values: Any) -> float | None:
    found = list(values)
    return round(float(statistics.median(found)), 3) if found else None
