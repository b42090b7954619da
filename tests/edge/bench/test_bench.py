"""Statistics, order of measuring, warnings and the command; no test looks at a time."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from emotion_edge.bench import measure as bench
from emotion_edge.bench import operators
from emotion_edge.bench import report as bench_report
from emotion_edge.bench.measure import Case, Model, Plan, Worker
from emotion_edge.bench.worker import random_inputs, time_runs
from emotion_edge.cli import main
from emotion_edge.errors import ModelError, OutputExists, UsageError
from emotion_edge.kiosk.board import Condition, Throttling
from emotion_edge.model.backend import installed
from emotion_edge.model.graph import Graph

TINY = Path(__file__).parents[1] / "tiny.tflite"
STILL = Condition("performance", 1500.0, 50.0, Throttling(0))

needs_tiny = pytest.mark.skipif(not TINY.exists(), reason="tests/edge/tiny.tflite is not there")
needs_litert = pytest.mark.skipif("litert" not in installed(), reason="LiteRT is not installed")


class FakeClock:
    """A clock in nanoseconds that advances only during work and sleep."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


class FakeInterpreter:
    """Takes the given milliseconds to invoke, and 10 µs for each tensor."""

    def __init__(self, clock: FakeClock, milliseconds: list[float]) -> None:
        self.clock = clock
        self.milliseconds = iter(milliseconds)
        self.fed: list[int] = []

    def get_input_details(self):
        return [{"index": 0}]

    def get_output_details(self):
        return [{"index": 1}]

    def set_tensor(self, index, value):
        self.fed.append(int(value))
        self.clock.now += 10_000

    def invoke(self):
        self.clock.now += round(next(self.milliseconds) * 1e6)

    def get_tensor(self, index):
        self.clock.now += 10_000


def test_back_to_back_runs_are_timed_apart_from_the_tensors():
    clock = FakeClock()
    interpreter = FakeInterpreter(clock, [1, 2, 3])
    answer = time_runs(interpreter, [7, 8], 3, None, clock, clock.sleep)
    assert answer["invoke"] == [1_000_000, 2_000_000, 3_000_000]
    assert answer["total"] == [1_020_000, 2_020_000, 3_020_000]
    assert answer["response"] == []
    assert interpreter.fed == [7, 8, 7]


def test_at_a_fixed_rate_a_slow_request_delays_the_next_ones():
    clock = FakeClock()
    interpreter = FakeInterpreter(clock, [25, 1, 1, 1])
    answer = time_runs(interpreter, [0], 4, 100.0, clock, clock.sleep)
    # Due at 0, 10, 20 and 30 ms; the first ends at 25.02, so the second and third wait.
    assert [round(ns / 1e6, 2) for ns in answer["response"]] == [25.02, 16.04, 7.06, 1.02]
    assert [round(ns / 1e6, 2) for ns in answer["total"]] == [25.02, 1.02, 1.02, 1.02]
    assert clock.now == 31_020_000


def test_summary_is_numpys():
    ns = np.random.default_rng(0).gamma(2, 1e6, 1001)
    got = bench.summarise(ns)
    ms = ns / 1e6
    assert got["count"] == 1001
    assert got["p50"] == pytest.approx(np.median(ms), abs=1e-5)
    assert got["p95"] == pytest.approx(np.percentile(ms, 95), abs=1e-5)
    assert got["std"] == pytest.approx(ms.std(ddof=1), abs=1e-5)
    assert list(got) == ["count", "min", "mean", "std", "p50", "p90", "p95", "p99", "max"]
    assert bench.summarise([5e6])["std"] == 0.0
    with pytest.raises(ValueError, match="no durations"):
        bench.summarise([])


class FakeTarget:
    """A case that answers immediately and logs each call."""

    def __init__(self, name: str, log: list[tuple[str, str]]) -> None:
        self.name, self.log = name, log
        self.opened = {
            "import_ns": 1,
            "load_ns": 2_000_000,
            "first_ns": 3_000_000,
            "memory_before": {"rss": 20.0, "peak": 20.0},
            "python": "3.11",
            "numpy": "2",
            "runtime_version": "1",
        }

    def __enter__(self):
        self.log.append(("open", self.name))
        return self

    def __exit__(self, *_):
        self.log.append(("close", self.name))

    def run(self, count, discard, rate):
        self.log.append(("warm up" if not discard else "run", self.name))
        return {"total": [1_000_000] * count, "invoke": [900_000] * count, "response": []}

    def memory(self):
        return {"rss": 30.0, "peak": 31.0}


def a_case(name: str) -> Case:
    return Case(Model(Path(f"{name}.tflite"), b"", None, "0" * 64, 10))


