"""A kiosk's disk in a folder, with small stand-ins for Python environments, pip and systemd.

``python3 -m venv`` makes an environment whose ``python`` unpacks a wheel instead of running pip,
and ``systemctl restart`` notes which release runs. So an update takes a second, and every file
operation and every program it starts is the real ``update.py``'s.
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

UPDATE = Path(__file__).parents[3] / "edge/emotion_edge/kiosk/update.py"
SYSTEMD = UPDATE.parents[2] / "systemd"
GOOD, BLIND, CRASHES, UNTESTED, BROKEN = "good", "blind", "crashes", "untested", "broken"
"""What a release does: works; never sees a frame; ends; fails its self-test; cannot start."""

_CLI = """
import json, os, sys, time
from pathlib import Path

BEHAVIOUR, VERSION = {behaviour!r}, {version!r}
ROOT = os.environ["DESTDIR"]


def main():
    if BEHAVIOUR == "broken":
        raise ImportError("no module named anything")
    words = sys.argv[1:]
    if words == ["--version"]:
        print("emotion-edge", VERSION)
    elif words[0] == "status":
        service = Path(ROOT, "run/service.json")
        if not service.exists():
            sys.exit("nothing answers")
        print(service.read_text())
    elif words[:2] == ["config", "check"]:
        if "wrong" in Path(words[-1]).read_text():
            sys.exit("wrong is not a key")
    elif words[0] == "update":
        import runpy
        sys.argv = ["update.py", *words[1:]]
        runpy.run_path({update!r}, run_name="__main__")
"""
_SELF_TEST = """
import json, sys
if {behaviour!r} == "untested":
    sys.exit("self-test: fifty frames, no probabilities")
if "--compare" in sys.argv:
    text = open(sys.argv[sys.argv.index("--compare") + 1]).read()
    if "worse" in text and "--force" not in sys.argv:
        sys.exit("self-test: it loses 2.0 points: not installed without --force")
    print(json.dumps({{"configured": "fast", "text": "90% against 88%"}}))
else:
    print("tested")
"""
_PYTHON3 = """#!/bin/sh
# python3 -m venv --system-site-packages FOLDER, or this Python.
[ "$1 $2" = "-m venv" ] || exec {python} -I -S "$@"
for folder; do :; done
mkdir -p "$folder/bin" "$folder/lib/python3.11/site-packages"
ln -s lib "$folder/lib64"
echo "home = /usr/bin" >"$folder/pyvenv.cfg"
cp {here}/venv-python "$folder/bin/python"
"""
_VENV_PYTHON = """#!/bin/sh
folder=$(dirname "$(dirname "$0")")
packages=$folder/lib/python3.11/site-packages
if [ "$2" = pip ]; then
    for wheel; do :; done
    wheel=${{wheel%\\[*}}
    if [ "$3" = wheel ]; then
        echo "no index" >&2
        exit 1
    fi
    [ ! -e "$DESTDIR/full" ] || {{ echo "[Errno 28] No space left on device" >&2; exit 1; }}
    {python} -I -S -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])' \\
        "$wheel" "$packages" || exit 1
    printf '#!/bin/sh\\nexec %s -c "from emotion_edge.cli import main; main()" "$@"\\n' \\
        "$folder/bin/python" >"$folder/bin/emotion-edge"
    chmod 755 "$folder/bin/emotion-edge"
    exit 0
fi
PYTHONPATH=$packages exec {python} -S "$@"
"""
_SYSTEMCTL = """#!{python} -IS
import json, os, sys, time
from pathlib import Path

root = os.environ["DESTDIR"]
with open(f"{{root}}/systemctl.log", "a") as log:
    print(*sys.argv[1:], file=log)
