"""Finds what changed between two runs beyond the noise.

A latency has two kinds of noise: from round to round, which the run itself shows, and from start
to start (the layout of memory, the host's load), which a few starts show poorly. A change is
reported when both are true:

- the 99% bootstrap interval on the ratio of the medians excludes 1. The rounds' medians are
  resampled, start by start: runs within a round share their disturbances, so that resampling
  single runs would give too narrow an interval (Efron and Tibshirani 1993, ch. 13: percentile
  interval);
- the ratio differs from 1 by at least ``--least`` (3%).

Two estimates (``python -m benchmarks estimate``) are compared by kernels and instruction counts,
which have no noise.

``--identical N`` checks the tool itself: N pairs of identical cases, interleaved in one run. At
most one in twenty may be called a change.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.estimation.regressions import regressions
from benchmarks.record import read_document
from emotion_edge.bench import measure as bench
from emotion_edge.bench.measure import Case, Plan, Worker
from emotion_edge.bench.report import add_output_arguments, check_outputs, emit, progress_of
from emotion_edge.commands.bench import models
from emotion_edge.errors import UsageError
from emotion_edge.model.shipped import DEFAULT

HELP = "show what changed between two runs beyond the noise; exit 1 if something got slower"
LEAST = 0.03
CONFIDENCE = 0.99
_DRAWS = 2000
_KEY = ("model", "variant", "runtime", "threads", "xnnpack", "delegate")


@dataclass(frozen=True, slots=True)
class Change:
    """B's median latency over A's, with its interval; ``verdict``: slower, faster or same."""

    ratio: float
    low: float
    high: float
    least: float = LEAST

    @property
    def verdict(self) -> str:
        """``slower`` or ``faster`` if the interval excludes 1 and the change is large."""
        if self.low > 1 and self.ratio >= 1 + self.least:
            return "slower"
        if self.high < 1 and self.ratio <= 1 / (1 + self.least):
            return "faster"
        return "same"


def ratio_of_medians(
    before: Sequence[Sequence[float]],
    after: Sequence[Sequence[float]],
    *,
    least: float = LEAST,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Change:
    """The ratio of medians and its bootstrap interval.

    before, after: medians of the rounds in ms, one list for each start of the process.
    """
    rng = np.random.default_rng(seed)
    ratio = float(np.median(np.concatenate(after)) / np.median(np.concatenate(before)))
    ratios = _resampled(after, rng) / _resampled(before, rng)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(ratios, (tail, 100 - tail))
    return Change(ratio, float(low), float(high), least)


def _resampled(starts: Sequence[Sequence[float]], rng: np.random.Generator) -> NDArray[np.float64]:
    """Medians of ``_DRAWS`` resamples: starts drawn with replacement, then rounds of each."""
    rounds = np.asarray(starts, np.float64)  # (starts, rounds)
    count, each = rounds.shape
    start = rng.integers(count, size=(_DRAWS, count, 1))
    number = rng.integers(each, size=(_DRAWS, count, each))
    medians: NDArray[np.float64] = np.median(rounds[start, number], axis=(1, 2))
    return medians


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], least: float = LEAST
) -> list[dict[str, Any]]:
    """The cases in both latency documents, with their changes.

    Raises UsageError if there are none.
    """
    old = {_key(case): case for case in before["cases"]}
    records = []
    for case in after["cases"]:
        if (key := _key(case)) in old:
            change = ratio_of_medians(_starts(old[key], before), _starts(case, after), least=least)
            records.append(
                dict(zip(_KEY, key, strict=True))
                | {
                    "before_ms": old[key]["latency_ms"]["p50"],
                    "after_ms": case["latency_ms"]["p50"],
                    "ratio": round(change.ratio, 4),
                    "low": round(change.low, 4),
                    "high": round(change.high, 4),
                    "verdict": change.verdict,
                    "same_file": old[key]["sha256"] == case["sha256"],
                }
            )
    if not records:
        raise UsageError(
            f"the documents share no case of the same {', '.join(_KEY)}: "
            "run the same benchmark command for both"
        )
    return records


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="A.json B.json")
    parser.add_argument(
        "--least", type=float, default=LEAST, help="smallest relative change to report"
    )
    parser.add_argument(
        "--identical", type=int, metavar="N", help="check the tool with N identical pairs"
    )
    parser.add_argument("--model", default=DEFAULT, help="for --identical")
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Compare two documents, or check the tool on identical cases."""
    check_outputs(options)
    if options.identical:
        return _identical(options)
    if len(options.files) != 2:
        raise UsageError(f"compare takes two files, got {len(options.files)}: A.json B.json")
    if all(_benchmark(path) == "estimate" for path in options.files):
        problems = regressions(*(read_document(path) for path in options.files))
        print("\n".join(problems) or "no kernel changed and no instruction count grew")
        return 1 if problems else 0
    before, after = (read_latency(path) for path in options.files)
    records = compare(before, after, options.least)
    for key in ("name", "cpu"):
        if before["machine"][key] != after["machine"][key]:
            print(f"note: different {key}: {before['machine'][key]}, {after['machine'][key]}")
    result = {"schema": bench.SCHEMA, "type": "comparison", "cases": records}
    slower = sum(record["verdict"] == "slower" for record in records)
    emit(options, result, records, f"{slower} of {len(records)} slower")
    return 1 if slower else 0


