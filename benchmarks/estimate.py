"""Estimates a model's latency on a Raspberry Pi without one: a range, from counted instructions.

Each model runs under QEMU as the board's own core, so the runtime selects the kernels it would
select on the board. A plugin records the instructions of one inference, llvm-mca gives their cost
on that core, a cache simulation adds the misses, and published measurements turn the sum into
milliseconds with a known error. Instruction counts repeat almost exactly, so two estimates can be
compared where two noisy timings cannot (``python -m benchmarks estimate --compare OLD.json``).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import read_latency
from benchmarks.estimation import calibration, emulator, stages
from benchmarks.estimation.calibration import (
    Estimate,
    boards,
    estimate_row,
    kernel_rows,
    operator_rows,
)
from benchmarks.estimation.regressions import regressions
from benchmarks.record import RESULTS, read_document, read_results
from emotion_edge.bench import measure as bench
from emotion_edge.bench import operators
from emotion_edge.bench.measure import Model
from emotion_edge.bench.report import add_output_arguments, check_outputs, emit, progress_of, table
from emotion_edge.detectors import DETECTORS
from emotion_edge.errors import ModelError, UsageError
from emotion_edge.model.backend import open_interpreter
from emotion_edge.model.shipped import DEFAULT, model_path, shipped_models

HELP = "estimate latencies on Raspberry Pi boards by emulation, as ranges"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: every shipped one")
    parser.add_argument(
        "--board", default="all", help=f"{', '.join(boards())} or all (default: %(default)s)"
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="FILE",
        help="exit 1 when a kernel differs from FILE's or instructions grew by more than 3%%",
    )
    parser.add_argument(
        "--counts",
        type=Path,
        metavar="FILE",
        help="an earlier estimate: take its counts instead of emulating, for a new calibration",
    )
    parser.add_argument(
        "--pipeline",
        action="store_true",
        help="estimate the whole path from frame to label, for one face at 640x480",
    )
    parser.add_argument(
        "--operators", action="store_true", help="also print the cycles of each operator"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="compare a board's latencies, from emotion-edge bench --share, with the recorded "
        "estimates; exit 1 when one lies outside its range",
    )
    parser.add_argument(
        "--calibration", action="store_true", help="only print the fit to published latencies"
    )
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Count, estimate and report."""
    known = boards()
    if options.board != "all" and options.board not in known:
        raise UsageError(f"no board {options.board!r}: use {', '.join(known)} or all")
    if options.calibration:
        print(table(calibration.judged()))
        print("\nMeasured with another runtime: only compared with the estimates for XNNPACK.\n")
        print(table(calibration.other_runtimes()))
        return 0
    if options.against is not None:
        rows = against(read_latency(options.against), recorded())
        print(table(rows))
        return 0 if all(row["inside"] == "yes" for row in rows) else 1
    check_outputs(options)
    chosen = list(known) if options.board == "all" else [options.board]
    if options.pipeline:
        return _pipeline(options, chosen)
    if options.counts is not None:
        earlier = read_document(options.counts)
        with bench.document(
            "estimate", {"boards": chosen, "counts": "of an earlier run"}
        ) as result:
            result["versions"] = earlier["versions"]
            result["estimates"] = [
                case
                | _estimates(
                    case["counts"],
                    case["board"],
                    case["macs"],
                    integer=case["peak_macs_per_cycle"] == known[case["board"]]["peak"]["int8"],
                )
                for case in earlier["estimates"]
                if case["board"] in chosen
            ]
        return _report(options, result)
    models = [Model.read(model_path(name)) for name in options.models or shipped_models()]
    # Read first: what cannot be compared is reported before minutes of emulation.
    old = read_document(options.compare) if options.compare is not None else None
    with bench.document("estimate", {"boards": chosen}) as result:
        result["versions"] = emulator.versions()
        result["estimates"] = cases(models, {name: known[name] for name in chosen}, options)
    if old is not None:
        problems = regressions(old, result)
        print("\n".join(problems) or "no kernel changed and no instruction count grew")
        return 1 if problems else 0
    return _report(options, result)


def _report(options: argparse.Namespace, result: Mapping[str, Any]) -> int:
    cases = result["estimates"]
    kernels = [row for case in cases for row in kernel_rows(case)]
    operators = [row for case in cases if options.operators for row in operator_rows(case)]
    more = [table(each) for each in (operators, kernels) if each]
    emit(options, result, [estimate_row(case) for case in cases], "\n\n".join([*more, NOTES]))
    return 0


def _pipeline(options: argparse.Namespace, chosen: Sequence[str]) -> int:
    """Estimate the stages of the pipeline with each installed detector."""
    name, *more = options.models or [DEFAULT]
    if more:
        raise UsageError(f"--pipeline estimates one model, got {len(more) + 1}")
    model = Model.read(model_path(name))
    progress = progress_of(options)
    known = boards()
    llvm = sorted({known[board]["model"] for board in chosen})
    settings = {"boards": list(chosen), "model": name, "size": "640x480", "faces": 1}
    with bench.document("estimate-pipeline", settings) as result:
        result["versions"] = emulator.versions()
        progress("emulating the network")
        networks = {
            case["board"]: case["cold_ms"]
            for case in cases([model], {board: known[board] for board in chosen}, options)
        }
        result["model"] = bench.describe(model)
        result["rows"], result["counts"] = [], {}
        for detector in (each for each, kind in DETECTORS.items() if kind.installed()):
            progress(f"emulating the pipeline with {detector}")
            counted = stages.cycles_by_stage(detector, model.path, llvm)
            result["counts"][detector] = counted
            for board in chosen:
                found = stages.estimate(counted, board, networks[board])
                result["rows"].append({"board": board, "detector": detector, "stages": found})
    progress("")
    emit(options, result, [stages.as_row(each) for each in result["rows"]], stages.NOTES)
    return 0


