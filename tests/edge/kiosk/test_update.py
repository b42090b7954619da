"""``emotion-edge update`` on a disk in a folder: the switch, the way back, and power cuts."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emotion_edge import cli
from emotion_edge.kiosk import update
from tests.edge.kiosk.kiosk_standin import (
    BLIND,
    BROKEN,
    CRASHES,
    UNTESTED,
    UPDATE,
    Kiosk,
    wheel,
)


@pytest.fixture
def empty() -> Iterator[Kiosk]:
    # In memory where possible: an update waits for the disk, which other programs use too.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Kiosk(Path(folder))


@pytest.fixture
def kiosk(empty: Kiosk, tmp_path: Path) -> Kiosk:
    """A kiosk on which 1.0 runs."""
    done = empty.update("--wheel", wheel(tmp_path / "old", "1.0"))
    assert done.returncode == 0, done.stderr
    return empty


def check_is_whole(kiosk: Kiosk) -> None:
    """Nothing half-done: complete releases, at most two, and the current one works."""
    assert not (kiosk.home / "update.json").exists()
    assert len(kiosk.releases) <= 2
    for name in kiosk.releases:
        assert (kiosk.home / "releases" / name / "release.json").exists(), name
    for link in ("current", "previous"):
        if (kiosk.home / link).is_symlink():
            assert (kiosk.home / link).resolve().is_dir(), link
    assert kiosk.version() == kiosk.current.split("-")[0]
    assert not [path for path in kiosk.home.iterdir() if path.name.endswith(".new")]


def test_a_first_installation(empty: Kiosk, tmp_path: Path) -> None:
    done = empty.update("--wheel", wheel(tmp_path, "1.0"))
    assert done.returncode == 0, done.stderr
    assert "1.0-" in done.stdout and "is active; health: ok" in done.stdout
    check_is_whole(empty)
    assert empty.running == "1.0"
    assert not (empty.home / "previous").exists()
    link = empty.root / "usr/local/bin/emotion-edge"
    assert link.readlink() == Path("/opt/emotion-edge/current/bin/emotion-edge")
    calls = (empty.root / "systemctl.log").read_text()
    assert "enable --quiet emotion-edge-update.timer emotion-edge.service\n" in calls
    assert "start emotion-edge-update.timer\n" in calls


def test_the_command_is_not_an_installer(
    empty: Kiosk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DESTDIR", str(empty.root))
    assert cli.main(["update", "--wheel", str(wheel(tmp_path, "1.0"))]) == 1
    assert "edge/install-kiosk.sh" in capsys.readouterr().err
    assert not (empty.home / "releases").exists()


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e9"])
@pytest.mark.parametrize("flag", ["--trial", "--patience"])
def test_a_trial_that_could_not_end_is_refused(
    kiosk: Kiosk, tmp_path: Path, flag: str, seconds: str
) -> None:
    before = kiosk.current
    done = kiosk.update("--wheel", wheel(tmp_path, "1.1"), f"{flag}={seconds}")
    assert done.returncode == 1 and "use 0 to 86,400 seconds" in done.stderr
    assert kiosk.current == before


def test_a_good_update(kiosk: Kiosk, tmp_path: Path) -> None:
    records = kiosk.root / "var/lib/emotion-edge/emotions.jsonl"
    records.parent.mkdir(parents=True)
    records.write_text("{}\n")
    before = kiosk.current
    done = kiosk.update("--wheel", wheel(tmp_path, "1.1"))
    assert done.returncode == 0, done.stderr
    check_is_whole(kiosk)
    assert kiosk.running == kiosk.version() == "1.1"
    assert (kiosk.home / "previous").resolve().name == before
    assert kiosk.config.read_text() == "# mine\n" and records.read_text() == "{}\n"
    unit = (kiosk.root / "etc/systemd/system/emotion-edge.service").read_text()
    assert unit.startswith("# 1.1\n")
    assert "1.1" in kiosk.history
    for version in ("1.2", "1.3"):
        assert kiosk.update("--wheel", wheel(tmp_path, version)).returncode == 0
    assert [name.split("-")[0] for name in kiosk.releases] == ["1.2", "1.3"]


def test_the_same_update_again_does_nothing(kiosk: Kiosk, tmp_path: Path) -> None:
    calls = (kiosk.root / "systemctl.log").read_text()
    done = kiosk.update("--wheel", wheel(tmp_path, "1.0"))
    assert done.returncode == 0
    assert "is active already: nothing to do" in done.stdout
    assert (kiosk.root / "systemctl.log").read_text() == calls
    done = kiosk.update("--wheel", wheel(tmp_path, "1.0"), "--force")
    assert done.returncode == 0, done.stderr
    assert kiosk.current.endswith(".again")
    done = kiosk.update("--wheel", wheel(tmp_path, "1.0"))
    assert "nothing to do" in done.stdout
    check_is_whole(kiosk)


@pytest.mark.parametrize(
    ("behaviour", "says", "switched"),
    [
        (BROKEN, "the new release: ImportError: no module named anything", False),
        (UNTESTED, "failed its self-test: self-test: fifty frames, no probabilities", False),
        (BLIND, "was rolled back: not healthy after 0.3 s: failing no frame for 20 s", True),
        (CRASHES, "was rolled back: the service ended: ModuleNotFoundError: cv2", True),
    ],
)
def test_a_bad_update(
    kiosk: Kiosk, tmp_path: Path, behaviour: str, says: str, switched: bool
) -> None:
    before = kiosk.current
    done = kiosk.update("--wheel", wheel(tmp_path, "1.1", behaviour))
    assert done.returncode == 1
    assert says in done.stderr and done.stderr.count("\n") == 1
    check_is_whole(kiosk)
    assert kiosk.current == before and kiosk.releases == [before]
    assert kiosk.running == "1.0"
    assert ("was rolled back" in kiosk.history) is switched
    assert ("1.0-" in done.stderr and "is active again, health: ok" in done.stderr) is switched
    unit = (kiosk.root / "etc/systemd/system/emotion-edge.service").read_text()
    assert unit.startswith("# 1.0\n")
    assert not (kiosk.home / "previous").exists()
    done = kiosk.update("--wheel", wheel(tmp_path, "1.2"))
    assert done.returncode == 0, done.stderr


def test_a_file_that_is_not_a_wheel(kiosk: Kiosk, tmp_path: Path) -> None:
    cut = wheel(tmp_path, "1.1")
    cut.write_bytes(cut.read_bytes()[:500])
    for path, says in (
        (cut, "cannot be read"),
        (tmp_path / "emotion_edge-3-py3-none-any.whl", "there is no wheel"),
        (kiosk.config, "is not a wheel of emotion-edge"),
    ):
        done = kiosk.update("--wheel", path)
        assert done.returncode == 1 and says in done.stderr and done.stderr.count("\n") == 1
        check_is_whole(kiosk)
        assert kiosk.running == "1.0"


def test_from_a_folder_without_a_network(kiosk: Kiosk, tmp_path: Path) -> None:
    for version in ("1.9", "1.10", "1.10rc2", "1.10.dev1"):
        wheel(tmp_path / "wheels", version)
    done = kiosk.update("--wheels", tmp_path / "wheels")
    assert done.returncode == 0, done.stderr
    assert kiosk.version() == "1.10"
    log = (kiosk.home / "update.log").read_text()
    assert f"--no-index --find-links {tmp_path}/wheels" in log
    assert kiosk.update("--wheels", tmp_path / "wheels", "--to", "1.9").returncode == 0
    assert kiosk.version() == "1.9"
    done = kiosk.update("--wheels", tmp_path / "wheels", "--to", "2.0")
    assert done.returncode == 1 and "has no wheel of emotion-edge of version 2.0" in done.stderr
    done = kiosk.update()
    assert done.returncode == 1 and "pip: no index" in done.stderr
    check_is_whole(kiosk)


def test_an_unhealthy_kiosk_is_not_updated_unless_forced(kiosk: Kiosk, tmp_path: Path) -> None:
    service = kiosk.root / "run/service.json"
    health = json.loads(service.read_text())
    service.write_text(json.dumps(health | {"status": "failing", "reason": "camera away"}))
    new = wheel(tmp_path, "1.1")
    done = kiosk.update("--wheel", new)
    assert done.returncode == 1
    assert "not healthy before the update" in done.stderr and "camera away" in done.stderr
    assert kiosk.version() == "1.0"
    assert kiosk.update("--wheel", new, "--force").returncode == 0
    assert kiosk.version() == "1.1"


def test_a_degraded_kiosk_may_stay_degraded(kiosk: Kiosk, tmp_path: Path) -> None:
    service = kiosk.root / "run/service.json"
    health = json.loads(service.read_text())
    (kiosk.root / "degraded").touch()
    done = kiosk.update("--wheel", wheel(tmp_path, "1.1"))
    assert done.returncode == 1 and "not healthy after" in done.stderr  # it was ok before
    service.write_text(json.dumps(health | {"status": "degraded"}))
    assert kiosk.update("--wheel", wheel(tmp_path, "1.1")).returncode == 0


def test_going_back_on_request(kiosk: Kiosk, tmp_path: Path) -> None:
    done = kiosk.update("--rollback")
    assert done.returncode == 1 and "no previous release" in done.stderr
    kiosk.update("--wheel", wheel(tmp_path, "1.1"))
    done = kiosk.update("--rollback")
    assert done.returncode == 0, done.stderr
    assert kiosk.running == kiosk.version() == "1.0"
    assert "rolled back from 1.1-" in kiosk.history
    listed = kiosk.update("--list").stdout
    assert "current   1.0-" in listed and "previous  1.1-" in listed
    assert kiosk.update("--rollback").returncode == 0
    assert kiosk.version() == "1.1"
    check_is_whole(kiosk)


def test_two_updates_at_the_same_time(kiosk: Kiosk, tmp_path: Path) -> None:
    with (kiosk.home / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = kiosk.update("--wheel", wheel(tmp_path, "1.1"))
        assert done.returncode == 1 and "another update is running" in done.stderr
        assert kiosk.update("--resume").returncode == 0  # the timer's, which must not fail
    assert kiosk.version() == "1.0"


def test_a_signal_during_the_trial_goes_back(kiosk: Kiosk, tmp_path: Path) -> None:
    words = ["--trial", "100", "--wheel", str(wheel(tmp_path, "1.1"))]
    process = subprocess.Popen(
        [sys.executable, "-IS", UPDATE, *words], env=kiosk.environment, stderr=subprocess.PIPE
    )
    end = time.monotonic() + 60
    while kiosk.running != "1.1":
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)  # the terminal has closed: the trial continues
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and b"interrupted by SIGTERM" in error
    assert kiosk.running == "1.0"
    check_is_whole(kiosk)


def test_a_full_disk(kiosk: Kiosk, tmp_path: Path) -> None:
    (kiosk.root / "full").touch()
    done = kiosk.update("--wheel", wheel(tmp_path, "1.1"))
    assert done.returncode == 1 and "No space left on device" in done.stderr
    check_is_whole(kiosk)
    assert kiosk.running == "1.0" and len(kiosk.releases) == 1
    (kiosk.root / "full").unlink()
    assert kiosk.update("--wheel", wheel(tmp_path, "1.1")).returncode == 0


def operations(kiosk: Kiosk, tmp_path: Path, *words: str | Path) -> int:
    """How many operations an update takes."""
    folder = tmp_path / "counted"
    shutil.copytree(kiosk.root, folder / "disk", symlinks=True)
    copy = Kiosk(tmp_path / "counting")
    shutil.rmtree(copy.root)
    (folder / "disk").rename(copy.root)
    done = copy.update(*words, faults=f"count:{tmp_path}/operations")
    assert done.returncode == 0, done.stderr
    return int((tmp_path / "operations").read_text())


def copies(kiosk: Kiosk, tmp_path: Path) -> Callable[[], None]:
    """A function that restores the kiosk's disk."""
    kept = tmp_path / "kept"
    shutil.copytree(kiosk.root, kept, symlinks=True)

    def restore() -> None:
        shutil.rmtree(kiosk.root)
        shutil.copytree(kept, kiosk.root, symlinks=True)

    return restore


