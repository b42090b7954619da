#!/usr/bin/env python3
"""Installs, updates and rolls back the software of a kiosk.

::

    /opt/emotion-edge/releases/0.2.0-1f3a90bc/   an environment, its model files and release.json
    /opt/emotion-edge/current                    link to the release that runs
    /opt/emotion-edge/previous                   link to the one before it
    /opt/emotion-edge/update.json                exists while a release is on trial

A release is built and tested in its own folder, and ``release.json`` is written last: a folder
without it is incomplete and is deleted by the next update. ``current`` is replaced atomically, and
only by a release that passed its self-test. The release is then on trial: if the kiosk is not
healthy, ``current`` goes back to the previous release. ``update.json`` is written before the switch
and deleted after the trial, so that after a power cut ``--resume`` can continue from it.

The installer runs this file on a system that has nothing but Python. It therefore uses the
standard library alone and imports no other module of this package; what needs the package (the
self-test, the comparison of models, the health) runs in a release, as a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import hashlib
import itertools
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import syslog
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HOME = "/opt/emotion-edge"
CONFIG = "/etc/emotion-edge/kiosk.toml"
STATE = "/var/lib/emotion-edge"
UNITS = "/etc/systemd/system"
COMMAND = "/usr/local/bin/emotion-edge"
USER = "emotion-edge"
SERVICE = "emotion-edge.service"
EXTRAS = "metrics,mqtt"
MODELS = "share/emotion-edge/models"
"""In a release: model files that take the place of shipped ones of the same name."""

_AGAIN = ".again"
"""Ends the name of a release that is a second installation of the same files."""
_MOST_ATTEMPTS = 3
_FIRST_PATIENCE_S = 30.0
"""How long the report of a first installation waits for the first frame, in seconds."""
_RUNNING = "active"
"""The baseline of a forced update of a kiosk whose health could not be read: systemd's word."""
_POLL_S = 4.0
"""Between two looks at the health, in seconds; each starts a process on a small board."""
_LEGACY = ("bin", "include", "lib", "lib64", "share", "pyvenv.cfg")
"""What an installation from before there were releases has directly in ``HOME``."""
_YUNET = "face_detection_yunet_2023mar.onnx"


class UpdateFailed(Exception):
    """Why nothing was installed, or why the previous release runs again; one line."""


class Interrupted(BaseException):
    """A signal asked the update to end."""


