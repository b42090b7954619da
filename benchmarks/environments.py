"""Creates virtual environments for runtimes and peers that cannot share this one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from emotion_edge.errors import UsageError
from emotion_edge.model.backend import RUNTIMES, installed

_FOLDER = Path("~/.cache/emotion-edge/environments")


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment with pinned packages.

    python: the minor version it requires; None for the one that runs. packages: for pip.
    """

    python: str | None
    packages: tuple[str, ...]


ENVIRONMENTS: Mapping[str, Environment] = MappingProxyType(
    {
        # The last release. Its wheels end at Python 3.11 and do not say that they need NumPy 1.
        "tflite-runtime": Environment("3.11", ("tflite-runtime==2.14.0", "numpy==1.26.4")),
        "tensorflow": Environment(
            None,
            (
                "tensorflow-cpu==2.21.0; platform_machine == 'x86_64'",
                "tensorflow==2.21.0; platform_machine != 'x86_64'",
            ),
        ),
    }
)
"""By runtime; LiteRT is installed with the package."""


def python_for(runtime: str, progress: Callable[[str], None] = lambda _: None) -> str:
    """An interpreter that can import a runtime; its environment is made if it has none yet.

    Raises UsageError if the runtime is unknown, or its environment cannot be made.
    """
    if runtime in installed():
        return sys.executable
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime {runtime!r}: use {', '.join(RUNTIMES)}")
    if runtime not in ENVIRONMENTS:
        raise UsageError(f"{runtime} is not installed: pip install {RUNTIMES[runtime][1]}")
    return str(make(folder_of(runtime), ENVIRONMENTS[runtime], progress))


def folder_of(name: str) -> Path:
    """The folder of the environment of that name."""
    return _FOLDER.expanduser() / name


def is_made(folder: Path) -> bool:
    """Whether an environment was completed."""
    return (folder / "packages.txt").exists()


def make(
    folder: Path, environment: Environment, progress: Callable[[str], None] = lambda _: None
) -> Path:
    """Make a virtual environment with pinned packages; one that has them already is kept.

    Returns its interpreter. Raises UsageError if Python is missing or pip fails.
    """
    python, receipt = folder / "bin" / "python", folder / "packages.txt"
    packages = "\n".join(environment.packages)
    if receipt.exists() and receipt.read_text() == packages:
        return python
    base = sys.executable
    if environment.python and not sys.version.startswith(f"{environment.python}."):
        found = shutil.which(f"python{environment.python}")
        if found is None:
            raise UsageError(
                f"{folder.name} needs Python {environment.python}, which is not on the path: "
                f"install python{environment.python} (with venv), or leave {folder.name} out"
            )
        base = found
    progress(f"making {folder}: {' '.join(environment.packages)}")
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [base, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *environment.packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UsageError(f"cannot make the environment {folder.name}: {last}")
    receipt.write_text(packages)  # last: an environment without it is incomplete
    return python
