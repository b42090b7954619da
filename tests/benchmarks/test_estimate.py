"""Latency estimates: the arithmetic always, the emulation where its tools are built."""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import estimate
from benchmarks.__main__ import main
from benchmarks.estimation import calibration, cycles, emulator, operators, stages
from benchmarks.estimation.cycles import Blocks, EstimateError, Window
from benchmarks.estimation.regressions import regressions
from benchmarks.record import read_results
from emotion_edge.bench.measure import Model
from emotion_edge.errors import UsageError
from emotion_edge.model.graph import Operator
from emotion_edge.model.shipped import model_path, shipped_models

ROOT = Path(__file__).parents[2]
RET = 0xD65F03C0
NOP = 0xD503201F
ADD = 0x8B020020  # add x0, x1, x2

needs_tools = pytest.mark.skipif(
    not (emulator.TOOLS / "trace.so").exists() or shutil.which("llvm-mca-19") is None,
    reason="the emulation tools are not built: make estimate-tools",
)
needs_llvm = pytest.mark.skipif(
    shutil.which("llvm-mca-19") is None, reason="llvm-mca-19 is not installed"
)


def test_a_broken_model_is_refused_before_the_emulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "short.tflite"
    path.write_bytes(model_path("fast").read_bytes()[:20_000])
    monkeypatch.setattr(emulator, "versions", dict)
    monkeypatch.setattr(emulator, "count", lambda *_: pytest.fail("it was emulated"))
    assert main(["estimate", str(path), "--board", "pi5"]) == 2
    assert "short.tflite" in capsys.readouterr().err


# --- windows -----------------------------------------------------------------------------------


def test_windows_end_at_returns_and_count_repetitions() -> None:
    blocks = Blocks({1: (NOP, ADD), 2: (ADD, RET), 3: (NOP,) * 3}, {1: 0, 2: 8, 3: 16})
    section = np.array([1, 2, 1, 2, 3, 1, 2], np.uint32)
    found = {window.blocks: window.count for window in cycles.windows(section, blocks)}
    assert found == {(1, 2): 2, (3, 1, 2): 1}


def test_no_window_is_longer_than_the_limit_and_none_is_lost() -> None:
    blocks = Blocks({1: (NOP,) * 700}, {1: 0})
    section = np.ones(10, np.uint32)
    found = cycles.windows(section, blocks)
    assert sum(len(window.blocks) * window.count for window in found) == 10
    assert max(700 * len(window.blocks) for window in found) <= cycles.MOST


def test_a_block_longer_than_the_limit_is_a_window() -> None:
    blocks = Blocks({1: (NOP,) * (cycles.MOST + 1)}, {1: 0})
    assert cycles.windows(np.ones(2, np.uint32), blocks) == [Window((1,), 2)]


def test_a_long_section_is_sampled_evenly() -> None:
    size = np.array([0, 10, 20], np.int64)
    section = np.repeat(np.array([1, 2], np.uint32), 50_000)
    found = cycles.stretches(section, size)
    assert len(found) == cycles._SAMPLES
    lengths = [int(size[list(part.blocks)].sum()) for part in found]
    assert min(lengths) >= cycles._STRETCH and max(lengths) <= cycles._STRETCH + 40
    assert 0.3 < sum(2 in part.blocks for part in found) / len(found) < 0.7 + 0.01


def test_sections_are_split_where_the_plugin_ended_them(tmp_path: Path) -> None:
    np.array([1, 2, 0, 3, 0], np.uint32).tofile(tmp_path / "trace")
    assert [part.tolist() for part in cycles.read_sections(tmp_path / "trace")] == [[1, 2], [3]]


