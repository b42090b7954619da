"""Zones saved while a run goes on: validated, written whole or not at all, applied by a reload."""

from __future__ import annotations

import argparse
import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from emotion_edge import files
from emotion_edge.commands import run
from emotion_edge.errors import EmotionEdgeError, ModelError, SinkError, UsageError
from emotion_edge.kiosk.configuration import Config, build, load_config
from emotion_edge.kiosk.control import Control
from emotion_edge.kiosk.reload import Runs
from emotion_edge.kiosk.zone_file import ZoneFile

DOOR, TILL = "door: 0,0 0.5,0 0.5,1 0,1", "till: 0.5,0.5 1,0.5 1,1"


class Stub:
    """A run that ends when it is stopped."""

    opened = True
    made: list[tuple[Config, threading.Event, Control]]
    broken = False

    def __init__(self, config: Config, *, stop: Any, control: Control, **_: Any) -> None:
        if self.broken:
            raise ModelError("the model is gone")
        self.made.append((config, stop, control))


def started(folder: Path, *flags: str, text: str = "quiet = true\n") -> tuple[Runs, Path, Any]:
    """Runs of a configuration file; the drop-in; what the runs are made of."""

    class Noted(Stub):
        made = []  # noqa: RUF012

    config = folder / "kiosk.toml"
    config.write_text(text)
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    options = parser.parse_args(["--config", str(config), *flags])
    zone_file = ZoneFile(config, lambda drafts: run.read(options, drafts))
    runs = Runs(
        run.read(options),
        lambda: run.read(options),
        service=Noted,  # type: ignore[arg-type]
        tell=lambda line: None,
        zone_file=zone_file,
    )
    return runs, zone_file.path, Noted


def test_zones_are_saved_and_the_next_run_has_them(tmp_path: Path) -> None:
    text = f'[zones]\nareas = ["{TILL}"]\nsmallest_face = 0.1\n'
    _, path, service = started(tmp_path, text=text)
    (_, stop, control), *_ = service.made
    assert control.set_zones is not None and control.set_zones([DOOR]) == path
    assert path == tmp_path / "conf.d" / "60-zones.toml"
    assert stop.is_set() and service.made[1][0].zones.areas == (DOOR,)
    zones = load_config(tmp_path / "kiosk.toml").zones
    assert zones.areas == (DOOR,) and zones.smallest_face == 0.1
    control.set_zones([])  # all deleted: not those of kiosk.toml again
    assert load_config(tmp_path / "kiosk.toml").zones.areas == ()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_without_a_file_zones_last_until_the_end_of_the_process() -> None:
    class Noted(Stub):
        made = []  # noqa: RUF012

    runs = Runs(
        build({"quiet": True}),
        lambda: build({"quiet": True, "site": "new"}),
        service=Noted,  # type: ignore[arg-type]
        tell=lambda line: None,
    )
    assert runs.set_zones([DOOR]) is None
    assert Noted.made[-1][0].zones.areas == (DOOR,)
    runs.reload()  # of what the flags give, which have no zones
    assert (Noted.made[-1][0].site, Noted.made[-1][0].zones.areas) == ("new", (DOOR,))
    with pytest.raises(UsageError, match="is not a zone"):
        runs.set_zones(["door"])


def refused(runs: Runs, service: Any, areas: list[str], kind: type[EmotionEdgeError]) -> str:
    """The line with which zones are refused; the present run goes on."""
    runs_before = len(service.made)
    with pytest.raises(kind) as raised:
        runs.set_zones(areas)
    assert len(service.made) in (runs_before, runs_before + 1)
    assert not service.made[runs_before - 1][1].is_set()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_full_or_read_only_disk_keeps_the_old_zones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, path, service = started(tmp_path)
    runs.set_zones([DOOR])
    before = path.read_bytes()
    service.made[-1][1].clear()
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        write(self, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "write_bytes", full)
        line = refused(runs, service, [TILL], SinkError)
    assert line == f"cannot write {path}: No space left on device"
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]

    def read_only(self: Path, target: Path) -> Path:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "replace", read_only)
        assert "Read-only file system" in refused(runs, service, [TILL], SinkError)
    assert load_config(tmp_path / "kiosk.toml").zones.areas == (DOOR,)


def test_what_is_not_valid_is_not_written(tmp_path: Path) -> None:
    runs, path, service = started(tmp_path, text=f'[zones]\nareas = ["{DOOR}"]\nonly = true\n')
    assert "is not a zone" in refused(runs, service, ["till: 0,0"], UsageError)
    assert "there are no areas" in refused(runs, service, [], UsageError)
    service.broken = True
    assert refused(runs, service, [TILL], ModelError) == "the model is gone"
    service.broken = False
    (tmp_path / "kiosk.toml").write_text("camera = 3\n")  # edited by hand meanwhile
    assert "camera" in refused(runs, service, [TILL], UsageError)
    assert not path.exists()


def test_zones_that_another_place_sets_are_refused(tmp_path: Path) -> None:
    runs, path, service = started(tmp_path, "--zone", DOOR)
    assert "takes precedence: remove it there" in refused(runs, service, [TILL], UsageError)
    runs, path, service = started(tmp_path)
    path.parent.mkdir()
    path.with_name("70-site.toml").write_text(f'[zones]\nareas = ["{DOOR}"]\n')
    assert "takes precedence: remove it there" in refused(runs, service, [TILL], UsageError)
    assert not path.exists()


def test_other_keys_in_the_file_are_not_lost(tmp_path: Path) -> None:
    runs, path, service = started(tmp_path)
    path.parent.mkdir()
    for text in ("[zones]\nonly = false\n", 'site = "hall"\n', "zones = 3\n"):
        path.write_text(text)
        assert "move them to another file" in refused(runs, service, [TILL], UsageError)
        assert path.read_text() == text
    path.write_text("[zones\n")
    assert "is not a TOML file" in refused(runs, service, [TILL], UsageError)


def test_a_half_written_hidden_drop_in_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "kiosk.toml").write_text("quiet = true\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / ".60-zones.1.toml").write_text("[zones\nar")
    assert load_config(tmp_path / "kiosk.toml").quiet
