"""Measures how fast a model file runs: the source of every latency this project states.

Each case (a model and a backend) has its own process, so that its memory is its own and a runtime
that needs another Python can have it. The cases are timed in turn, a few inferences each, in a new
random order every round, so that a disturbance of the machine affects all of them. Processes are
restarted several times (``Plan.restarts``), because the place of a model in memory affects its
latency too.

One inference is ``set_tensor``, ``invoke`` and ``get_tensor``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from emotion_edge.bench.process import Process
from emotion_edge.errors import ModelError, UsageError
from emotion_edge.kiosk.board import Condition, read_board, read_condition
from emotion_edge.model import manifest as manifests
from emotion_edge.model.backend import LITERT, Backend, installed
from emotion_edge.model.manifest import Manifest

SCHEMA = 1
PERCENTILES = (50, 90, 95, 99)
HOT_C = 80.0  # Arm cores of a Raspberry Pi slow down from 80 °C
BUSY = 0.05  # share of the processors' time used by others above which a run is doubtful
_WORKER = Path(__file__).with_name("worker.py")
_DISCARD = 5  # inferences at the start of a round that warm the caches again


# --- what to measure ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Model:
    """A model file to measure, with or without a manifest.

    flatbuffer: its bytes without the manifest. sha256: of these bytes. size: bytes of the file.
    """

    path: Path
    flatbuffer: bytes
    manifest: Manifest | None
    sha256: str
    size: int

    @classmethod
    def read(cls, path: Path) -> Model:
        """Read a ``.tflite`` file.

        Raises ModelError if it is not one, ManifestError for a wrong hash.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read the model {path}: {error.strerror or error}") from error
        return cls.of(data, path)

    @classmethod
    def of(cls, data: bytes, path: Path) -> Model:
        """A model from its bytes; path: its name in messages. Raises the errors of ``read``."""
        flatbuffer, manifest = manifests.read(data, str(path))
        return cls(path, flatbuffer, manifest, hashlib.sha256(flatbuffer).hexdigest(), len(data))

    @property
    def name(self) -> str:
        """The manifest's name, or the file's."""
        return self.manifest.name if self.manifest else self.path.stem

    @property
    def variant(self) -> str | None:
        """``int8``, ``float32``...; None without a manifest."""
        return self.manifest.variant if self.manifest else None


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table. Its backend names a runtime; ``auto`` would hide which one ran."""

    model: Model
    backend: Backend = LITERT

    def __str__(self) -> str:
        name = self.model.name + (f" {self.model.variant}" if self.model.variant else "")
        backend = self.backend
        parts = [name, backend.runtime, f"{backend.threads} thread(s)"]
        parts.append("XNNPACK" if backend.xnnpack else "built-in kernels")
        return ", ".join([*parts, *([backend.delegate.name] if backend.delegate else [])])


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often to measure.

    warmup: inferences after the first one, reported separately. rounds: per process. runs: timed
    inferences per round. restarts: processes per case. rate: requests per second; None runs them
    back to back. cpus: the processors that the process may use; all if empty. seed: for random
    inputs and the order of the cases.
    """

    warmup: int = 50
    rounds: int = 10
    runs: int = 20
    restarts: int = 3
    rate: float | None = None
    cpus: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "runs", "restarts"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}; expected 1 or more")
        if self.warmup < 0:
            raise UsageError(f"warm-up {self.warmup}; expected 0 or more")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise UsageError(f"rate {self.rate} per second; expected more than 0, or none")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed}; expected 0 or more")
        if missing := set(self.cpus) - os.sched_getaffinity(0):
            raise UsageError(
                f"processor {min(missing)} is not available; available: "
                f"{', '.join(map(str, sorted(os.sched_getaffinity(0))))}"
            )


# --- the process -------------------------------------------------------------------------------