STEPS = [pytest.param(12, id="some"), pytest.param(1, id="every", marks=pytest.mark.slow)]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("behaviour", ["good", BLIND])
@pytest.mark.parametrize("step", STEPS)
def test_a_power_cut_at_any_operation(
    kiosk: Kiosk, tmp_path: Path, behaviour: str, step: int
) -> None:
    new = wheel(tmp_path / "new", "1.1", behaviour)
    total = operations(kiosk, tmp_path, "--wheel", wheel(tmp_path / "count", "1.1"))
    restore = copies(kiosk, tmp_path)
    assert total > 30
    cut = 0
    for number in range(1, total + 8, step):  # a rollback takes some more
        restore()
        done = kiosk.update("--wheel", new, faults=f"kill:{number}")
        cut += done.returncode == -signal.SIGKILL
        # At any moment the link points to a release that works.
        assert kiosk.version() in ("1.0", "1.1"), number
        before = kiosk.home / "current/release.json"
        assert before.exists(), number
        done = kiosk.update("--resume")
        assert done.returncode in (0, 1), (number, done.stderr)
        check_is_whole(kiosk)
        assert kiosk.version() == kiosk.running, number
        if behaviour == BLIND:
            assert kiosk.version() == "1.0", number
        done = kiosk.update("--wheel", wheel(tmp_path / "next", "1.2"))
        assert done.returncode == 0, (number, done.stderr)
        assert kiosk.running == "1.2"
        check_is_whole(kiosk)
    assert cut > total // step // 2


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("step", STEPS)
def test_a_disk_that_becomes_full_at_any_operation(kiosk: Kiosk, tmp_path: Path, step: int) -> None:
    new = wheel(tmp_path / "new", "1.1")
    total = operations(kiosk, tmp_path, "--wheel", new)
    restore = copies(kiosk, tmp_path)
    for number in range(1, total + 1, step):
        restore()
        done = kiosk.update("--wheel", new, faults=f"full:{number}")
        assert done.stderr.count("\n") <= 1, done.stderr
        assert kiosk.version() in ("1.0", "1.1"), number
        done = kiosk.update("--resume")
        check_is_whole(kiosk)
        assert kiosk.running == kiosk.version(), number