service = Path(root, "run/service.json")
if sys.argv[1] == "restart":
    release = Path(root, "opt/emotion-edge/current").resolve()
    behaviour, version = (release / "lib/python3.11/site-packages/what").read_text().split()
    status = {{"good": "ok", "untested": "ok"}}.get(behaviour, "failing")
    if Path(root, "degraded").exists() and status == "ok":
        status = "degraded"
    health = {{"status": status, "reason": "no frame for 20 s" * (status == "failing"),
              "version": version, "uptime_s": 1.0}}
    if behaviour == "crashes":
        service.unlink(missing_ok=True)
    else:
        service.write_text(json.dumps(health))
elif sys.argv[1] == "is-active":
    print("active" if service.exists() else "failed")
    sys.exit(not service.exists())
"""


class Kiosk:
    """A disk, and the programs that an update on it starts."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "disk"
        self.home = self.root / "opt/emotion-edge"
        self.programs = folder / "programs"
        self.programs.mkdir(parents=True)
        values = {"python": sys.executable, "here": self.programs}
        for name, text in (
            ("python3", _PYTHON3),
            ("venv-python", _VENV_PYTHON),
            ("systemctl", _SYSTEMCTL),
            ("journalctl", "#!/bin/sh\necho 'ModuleNotFoundError: cv2'\n"),
        ):
            (self.programs / name).write_text(text.format(**values))
            (self.programs / name).chmod(0o755)
        (folder / "os-release").write_text("VERSION_CODENAME=trixie\n")
        for path in ("run/systemd/system", "etc/emotion-edge", "usr/local/bin"):
            (self.root / path).mkdir(parents=True)
        self.config = self.root / "etc/emotion-edge/kiosk.toml"
        self.config.write_text("# mine\n")
        self.environment = {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "DESTDIR": str(self.root),
            "OS_RELEASE": str(folder / "os-release"),
        }

    def update(self, *words: str | Path, faults: str = "") -> "subprocess.CompletedProcess[str]":
        """Run ``update.py``. faults: what to do and before which operation (``update_faults``)."""
        program = [UPDATE] if not faults else [Path(__file__).with_name("update_faults.py"), UPDATE]
        return subprocess.run(
            [sys.executable, "-IS", *program, "--trial", "0", "--patience", "0.3", *words],
            env=self.environment | {"FAULTS": faults},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    @property
    def current(self) -> str:
        """The name of the current release."""
        return (self.home / "current").resolve().name

    @property
    def releases(self) -> list[str]:
        """The names of the folders of releases."""
        return sorted(path.name for path in (self.home / "releases").iterdir())

    @property
    def running(self) -> str:
        """The version that the service runs, empty when it does not."""
        service = self.root / "run/service.json"
        return str(json.loads(service.read_text())["version"]) if service.exists() else ""

    @property
    def history(self) -> str:
        """The results of the updates."""
        path = self.home / "updates.jsonl"
        return path.read_text() if path.exists() else ""

    def version(self) -> str:
        """What the current release's command prints as its version."""
        done = subprocess.run(
            [self.home / "current/bin/emotion-edge", "--version"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()[-1]


def wheel(folder: Path, version: str, behaviour: str = GOOD) -> Path:
    """A wheel of a release that behaves so."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"emotion_edge-{version}-py3-none-any.whl"
    values = {"behaviour": behaviour, "version": version, "update": str(UPDATE)}
    contents = {
        "what": f"{behaviour} {version}",
        "emotion_edge/__init__.py": "",
        "emotion_edge/cli.py": _CLI.format(**values),
        "emotion_edge/kiosk/__init__.py": "",
        "emotion_edge/commands/__init__.py": "",
        "emotion_edge/commands/self_test.py": _SELF_TEST.format(**values),
        "emotion_edge/kiosk/update.py": UPDATE.read_text(),
        "emotion_edge/device/constraints-trixie.txt": "",
    }
    for unit in SYSTEMD.iterdir():
        contents[f"emotion_edge/device/{unit.name}"] = f"# {version}\n{unit.read_text()}"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in contents.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # without the time: the same bytes
    return path