class Updater:
    """One kiosk's releases. Only one process changes them at a time (``locked``)."""

    def __init__(self, root: str = "", config: str = CONFIG) -> None:
        """root: put before every path, for a disk image and for tests. config: of the kiosk."""
        self.home = Path(f"{root}{HOME}")
        self.root = root
        self.config = Path(config if config != CONFIG else f"{root}{CONFIG}")
        self._releases = self.home / "releases"
        self._journal = self.home / "update.json"
        self._log = self.home / "update.log"
        self._systemd = Path(f"{root}/run/systemd/system").is_dir()

    # ------------------------------------------------------------------ what is installed

    def release(self, link: str) -> Path | None:
        """The folder that ``current`` or ``previous`` points to; None where there is none."""
        path = self.home / link
        if link == "current" and not path.is_symlink() and (self.home / "pyvenv.cfg").exists():
            return self.home
        return path.resolve() if path.is_symlink() and path.exists() else None

    @property
    def installed(self) -> bool:
        """Whether there is a release, or one whose installation was cut off."""
        return self.release("current") is not None or (self.home / ".lock").exists()

    def name(self, release: Path | None) -> str:
        """A release's name; an installation from before there were releases is ``legacy``."""
        if release is None:
            return "none"
        return "legacy" if release.resolve() == self.home.resolve() else release.name

    def summary(self) -> list[str]:
        """A line for each release, and the results of the last updates."""
        marks = {self.release("previous"): "previous", self.release("current"): "current"}
        lines = [f"{mark:9} {self.name(path)}" for path, mark in marks.items() if path]
        if self._journal.exists():
            lines.append("on trial  the current one; emotion-edge update --resume completes it")
        with contextlib.suppress(OSError):
            for text in (self.home / "updates.jsonl").read_text().splitlines()[-5:]:
                entry = json.loads(text)
                lines.append(f"{entry['time']}  {entry['result']}")
        return lines or [f"nothing is installed in {self.home}"]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock. Raises UpdateFailed when another process holds it."""
        self.home.mkdir(parents=True, exist_ok=True)
        # For root alone: anyone who can open it could hold the lock.
        descriptor = os.open(self.home / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy("another update is running: wait for it") from None
            yield

    # ------------------------------------------------------------------------- an update

    def install(self, wheel: Path, pip: Sequence[str], *, force: bool, trial: Trial) -> str:
        """Make a release of a wheel and switch to it; what came of it.

        pip: further options, such as ``--no-index``. force: see ``main``.
        """
        version = version_of(wheel)
        current = self.release("current")
        override = None if current is None else self._override(current)
        name = f"{version}-{_sha256(wheel)[:8]}"
        if override is not None:
            name += f"+{_sha256(override)[:8]}"
        if not force and self.name(current).removesuffix(_AGAIN) == name:
            return f"{name} is active already: nothing to do"
        baseline = self._baseline(force)
        release = self._folder(name, again=force)
        if complete(release):
            self._test(release)
        else:
            self._check_space(current)
            with self._building(release):
                self._build(release, wheel, version, pip, override)
        return self._switch(release, baseline, trial)

    def install_model(self, model: Path | None, *, force: bool, trial: Trial) -> str:
        """Make a release with another model file and switch to it; what came of it.

        model: a ``.tflite`` with a manifest; it takes the place of the model that the
            configuration names. None: the shipped one again.
        """
        current = self.release("current")
        if current is None or current == self.home:
            raise UpdateFailed("install a release of the software first, then its model")
        software = current.name.removesuffix(_AGAIN).partition("+")[0]
        if model is None:
            if self._override(current) is None:
                return "the shipped model is active already: nothing to do"
            name, configured = software, ""
        else:
            text = self._in_release(
                current,
                *("-m", "emotion_edge.commands.self_test", "--config", str(self.config)),
                *("--compare", str(model), *(["--force"] if force else [])),
                what="the model was not accepted",
                as_user=False,  # the file may be one that only root can read
            )
            found = json.loads(text.strip().splitlines()[-1])
            say(found["text"])
            configured = found["configured"]
            name = f"{software}+{_sha256(model)[:8]}"
            if name == current.name.removesuffix(_AGAIN) and not force:
                return f"{name} is active already: nothing to do"
        baseline = self._baseline(force)
        release = self._folder(name, again=force)
        if complete(release):
            self._test(release)
        else:
            with self._building(release):
                self._clone(current, release)
                if model is not None:
                    folder = release / MODELS
                    folder.mkdir(parents=True)
                    shutil.copyfile(model, folder / f"{configured}-int8.tflite")
        return self._switch(release, baseline, trial)

    def roll_back(self, trial: Trial) -> str:
        """Switch to the previous release, which becomes the current one."""
        current, previous = self.release("current"), self.release("previous")
        if current is None or previous is None:
            raise UpdateFailed("there is no previous release to go back to: --list shows them")
        self._point("current", previous)
        self._point("previous", current)
        self._settle()
        return self._done(
            f"rolled back from {self.name(current)} to {self.name(previous)} on request; "
            f"{self._health_after(trial)}"
        )

    def resume(self, trial: Trial) -> str:
        """Complete or undo an update that was cut off, and delete what it left behind."""
        said = ""
        if self._journal.exists():
            said = self._continue(trial)
        self._prune()
        return said

    # ---------------------------------------------------------------------- how it is built

    def _folder(self, name: str, *, again: bool) -> Path:
        """The folder of a release. again: one that is in use is built a second time, elsewhere."""
        release = self._releases / name
        while again and release in (self.release("current"), self.release("previous")):
            release = release.with_name(f"{release.name}{_AGAIN}")
        return release

    @contextlib.contextmanager
    def _building(self, release: Path) -> Iterator[None]:
        """Give the block an empty folder; test the result; on an error delete all of it."""
        shutil.rmtree(release, ignore_errors=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_text("")
        try:
            release.parent.mkdir(parents=True, exist_ok=True)
            yield
            self._test(release)
            # All of it must be on the disk before anything points to it.
            self._sync()
            facts = {"name": release.name, "time": _now()}
            _write_whole(release / "release.json", json.dumps(facts))
        except BaseException:
            shutil.rmtree(release, ignore_errors=True)
            raise

    def _build(
        self, release: Path, wheel: Path, version: str, pip: Sequence[str], override: Path | None
    ) -> None:
        say(f"building {release.name}")
        python = shutil.which("python3") or sys.executable
        # The system's packages stay visible for apt's picamera2.
        self._run([python, "-m", "venv", "--system-site-packages", str(release)], "venv")
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder, "constraints.txt")
            constraints.write_text(constraints_of(wheel))
            command = [str(release / "bin/python"), "-m", "pip", "install", "--quiet"]
            command += ["--disable-pip-version-check", "--constraint", str(constraints), *pip]
            self._run([*command, f"{wheel.resolve()}[{EXTRAS}]"], "pip", seconds=7200)
        printed = self._run([str(release / "bin/emotion-edge"), "--version"], "the new release")
        if printed.split()[-1:] != [version]:
            raise UpdateFailed(f"{wheel.name} installs {printed.strip()!r}, not version {version}")
        if override is not None:
            models = release / MODELS
            models.mkdir(parents=True)
            shutil.copyfile(override, models / override.name)
        self._get_yunet(release, pip)

    def _get_yunet(self, release: Path, pip: Sequence[str]) -> None:
        """The better face detector, for the user that the service runs as; without it: Haar."""
        nearby = [Path(folder) / _YUNET for folder in _after(pip, "--find-links")]
        words = ["detectors", "get", "yunet"]
        found = next((str(path) for path in nearby if path.is_file()), None)
        if found:
            words += ["--from", found]
        elif "--no-index" in pip:
            return
        else:
            words += ["--optional"]
        with contextlib.suppress(UpdateFailed):  # the self-test reports the detector in use
            self._run([str(release / "bin/emotion-edge"), *words], "YuNet", as_user=True)

    def _clone(self, source: Path, release: Path) -> None:
        """Copy a release by hard links; its scripts name their own folder, so they are rewritten.

        Model files and ``release.json`` are omitted.
        """
        say(f"building {release.name} from {source.name}")
        self._run(["cp", "-al", str(source), str(release)], "cp")
        (release / "release.json").unlink(missing_ok=True)
        shutil.rmtree(release / MODELS, ignore_errors=True)
        for path in (*(release / "bin").iterdir(), release / "pyvenv.cfg"):
            if path.is_symlink() or not path.is_file():
                continue
            data = path.read_bytes()
            mode = path.stat().st_mode
            path.unlink()  # the other release has the same file
            path.write_bytes(data.replace(os.fsencode(source), os.fsencode(release)))
            path.chmod(mode)

    def _override(self, release: Path) -> Path | None:
        """The model file that an update of the model alone installed."""
        return next(iter(sorted((release / MODELS).glob("*.tflite"))), None)

    def _check_space(self, current: Path | None) -> None:
        """Raises UpdateFailed when there is certainly not enough."""
        if current is None or current == self.home:
            return
        needed = sum(path.lstat().st_size for path in current.rglob("*")) * 11 // 10
        free = shutil.disk_usage(self.home).free
        if free < needed:
            raise UpdateFailed(
                f"a release needs {needed >> 20} MB and {self.home} has {free >> 20} MB free: "
                "delete something first"
            )

    def _test(self, release: Path) -> None:
        say("testing it: installation, models, fifty frames")
        words = ["-m", "emotion_edge.commands.self_test"]
        if self.config.exists():
            words += ["--config", str(self.config)]
        self._in_release(release, *words, what=f"{release.name} failed its self-test")

    # ----------------------------------------------------------------- the switch and the trial

    def _baseline(self, force: bool) -> str:
        """The kiosk's health before the update, which the new release is measured by.

        Raises UpdateFailed when it is not healthy, unless forced.
        """
        current = self.release("current")
        if current is None or not self._systemd:
            return ""
        status, reason, _ = self._health(current)
        give_up = time.monotonic() + _FIRST_PATIENCE_S
        while status == "starting" and time.monotonic() < give_up:
            time.sleep(1)
            status, reason, _ = self._health(current)
        if force or status in ("ok", "degraded", "paused"):
            return status or _RUNNING
        raise UpdateFailed(
            f"the kiosk is not healthy before the update, so the new release could not be judged "
            f"({status or 'no answer'}: {reason}): fix that first, or add --force"
        )

    def _switch(self, release: Path, baseline: str, trial: Trial) -> str:
        current = self.release("current")
        journal = {
            "candidate": release.name,
            "current": None if current is None else self._target(current),
            "previous": _link(self.home / "previous"),
            "baseline": baseline,
            "trial": {"seconds": trial.seconds, "patience": trial.patience},
            "attempts": 0,
            "phase": "trial",
        }
        if current is not None and not (self.home / "current").is_symlink():
            self._point("current", current)  # the installation from before there were releases
        self._sync()
        self._note(journal)
        try:
            if current is not None:
                self._point("previous", current)
            self._point("current", release)
        except (Interrupted, OSError) as error:
            return self._undo(journal, f"interrupted: {error}")
        return self._try(journal)

    def _try(self, journal: dict[str, Any]) -> str:
        """The trial of the current release: keep it or go back."""
        release = self._releases / journal["candidate"]
        try:
            self._settle()
            trouble = ""
            if not self._systemd:
                health = "systemd does not run here, so it was not tried"
            elif journal["current"] is None:
                health = self._health_after(Trial(0, _FIRST_PATIENCE_S))
            else:
                trial = Trial(**journal["trial"])
                say(f"trial: it must be healthy for {trial.seconds:g} s")
                health, trouble = self._judge(release, journal["baseline"], trial)
        except (UpdateFailed, OSError) as error:
            trouble = str(error)
        except Interrupted as error:
            trouble = f"interrupted by {error}"
        _ignore_signals()
        if trouble:
            return self._undo(journal, trouble)
        text = self._done(f"{release.name} is active; {health}")
        self._forget()
        self._prune()
        return text

    def _judge(self, release: Path, baseline: str, trial: Trial) -> tuple[str, str]:
        """Watch the health; returns (what it is, "") or ("", what is wrong)."""
        version = release.name.split("-")[0]
        give_up = time.monotonic() + trial.patience
        since: float | None = None
        last_uptime = -1.0
        while True:
            status, reason, health = self._health(release)
            if not status and baseline == _RUNNING:
                status = reason = self._systemctl("is-active")
            uptime = float(health.get("uptime_s") or 0.0)
            if health and health.get("version") != version:
                status, reason = "", f"version {health.get('version')} still runs"
            elif uptime < last_uptime:
                since = None  # it was started again
            last_uptime = uptime
            now = time.monotonic()
            if status == "ok" or (status and status == baseline):
                since = now if since is None else since
                if now - since >= trial.seconds:
                    return f"health: {status}", ""
            else:
                since = None
                if self._systemctl("is-active") == "failed":
                    return "", f"the service ended: {self._last_words()}"
                if now > give_up:
                    return "", f"not healthy after {trial.patience:g} s: {status} {reason}".strip()
            end = give_up if since is None else since + trial.seconds
            time.sleep(min(_POLL_S, max(0.1, end - now)))

    def _undo(self, journal: dict[str, Any], reason: str) -> str:
        """Go back to the release before this update. Always raises UpdateFailed, with the reason.

        A signal cannot stop it, and after a power cut it is continued.
        """
        _ignore_signals()
        if journal["current"] is None:  # a first installation that was interrupted
            self._forget()
            raise UpdateFailed(f"{journal['candidate']} is installed, but: {reason}")
        with contextlib.suppress(OSError):  # the disk may be full
            self._note(journal | {"phase": "undo", "reason": reason})
        self._replace_link("current", journal["current"])
        if journal["previous"] is None:
            (self.home / "previous").unlink(missing_ok=True)
        else:
            self._replace_link("previous", journal["previous"])
        text = f"{journal['candidate']} was rolled back: {reason}"
        text += f"; {self.name(self.release('current'))} is active again"
        try:
            self._settle()
            text += f", {self._health_after(Trial(**journal['trial']))}"
        except (UpdateFailed, OSError) as error:
            text += f", but {error}"
        self._done(text)
        self._forget()
        self._prune()
        raise UpdateFailed(text)

    def _continue(self, trial: Trial) -> str:
        """Continue from ``update.json``."""
        try:
            journal: dict[str, Any] = json.loads(self._journal.read_text())
            candidate = self._releases / str(journal["candidate"])
        except (ValueError, KeyError, OSError) as error:
            self._forget()
            return self._done(f"{self._journal} cannot be read and was deleted: {error}")
        if journal["phase"] == "undo":
            return self._undo(journal, journal["reason"])
        if self.release("current") != candidate.resolve() or not complete(candidate):
            # The power went before the switch.
            if journal["previous"] is None:
                (self.home / "previous").unlink(missing_ok=True)
            else:
                self._replace_link("previous", journal["previous"])
            self._forget()
            return self._done(f"the update to {candidate.name} was cut off before the switch")
        journal["attempts"] += 1
        if journal["attempts"] > _MOST_ATTEMPTS and journal["current"] is not None:
            return self._undo(journal, f"its trial was cut off {_MOST_ATTEMPTS} times")
        self._note(journal)
        say(f"continuing the trial of {candidate.name}, which was cut off")
        return self._try(journal)

    def _settle(self) -> None:
        """Make the system run the current release: units, command, service."""
        release = self.release("current")
        assert release is not None
        units = Path(f"{self.root}{UNITS}")
        new = []
        changed = False
        for source in sorted(release.glob("lib/python3*/site-packages/emotion_edge/device/*")):
            if source.suffix not in (".service", ".timer"):
                continue
            unit = units / source.name
            if not unit.exists():
                new.append(source.name)
            if not unit.exists() or unit.read_bytes() != source.read_bytes():
                changed = True
                units.mkdir(parents=True, exist_ok=True)
                _write_whole(unit, source.read_bytes())
        self._put_on_path()
        if not changed and not self._systemd:
            return
        if self._systemd:
            self._run(["systemctl", "daemon-reload"], "systemctl")
        enable = [
            name
            for name in new
            if name.endswith(".timer") or name.replace(".service", ".timer") not in new
        ]
        if enable and shutil.which("systemctl"):
            self._run(["systemctl", "enable", "--quiet", *enable], "systemctl enable")
        if self._systemd:
            for name in enable:
                if name.endswith(".timer"):
                    self._run(["systemctl", "start", name], "systemctl start")
            self._run(["systemctl", "reset-failed", SERVICE], "systemctl", check=False)
            self._run(["systemctl", "restart", "--no-block", SERVICE], "systemctl restart")

    def _put_on_path(self) -> None:
        command = Path(f"{self.root}{COMMAND}")
        target = f"{HOME}/current/bin/emotion-edge"
        ours = (target, f"{HOME}/bin/emotion-edge")
        if os.path.lexists(command) and _link(command) not in ours:
            say(f"{command} exists and is kept: the service's own command is {target}")
        elif _link(command) != target:
            command.parent.mkdir(parents=True, exist_ok=True)
            _replace_link(command, target)

    def _health(self, release: Path) -> tuple[str, str, dict[str, Any]]:
        """Status, reason and the whole of what ``/healthz`` returns; empty without an answer."""
        command = [str(release / "bin/emotion-edge"), "status", "--json"]
        command += ["--config", str(self.config)]
        try:
            done = subprocess.run(
                command,
                env=_environment(),
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            health = json.loads(done.stdout)
            return str(health["status"]), str(health.get("reason", "")), health
        except (OSError, subprocess.SubprocessError) as error:
            return "", str(error), {}
        except (ValueError, KeyError, TypeError):
            return "", _last_line(done.stderr) or "no answer", {}

    def _health_after(self, trial: Trial) -> str:
        """The health once it is known, within the trial's patience; for the report alone."""
        if not self._systemd:
            return "systemd does not run here"
        current = self.release("current")
        assert current is not None
        health, trouble = self._judge(current, "", Trial(0, trial.patience))
        return health or f"but: {trouble}"

    # ------------------------------------------------------------------------------- the rest

    def _done(self, text: str) -> str:
        """Record a result in ``updates.jsonl`` and the system's journal; returns it."""
        with (
            contextlib.suppress(OSError),  # the disk may be full
            (self.home / "updates.jsonl").open("a") as file,
        ):
            file.write(json.dumps({"time": _now(), "result": text}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if not self.root and "INVOCATION_ID" not in os.environ:
            syslog.openlog("emotion-edge-update")
            syslog.syslog(text)
        return text

    def _note(self, journal: Mapping[str, Any]) -> None:
        _write_whole(self._journal, json.dumps(journal, indent=1))

    def _sync(self) -> None:
        """Wait until everything that was written is on the disk."""
        self._run(["sync", "--file-system", str(self.home)], "sync")

    def _forget(self) -> None:
        self._journal.unlink(missing_ok=True)
        _sync_folder(self.home)

    def _point(self, link: str, release: Path) -> None:
        self._replace_link(link, self._target(release))

    def _target(self, release: Path) -> str:
        """What a link in ``HOME`` to this release contains."""
        return os.path.relpath(release.resolve(), self.home.resolve())

    def _replace_link(self, link: str, target: str) -> None:
        _replace_link(self.home / link, target)

    def _prune(self) -> None:
        """Delete incomplete files and releases, and all but the current and the previous one."""
        for path in self.home.glob(".*.new"):
            path.unlink(missing_ok=True)
        current = self.release("current")
        keep = {path for path in (current, self.release("previous")) if path is not None}
        if self._releases.is_dir():
            for path in self._releases.iterdir():
                if path.resolve() not in keep:
                    # Without this file it is incomplete, however far the deletion gets.
                    (path / "release.json").unlink(missing_ok=True)
                    shutil.rmtree(path, ignore_errors=True)
        if current is not None and self.home.resolve() not in {path.resolve() for path in keep}:
            for name in _LEGACY:
                path = self.home / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _last_words(self) -> str:
        printed = self._run(
            ["journalctl", "-u", SERVICE, "-n", "1", "-o", "cat", "--no-pager"], "", check=False
        )
        return _last_line(printed) or "journalctl -u emotion-edge shows why"

    def _systemctl(self, word: str) -> str:
        return self._run(["systemctl", word, SERVICE], "systemctl", check=False).strip()

    def _in_release(self, release: Path, *words: str, what: str, as_user: bool = True) -> str:
        python = str(release / "bin/python")
        return self._run([python, *words], what, seconds=1800, as_user=as_user)

    def _run(
        self,
        command: Sequence[str],
        what: str,
        *,
        seconds: float = 600,
        check: bool = True,
        as_user: bool = False,
    ) -> str:
        """A command's standard output; both outputs are appended to ``update.log``.

        as_user: as the service's user, where there is one.
        Raises UpdateFailed with the command's last line.
        """
        identity: dict[str, Any] = {}
        environment = _environment()
        if as_user and not self.root and os.geteuid() == 0:
            with contextlib.suppress(KeyError):
                user = pwd.getpwnam(USER)
                groups = os.getgrouplist(USER, user.pw_gid)
                identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups}
                environment |= {"HOME": STATE, "XDG_DATA_HOME": f"{STATE}/.local/share"}
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd="/",
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                **identity,
            )
        except subprocess.TimeoutExpired:
            raise UpdateFailed(f"{what}: no end after {seconds:g} s") from None
        except OSError as error:
            if not check:
                return ""
            raise UpdateFailed(f"{what}: {error.strerror}: {command[0]}") from None
        with contextlib.suppress(OSError), self._log.open("a") as log:
            log.write(f"+ {' '.join(command)}\n{done.stdout}{done.stderr}")
        if check and done.returncode != 0:
            said = _last_line(done.stderr) or _last_line(done.stdout)
            raise UpdateFailed(f"{what}: {said or f'status {done.returncode}'} (see {self._log})")
        printed: str = done.stdout
        return printed


