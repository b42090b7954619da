"""Runs model files on an emulated Arm core and counts what they cost.

Needs the tools of ``make estimate-tools``: QEMU with plugins, LiteRT for arm64, llvm-mca.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import emotion_edge
from benchmarks.estimation.cycles import (
    Cost,
    EstimateError,
    cost,
    disassemble,
    read_blocks,
    read_sections,
)
from benchmarks.estimation.operators import priced
from emotion_edge.model.graph import Graph

TOOLS = Path(
    os.environ.get("EMOTION_EDGE_ESTIMATE_TOOLS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "emotion-edge", "estimate")
)
_GUEST = Path(__file__).with_name("guest.py")


@dataclass(frozen=True, slots=True)
class Counts:
    """What one inference costs a core, single thread.

    instructions: that ran. cycles: by llvm-mca, with perfect caches and branch prediction.
    simulated: share of the instructions that were simulated rather than extrapolated. kernels:
    cycles by kind of kernel. macs: multiply-accumulates by kind of kernel, those on padding
    included. operators: rows of ``operators.priced``, none for ncnn. warm, cold: misses of the
    first and second level of the data cache, right after another inference and with empty caches.
    """

    instructions: int
    cycles: float
    simulated: float
    kernels: Mapping[str, float]
    macs: Mapping[str, float]
    operators: Sequence[Mapping[str, Any]]
    warm: tuple[int, int]
    cold: tuple[int, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def count(models: Sequence[Path], core: Mapping[str, Any], *, caches: bool = True) -> list[Counts]:
    """Counts of one inference of each model file on one core (a table of ``boards.toml``).

    Raises EstimateError when a tool is missing or the runtime refuses a model.
    """
    costs, operators, misses = _record(models, core, caches=caches)
    if 2 * len(costs) != len(misses) or len(costs) != len(models):
        raise EstimateError(f"{len(misses)} recorded inferences of {len(models)} models")
    return [
        _counts(cost, operators[index], misses[2 * index], misses[2 * index + 1])
        for index, cost in enumerate(costs)
    ]


def _record(
    models: Sequence[Path], core: Mapping[str, Any], *, caches: bool
) -> tuple[list[Cost], list[list[dict[str, Any]]], list[tuple[int, int]]]:
    """Cost of each warm inference, and of its operators; misses of each warm and cold one."""
    with tempfile.TemporaryDirectory() as name:
        blocks, trace = Path(name, "blocks"), Path(name, "trace")
        emulate(models, core["cpu"], f"blocks={blocks},trace={trace}")
        known, sections = read_blocks(blocks), read_sections(trace)
    misses = [(0, 0)] * len(sections)
    if caches:
        said = emulate(models, core["cpu"], f"l1={core['l1']},l2={core['l2']}").stderr
        misses = [(int(a), int(b)) for a, b in re.findall(r"^misses (\d+) (\d+)$", said, re.M)]
    ran = {block for part in sections for block in set(part.tolist())}
    assembly = disassemble({word for block in ran for word in known.words[block]})
    # The warm and the cold inference run the same instructions: only the misses differ.
    warm = sections[::2]
    costs: list[Cost] = []
    operators: list[list[dict[str, Any]]] = []
    for path, part in zip(models, warm, strict=False):
        rows: list[dict[str, Any]] = []
        whole = None
        if path.suffix != ".param":
            rows, whole = priced(Graph(path.read_bytes()), part, known, assembly, core["model"])
        costs.append(whole or cost(part, known, assembly, core["model"]))
        operators.append(rows)
    return costs, operators, misses


def _counts(
    cost: Cost, operators: list[dict[str, Any]], warm: tuple[int, int], cold: tuple[int, int]
) -> Counts:
    kernels = {kind: round(taken) for kind, taken in cost.kernels.items()}
    macs = {kind: round(count) for kind, count in cost.macs.items()}
    return Counts(
        cost.instructions,
        round(cost.cycles),
        round(cost.simulated, 4),
        kernels,
        macs,
        operators,
        warm,
        cold,
    )


def emulate(
    words: Sequence[str | Path], cpu: str, plugin: str, *, guest: Path = _GUEST
) -> subprocess.CompletedProcess[str]:
    """Run a guest under QEMU with the plugin. Raises EstimateError when it fails."""
    # The release of ncnn that the published benchmarks were run with ends at Python 3.11.
    ncnn = guest == _GUEST and all(Path(word).suffix == ".param" for word in words)
    packages, root = TOOLS / ("ncnn" if ncnn else "packages"), TOOLS / "root"
    python = root / f"usr/bin/python3.{11 if ncnn else 13}"
    for needed in (TOOLS / "qemu-aarch64", TOOLS / "trace.so", python, packages):
        if not needed.exists():
            raise EstimateError(f"{needed} is missing: make estimate-tools")
    command = [TOOLS / "qemu-aarch64", "-L", root, "-cpu", cpu]
    command += ["-plugin", f"{TOOLS / 'trace.so'},{plugin}"]
    for setting in (
        f"PYTHONPATH={packages}{os.pathsep}{Path(emotion_edge.__file__).parents[1]}",
        "PYTHONHOME=/usr",
        "PYTHONDONTWRITEBYTECODE=1",
        "OMP_NUM_THREADS=1",
        "LD_LIBRARY_PATH=/usr/lib/aarch64-linux-gnu",
    ):
        command += ["-E", setting]
    command += [python, guest]
    command += [word.resolve() if isinstance(word, Path) else word for word in words]
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise EstimateError(f"the emulated {cpu} failed: {last}")
    if guest == _GUEST and not ncnn and "XNNPACK delegate" not in done.stderr:
        raise EstimateError(f"LiteRT did not use XNNPACK on the emulated {cpu}")
    return done


def versions() -> dict[str, str]:
    """Versions of QEMU, LLVM and LiteRT. Raises EstimateError when one is missing."""
    found = {}
    for name, command in (
        ("qemu", [str(TOOLS / "qemu-aarch64"), "--version"]),
        ("llvm", ["llvm-mca-19", "--version"]),
    ):
        try:
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            raise EstimateError(f"{command[0]} is missing: make estimate-tools") from None
        version = re.search(r"version (\d[\w.]*)", text)
        found[name] = version[1] if version else "unknown"
    (info,) = (TOOLS / "packages").glob("ai_edge_litert-*.dist-info")
    found["litert"] = info.name.removeprefix("ai_edge_litert-").removesuffix(".dist-info")
    return found