def test_kernels_are_told_apart_by_their_multiplications() -> None:
    assert cycles.kernel(["sdot v0.4s, v1.16b, v2.4b[0]"] * 8) == "dot product, by lane"
    pairwise = ["smull v0.8h, v1.8b, v2.8b", "sadalp v3.4s, v0.8h"] * 8
    assert cycles.kernel([*pairwise, "prfm pldl1keep, [x1]"]) == (
        "widening multiply-add, pairwise, prefetch"
    )
    assert cycles.kernel(["add x0, x1, x2"] * 50) == "other"


@pytest.mark.parametrize(
    ("line", "macs"),
    [
        ("sdot v0.4s, v1.16b, v2.4b[0]", 16),
        ("smlal2 v0.8h, v1.16b, v2.16b", 8),
        ("smlal v0.4s, v1.4h, v2.h[3]", 4),
        ("fmla v0.4s, v1.4s, v2.s[1]", 4),
        ("add v0.4s, v1.4s, v2.4s", 0),
        ("madd x0, x1, x2, x3", 0),
    ],
)
def test_multiplications_are_counted_by_lanes(line: str, macs: int) -> None:
    assert cycles.multiplications(line) == macs


@needs_llvm
def test_a_window_costs_what_its_dependencies_make_it_cost() -> None:
    chain = ["add x0, x0, x1"] * 40  # each waits for the one before
    free = [f"add x{n}, x10, x11" for n in range(4)] * 10
    chained, parallel = cycles.simulate([chain, free], "neoverse-n1")
    assert chained == pytest.approx(40, abs=1)
    assert parallel < 20


@needs_llvm
def test_words_become_assembly_and_unknown_ones_a_nop() -> None:
    unknown = 0xFFFFFFFF
    assert cycles.disassemble([ADD, unknown]) == {ADD: "add x0, x1, x2", unknown: "nop"}


# --- operators ---------------------------------------------------------------------------------

WRITE_FPCR = 0xD51B4405  # msr FPCR, x5


def test_xnnpacks_operators_lie_between_two_writes_of_fpcr() -> None:
    words = {1: (NOP,), 2: (ADD, WRITE_FPCR), 3: (ADD, ADD), 4: (WRITE_FPCR, NOP)}
    blocks = Blocks(words, dict.fromkeys(words, 0))
    section = np.array([1, 2, 3, 3, 4, 1, 2, 4, 1], np.uint32)
    assert operators.calls(section, blocks) == [slice(1, 5), slice(6, 8)]
    assert operators.calls(section[:4], blocks) == []
    assert operators.calls(section[:1], blocks) == []


def graph(*kinds: str, macs: dict[int, int]) -> Any:
    """What ``matched`` reads of a graph; a kind that ends with + has a fused activation."""
    found = tuple(
        Operator(index, kind.rstrip("+"), (), (), "RELU" if kind.endswith("+") else "", False)
        for index, kind in enumerate(kinds)
    )
    return SimpleNamespace(operators=found, macs=lambda operator: macs.get(operator.index, 0))


def test_calls_are_matched_by_order_and_multiplications() -> None:
    kinds = ("RESHAPE", "CONV_2D+", "RESHAPE", "CONV_2D+", "ADD+", "MEAN", "FULLY_CONNECTED")
    network = graph(*kinds, "SOFTMAX", macs={1: 100, 3: 400, 6: 10})
    found = operators.matched(network, [0, 120, 400, 0, 0, 8, 16])
    assert found == [
        *("0 RESHAPE", "1 CONV_2D", "3 CONV_2D"),
        *("4 ADD", "4 ADD", "5 MEAN", "6 FULLY_CONNECTED"),
    ]


def test_calls_that_cannot_be_told_apart_share_a_name_and_unknown_ones_get_a_number() -> None:
    network = graph("CONV_2D", "ADD", "MEAN", "CONV_2D", macs={0: 100, 3: 100})
    assert operators.matched(network, [100, 0, 0, 0, 100])[1:4] == ["1 ADD and 2 MEAN"] * 3
    assert operators.matched(network, [100, 50]) == ["call 0", "call 1"]