class Busy(UpdateFailed):
    """Another process updates this kiosk."""


class Trial:
    """seconds: in a row that must be healthy. patience: seconds until it must be healthy."""

    def __init__(self, seconds: float, patience: float) -> None:
        self.seconds, self.patience = seconds, patience


# ------------------------------------------------------------------------------------- wheels


def version_of(wheel: Path) -> str:
    """The version in a wheel's file name. Raises UpdateFailed for any other file."""
    found = re.fullmatch(r"emotion_edge-([^-]+)-[^-]+-[^-]+-[^-]+\.whl", wheel.name)
    if found is None:
        raise UpdateFailed(f"{wheel} is not a wheel of emotion-edge: make one with make wheel")
    if not wheel.is_file():
        raise UpdateFailed(f"there is no wheel {wheel}: build one with make wheel")
    return found[1]


def newest(folder: Path, version: str | None = None) -> Path:
    """The newest wheel of emotion-edge in a folder, or the one of this version.

    Raises UpdateFailed when there is none.
    """
    wheels = sorted(folder.glob("emotion_edge-*.whl"), key=lambda path: _order(version_of(path)))
    wheels = [path for path in wheels if version in (None, version_of(path))]
    if not wheels:
        wanted = f" of version {version}" if version else ""
        raise UpdateFailed(f"{folder} has no wheel of emotion-edge{wanted}")
    return wheels[-1]


