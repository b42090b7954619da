"""The fleet benchmark on a few kiosks, with the real broker and Prometheus."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest

from benchmarks import fleet
from benchmarks.__main__ import main

pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")

SCHEMA = json.loads((Path(fleet.__file__).parent / "schema.json").read_text(encoding="utf-8"))


def row(**others: float) -> dict[str, float]:
    return {
        "kiosks": 100,
        "lost": 0,
        "lost in restart": 0,
        "scraped": 100,
        "back in busiest s": 30,
        **others,
    }


def test_a_few_kiosks_lose_nothing(tmp_path: Path) -> None:
    for name in ("mosquitto", "prometheus"):
        if not shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin"):
            pytest.skip(f"{name} is not installed")
    out = tmp_path / "fleet.json"
    words = ["--kiosks", "3", "--seconds", "3", "--period", "0.5", "--down", "2", "--spread", "1"]
    assert main(["fleet", *words, "--quiet", "--output", str(out)]) == 0
    document = json.loads(out.read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    (one,) = document["rows"]
    assert (one["lost"], one["lost in restart"], one["scraped"]) == (0, 0, 3)
    assert one["messages/s"] > 0 and one["queued at most"] >= 1


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({}, None),
        ({"lost": 1}, "messages lost"),
        ({"lost in restart": 1}, "lost in the restart"),
        ({"scraped": 99}, "scraped"),
        ({"back in busiest s": 51}, "busiest second"),
        ({"kiosks": 10, "scraped": 10, "back in busiest s": 10}, None),
    ],
)
def test_the_limits(changes: dict[str, float], broken: str | None) -> None:
    failed = [one["bar"] for one in fleet.judge(row(**changes), 0.5) if not one["holds"]]
    assert len(failed) == (broken is not None)
    assert all(broken and broken in name for name in failed)


def test_the_subscriber_counts_each_message_once() -> None:
    subscriber = fleet.Subscriber(1)

    def arrive(topic: str, **record: object) -> None:
        message = SimpleNamespace(topic=topic, payload=json.dumps(record).encode())
        subscriber._on_message(None, None, message)

    for _ in range(2):
        arrive("fleet/000001/event", details={"number": 0, "sent_ns": 0})
    arrive("fleet/000002/event", details={"number": 0, "sent_ns": 0})
    arrive("fleet/000001/state", frame=7)
    arrive("fleet/000001/label")
    assert (subscriber.received, subscriber.repeated) == (5, 1)
    assert (subscriber.distinct("event"), subscriber.distinct("state")) == (2, 1)
    assert subscriber.without("state", {("000001", 7)}) == set()
    subscriber.wait_for(Counter(event=2))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kiosks", "0"], "--kiosks"),
        (["--seconds", "1", "--period", "2"], "--period"),
        (["--kiosks", "100000000"], "open files"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", *words]) == 2
    text = capsys.readouterr().err
    assert said in text and text.count("\n") == 1


def test_an_absent_program_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert main(["fleet", "--kiosks", "1"]) == 2
    assert "apt install mosquitto" in capsys.readouterr().err