def test_a_row_of_an_operator_has_its_rate() -> None:
    row = {"operator": "3 CONV_2D", "shape": [1, 12, 12, 48], "macs": 3_000_000}
    row |= {"instructions": 200_000, "cycles": 100_000, "kernel": "dot product, by lane"}
    each = {"board": "pi5", "model": "fast", "peak_macs_per_cycle": 32}
    (found,) = calibration.operator_rows(each | {"counts": {"cycles": 400_000, "operators": [row]}})
    assert (found["output"], found["share %"]) == ("12x12x48", 25.0)
    assert (found["MAC/cycle"], found["of peak %"]) == (30.0, 94)
    assert calibration.operator_rows(each | {"counts": {"cycles": 1}}) == []


# --- calibration -------------------------------------------------------------------------------


def test_a_fit_is_the_geometric_mean_and_its_spread_the_worst_error_left_out() -> None:
    fitted = calibration.fit([1.0, 1.0, 2.0])
    assert fitted.k == pytest.approx(2 ** (1 / 3))
    assert fitted.spread == pytest.approx(2.0)
    assert calibration.fit([1.0, 1.0]).spread == calibration.LEAST
    with pytest.raises(EstimateError, match="published"):
        calibration.fit([])


def test_every_board_is_data_that_an_estimate_can_use() -> None:
    counts = {"cycles": 2e6, "warm": (10_000, 1_000), "cold": (20_000, 9_000)}
    for name, board in calibration.boards().items():
        warm = calibration.estimate(counts, name, 4_000_000, True, "warm")
        cold = calibration.estimate(counts, name, 4_000_000, True, "cold")
        assert 0 < warm.floor <= warm.low < warm.ms < warm.high, name
        assert warm.ms < cold.ms, name
        assert warm.floor == pytest.approx(4e6 / board["peak"]["int8"] / board["clock_ghz"] / 1e6)


@pytest.mark.parametrize("board", ["pi4", "pi5"])
def test_held_out_points_lie_in_their_ranges(board: str) -> None:
    """The condition under which ranges are published; a fit to these points would prove nothing."""
    held = [row for row in calibration.judged() if row["board"] == board and row["held out"]]
    assert len(held) >= 2
    assert all(row["inside"] for row in held), held


@pytest.mark.parametrize("board", ["pi3", "pi4", "zero2w"])
def test_single_thread_int8_points_of_the_board_itself_are_held_out_and_inside(board: str) -> None:
    rows = [row for row in calibration.judged() if row["board"] == board]
    held = [r for r in rows if r["held out"] and r["threads"] == 1 and r["network"][-4:] == "int8"]
    assert len(held) >= 2
    assert all(row["inside"] for row in held), held


@pytest.mark.parametrize("board", ["pi4", "pi5"])
def test_ranges_are_no_wider_than_a_factor_of_two(board: str) -> None:
    _, low, high = calibration.single_thread(board)
    assert high / low <= 2.0 + 1e-9


def test_every_published_point_names_its_source_and_was_counted() -> None:
    counted = json.loads((ROOT / "benchmarks/estimation/counts.json").read_text())
    boards = calibration.boards()
    for point in calibration.published():
        assert point.source and math.isfinite(point.ms)
        assert point.network in counted[boards[point.board]["cpu"]]


def test_other_runtimes_are_compared_and_never_fitted_to() -> None:
    rows = calibration.other_runtimes()
    assert {row["runtime"] for row in rows} == {"Paddle Lite"}
    assert any(row["board"] == "pi5" and row["network"].endswith("-int8") for row in rows)
    assert not any(point.runtime for point in calibration.points())


# --- the pipeline ------------------------------------------------------------------------------