def _order(version: str) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    """A key that sorts versions: 0.10.0 after 0.9.0, and 1.0.0 after 1.0.0rc1 and 1.0.0.dev1."""
    plain, kind, rest = re.match(r"([\d.]*\d)[.-]?(\D*)(.*)", f"{version}").groups()  # type: ignore[union-attr]
    rank = 1 if kind in ("", "post", "+") else -1 if kind == "dev" else 0
    return (
        tuple(int(part) for part in plain.split(".")),
        rank,
        tuple(int(part) for part in re.findall(r"\d+", rest)),
    )


def constraints_of(wheel: Path) -> str:
    """The versions of dependencies that a wheel was tested with on this system.

    Raises UpdateFailed when it has none for it.
    """
    try:
        release = Path(os.environ.get("OS_RELEASE", "/etc/os-release")).read_text()
        found = re.search(r"^VERSION_CODENAME=\"?(\w+)", release, re.MULTILINE)
        codename = found[1] if found else "unknown"
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(f"emotion_edge/device/constraints-{codename}.txt").decode()
    except (OSError, zipfile.BadZipFile) as error:
        raise UpdateFailed(f"{wheel} cannot be read ({error}): copy it again") from error
    except KeyError:
        raise UpdateFailed(
            f"{wheel.name} has no versions for this system ({codename}): use Raspberry Pi OS "
            "Bookworm or Trixie, and a newer wheel"
        ) from None


