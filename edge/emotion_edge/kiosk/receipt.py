"""Lists what a configuration stores and sends, where, and for how long.

Each output declares its own part (``SinkSettings.receipt``), so the list cannot fall behind the
code that does it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from emotion_edge.files import printable
from emotion_edge.kiosk import control, drift
from emotion_edge.kiosk.configuration import Config, sink_name
from emotion_edge.kiosk.state import state_folder
from emotion_edge.settings import without_credentials
from emotion_edge.sinks import Content, Kept


def content(config: Config) -> Content:
    """What the outputs of a run receive."""
    aggregate = config.aggregate
    return Content(
        aggregate_s=aggregate.period_s if aggregate is not None else None,
        min_people=aggregate.min_people if aggregate is not None else 1,
        visits=config.visits is not None,
        faces=config.faces,
    )


def receipt(config: Config) -> list[tuple[str, Kept]]:
    """Each part's name with what it stores or sends."""
    about = content(config)
    source = without_credentials(config.camera.source)
    kept = [("camera", Kept("frames", f"memory, from {source}", "until the next frame"))]
    for sink in config.sinks:
        name = sink_name(sink)
        declared = sink.receipt(about)
        if declared is None:
            unknown = "unknown: this output does not declare what it stores or sends"
            declared = [Kept(unknown, "unknown", "unknown", leaves=True, images=sink.pixels)]
        kept += [(name, each) for each in declared]
    if config.drift is not None:
        folder = state_folder(config.state_dir)
        counts = Kept(
            "counts of faces by label, confidence, brightness and size, for each day",
            str(folder / drift.FILE),
            f"{config.drift.window_days} days, and the first {config.drift.baseline_days} until "
            "the file is deleted",
        )
        earlier = Kept(
            "the same counts with an earlier model, or a damaged file",
            str(folder / drift.OLD.format("N")),
            "until someone deletes the files",
        )
        kept += [("drift", counts), ("drift", earlier)]
    if config.keep_paused:
        mark = state_folder(config.state_dir) / control.MARK
        kept.append(("pause", Kept("that the camera is paused", str(mark), "until it is resumed")))
    return kept


def lines(config: Config) -> Iterator[str]:
    """The receipt for a person, one line per entry."""
    entries = receipt(config)
    images = [name for name, each in entries if each.images and name != "camera"]
    leaves = [name for name, each in entries if each.leaves]
    yield (
        f"receipt: {_list('images go to', images, 'no image is stored or sent')}; "
        f"{_list('other machines can receive', leaves, 'nothing leaves this machine')}"
    )
    for name, each in entries:
        # A file's or a host's name may hold line feeds and escape sequences.
        yield printable(f"receipt: {name}: {each.what} -> {each.where}; kept {each.until}")


def as_json(config: Config) -> list[dict[str, Any]]:
    """The receipt for a program."""
    return [{"part": name, **dataclasses.asdict(each)} for name, each in receipt(config)]


def _list(what: str, names: list[str], none: str) -> str:
    return f"{what} {', '.join(dict.fromkeys(names))}" if names else none
