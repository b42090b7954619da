"""From counted cycles and cache misses to milliseconds on a board, as a range.

The form was fixed before the held-out points were looked at::

    waits = l2_hit * (l1 - l2 misses) + memory_ns * clock * l2 misses
    ms = k * (cycles + exposed * waits) / clock

with ``exposed``, the share of a miss that the core cannot hide, and both latencies given per core.
Only ``k`` is fitted, one per core and number of threads (with four, per arithmetic too): the
geometric mean of published over predicted. It stands for what llvm-mca leaves out (branches, TLB,
front end) and, with four threads, for the speed-up. The range is the largest leave-one-out error,
both ways, and at least ``LEAST``.
"""

from __future__ import annotations

import itertools
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.estimation.cycles import EstimateError

_FOLDER = Path(__file__).parent
LEAST = 1.3
"""A range is never narrower than this factor to each side: there are too few points for less."""
SPEEDUP = (2.6, 3.8)
"""Four threads against one on four such cores, where no single-thread point says it."""


@dataclass(frozen=True, slots=True)
class Point:
    """A published latency. ms: of one inference. held_out: judged by, never fitted to.

    runtime: the one it was measured with, if it cannot be emulated; ``network`` is then counted
    with XNNPACK, and the point is only compared with.
    """

    network: str
    board: str
    threads: int
    clock_ghz: float
    ms: float
    held_out: bool
    source: str
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A latency in ms: the likely value and its range. floor: at the kernel's peak rate."""

    ms: float
    low: float
    high: float
    floor: float


@dataclass(frozen=True, slots=True)
class Fit:
    """k of one core and number of threads. spread: factor to each side. points: fitted to."""

    k: float
    spread: float
    points: int


def boards() -> dict[str, dict[str, Any]]:
    """The tables of ``boards.toml``."""
    return tomllib.loads((_FOLDER / "boards.toml").read_text())


def points() -> list[Point]:
    """The tables of ``published.toml`` that were measured with a runtime that can be emulated."""
    return [point for point in published() if not point.runtime]


def published() -> list[Point]:
    """All tables of ``published.toml``."""
    known = boards()
    return [
        Point(
            each["network"],
            each["board"],
            each["threads"],
            each.get("clock_ghz", known[each["board"]]["clock_ghz"]),
            each["ms"],
            each.get("held_out", False),
            each["source"],
            each.get("runtime", ""),
        )
        for each in tomllib.loads((_FOLDER / "published.toml").read_text())["point"]
    ]


def predicted(
    counts: Mapping[str, Any], core: Mapping[str, Any], clock_ghz: float, state: str
) -> float:
    """Milliseconds before calibration (k = 1). state: ``warm`` or ``cold`` caches."""
    first, second = counts[state]
    second = min(first, second)
    waits = core["l2_hit"] * (first - second) + core["memory_ns"] * clock_ghz * second
    return float((counts["cycles"] + core["exposed"] * waits) / clock_ghz / 1e6)


def fit(ratios: Sequence[float]) -> Fit:
    """k and its spread from published over predicted. Raises EstimateError without a ratio."""
    if not ratios:
        raise EstimateError("no published point to fit to: add one to published.toml")
    logs = [math.log(ratio) for ratio in ratios]
    errors = leave_one_out(ratios)
    spread = max([LEAST, *(max(error, 1 / error) for error in errors)])
    return Fit(math.exp(sum(logs) / len(logs)), spread, len(logs))


def leave_one_out(ratios: Sequence[float]) -> list[float]:
    """Predicted over published for each point, fitted to the others."""
    if len(ratios) < 2:
        return []
    logs = [math.log(ratio) for ratio in ratios]
    total = sum(logs)
    return [math.exp((total - one) / (len(logs) - 1) - one) for one in logs]


def ratios(
    board: str, threads: int, arithmetic: str, *, held_out: bool = False
) -> list[tuple[Point, float]]:
    """Published over predicted for points of a board. arithmetic: ``int8`` or ``float32``."""
    core = boards()[board]
    counted = json.loads((_FOLDER / "counts.json").read_text()).get(core["cpu"], {})
    return [
        (point, point.ms / predicted(counted[point.network], core, point.clock_ghz, "warm"))
        for point in points()
        if (point.board, point.threads, point.held_out) == (board, threads, held_out)
        and point.network.endswith(f"-{arithmetic}")
    ]


def single_thread(board: str) -> tuple[float, float, float]:
    """k of one thread and its range (k, lowest, highest).

    Fitted where single-thread points exist, float32 ones included. Elsewhere it is the int8 fit of
    four threads times the speed-up, which is known only as a range (``SPEEDUP``); with float32,
    four threads wait for memory, which says nothing about one. A core without any point borrows
    that of the board it is ``like``.
    """
    core = boards()[board]
    if "like" in core:
        return single_thread(core["like"])
    alone = [ratio for kind in ("int8", "float32") for _, ratio in ratios(board, 1, kind)]
    if alone:
        one = fit(alone)
        return one.k, one.k / one.spread, one.k * one.spread
    four = fit([ratio for _, ratio in ratios(board, 4, "int8")])
    low, high = four.k * SPEEDUP[0], four.k * SPEEDUP[1]
    middle = math.sqrt(low * high)
    spread = max(math.sqrt(high / low), four.spread)
    return middle, middle / spread, middle * spread