def test_a_frame_is_the_sum_of_its_stages_and_code_that_branches_has_a_wider_range() -> None:
    counts = {
        stage: {"cycles": {"cortex-a72": 1.8e6, "neoverse-n1": 2.4e6, "cortex-a53": 1e6}}
        for stage in stages.STAGES
    }
    network = {"ms": 1.5, "low": 1.2, "high": 1.9, "floor": 1.0}
    found = {row["stage"]: row for row in stages.estimate(counts, "pi4", network)}
    assert (found["network"]["low"], found["network"]["high"]) == (1.2, 1.9)
    assert found["detect"]["low"] == pytest.approx(stages.BRANCHING[0])
    assert found["detect"]["high"] == pytest.approx(stages.BRANCHING[1])
    for end in ("low", "high"):
        whole = sum(found[stage][end] for stage in stages.STAGES)
        assert found["frame"][end] == pytest.approx(whole, rel=0.01)


def test_a_row_of_the_pipeline_states_ranges_to_two_digits() -> None:
    each = [{"stage": stage, "low": 0.512, "high": 1.24} for stage in stages.STAGES]
    case = {"board": "pi4", "detector": "haar"}
    row = stages.as_row(case | {"stages": [*each, {"stage": "frame", "low": 12.5, "high": 125.0}]})
    assert (row["detect ms"], row["fps"]) == ("0.51-1.2", "8-80")
    assert row["% of a core at 15 fps"] == "19-190"


def test_a_pipeline_that_found_no_face_is_not_priced() -> None:
    with pytest.raises(EstimateError, match="3 faces in 30 frames"):
        stages._priced(3, [], [], Blocks({1: (NOP,)}, {1: 0}), [])


# --- the command -------------------------------------------------------------------------------


def case(kernel: str = "dot product, by lane", instructions: int = 1000) -> dict[str, Any]:
    return {
        "board": "pi5",
        "model": "fast",
        "variant": "int8",
        "kernel": kernel,
        "counts": {"instructions": instructions},
    }


def test_compare_reports_another_kernel_and_growth_above_three_percent() -> None:
    old = {"estimates": [case()]}
    assert regressions(old, {"estimates": [case(instructions=1030)]}) == []
    (grown,) = regressions(old, {"estimates": [case(instructions=1040)]})
    assert "more instructions" in grown
    (changed,) = regressions(old, {"estimates": [case(kernel="other")]})
    assert "kernel" in changed
    with pytest.raises(UsageError, match="share no model"):
        regressions(old, {"estimates": [case() | {"board": "pi4"}]})


def test_benchmarks_compare_takes_two_estimates(tmp_path: Path) -> None:
    files = []
    for number, count in enumerate((1000, 1020, 1040)):
        estimates = [case(instructions=count)]
        document = {"type": "benchmark", "benchmark": "estimate", "estimates": estimates}
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(document))
    assert main(["compare", str(files[0]), str(files[1])]) == 0
    assert main(["compare", str(files[0]), str(files[2])]) == 1


def test_a_comparison_that_cannot_be_read_is_reported_before_the_emulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimate, "cases", lambda *_: pytest.fail("emulated"))
    assert main(["estimate", "--compare", str(tmp_path / "gone.json")]) == 2
    assert "gone.json" in capsys.readouterr().err


def test_missing_tools_are_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(emulator, "TOOLS", tmp_path)
    assert main(["estimate", "fast", "--board", "pi5"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "make estimate-tools" in error


def test_an_unknown_board_is_named_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "--board", "pi9"]) == 2
    assert "pi3, zero2w" in capsys.readouterr().err


def measurement(ms: float, **machine: Any) -> dict[str, Any]:
    """A latency document of a Pi 4, as emotion-edge bench --share writes it."""
    case = {"model": "fast", "sha256": "a" * 64, "threads": 1, "xnnpack": True}
    board = {"name": "Raspberry Pi 4 Model B Rev 1.5", "clock_mhz": {"after": 1800.0}}
    return {"machine": board | machine, "cases": [case | {"latency_ms": {"p50": ms}}]}