def test_a_trial_that_is_cut_off_too_often(kiosk: Kiosk, tmp_path: Path) -> None:
    new = wheel(tmp_path, "1.1")
    total = operations(kiosk, tmp_path, "--wheel", new)
    for number in range(total, 1, -1):  # the last operation that leaves a trial behind
        done = kiosk.update("--wheel", new, faults=f"kill:{number}")
        if (kiosk.home / "update.json").exists():
            break
        kiosk.update("--rollback")
    path = kiosk.home / "update.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attempts": 3}))
    done = kiosk.update("--resume")
    assert done.returncode == 1 and "its trial was cut off 3 times" in done.stderr
    assert kiosk.running == "1.0"
    path.write_text("{")
    done = kiosk.update("--resume")
    assert done.returncode == 0 and "cannot be read" in done.stdout
    check_is_whole(kiosk)


def test_a_model_alone(kiosk: Kiosk, tmp_path: Path) -> None:
    model = tmp_path / "mine.tflite"
    model.write_text("better")
    software = kiosk.current
    done = kiosk.update("--model", model)
    assert done.returncode == 0, done.stderr
    assert "90% against 88%" in done.stdout
    assert kiosk.current.startswith(f"{software}+")
    installed = kiosk.home / "current/share/emotion-edge/models/fast-int8.tflite"
    assert installed.read_text() == "better"
    # Its programs are its own, not those of the release that it was copied from.
    script = (kiosk.home / "current/bin/emotion-edge").read_text()
    assert f"releases/{kiosk.current}/bin/python" in script
    assert f"releases/{software}/bin/python" in (
        (kiosk.home / "releases" / software / "bin/emotion-edge").read_text()
    )
    check_is_whole(kiosk)
    assert "nothing to do" in kiosk.update("--model", model).stdout
    # It survives an update of the software.
    assert kiosk.update("--wheel", wheel(tmp_path, "1.1")).returncode == 0
    assert installed.read_text() == "better" and kiosk.version() == "1.1"
    assert kiosk.update("--model", "shipped").returncode == 0
    assert not installed.exists() and "+" not in kiosk.current
    assert "nothing to do" in kiosk.update("--model", "shipped").stdout
    check_is_whole(kiosk)