def cases(
    models: Sequence[Model], chosen: Mapping[str, Mapping[str, Any]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """One case per model and board; models are counted once per core. Raises ModelError."""
    for model in models:
        try:  # here, and not after minutes of emulation
            open_interpreter(model.flatbuffer)
        except ModelError as error:
            raise ModelError(f"{model.path}: {error}") from error
    progress = progress_of(options)
    cores = {(board["cpu"], board["l1"], board["l2"]): board for board in chosen.values()}
    counts: dict[tuple[str, str, str], list[emulator.Counts]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for key, board in cores.items():
            progress(f"emulating {board['cpu']}")
            counts[key] = emulator.count(_files(models, Path(folder)), board)
    progress("")
    found = []
    for name, board in chosen.items():
        key = (board["cpu"], board["l1"], board["l2"])
        for model, counted in zip(models, counts[key], strict=True):
            integer = operators.is_integer(model.flatbuffer)
            macs = operators.macs(model.flatbuffer)
            case = {
                "model": model.name,
                "variant": model.variant,
                "file": model.path.name,
                "file_bytes": model.size,
                "sha256": model.sha256,
                "board": name,
                "macs": macs,
                "macs_per_cycle": round(macs / counted.cycles, 2),
                "peak_macs_per_cycle": board["peak"]["int8" if integer else "float32"],
                "kernel": next(iter(counted.kernels), "other"),
                "counts": counted.as_dict(),
            }
            found.append(case | _estimates(counted.as_dict(), name, macs, integer=integer))
    return found


def recorded() -> list[dict[str, Any]]:
    """The newest recorded estimates of every board. Raises UsageError when none is recorded."""
    for result in read_results(RESULTS):
        for document in result["documents"]:
            if document["benchmark"] == "estimate":
                return list(document["estimates"])
    raise UsageError(f"{RESULTS} holds no estimate: python -m benchmarks estimate --output FILE")


def against(
    measured: Mapping[str, Any], estimates: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each measured latency of one thread with XNNPACK next to its estimate, as rows.

    A board whose clock differs from the estimate's, by more than 2%, is compared with the range at
    its own clock. Raises UsageError when there is nothing to compare.
    """
    machine = measured["machine"]
    names = {name: board for name, board in boards().items() if board["device"] in machine["name"]}
    if not names:
        raise UsageError(
            f"no estimate is for {machine['name']!r}: estimates exist for "
            + ", ".join(board["device"] for board in boards().values())
        )
    ((name, board),) = names.items()
    clock = (machine.get("clock_mhz", {}).get("after") or 0) / 1000
    same = not clock or abs(clock / board["clock_ghz"] - 1) <= 0.02
    factor = 1.0 if same else board["clock_ghz"] / clock
    found = []
    for case in measured["cases"]:
        alone = case["threads"] == 1 and case["xnnpack"] and not case.get("delegate")
        for one in estimates:
            if alone and (one["board"], one["sha256"]) == (name, case.get("sha256")):
                warm = {key: value * factor for key, value in one["warm_ms"].items()}
                p50 = case["latency_ms"]["p50"]
                found.append(
                    {
                        "on": board["name"],
                        "model": case["model"],
                        "GHz": round(clock or board["clock_ghz"], 2),
                        "measured p50 ms": round(p50, 3),
                        "estimate ms": f"{warm['ms']:.3g} ({warm['low']:.3g}-{warm['high']:.3g})",
                        "measured / estimate": round(p50 / warm["ms"], 2),
                        "inside": "yes" if warm["low"] <= p50 <= warm["high"] else "no",
                    }
                )
    if not found:
        raise UsageError(
            "none of the measured models has an estimate for one thread with XNNPACK on "
            f"{board['name']}: measure a shipped model, emotion-edge bench fast --share FILE"
        )
    return found


NOTES = (
    "Estimates, one thread; warm: right after other inferences, cold: with empty caches.\n"
    "Not modelled: other processes, throttling. How good they are: "
    "python -m benchmarks estimate --calibration"
)


def _files(models: Sequence[Model], folder: Path) -> list[Path]:
    """FlatBuffers without their manifests, as files."""
    files = []
    for number, model in enumerate(models):
        path = folder / f"model-{number}.tflite"
        path.write_bytes(model.flatbuffer)
        files.append(path)
    return files


def _estimates(
    counts: Mapping[str, Any], board: str, macs: int, *, integer: bool
) -> dict[str, dict[str, float]]:
    """``warm_ms`` and ``cold_ms`` of a case."""
    return {
        f"{state}_ms": _as_dict(calibration.estimate(counts, board, macs, integer, state))
        for state in ("warm", "cold")
    }


def _as_dict(estimate: Estimate) -> dict[str, float]:
    return {
        name: float(f"{getattr(estimate, name):.3g}") for name in ("ms", "low", "high", "floor")
    }
