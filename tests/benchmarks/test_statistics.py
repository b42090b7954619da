"""What is called a change, on noise made to order."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import compare
from benchmarks.__main__ import main
from emotion_edge.errors import UsageError


def a_run(rng, level, *, starts=3, rounds=10, between=0.01, within=0.05):
    """Medians of rounds: noise only ever adds within a start; starts differ among each other."""
    return [
        [level * (1 + between * shift) * (1 + within * rng.gamma(0.5)) for _ in range(rounds)]
        for shift in rng.normal(size=starts)
    ]


def test_identical_runs_are_no_change_in_at_least_19_of_20():
    rng = np.random.default_rng(0)
    verdicts = [compare.ratio_of_medians(a_run(rng, 1), a_run(rng, 1)).verdict for _ in range(100)]
    assert verdicts.count("same") >= 95


@pytest.mark.parametrize(("factor", "verdict"), [(1.15, "slower"), (1 / 1.15, "faster")])
def test_a_change_of_15_percent_is_seen(factor, verdict):
    rng = np.random.default_rng(1)
    changes = [compare.ratio_of_medians(a_run(rng, 1), a_run(rng, factor)) for _ in range(40)]
    assert [change.verdict for change in changes].count(verdict) >= 38
    assert np.median([change.ratio for change in changes]) == pytest.approx(factor, rel=0.02)


def test_a_small_change_is_below_the_least_however_sure():
    rng = np.random.default_rng(2)
    change = compare.ratio_of_medians(
        a_run(rng, 1, between=0, within=0.001), a_run(rng, 1.02, between=0, within=0.001)
    )
    assert change.low > 1 and change.verdict == "same"
    finer = compare.Change(change.ratio, change.low, change.high, least=0.01)
    assert finer.verdict == "slower"


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 100), st.integers(0, 2**32 - 1))
def test_the_interval_holds_the_ratio_and_knows_no_unit(scale, seed):
    rng = np.random.default_rng(seed)
    before, after = a_run(rng, 1), a_run(rng, 1.3)
    change = compare.ratio_of_medians(before, after, seed=seed)
    assert change.low <= change.ratio <= change.high
    scaled = compare.ratio_of_medians(
        [[scale * ms for ms in run] for run in before],
        [[scale * ms for ms in run] for run in after],
        seed=seed,
    )
    assert scaled.ratio == pytest.approx(change.ratio)
    assert (scaled.low, scaled.high) == pytest.approx((change.low, change.high))


def a_document(level, path, **key):
    rounds = [ms for run in a_run(np.random.default_rng(3), level) for ms in run]
    case = {"model": "m", "variant": "int8", "runtime": "litert", "threads": 1, "xnnpack": True}
    case |= {"latency_ms": {"p50": level}, "round_p50_ms": rounds, "sha256": "0" * 64} | key
    document = {
        "type": "benchmark",
        "benchmark": "latency",
        "settings": {"restarts": 3},
        "machine": {"name": "board", "cpu": "cpu"},
        "cases": [case],
    }
    path.write_text(f"a table\n\n{json.dumps(document)}\n")
    return str(path)


def test_exit_code_tells_slower_from_same(tmp_path, capsys):
    slow = a_document(2.0, tmp_path / "slow.json")
    base = a_document(1.0, tmp_path / "base.json")
    assert main(["compare", base, slow]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["cases"][0]["verdict"] == "slower"
    assert main(["compare", base, base]) == 0
    assert main(["compare", slow, base]) == 0


def test_documents_without_a_common_case_are_refused(tmp_path, capsys):
    one = a_document(1.0, tmp_path / "a.json")
    other = a_document(1.0, tmp_path / "b.json", threads=4)
    assert main(["compare", one, other]) == 2
    assert "share no case" in capsys.readouterr().err
    with pytest.raises(UsageError, match="two files"):
        main(["compare", one, "--debug"])


def test_what_is_no_document_is_refused(tmp_path, capsys):
    bad = tmp_path / "bad.json"
    bad.write_text("no JSON")
    assert main(["compare", str(bad), str(bad)]) == 2
    assert "bad.json" in capsys.readouterr().err