def test_cases_take_turns_in_a_new_order_each_round():
    log: list[tuple[str, str]] = []
    plan = Plan(warmup=3, rounds=8, runs=4, restarts=2)
    cases = [a_case(name) for name in "abc"]
    records = bench.measure(cases, plan, lambda case: FakeTarget(case.model.name, log))
    half = len(log) // 2
    for part in (log[:half], log[half:]):  # two starts
        assert [what for what, _ in part[:6]] == ["open", "warm up"] * 3
        rounds = [name for what, name in part if what == "run"]
        turns = ["".join(rounds[n : n + 3]) for n in range(0, len(rounds), 3)]
        assert len(turns) == 8
        assert {"".join(sorted(turn)) for turn in turns} == {"abc"}
        assert len(set(turns)) > 1
        assert {what for what, _ in part[-3:]} == {"close"}
    for record in records:
        assert record["latency_ms"]["count"] == 2 * 8 * 4
        assert record["warmup_ms"]["count"] == 2 * 3
        assert len(record["round_p50_ms"]) == 16
        assert record["load_ms"]["count"] == 2
        assert record["memory_mb"] == {"before": 20.0, "steady": 30.0, "peak": 31.0}
        assert record["response_ms"] is None


@pytest.mark.parametrize(
    ("before", "after", "others", "word"),
    [
        (Condition("ondemand", None, None, None), STILL, 0.0, "governor ondemand"),
        (STILL, Condition("performance", 1500.0, 82.0, None), 0.0, "82 °C"),
        (STILL, Condition("performance", 1500.0, 50.0, Throttling(0b100)), 0.0, "throttled"),
        (STILL, Condition("performance", 1200.0, 50.0, None), 0.0, "1500 to 1200 MHz"),
        (STILL, STILL, 0.4, "40%"),
    ],
)
def test_what_spoils_a_run_is_said(before, after, others, word):
    (line,) = bench.spoilers(before, after, others)
    assert word in line


def test_a_good_run_has_no_warning():
    assert bench.spoilers(STILL, STILL, 0.01) == []


def test_plan_refuses_what_cannot_be():
    for wrong in ({"runs": 0}, {"warmup": -1}, {"rate": 0.0}, {"cpus": (100_000,)}):
        with pytest.raises(UsageError):
            Plan(**wrong)


def test_table_aligns_and_markdown_is_a_table():
    rows = [{"name": "a", "ms": 1.5}, {"name": "long", "ms": None}]
    plain = bench_report.table(rows).splitlines()
    assert plain == ["name   ms", "a     1.5", "long    -"]
    marked = bench_report.table(rows, markdown=True).splitlines()
    assert marked[1] == "| ---- | --: |"
    assert all(line.count("|") == 3 for line in marked)


def test_a_column_that_older_rows_lack_is_shown():
    plain = bench_report.table([{"a": 1}, {"a": 2, "b": "new"}]).splitlines()
    assert plain == ["a  b", "1  -", "2  new"]


def options(**words):
    known = {"csv": None, "output": None, "overwrite": False, "json": False, "quiet": True}
    return SimpleNamespace(**(known | words))


def test_json_is_the_last_line_and_alone_when_asked_for(capsys, tmp_path):
    result, rows = {"benchmark": "x", "warnings": ["hot"]}, [{"a": 1}]
    csv = tmp_path / "t.csv"
    bench_report.emit(options(csv=csv), result, rows, "a note")
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1]) == result
    assert "a note" in out and "hot" in err
    assert csv.read_text() == "a\n1\n"
    bench_report.emit(options(json=True), result, rows)
    assert json.loads(capsys.readouterr().out) == result


def test_existing_output_is_refused_before_measuring(tmp_path):
    there = tmp_path / "r.json"
    there.write_text("kept")
    with pytest.raises(OutputExists):
        bench_report.check_outputs(options(output=there))
    bench_report.check_outputs(options(output=there, overwrite=True))
    (tmp_path / "plot-1.5.svg").touch()
    with pytest.raises(OutputExists):
        bench_report.check_outputs(options(), tmp_path / "plot-1.5")


def test_random_inputs_fill_the_type():
    (first, *_) = random_inputs({"shape": (1, 8, 8, 1), "dtype": np.int8}, 0)
    assert first.dtype == np.int8 and first.min() < -90 and first.max() > 90
    again = random_inputs({"shape": (1, 8, 8, 1), "dtype": np.int8}, 0)[0]
    assert np.array_equal(first, again)


def test_a_file_that_is_no_model_is_named(tmp_path):
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"bad\.tflite"):
        Model.read(bad)