def estimate(
    counts: Mapping[str, Any], board: str, macs: int, integer: bool, state: str
) -> Estimate:
    """One inference on one thread of a board. state: ``warm`` or ``cold`` caches."""
    core = boards()[board]
    k, low, high = single_thread(board)
    raw = predicted(counts, core, core["clock_ghz"], state)
    floor = macs / core["peak"]["int8" if integer else "float32"] / core["clock_ghz"] / 1e6
    ms, least, most = (max(raw * factor, floor) for factor in (k, low, high))
    return Estimate(ms, least, most, floor)


def judged() -> list[dict[str, Any]]:
    """Every published point with its prediction, the range, and whether the point is inside."""
    rows = []
    for board, kinds in itertools.product(
        boards(), ((1, ("int8", "float32")), (4, ("int8",)), (4, ("float32",)))
    ):
        threads = kinds[0]
        source = boards()[board].get("like", board)
        fitted = [pair for kind in kinds[1] for pair in ratios(source, threads, kind)]
        if not fitted:
            continue
        held = [p for kind in kinds[1] for p in ratios(board, threads, kind, held_out=True)]
        how = fit([ratio for _, ratio in fitted])
        left_out = leave_one_out([ratio for _, ratio in fitted])
        errors = {point: error for (point, _), error in zip(fitted, left_out, strict=False)}
        for point, ratio in [*(fitted if source == board else []), *held]:
            middle = point.ms / ratio * how.k
            rows.append(
                {
                    "board": board,
                    "threads": threads,
                    "network": point.network,
                    "published ms": point.ms,
                    "predicted ms": float(f"{middle:.3g}"),
                    "range ms": f"{middle / how.spread:.3g}-{middle * how.spread:.3g}",
                    "inside": how.k / how.spread <= ratio <= how.k * how.spread,
                    "held out": point.held_out,
                    "left out": round(errors[point], 2) if point in errors else None,
                    "k": round(how.k, 3),
                }
            )
    return rows


def other_runtimes() -> list[dict[str, Any]]:
    """Published latencies of other runtimes next to what is predicted for XNNPACK, one thread."""
    counted = json.loads((_FOLDER / "counts.json").read_text())
    rows = []
    for point in published():
        if point.runtime:
            core = boards()[point.board]
            counts = counted[core["cpu"]][point.network]
            raw = predicted(counts, core, point.clock_ghz, "warm")
            k, low, high = single_thread(point.board)
            rows.append(
                {
                    "board": point.board,
                    "network": point.network,
                    "runtime": point.runtime,
                    "published ms": point.ms,
                    "predicted ms": float(f"{raw * k:.3g}"),
                    "range ms": f"{raw * low:.3g}-{raw * high:.3g}",
                    "published / predicted": round(point.ms / raw / k, 2),
                }
            )
    return rows


def estimate_row(case: Mapping[str, Any]) -> dict[str, Any]:
    """An estimate of a document as a line of the table."""
    warm, cold = case["warm_ms"], case["cold_ms"]
    return {
        "on": boards()[case["board"]]["name"],
        "model": case["model"],
        "variant": case["variant"],
        "instructions": case["counts"]["instructions"],
        "cycles": case["counts"]["cycles"],
        "L1 misses": case["counts"]["warm"][0],
        "L2 misses": case["counts"]["warm"][1],
        "MAC/cycle": f"{case['macs_per_cycle']:.1f} of {case['peak_macs_per_cycle']}",
        "floor ms": warm["floor"],
        "warm ms": f"{warm['ms']:g} ({warm['low']:g}-{warm['high']:g})",
        "cold ms": f"{cold['ms']:g} ({cold['low']:g}-{cold['high']:g})",
        "kernel": case["kernel"],
    }


def kernel_rows(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An estimate's cycles by kind of kernel, for people; empty for documents without them.

    MACs: multiply-accumulates that ran, those on padding included.
    """
    counts = case["counts"]
    return [
        {
            "on": boards()[case["board"]]["name"],
            "model": case["model"],
            "kernel": kind,
            "cycles": cycles,
            "share %": round(100 * cycles / counts["cycles"], 1),
            "MMAC": round(counts["macs"][kind] / 1e6, 2),
            "MAC/cycle": round(counts["macs"][kind] / cycles, 1),
            "of peak %": round(100 * counts["macs"][kind] / cycles / case["peak_macs_per_cycle"]),
        }
        for kind, cycles in counts["kernels"].items()
        if "macs" in counts
    ]


def operator_rows(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An estimate's cycles by operator, for people; empty for documents without them."""
    counts = case["counts"]
    return [
        {
            "on": boards()[case["board"]]["name"],
            "model": case["model"],
            "operator": row["operator"],
            "output": "x".join(map(str, row["shape"][1:])),
            "kernel": row["kernel"],
            "instructions": row["instructions"],
            "cycles": row["cycles"],
            "share %": round(100 * row["cycles"] / counts["cycles"], 1),
            "MMAC": round(row["macs"] / 1e6, 2),
            "MAC/cycle": round(row["macs"] / max(1, row["cycles"]), 1),
            "of peak %": round(
                100 * row["macs"] / max(1, row["cycles"]) / case["peak_macs_per_cycle"]
            ),
        }
        for row in counts.get("operators", ())
    ]