def test_a_model_that_is_worse(kiosk: Kiosk, tmp_path: Path) -> None:
    model = tmp_path / "mine.tflite"
    model.write_text("worse")
    done = kiosk.update("--model", model)
    assert done.returncode == 1 and "not accepted" in done.stderr and "2.0 points" in done.stderr
    check_is_whole(kiosk)
    assert kiosk.update("--model", model, "--force").returncode == 0
    assert "+" in kiosk.current


def test_an_installation_from_before_there_were_releases(kiosk: Kiosk, tmp_path: Path) -> None:
    """Its environment is ``/opt/emotion-edge`` itself; it is kept until the update after next."""
    home = kiosk.home
    old = kiosk.current
    for path in (home / "releases" / old).iterdir():
        if path.name != "release.json":
            path.rename(home / path.name)
    shutil.rmtree(home / "releases")
    (home / "current").unlink()
    script = home / "bin/emotion-edge"
    script.write_text(script.read_text().replace(f"/releases/{old}", ""))
    link = kiosk.root / "usr/local/bin/emotion-edge"
    link.unlink()
    link.symlink_to("/opt/emotion-edge/bin/emotion-edge")
    done = kiosk.update("--wheel", wheel(tmp_path, "1.1", BLIND))
    assert done.returncode == 1 and "legacy is active again" in done.stderr
    assert kiosk.running == kiosk.version() == "1.0"
    done = kiosk.update("--wheel", wheel(tmp_path, "1.2"))
    assert done.returncode == 0, done.stderr
    assert kiosk.running == "1.2" and script.exists()
    assert link.readlink() == Path("/opt/emotion-edge/current/bin/emotion-edge")
    assert kiosk.update("--rollback").returncode == 0
    assert kiosk.running == "1.0"
    assert kiosk.update("--rollback").returncode == 0
    assert kiosk.update("--wheel", wheel(tmp_path, "1.3")).returncode == 0
    assert not script.exists() and not (home / "pyvenv.cfg").exists()
    check_is_whole(kiosk)


def test_a_command_of_someone_else_is_kept(empty: Kiosk, tmp_path: Path) -> None:
    command = empty.root / "usr/local/bin/emotion-edge"
    command.write_text("mine")
    done = empty.update("--wheel", wheel(tmp_path, "1.0"))
    assert done.returncode == 0 and "exists and is kept" in done.stdout
    assert command.read_text() == "mine"


def test_without_systemd(empty: Kiosk, tmp_path: Path) -> None:
    """A disk image: the units are installed and enabled, and nothing is started."""
    shutil.rmtree(empty.root / "run/systemd")
    done = empty.update("--wheel", wheel(tmp_path, "1.0"))
    assert done.returncode == 0, done.stderr
    assert "systemd does not run here" in done.stdout
    calls = (empty.root / "systemctl.log").read_text()
    assert "enable" in calls and "restart" not in calls
    check_is_whole(empty)


def test_the_updater_imports_the_standard_library_alone() -> None:
    """The installer runs it on a system that has only Python."""
    done = subprocess.run(
        [sys.executable, "-IS", UPDATE, "--help"], env={}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert os.access(UPDATE, os.R_OK) and update.HOME == "/opt/emotion-edge"