class Target(Protocol):
    """An open case, as ``measure`` uses it; ``Worker`` is one."""

    opened: Mapping[str, Any]

    def run(self, count: int, discard: int, rate: float | None) -> Mapping[str, list[int]]:
        """Nanoseconds of ``count`` inferences: ``total``, ``invoke`` and ``response``."""

    def memory(self) -> Mapping[str, float]:
        """MB resident: ``rss`` now, ``peak``."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: Any, error: Any, traceback: Any, /) -> None: ...


class Worker:
    """A case in a process of its own (``worker``), as a context manager.

    opened: the process's answer to ``open``: versions, and times of import, load and first
        inference.
    """

    def __init__(
        self,
        case: Case,
        plan: Plan,
        inputs: Path | None = None,
        python: str = sys.executable,
    ) -> None:
        """Nothing is started yet.

        inputs: an ``.npy`` of whole input tensors; None for random ones.
        python: the interpreter of the environment that has the case's runtime.
        """
        self._case = case
        self._plan = plan
        self._inputs = inputs
        self._python = python
        self.opened: Mapping[str, Any] = {}

    def __enter__(self) -> Self:
        """Start the process and open the model. Raises ModelError when it cannot."""
        with ExitStack() as stack:
            model = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".tflite"))
            model.write(self._case.model.flatbuffer)
            model.flush()
            self._process = stack.enter_context(
                Process(str(self._case), _WORKER, failure=ModelError, python=self._python)
            )
            before = self._process.ask(do="memory")
            self.opened = {"memory_before": before} | self._process.ask(
                do="open",
                model=model.name,
                backend=self._case.backend.to_record(),
                cpus=self._plan.cpus,
                seed=self._plan.seed,
                inputs=str(self._inputs) if self._inputs else None,
            )
            self._open = stack.pop_all()
        return self

    def run(self, count: int, discard: int, rate: float | None) -> Mapping[str, list[int]]:
        """Nanoseconds of ``count`` inferences, after ``discard`` that are not counted."""
        return self._process.ask(do="run", count=count, discard=discard, rate=rate)

    def memory(self) -> Mapping[str, float]:
        """MB resident: ``rss`` now, ``peak`` since the start."""
        return self._process.ask(do="memory")

    def __exit__(self, *error: object) -> None:
        """End the process."""
        self._open.close()


# --- measuring ---------------------------------------------------------------------------------


def measure(
    cases: Sequence[Case],
    plan: Plan,
    open_target: Callable[[Case], Target],
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Time every case, interleaved; one record each, in the order given.

    Records are those of ``cases`` in ``benchmarks/schema.json``; durations in ms.
    """
    shuffle = random.Random(plan.seed).shuffle
    gathered: list[_Gathered] = [_Gathered() for _ in cases]
    for restart in range(plan.restarts):
        with ExitStack() as stack:
            targets = []
            for case, data in zip(cases, gathered, strict=True):
                progress(f"start {restart + 1}/{plan.restarts}: {case}")
                target = stack.enter_context(open_target(case))
                targets.append(target)
                data.opened.append(target.opened)
                if plan.warmup:
                    data.warmup += target.run(plan.warmup, 0, None)["total"]
            order = list(range(len(cases)))
            for number in range(plan.rounds):
                progress(f"start {restart + 1}/{plan.restarts}, round {number + 1}/{plan.rounds}")
                shuffle(order)
                for index in order:
                    answer = targets[index].run(plan.runs, _DISCARD, plan.rate)
                    gathered[index].rounds.append(answer)
            for target, data in zip(targets, gathered, strict=True):
                data.memory.append(target.memory())
    return [data.record(case) for case, data in zip(cases, gathered, strict=True)]


class _Gathered:
    """The raw figures of one case."""

    def __init__(self) -> None:
        self.opened: list[Mapping[str, Any]] = []
        self.warmup: list[int] = []
        self.rounds: list[Mapping[str, list[int]]] = []
        self.memory: list[Mapping[str, float]] = []

    def record(self, case: Case) -> dict[str, Any]:
        opened = self.opened[0]
        response = self._all("response")
        return {
            **describe(case.model),
            **case.backend.to_record(),
            "runtime_version": opened["runtime_version"],
            "python": opened["python"],
            "numpy": opened["numpy"],
            **{
                f"{name}_ms": summarise([answer[f"{name}_ns"] for answer in self.opened])
                for name in ("import", "load", "first")
            },
            "warmup_ms": summarise(self.warmup) if self.warmup else None,
            "latency_ms": summarise(self._all("total")),
            "invoke_ms": summarise(self._all("invoke")),
            "response_ms": summarise(response) if response else None,
            "round_p50_ms": [
                round(float(np.median(answer["total"])) / 1e6, 5) for answer in self.rounds
            ],
            "memory_mb": {
                "before": max(answer["memory_before"]["rss"] for answer in self.opened),
                "steady": max(answer["rss"] for answer in self.memory),
                "peak": max(answer["peak"] for answer in self.memory),
            },
        }

    def _all(self, kind: str) -> list[int]:
        """Nanoseconds of every timed inference."""
        return [ns for answer in self.rounds for ns in answer[kind]]


