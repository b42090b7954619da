"""Pipeline, soak, roofline and accuracy: their sums, on figures made to order."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import accuracy, pipeline, roofline, soak, variants
from benchmarks.__main__ import COMMANDS, _parser, main
from emotion_edge.bench import operators
from emotion_edge.bench.measure import Model
from emotion_edge.errors import UsageError
from emotion_edge.model.backend import installed, open_interpreter
from emotion_edge.model.graph import Graph
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.values import Frame
from train.data import Split
from train.evaluate import score

needs_litert = pytest.mark.skipif("litert" not in installed(), reason="LiteRT is not installed")
TINY = Path(__file__).parents[1] / "edge" / "tiny.tflite"


def test_every_command_explains_itself():
    text = _parser([]).format_help()
    assert all(name in text for name in COMMANDS)


# --- roofline ----------------------------------------------------------------------------------


@needs_litert
def test_the_convolution_is_one_and_right():
    model = roofline.convolution(3, False, side=8, channels=4)
    graph = Graph(model.flatbuffer)
    (only,) = graph.operators
    assert (only.name, graph.macs(only)) == ("CONV_2D", 8 * 8 * 4 * 9 * 4)
    interpreter = open_interpreter(model.flatbuffer)
    weights = np.random.default_rng(0).uniform(-1, 1, (4, 3, 3, 4)).astype(np.float32)
    image = np.random.default_rng(1).normal(size=(1, 8, 8, 4)).astype(np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    expected = np.einsum("yxi,oyxi->o", image[0, 2:5, 3:6], weights)  # centred at (3, 4)
    assert answer[0, 3, 4] == pytest.approx(expected, abs=1e-4)


@needs_litert
def test_the_int8_convolution_is_integer_throughout():
    model = roofline.convolution(1, True, side=4, channels=8)
    interpreter = open_interpreter(model.flatbuffer)
    tensors = {np.dtype(t["dtype"]).name for t in interpreter.get_tensor_details()}
    assert tensors <= {"int8", "int32"} and operators.is_integer(model.flatbuffer)
    assert not operators.is_integer(roofline.convolution(1, False, side=4).flatbuffer)
    assert operators.macs(roofline.no_op().flatbuffer) == 0


@needs_litert
def test_shares_and_bars_follow_from_medians():
    def record(ms):
        return {"latency_ms": {"p50": ms}}

    size = {"side": 8, "channels": 16}
    roofs = [roofline.convolution(3, integer, **size) for integer in (True, False)]
    fast = Model(
        Path("fast-int8.tflite"),
        roofs[0].flatbuffer,
        SimpleNamespace(name="fast", variant="int8"),
        "0" * 64,
        1,
    )
    slow = Model(
        fast.path, roofs[1].flatbuffer, SimpleNamespace(name="fast", variant="float32"), "0" * 64, 1
    )
    times = [record(ms) for ms in (0.01, 1.0, 4.0, 2.0, 8.0)]
    found = roofline.judge([roofline.no_op(), *roofs, fast, slow], times)
    macs = 8 * 8 * 16 * 9 * 16
    assert found["roof_gmacs"]["int8"] == pytest.approx(macs / 1e6, abs=0.01)
    assert [share["share"] for share in found["shares"]] == [0.5, 0.5]
    held = {one["bar"]: one["holds"] for one in found["bars"]}
    assert held == {
        "a no-op model, ms": True,
        "fast int8, share of the roof": True,
        "fast, float32 over int8": True,
    }


# --- soak --------------------------------------------------------------------------------------


def a_soak(rss, p50=lambda frame: 1_000_000, frames=2000, settle=1000, **limits):
    count = iter(range(10**9))
    seen = iter(range(10**9))

    def look():
        stretch = next(seen)
        return soak.Health(rss(stretch), 5 + (stretch > 300) * limits.get("threads", 0), 9)

    course = soak.soak(lambda: p50(next(count)), frames, settle, look=look)
    return course, soak.judge(course, 2.0, 0.25)


def test_steady_memory_holds_every_bar():
    course, found = a_soak(lambda stretch: 70_000_000 + 1000 * (stretch % 7))
    assert all(one["holds"] for one in found["bars"])
    assert len(course["frame"]) == 500 and course["frame"][-1] == 2000
    assert found["row"]["held"] == "yes"


def test_a_leak_a_thread_and_a_slowdown_are_each_caught():
    def broken(found):
        return [one["bar"].split()[0] for one in found["bars"] if not one["holds"]]

    assert broken(a_soak(lambda stretch: 70_000_000 + 5000 * stretch)[1]) == ["memory"]
    assert broken(a_soak(lambda _: 70_000_000, threads=1)[1]) == ["threads"]
    slower = a_soak(lambda _: 70_000_000, lambda frame: 1_000_000 + 1000 * frame)[1]
    assert broken(slower) == ["latency"]


def test_a_time_limit_ends_it_and_an_empty_source_is_refused():
    ticks = iter(range(1000))
    health = soak.Health(1, 1, 1)
    course = soak.soak(
        lambda: 1, 100_000, 10, seconds=20, look=lambda: health, clock=lambda: next(ticks)
    )
    assert 2 <= len(course["frame"]) <= 20
    with pytest.raises(UsageError, match="ended"):
        soak.soak(lambda: None, 100, 10)
    with pytest.raises(UsageError, match="twice"):
        main(["soak", "--frames", "100", "--debug"])


@needs_litert
def test_a_real_detector_is_given_faces(tmp_path):
    out = tmp_path / "soak.json"
    words = ["soak", "--frames", "40", "--settle", "20", "--max-drift", "1000", "--quiet"]
    main([*words, "--max-growth", "1000", "--detector", "haar", "--output", str(out)])
    document = json.loads(out.read_text())
    assert document["settings"]["source"] == "demo:faces=1"
    main([*words, "--max-growth", "1000", "--output", str(out), "--overwrite"])
    assert json.loads(out.read_text())["settings"]["source"] == "pattern"


def test_this_process_has_memory_threads_and_descriptors():
    now = soak.health()
    assert now.rss > 10_000_000 and now.threads >= 1 and now.descriptors >= 3


@needs_litert
@pytest.mark.slow
def test_twenty_thousand_frames_leak_nothing():
    # Latency is not judged here: the machine may be busy with other tests.
    words = ["soak", "--frames", "30000", "--model", str(TINY), "--max-drift", "10", "--quiet"]
    assert main(words) == 0


# --- pipeline ----------------------------------------------------------------------------------


def test_a_setup_adds_up_what_the_pipeline_says():
    setup = pipeline.Setup("haar", 640, 480, 1)
    timings = {"detect": 6.0, "classify": 0.5, "track": 0.1, "age": 9.0}
    fake = SimpleNamespace(process=lambda frame: SimpleNamespace(faces=(1, 2), timings=timings))
    frame = Frame(np.zeros((4, 4), np.uint8), 0, 0)
    setup.process(fake, [frame] * 5)
    row = setup.row()
    assert (row["found"], row["frames"], row["detect ms"]) == (2.0, 5, 6.0)
    assert row["fps"] > 0


def test_sizes_are_checked():
    with pytest.raises(UsageError, match="WIDTHxHEIGHT"):
        main(["pipeline", "--sizes", "640", "--debug"])


@needs_litert
def test_the_emotion_stage_is_the_bare_runs_and_more():
    found = pipeline.emotion_stage(Model.read(TINY), rounds=2, runs=3)
    assert set(found) == {"bare_ms", "classify_ms", "classify_160px_ms"}
    assert all(ms > 0 for ms in found.values())


# --- accuracy ----------------------------------------------------------------------------------


def test_scores_by_hand():
    probabilities = np.eye(7, dtype=np.float32)[[0, 1, 2, 3]]
    votes = np.zeros((4, 10), np.uint8)
    votes[[0, 1, 2], [4, 5, 0]] = 6  # anger and disgust, as answered; neutral, not fear
    split = Split(
        "PublicTest",
        images=np.zeros((4, 48, 48), np.uint8),
        labels=np.array([0, 1, 2, 6]),
        rows=np.arange(4),
        votes=votes,
        twin=np.array([False, False, True, True]),
    )
    found = accuracy.row(score(probabilities, split, EMOTIONS))
    assert (found["accuracy %"], found["without twins %"], found["twins %"]) == (75.0, 100.0, 50.0)
    assert found["FER+ majority %"] == 66.67
    bare = accuracy.row(score(probabilities, dataclasses.replace(split, votes=None), EMOTIONS))
    assert bare["FER+ majority %"] is None
    assert accuracy.agreement(probabilities, probabilities[::-1]) == 0.0
    assert accuracy.agreement(probabilities, None) is None


def test_a_model_that_was_not_timed_has_no_latency():
    found = accuracy.cost(Model.read(TINY), None)
    assert found["p50 ms"] is None and found["p95 ms"] is None
    assert found["kB"] == round(TINY.stat().st_size / 1000)


def test_a_variant_without_a_source_is_refused(tmp_path):
    path = tmp_path / "mine-int8.tflite"
    path.write_bytes(TINY.read_bytes())
    (model,) = variants.find_variants([str(path)], ["int8"], None)
    assert model.sha256 == Model.read(TINY).sha256
    with pytest.raises(UsageError, match=r"mine\.keras"):
        variants.find_variants([str(path)], ["float32"], None)
    (tmp_path / "mine.keras").write_bytes(b"x")
    with pytest.raises(UsageError, match="--data"):
        variants.find_variants([str(path)], ["float32"], None)