def _identical(options: argparse.Namespace) -> int:
    plan = Plan()
    (model,) = models([options.model], ())
    pairs = []
    with bench.document("identical", bench.settings(plan) | {"least": options.least}) as result:
        for number in range(options.identical):
            progress = progress_of(options)
            progress(f"pair {number + 1}/{options.identical}")
            case = Case(model)
            pair = bench.measure([case, case], plan, lambda case: Worker(case, plan))
            change = ratio_of_medians(
                *(_split(record["round_p50_ms"], plan.restarts) for record in pair),
                least=options.least,
                seed=number,
            )
            pairs.append(
                {
                    "pair": number + 1,
                    "ratio": round(change.ratio, 4),
                    "low": round(change.low, 4),
                    "high": round(change.high, 4),
                    "verdict": change.verdict,
                }
            )
        result["model"] = bench.describe(model)
        result["pairs"] = pairs
    false = sum(pair["verdict"] != "same" for pair in pairs)
    emit(options, result, pairs, f"{false} of {len(pairs)} identical pairs called a change")
    return 1 if false > len(pairs) / 20 else 0


def read_latency(path: Path) -> dict[str, Any]:
    """A latency document; of a results file, which holds several, the latency one.

    Raises UsageError when there is none, or when it lacks the machine or a case's median.
    """
    try:
        lines = path.read_text(encoding="utf-8").strip().splitlines()
        documents = json.loads(lines[-1] if lines else "")
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {path} as a benchmark's JSON document: {error}") from error
    try:
        for document in documents.get("documents", [documents]):
            if document.get("benchmark") == "latency":
                found: dict[str, Any] = document
                _require_complete(found)
                return found
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} is not a complete latency document ({type(error).__name__}: {error}): make "
            "one with python -m benchmarks latency --output FILE"
        ) from error
    raise UsageError(
        f"{path} has no latency document: make one with python -m benchmarks latency --output FILE"
    )


def _require_complete(document: Mapping[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError for a document without what a comparison reads."""
    machine = document["machine"]
    if not isinstance(machine["name"], str):
        raise ValueError(f"the machine's name is {machine['name']!r}")
    clock = machine.get("clock_mhz", {})
    if not isinstance(clock, dict):
        raise TypeError(f"the clock is {clock!r}")
    mhz = clock.get("after")
    if mhz is not None and not 1 <= mhz <= 100_000:  # TypeError for text
        raise ValueError(f"the clock is {mhz!r} MHz")
    for case in document["cases"]:
        p50 = case["latency_ms"]["p50"]
        if not (math.isfinite(p50) and p50 > 0):
            raise ValueError(f"a median latency is {p50!r} ms, not a number above 0")


def _benchmark(path: Path) -> str | None:
    """The kind of a file's document; None for a file that is not one."""
    try:
        return str(read_document(path)["benchmark"])
    except UsageError:
        return None


def _key(case: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(case.get(name) for name in _KEY)


def _starts(case: Mapping[str, Any], document: Mapping[str, Any]) -> list[list[float]]:
    return _split(case["round_p50_ms"], document["settings"]["restarts"])


def _split(rounds: Sequence[float], starts: int) -> list[list[float]]:
    each = len(rounds) // starts
    return [list(rounds[n * each : (n + 1) * each]) for n in range(starts)]