@needs_litert
@needs_tiny
def test_the_command_measures_a_real_model_in_its_own_process(capsys):
    words = ["bench", str(TINY), "--rounds", "2", "--runs", "3", "--restarts", "1", "--xnnpack"]
    assert main([*words, "both", "--warmup", "2", "--operators", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    on, off = result["cases"]
    assert (on["xnnpack"], off["xnnpack"]) == (True, False)
    assert on["sha256"] == Model.read(TINY).sha256
    assert on["latency_ms"]["count"] == 6 and on["latency_ms"]["min"] > 0
    assert on["memory_mb"]["before"] < on["memory_mb"]["peak"]
    assert result["machine"]["cores"] >= 1 and result["machine"]["packages"]["numpy"]
    (profile,) = result["operators"]
    assert len(profile["operators"]) == len(Graph(Model.read(TINY).flatbuffer).operators)


@needs_litert
@needs_tiny
def test_a_shared_file_names_no_person_computer_or_file(tmp_path, monkeypatch, capsys):
    secret = tmp_path / "johanna-kitchen.tflite"
    secret.write_bytes(TINY.read_bytes())
    monkeypatch.setattr("platform.release", lambda: "6.12.47-johanna-kitchen")
    shared = tmp_path / "share.json"
    words = ["bench", str(secret), "--rounds", "1", "--runs", "2", "--restarts", "1", "--quiet"]
    assert main([*words, "--share", str(shared)]) == 0
    text = shared.read_text()
    assert "johanna" not in text and str(tmp_path) not in text
    found = json.loads(text)
    assert found["machine"]["kernel"] == "6.12.47"
    assert found["cases"][0]["latency_ms"]["count"] == 2
    assert main([*words, "--share", str(shared)]) == 2
    assert "--overwrite" in capsys.readouterr().err


@needs_litert
@needs_tiny
def test_a_case_runs_in_the_environment_that_it_is_given(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ntouch {tmp_path}/asked\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with Worker(Case(Model.read(TINY)), Plan(), python=str(python)) as worker:
        assert (tmp_path / "asked").exists()
        assert len(worker.run(3, 1, None)["total"]) == 3


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ("onnx", "use auto, litert"),
        ("auto", "use litert, tflite-runtime"),
        ("tflite-runtime", "pip install tflite-runtime; or"),
    ],
)
def test_a_runtime_that_is_not_installed_is_one_line(runtime, message, monkeypatch, capsys):
    monkeypatch.setattr("emotion_edge.commands.bench.installed", dict)
    assert main(["bench", str(TINY), "--runtime", runtime]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@needs_litert
@needs_tiny
def test_the_names_of_tflites_benchmark_model_work(capsys):
    words = ["bench", str(TINY), "--num_threads", "2", "--num_runs", "7", "--warmup_runs", "1"]
    assert main([*words, "--rounds", "2", "--restarts", "1", "--json"]) == 0
    (case,) = json.loads(capsys.readouterr().out)["cases"]
    assert case["threads"] == 2
    assert case["latency_ms"]["count"] == 8  # 7 does not divide into 2 rounds
    assert case["warmup_ms"]["count"] == 1


@needs_tiny
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--seed", "-1"], "seed -1; expected 0 or more"),
        (["--num_runs", "5", "--rounds", "0"], "rounds 0; expected 1 or more"),
        (["--share", "a.json", "--output", "./a.json"], "two results would be written to a.json"),
        (["--csv", "a.json", "--output", "a.json"], "two results would be written to a.json"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", str(TINY), *words]) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [["--rate", "nan"], ["--rate", "inf"], ["--threads", ","], ["--runtime", ""], ["--cpus", ","]],
)
def test_a_value_that_measures_nothing_is_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", str(TINY), *words])
    assert f"argument {words[0]}" in capsys.readouterr().err


@needs_litert
@needs_tiny
def test_images_are_fed_as_the_classifier_feeds_them(tmp_path):
    import cv2

    from emotion_edge.commands.bench import input_tensors
    from emotion_edge.model.classifier import TFLiteClassifier

    model = Model.read(TINY)
    face = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), face)
    (tensor,) = input_tensors(model, tmp_path)
    assert np.array_equal(tensor, TFLiteClassifier.load(TINY).tensor(face))


@needs_litert
def test_a_model_the_runtime_refuses_is_one_line():
    case = Case(Model(Path("x.tflite"), b"\x18\0\0\0TFL3" + bytes(64), None, "0" * 64, 72))
    with pytest.raises(ModelError, match=r"refuses the model|ended"), Worker(case, Plan()):
        pass


@needs_litert
@needs_tiny
def test_a_cut_after_the_last_operator_is_the_whole_model():
    from emotion_edge.model.backend import open_interpreter

    flatbuffer = Model.read(TINY).flatbuffer
    graph = Graph(flatbuffer)
    parts = graph.operators
    whole = open_interpreter(flatbuffer)
    same = open_interpreter(graph.head(len(parts)))
    image = random_inputs(whole.get_input_details()[0], 0)[0]
    answers = []
    for interpreter in (whole, same):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    assert np.array_equal(*answers)
    first = open_interpreter(graph.head(1))
    assert tuple(first.get_output_details()[0]["shape"]) == graph.tensors[parts[0].outputs[0]].shape
    assert operators.macs(flatbuffer) == sum(map(graph.macs, parts)) > 0


def test_the_mean_of_nothing_is_null_in_json():
    assert bench_report.to_json({"a": [1.5, float("nan")], "b": (np.inf,)}) == (
        '{"a":[1.5,null],"b":[null]}'
    )