ESTIMATE = {
    "board": "pi4",
    "sha256": "a" * 64,
    "warm_ms": {"ms": 1.5, "low": 1.2, "high": 1.9, "floor": 1.0},
}


def test_a_measurement_is_inside_its_estimate_or_not() -> None:
    (inside,) = estimate.against(measurement(1.8), [ESTIMATE])
    assert (inside["inside"], inside["measured / estimate"]) == ("yes", 1.2)
    (outside,) = estimate.against(measurement(2.1), [ESTIMATE])
    assert outside["inside"] == "no"


def test_a_measurement_at_another_clock_is_compared_with_the_range_at_that_clock() -> None:
    slow = measurement(2.1, clock_mhz={"after": 1500.0})
    (row,) = estimate.against(slow, [ESTIMATE])
    assert row["inside"] == "yes" and row["GHz"] == 1.5


def test_what_cannot_be_compared_is_one_line() -> None:
    with pytest.raises(UsageError, match="Raspberry Pi 5"):
        estimate.against(measurement(1.8, name="Orange Pi 5"), [ESTIMATE])
    with pytest.raises(UsageError, match="emotion-edge bench fast --share"):
        estimate.against(measurement(1.8), [ESTIMATE | {"board": "pi5"}])


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "3",
        "[" * 100_000,
        '{"benchmark": "latency"}',
        '{"benchmark": "latency", "machine": [], "cases": []}',
        json.dumps(measurement(1.8, name=None) | {"benchmark": "latency"}),
        json.dumps(measurement(1.8) | {"benchmark": "latency", "cases": None}),
        json.dumps(measurement("fast") | {"benchmark": "latency"}),  # type: ignore[arg-type]
        json.dumps(measurement(float("nan")) | {"benchmark": "latency"}),
        json.dumps(measurement(-1) | {"benchmark": "latency"}),
        json.dumps(measurement(1.8, clock_mhz={"after": -5}) | {"benchmark": "latency"}),
        json.dumps(measurement(1.8, clock_mhz={"after": "fast"}) | {"benchmark": "latency"}),
    ],
)
def test_a_file_of_another_kind_is_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimate, "recorded", lambda: [ESTIMATE])
    path = tmp_path / "share.json"
    path.write_text(text)
    assert main(["estimate", "--against", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "share.json" in error


@pytest.mark.slow
@needs_tools
def test_shipped_models_run_the_expected_kernels_and_did_not_grow(tmp_path: Path) -> None:
    document = recorded()
    old = tmp_path / "old.json"
    old.write_text(json.dumps(document))
    assert main(["estimate", "--compare", str(old), "--quiet"]) == 0
    boards = calibration.boards()
    assert {each["board"] for each in document["estimates"]} == set(boards)
    for each in document["estimates"]:
        assert each["kernel"] == boards[each["board"]]["kernel"], each["board"]


def recorded() -> dict[str, Any]:
    """The newest estimate in benchmarks/results."""
    for result in read_results(ROOT / "benchmarks/results"):
        for document in result["documents"]:
            if document["benchmark"] == "estimate":
                return dict(document)
    raise AssertionError("no estimate is recorded")


def test_the_recorded_estimate_is_of_the_shipped_models() -> None:
    known = {Model.read(path).sha256 for path in shipped_models().values()}
    assert known <= {each["sha256"] for each in recorded()["estimates"]}


def test_the_flags_are_those_of_every_benchmark() -> None:
    parser = argparse.ArgumentParser()
    estimate.add_arguments(parser)
    assert parser.parse_args(["--board", "pi4", "--json"]).json


def test_a_block_cut_off_after_the_last_section_is_left_out(tmp_path):
    path = tmp_path / "blocks"
    path.write_text("1 4000 d65f03c0\n2 4004 d503201f d65f03c0\n3")
    blocks = cycles.read_blocks(path)
    assert blocks.words == {1: (0xD65F03C0,), 2: (0xD503201F, 0xD65F03C0)}
