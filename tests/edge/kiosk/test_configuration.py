import dataclasses
import difflib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_edge.errors import UsageError
from emotion_edge.kiosk import configuration as c
from emotion_edge.kiosk.configuration import (
    Config,
    build,
    keys,
    load_config,
    merge,
    parse_value,
)
from emotion_edge.kiosk.thermal import ThermalSettings
from emotion_edge.model.backend import Backend
from emotion_edge.settings import read_toml, unknown_key
from emotion_edge.sinks.aggregate import AggregateSettings
from emotion_edge.sinks.console import ConsoleSettings
from emotion_edge.sinks.csv import CsvSettings
from emotion_edge.sinks.jsonl import JsonlSettings
from emotion_edge.sinks.mqtt import MqttSettings
from emotion_edge.sinks.video import VideoSettings
from emotion_edge.tracker import TrackerSettings

KIOSK = """
model = "fast"
backend.threads = 2

[camera]
source = "picamera2"
fps = 15                     # a whole number where a number is wanted

[tracker]
unsure_below = 0.4

[thermal]
steps_fps = [8, 4]

[aggregate]
period_s = 30

[sinks.jsonl]
path = "~/emotions.jsonl"
existing = "append"

[[sinks.mqtt]]
host = "one"

[[sinks.mqtt]]
host = "two"
required = true
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "kiosk.toml"
    path.write_text(text)
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, KIOSK))
    assert (config.model, config.backend.threads, config.detector) == ("fast", 2, "auto")
    assert config.camera == c.CameraConfig(source="picamera2", fps=15.0)
    assert config.tracker.unsure_below == 0.4
    assert config.thermal.steps_fps == (8.0, 4.0)
    assert config.aggregate == AggregateSettings(period_s=30.0)
    assert config.sinks == (
        ConsoleSettings(),
        JsonlSettings(path=Path.home() / "emotions.jsonl", existing="append"),
        MqttSettings(host="one"),
        MqttSettings(host="two", required=True),
    )


def test_an_empty_file_is_the_defaults() -> None:
    assert build({}) == dataclasses.replace(Config(), sinks=(ConsoleSettings(),))


def test_quiet_leaves_the_console_out() -> None:
    assert build({"quiet": True, "sinks": {"console": {}}}).sinks == ()


def test_overwrite_reaches_every_file() -> None:
    sinks = {"jsonl": {"path": "a.jsonl"}, "csv": {"path": "a.csv"}, "record": {"path": "a.mp4"}}
    _, jsonl, csv, video = build({"overwrite": True, "sinks": sinks}).sinks
    assert isinstance(jsonl, JsonlSettings) and jsonl.existing == "overwrite"
    assert isinstance(csv, CsvSettings) and csv.existing == "overwrite"
    assert isinstance(video, VideoSettings) and video.overwrite


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('modell = "fast"', "modell; did you mean model?"),
        ("[camera]\nfsp = 5", "camera.fsp; did you mean camera.fps?"),
        ("[sinks.jsonl]\npath = 'a'\nrotate = 5", "did you mean sinks.jsonl.rotate_mb?"),
        ("[sinks.nix]\na = 1", "sinks.nix; keys of sinks: console, csv"),
        ("[sinks.mqqt]\nhost = 'a'", "sinks.mqqt; did you mean sinks.mqtt?"),
        ("[trakcer]\nlead = 2", "trakcer; did you mean tracker?"),
        ("unsure_below = 0.4", "did you mean tracker.unsure_below?"),
        ("[camera.size]\nwidth = 5", "camera.size"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, text: str, named: str) -> None:
    (ignored,) = load_config(write(tmp_path, text)).ignored
    assert named in ignored
    path = write(tmp_path, f"strict = true\n{text}")
    with pytest.raises(UsageError, match="unknown key") as caught:
        load_config(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("backend.threads = 1.5", "backend.threads is 1.5; expected a whole number"),
        ("backend.threads = true", "backend.threads is True; expected a whole number"),
        ("backend.threads = 0", "threads is 0: use 1 to 64"),
        ("model = 3", "model is 3; expected text"),
        ("quiet = 1", "quiet is 1; expected true or false"),
        ("seconds = nan", "seconds is nan: use 0 to 1,000,000,000"),
        ('detector = "hog"', "detector is 'hog'; expected one of auto, yunet, haar"),
        ("camera = 0", "camera is 0; write it as a table, [camera]"),
        ("[camera]\nfps = '30'", "camera.fps is '30'; expected a number"),
        ("[camera]\nwidth = -1", "width is -1"),
        ("[thermal]\nsteps_fps = 5", "thermal.steps_fps is 5; expected a list of numbers"),
        ("[thermal]\nhot_c = 60", "cool_c must be lower"),
        ("[thermal]\nsteps_fps = [5, 9]", "falling"),
        ("[sinks.jsonl]\nexisting = 'append'", "[sinks.jsonl] needs path, a path"),
        ("[sinks.jsonl]\npath = 'a'\nexisting = 'keep'", "sinks.jsonl.existing is 'keep'"),
        ("[sinks.page]\nport = 99999", "port is 99999"),
        ("[thermal]\nhot_c = inf", "thermal.hot_c is inf: use 0 to 150"),
        ("[camera]\nfrozen_s = 1e-9", "camera.frozen_s is 1e-09: use 0.1 to 86,400"),
        ("[camera]\nfps = inf", "camera.fps is inf: use 0 to 1,000"),
        ("[camera]\nsource = ''", "camera.source is empty: expected text"),
        ("[sinks.jsonl]\npath = 'a'\nkeep = 99999999999", "keep is 99999999999: use 0 to 1,000"),
        ("[cameras.demo]\nfaces = 101", "cameras.demo.faces is 101: use 0 to 100"),
        ("strict = true\n[cameras.demmo]\nfaces = 1", "cameras.demmo; did you mean cameras.demo?"),
        ("strict = true\n[detectors.haar]\nside = 1", "unknown key detectors.haar.side"),
        ("[sinks]\njsonl = 'a.jsonl'", "sinks.jsonl is 'a.jsonl'; write it as a table"),
        ("model = ", "is not a TOML file"),
        ("x = " + "[" * 5000, "is not a TOML file"),
        ('state_dir = "a\\u0000b"', "state_dir is 'a\\x00b': a text cannot hold a NUL character"),
        ('[sinks.jsonl]\npath = "\\u0000"', "path is '\\x00': a text cannot hold a NUL"),
        ('zones.areas = ["\\u0000"]', "a text cannot hold a NUL"),
        ("model = '\xe9\udcff", "is not a TOML file"),
    ],
)
def test_a_wrong_value_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the configuration"):
        read_toml(tmp_path / "absent.toml")


def test_a_flag_wins_over_the_file() -> None:
    tables = {"seconds": 2, "camera": {"source": "picamera2", "fps": 15}}
    merged = merge(tables, {"camera.source": "demo", "frames": 5, "sinks.window.": None})
    assert merged == {
        "seconds": 2,
        "frames": 5,
        "camera": {"source": "demo", "fps": 15},
        "sinks": {"window": {}},
    }
    assert tables["camera"] == {"source": "picamera2", "fps": 15}


def test_a_flag_adds_to_a_list_of_sinks() -> None:
    merged = merge(
        {"sinks": {"mqtt": [{"host": "one"}]}}, {"sinks.mqtt.host": "two", "sinks.mqtt.port": 1}
    )
    assert merged == {"sinks": {"mqtt": [{"host": "one"}, {"host": "two", "port": 1}]}}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("backend.threads", "2", 2),
        ("seconds", "1.5", 1.5),
        ("tracker.unsure_below", "0.4", 0.4),
        ("quiet", "true", True),
        ("sinks.mqtt.required", "false", False),
        ("sinks.mqtt.username", "true", "true"),
        ("thermal.steps_fps", "8,4", [8.0, 4.0]),
        ("thermal.steps_fps", "", []),
        ("sinks.jsonl.path", "a b.jsonl", "a b.jsonl"),
        ("detector", "haar", "haar"),
    ],
)
def test_a_text_becomes_what_its_key_wants(key: str, text: str, value: object) -> None:
    assert parse_value(key, text) == value


@pytest.mark.parametrize(
    ("key", "text"), [("backend.threads", "two"), ("quiet", "yes"), ("nope", "1")]
)
def test_a_text_that_does_not_fit(key: str, text: str) -> None:
    with pytest.raises(UsageError, match=r"expected|did you mean"):
        build(merge({}, {key: parse_value(key, text)}))


def test_every_number_has_a_range() -> None:
    for part in (c.Config, c.CameraConfig, TrackerSettings, ThermalSettings, Backend):
        for each in dataclasses.fields(part):
            if {"int", "float"} & set(str(each.type).replace("|", " ").split()):
                about = each.metadata
                assert about["le"] is not None, each.name
                assert about["ge"] is not None or about["gt"] is not None, each.name


def test_every_key_is_known_by_its_dotted_name() -> None:
    for key in keys():
        assert key == key.strip(".") and " " not in key
    assert {"model", "camera.source", "thermal.hot_c", "sinks.mqtt.host", "tracker.lead"} <= set(
        keys()
    )
    assert "sinks" not in keys()


@given(st.sampled_from(sorted(keys())), st.integers(0, 30), st.characters(codec="ascii"))
def test_one_wrong_letter_is_found_again(key: str, place: int, letter: str) -> None:
    table, _, last = key.rpartition(".")
    place %= len(last)
    wrong = last[:place] + letter + last[place + 1 :]
    if len(last) < 4 or letter == "." or any(k.rpartition(".")[2] == wrong for k in keys()):
        return
    named = str(unknown_key("kiosk.toml", f"{table}.{wrong}".strip("."), keys())).rpartition(
        "mean "
    )[2]
    assert difflib.SequenceMatcher(None, named.rstrip("?").rpartition(".")[2], wrong).ratio() > 0.5


def test_two_outputs_cannot_share_a_file(tmp_path: Path) -> None:
    path, link = tmp_path / "seen.txt", tmp_path / "link.txt"
    link.symlink_to(path)
    for second in (path, tmp_path / "." / "seen.txt", link):
        sinks = {"jsonl": {"path": str(path)}, "csv": {"path": str(second)}}
        with pytest.raises(UsageError, match="2 outputs write to"):
            build({"sinks": sinks, "overwrite": True})


@pytest.mark.parametrize(
    ("metrics", "page", "shared"),
    [
        ({"port": 8080}, {}, True),
        ({"port": 8080, "host": "0.0.0.0"}, {}, True),
        ({"port": 8080}, {"host": "0.0.0.0"}, True),
        ({"port": 8080, "host": "192.0.2.1"}, {"host": "192.0.2.2"}, False),
        ({"port": 0}, {"port": 0}, False),
        ({}, {}, False),
    ],
)
def test_two_outputs_cannot_share_a_port(
    metrics: dict[str, object], page: dict[str, object], shared: bool
) -> None:
    tables = {"sinks": {"metrics": metrics, "page": page}}
    if not shared:
        build(tables)
        return
    with pytest.raises(UsageError, match="2 outputs listen on port 8080"):
        build(tables)


def test_an_output_is_never_named_like_an_image_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"an image")
    tables = {"camera": {"source": str(tmp_path)}, "overwrite": True}
    outputs = {"jsonl": {"path": str(tmp_path / "a.jpg")}}
    with pytest.raises(UsageError, match="named like an image of the run's folder"):
        build(tables | {"sinks": outputs})
    build(tables | {"sinks": {"jsonl": {"path": str(tmp_path / "out.jsonl")}}})


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "kiosk.toml"
    path.write_bytes(b"\xef\xbb\xbfmodel = 'accurate'\r\n")
    assert read_toml(path) == {"model": "accurate"}


def test_an_output_cannot_replace_the_source(tmp_path: Path) -> None:
    video = tmp_path / "party.mp4"
    video.write_bytes(b"video")
    for sinks in ({"record": {"path": str(video)}}, {"jsonl": {"path": str(video)}}):
        tables = {"camera": {"source": str(video)}, "sinks": sinks, "overwrite": True}
        with pytest.raises(UsageError, match="is the source of the run"):
            build(tables)


def drop_in(folder: Path, name: str, text: str) -> None:
    (folder / "conf.d").mkdir(exist_ok=True)
    (folder / "conf.d" / name).write_text(text)


def test_drop_ins_are_laid_over_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = write(tmp_path, "[camera]\nfps = 5\nwidth = 320\n[sinks.mqtt]\nhost = 'a'")
    drop_in(tmp_path, "20.toml", "camera.fps = 7\n[sinks.mqtt]\nport = 1884")
    drop_in(tmp_path, "10.toml", "camera.fps = 6\n[sinks.metrics]")
    drop_in(tmp_path, "30.toml", "[[sinks.mqtt]]\nhost = 'b'")
    drop_in(tmp_path, "40.toml.bak", "nonsense")
    config = load_config(path)
    assert (config.camera.fps, config.camera.width) == (7.0, 320)
    mqtt = [sink for sink in config.sinks if isinstance(sink, MqttSettings)]
    assert mqtt == [MqttSettings(host="a", port=1884), MqttSettings(host="b")]
    assert len(config.sinks) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("camera.fps = 'x'", "camera.fps is 'x'"),
        ("camera = 5", "camera does not fit an earlier file, where it is a table"),
        ("camera.", "is not a TOML file"),
        ("[sinks.jsonl]", "[sinks.jsonl] needs path"),
    ],
)
def test_an_error_names_the_drop_in(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, "camera.fps = 5")
    drop_in(tmp_path, "10.toml", "camera.width = 320")
    drop_in(tmp_path, "20.toml", text)
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert says in str(caught.value) and str(tmp_path / "conf.d/20.toml") in str(caught.value)


def test_a_drop_in_that_is_not_a_file_does_not_hang(tmp_path: Path) -> None:
    path = write(tmp_path, "camera.fps = 5")
    (tmp_path / "conf.d").mkdir()
    os.mkfifo(tmp_path / "conf.d/10.toml")
    with pytest.raises(UsageError, match=r"10\.toml is not a file"):
        load_config(path)


def test_every_problem_is_found_in_one_pass(tmp_path: Path) -> None:
    tables = {
        "modell": "x",
        "camera": {"fps": "x", "width": 1},
        "sinks": {"jsonl": {}, "page": {"port": -1}, "shelf": {}},
        "strict": True,
    }
    config, errors = c.examine(tables, "k.toml")
    assert config is None
    for part in ("modell", "camera.fps", "camera.width", "needs path", "page.port", "sinks.shelf"):
        assert len([line for line in errors if part in line and line.startswith("k.toml: ")]) == 1
    assert len(errors) == 6


def test_the_effective_configuration_loads_again_and_hides_secrets(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, KIOSK + "username = 'me'"))
    again = load_config(write(tmp_path, "\n".join(c.effective(config))))
    assert again == config
    text = (
        "camera.source = 'rtsp://me:sesame@10.0.0.9/live'\n"
        "[cameras.stream]\nurl = 'rtsp://me:sesame@10.0.0.9/live'\n"
        "[sinks.mqtt]\npassword = 'sesame'\nusername = 'quote\"d\\\\'"
    )
    shown = "\n".join(c.effective(load_config(write(tmp_path, text))))
    assert "sesame" not in shown and 'password = "***"' in shown
    assert 'camera.source = "rtsp://***@10.0.0.9/live"' in shown
