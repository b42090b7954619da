from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import emotion_edge
from emotion_edge.errors import UsageError
from emotion_edge.sinks import SINKS
from emotion_edge.sinks.aggregate import AggregateSettings
from emotion_edge.sinks.console import ConsoleSettings
from emotion_edge.sinks.csv import CsvSettings
from emotion_edge.sinks.jsonl import JsonlSettings
from emotion_edge.sinks.metrics import MetricsSettings
from emotion_edge.sinks.mqtt import MqttSettings
from emotion_edge.sinks.page import PageSettings
from emotion_edge.sinks.video import VideoSettings
from emotion_edge.sinks.window import WindowSettings


def test_every_kind_is_listed_and_frozen() -> None:
    assert set(SINKS) == {
        "console",
        "jsonl",
        "csv",
        "record",
        "window",
        "page",
        "mqtt",
        "metrics",
    }
    for kind, settings in SINKS.items():
        made = settings(path=Path("x.avi")) if kind in ("jsonl", "csv", "record") else settings()
        with pytest.raises(FrozenInstanceError):
            made.required = True


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ConsoleSettings(refresh_hz=0), "refresh_hz is 0: use a number above 0"),
        (lambda: JsonlSettings(path=Path("x"), existing="replace"), "existing is 'replace'"),
        (lambda: CsvSettings(path=Path("x"), rotate_mb=-1), "rotate_mb is -1: use 0 to 1,000,000"),
        (lambda: VideoSettings(path=Path("x.mkv")), r"ends in .mp4 or .avi"),
        (lambda: WindowSettings(fps=0), "fps is 0"),
        (lambda: PageSettings(port=70000), "port is 70000: use 0 to 65,535"),
        (lambda: PageSettings(quality=0), "quality is 0"),
        (lambda: MqttSettings(topic="a/#"), "a topic holds no"),
        (lambda: MqttSettings(port=0), "port is 0"),
        (lambda: MetricsSettings(stale_s=-1), "stale_s is -1"),
        (lambda: AggregateSettings(period_s=0), "period_s is 0"),
    ],
)
def test_a_wrong_value_is_named(make, said) -> None:
    with pytest.raises(UsageError, match=said):
        make()


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(MqttSettings(password="secret"))


def test_the_page_and_the_metrics_stay_on_this_machine_by_default() -> None:
    assert PageSettings().host == MetricsSettings().host == "127.0.0.1"


def test_a_configuration_loads_only_the_outputs_it_names() -> None:
    heavy = ("http.server", "tkinter", "paho", "PIL", "emotion_edge.sinks.csv")
    script = (
        "import sys; from emotion_edge.kiosk.configuration import build;"
        "build({'sinks': {'jsonl': {'path': 'a'}, 'mqtt': {}}});"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(emotion_edge.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