def summarise(nanoseconds: ArrayLike) -> dict[str, float | int]:
    """Count, min, mean, std (of the sample), percentiles (linear interpolation) and max, in ms."""
    ms = np.asarray(nanoseconds, np.float64) / 1e6
    if ms.size == 0:
        raise ValueError("no durations to summarise")
    values = {
        "min": ms.min(),
        "mean": ms.mean(),
        "std": ms.std(ddof=1) if ms.size > 1 else 0.0,
        **dict(zip([f"p{p}" for p in PERCENTILES], np.percentile(ms, PERCENTILES), strict=True)),
        "max": ms.max(),
    }
    return {"count": int(ms.size), **{name: round(float(v), 5) for name, v in values.items()}}


def describe(model: Model) -> dict[str, Any]:
    """What identifies a model in a record."""
    return {
        "model": model.name,
        "variant": model.variant,
        "file": model.path.name,
        "file_bytes": model.size,
        "sha256": model.sha256,
    }


# --- the machine ------------------------------------------------------------


@contextmanager
def document(benchmark: str, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A result document with the machine's state before and after the block, and warnings.

    The block adds its own keys to the dictionary. The format is ``benchmarks/schema.json``.
    """
    board, before = read_board(), read_condition()
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "type": "benchmark",
        "benchmark": benchmark,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": dict(settings),
    }
    busy, own, start = _busy_s(), sum(os.times()[:4]), time.monotonic()
    yield result
    duration = time.monotonic() - start
    others = (_busy_s() - busy - sum(os.times()[:4]) + own) / (duration * (os.cpu_count() or 1))
    after = read_condition()
    result["duration_s"] = round(duration, 1)
    result["machine"] = {
        **{name: getattr(board, name) for name in _BOARD},
        "packages": packages(),
        "governor": before.governor,
        "clock_mhz": _both(before, after, "clock_mhz"),
        "temperature_c": _both(before, after, "temperature_c"),
        "throttle_bits": {
            "before": before.throttling.bits if before.throttling else None,
            "after": after.throttling.bits if after.throttling else None,
        },
        "others_share": round(max(0.0, others), 3),
    }
    result["warnings"] = spoilers(before, after, others)


def _busy_s() -> float:
    """Busy seconds of all processors since the start, including those taken by the host."""
    try:
        ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except (OSError, ValueError):
        return 0.0
    user, nice, system, _idle, _iowait, irq, soft, steal = ticks[:8]
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


_BOARD = ("name", "cpu", "machine", "cores", "memory_mb", "os", "kernel", "python")


def _both(before: Condition, after: Condition, name: str) -> dict[str, float | None]:
    return {"before": getattr(before, name), "after": getattr(after, name)}


def spoilers(before: Condition, after: Condition, others: float) -> list[str]:
    """Reasons to doubt a run, one line each.

    others: share of all processors' time that went to other processes during the run.
    """
    lines = []
    if before.governor not in (None, "performance"):
        lines.append(
            f"governor {before.governor}: the clock follows the load; "
            "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        )
    hottest = max((c.temperature_c for c in (before, after) if c.temperature_c), default=0.0)
    if hottest >= HOT_C:
        lines.append(
            f"{hottest:.0f} °C: the board slows down at {HOT_C:.0f}; cool it and run again"
        )
    if after.throttling and after.throttling.now:
        lines.append(f"the firmware reports: {', '.join(after.throttling.now)}")
    if before.clock_mhz and after.clock_mhz:
        change = after.clock_mhz / before.clock_mhz - 1
        if abs(change) > 0.05:
            lines.append(f"the clock went from {before.clock_mhz:.0f} to {after.clock_mhz:.0f} MHz")
    if others > BUSY:
        lines.append(
            f"other processes took {others:.0%} of the processors' time: "
            "read the figures as ratios, not as times"
        )
    return lines


def packages() -> dict[str, str]:
    """Versions of the installed packages that the figures depend on."""
    versions = {f"runtime {name}": version for name, version in installed().items()}
    for name in ("emotion-edge", "numpy", "opencv-python-headless", "keras"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def settings(plan: Plan) -> dict[str, Any]:
    """The plan as a record."""
    return dataclasses.asdict(plan) | {"discard": _DISCARD, "cpus": list(plan.cpus)}
