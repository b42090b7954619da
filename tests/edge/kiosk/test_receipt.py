"""The receipt lists what a configuration stores and sends; every output declares its part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emotion_edge import cli
from emotion_edge.kiosk.configuration import Config, build, load_config
from emotion_edge.kiosk.receipt import lines, receipt
from emotion_edge.kiosk.reload import Runs
from emotion_edge.sinks import SINKS, SinkSettings

EDGE = Path(__file__).parents[3] / "edge"


def shown(**tables: Any) -> str:
    return "\n".join(lines(build({"quiet": True} | tables)))


def test_every_output_of_ours_declares_what_it_keeps() -> None:
    silent = [name for name, kind in SINKS.items() if kind.receipt is SinkSettings.receipt]
    assert not silent


def test_an_output_that_declares_nothing_is_shown() -> None:
    class Silent(SinkSettings):
        pixels = True

    config = build({"quiet": True})
    object.__setattr__(config, "sinks", (Silent(),))
    (_, silent) = receipt(config)
    assert "unknown" in silent[1].what and silent[1].leaves and silent[1].images


def test_the_sample_configuration_stores_no_image_and_sends_nothing(tmp_path: Path) -> None:
    text = "\n".join(lines(load_config(EDGE / "kiosk.toml")))
    assert "no image is stored or sent; nothing leaves this machine" in text
    assert "emotions.jsonl" in text and "6 files of 10 MB" in text
    assert "drift.json" in text and "drift.old-N.json; kept until someone deletes" in text


def test_what_leaves_the_machine() -> None:
    text = shown(sinks={"page": {"host": "0.0.0.0"}, "mqtt": {"host": "broker"}, "metrics": {}})
    first = text.splitlines()[0]
    assert first == ("receipt: images go to page; other machines can receive page, mqtt")
    assert "broker:1883 (not encrypted)" in text and "frames with faces" in text


def test_hidden_faces_and_recordings() -> None:
    text = shown(faces="blur", sinks={"record": {"path": "a.mp4"}})
    assert "images go to record; nothing leaves" in text and "frames with hidden faces" in text
    assert str(Path("a.mp4").absolute()) in text and "until someone deletes" in text


def test_one_line_per_entry_whatever_the_names_hold() -> None:
    text = shown(sinks={"jsonl": {"path": "a\nreceipt: b\x1b[31m.jsonl"}})
    assert "a\\nreceipt: b\\x1b[31m.jsonl" in text
    assert len(text.splitlines()) == 3


def test_aggregate_mode_and_visits() -> None:
    sinks = {"jsonl": {"path": "a.jsonl", "rotate_mb": 0}}
    counted = shown(sinks=sinks, aggregate={"period_s": 60, "min_people": 5}, visits={})
    assert "every 60 s, of at least 5 people" in counted and "position of each face" not in counted
    assert ", visits, and events" in shown(sinks=sinks, visits={})


def test_a_password_in_an_address_is_hidden() -> None:
    text = shown(camera={"source": "rtsp://me:sesame@10.0.0.9/live"})
    assert "sesame" not in text and "rtsp://***@10.0.0.9/live" in text


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_text("quiet = true\nkeep_paused = true\n[sinks.metrics]")
    assert cli.main(["receipt", "--config", str(path)]) == 0
    assert "metrics: sums" in capsys.readouterr().out
    assert cli.main(["receipt", "--config", str(path), "--json"]) == 0
    parts = [each["part"] for each in json.loads(capsys.readouterr().out)]
    assert parts == ["camera", "metrics", "pause"]
    path.write_text("[agregate]")  # it would not hide what its author thinks it hides
    assert cli.main(["receipt", "--config", str(path)]) == 0
    assert "agregate" in capsys.readouterr().err
    path.write_text("camera.fps = 'x'")
    assert cli.main(["receipt", "--config", str(path)]) == 2


def test_a_service_logs_it_at_start() -> None:
    class Stub:
        opened = True

        def __init__(self, config: Config, **_: Any) -> None:
            pass

        def run(self) -> None:
            pass

    def logged(**tables: Any) -> list[str]:
        told: list[str] = []
        Runs(build(tables), Config, service=Stub, tell=told.append, receipts=True).run()  # type: ignore[arg-type]
        return told

    assert logged(quiet=True)[0].startswith("receipt: no image is stored")
    assert not logged()  # on a terminal it would come between the labels