def fetch(updater: Updater, options: argparse.Namespace, folder: str) -> tuple[Path, list[str]]:
    """The wheel that the options choose, and options for pip.

    folder: an empty one, for a wheel that has to be built or downloaded.
    Raises UpdateFailed.
    """
    pip = []
    if options.index:
        pip += ["--index-url", options.index]
    if options.wheels:
        if not Path(options.wheels).is_dir():
            raise UpdateFailed(f"there is no folder {options.wheels}")
        pip += ["--no-index", "--find-links", str(Path(options.wheels).resolve())]
    if options.wheel:
        return Path(options.wheel), pip
    if options.wheels:
        return newest(Path(options.wheels), options.to), pip
    what = options.checkout or (f"emotion-edge=={options.to}" if options.to else "emotion-edge")
    say(f"fetching {what}")
    current = updater.release("current")
    python = None if current is None else current / "bin/python"
    if python is None:
        tools = Path(folder, "tools")
        updater._run([shutil.which("python3") or sys.executable, "-m", "venv", str(tools)], "venv")
        python = tools / "bin/python"
    command = [str(python), "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    updater._run([*command, "--no-deps", "--wheel-dir", folder, *pip, what], "pip", seconds=3600)
    return newest(Path(folder)), pip


# -------------------------------------------------------------------------------- small parts


def complete(release: Path) -> bool:
    """Whether a release was built and tested to the end."""
    return (release / "release.json").is_file()


def say(text: str) -> None:
    """Print a line; a terminal that has closed does not end an update."""
    with contextlib.suppress(OSError, ValueError):
        print(f"emotion-edge update: {text}", flush=True)


def _environment() -> dict[str, str]:
    """This process's environment, without what would make Python import another package."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def _replace_link(path: Path, target: str) -> None:
    part = path.with_name(f".{path.name}.new")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(path)
    _sync_folder(path.parent)


def _link(path: Path) -> str | None:
    """What a symbolic link contains; None for anything else."""
    return str(path.readlink()) if path.is_symlink() else None


def _write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file atomically; it is on the disk when this returns."""
    part = path.with_name(f".{path.name}.new")
    with part.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UpdateFailed(f"cannot read {path}: {error.strerror}") from None


def _after(words: Sequence[str], flag: str) -> list[str]:
    return [value for word, value in itertools.pairwise(words) if word == flag]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


# ---------------------------------------------------------------------------------- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add = parser.add_argument
    add("--wheel", metavar="FILE", help="install this wheel")
    add("--wheels", metavar="FOLDER", help="install from a folder of wheels, without a network")
    add("--index", metavar="URL", help="the package index to use instead of pip's own")
    add("--to", metavar="VERSION", help="this version instead of the newest")
    add("--checkout", metavar="FOLDER", help="build and install a checkout")
    add("--model", metavar="FILE", help="install only a model; 'shipped' removes it again")
    add("--rollback", action="store_true", help="go back to the previous release")
    add("--resume", action="store_true", help="complete or undo an update that was cut off")
    add("--list", action="store_true", help="show the releases and the results of updates")
    add("--config", metavar="FILE", default=CONFIG, help=f"the kiosk's, by default {CONFIG}")
    add("--trial", metavar="S", type=float, default=120, help="seconds of health required; 120")
    add("--patience", metavar="S", type=float, default=180, help="seconds to become healthy; 180")
    add(
        "--force",
        action="store_true",
        help="although the kiosk is not healthy, the release is the same, or the model is worse",
    )


def main(options: argparse.Namespace, *, first: bool = False) -> str:
    """Do what the options say; returns what came of it, and raises UpdateFailed.

    first: whether this may be the kiosk's first release, which the installer makes.
    """
    root = os.environ.get("DESTDIR", "")
    updater = Updater(root, options.config)
    if options.list:
        return "\n".join(updater.summary())
    if not root and os.geteuid() != 0:
        raise UpdateFailed("this changes the system: run it with sudo")
    if not first and not updater.installed:
        raise UpdateFailed(
            f"no kiosk is installed in {updater.home}: install one with edge/install-kiosk.sh"
        )
    os.umask(0o022)
    for flag, seconds in (("--trial", options.trial), ("--patience", options.patience)):
        if not 0 <= seconds <= 86400:  # NaN included: a trial would never end
            raise UpdateFailed(f"{flag} {seconds:g}: use 0 to 86,400 seconds")
    trial = Trial(options.trial, options.patience)
    with _signals(), updater.locked():
        try:
            resumed = updater.resume(trial)
        except UpdateFailed as error:
            if options.resume:
                raise
            resumed = str(error)
        if options.resume:
            return resumed or "nothing to complete"
        if resumed:
            say(resumed)
        if options.rollback:
            return updater.roll_back(trial)
        if options.model:
            model = None if options.model == "shipped" else Path(options.model).resolve()
            return updater.install_model(model, force=options.force, trial=trial)
        with tempfile.TemporaryDirectory() as folder:
            wheel, pip = fetch(updater, options, folder)
            return updater.install(wheel, pip, force=options.force, trial=trial)


def _ignore_signals() -> None:
    """From here on, the update is completed or undone whatever happens."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted; a closed terminal is ignored."""

    def interrupt(number: int, _: object) -> None:
        raise Interrupted(signal.Signals(number).name)

    handlers: dict[signal.Signals, Any] = {
        signal.SIGINT: interrupt,
        signal.SIGTERM: interrupt,
        signal.SIGHUP: signal.SIG_IGN,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(options: argparse.Namespace, *, first: bool = False) -> int:
    """Print what came of it; 0 when it is as requested, 1 when not. Nothing is left half-done."""
    try:
        for line in main(options, first=first).splitlines():
            say(line) if not options.list else print(line)
        return 0
    except Busy as error:
        print(f"emotion-edge update: {error}", file=sys.stderr)
        return 0 if options.resume else 1
    except Interrupted as error:
        print(f"emotion-edge update: interrupted by {error}: nothing changed", file=sys.stderr)
        return 130
    except (UpdateFailed, OSError) as error:
        print(f"emotion-edge update: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Installs, updates and rolls back a kiosk.")
    add_arguments(parser)
    sys.exit(run(parser.parse_args(), first=True))
