from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convert import conversion, publish, quantize, ranges, recover, report
from convert.conversion import Converted, Job
from convert.flatbuffer import WEIGHTED, Graph
from convert.float_model import from_keras
from convert.quantize import Calibrator
from tests.convert.conftest import convolutional

FACES = np.random.default_rng(1).integers(0, 256, (16, 24, 24), np.uint8)


def test_a_failing_model_is_turned_into_a_passing_one(
    jobs: dict[str, Job], converted: dict[str, Converted]
) -> None:
    said: list[str] = []
    recovered = recover.recover(jobs["unbalanced"], converted["unbalanced"], say=said.append)
    assert recovered.passed
    assert recovered.variant == "int8"  # nothing had to stay in float
    assert recovered.method["equalised"] in ("channels", "activations")
    # The other ranges were tried first and failed.
    plain = [line for line in said if "equalised" not in line]
    assert any("least-error" in line for line in plain) and all("fails" in line for line in plain)
    assert "confirm on the other half" in said[-1] and "passes" in said[-1]
    assert recovered.selection is not None
    assert recovered.selection.n + recovered.comparison.n == len(jobs["unbalanced"].judged)
    attempt = conversion.Attempt("int8", recovered, recovered=True)
    gate_facts = publish.describe(jobs["unbalanced"], attempt).gate
    assert gate_facts["chosen_on"]["images"] == recovered.selection.n
    assert "half that confirms" in report.summary(jobs["unbalanced"], attempt)


def test_the_halves_share_no_image_and_every_class(jobs: dict[str, Job]) -> None:
    job = jobs["tiny"]
    marked = replace(job, expected=np.arange(len(job.judged), dtype=np.float32)[:, None])
    halves = marked.halves()
    rows = [set(half.expected.ravel().tolist()) for half in halves]
    assert not rows[0] & rows[1] and len(rows[0] | rows[1]) == len(job.judged)
    for half, own in zip(halves, rows, strict=True):
        assert set(half.judged.truth.tolist()) == set(range(7))
        np.testing.assert_array_equal(half.judged.truth, job.judged.truth[[int(r) for r in own]])


def test_a_candidate_that_fails_confirmation_is_not_accepted(
    jobs: dict[str, Job], converted: dict[str, Converted], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, good = jobs["tiny"], converted["tiny"]
    choosing, confirming = job.halves()
    # On the other half the float model answers something else, so the candidate fails there.
    shifted = replace(confirming, expected=np.roll(confirming.expected, 1, axis=1))
    candidate = conversion.judge(choosing, good.model, "int8", spec=good.spec)
    assert candidate.passed
    monkeypatch.setattr(Job, "halves", lambda self: (choosing, shifted))
    steps = [(candidate, True), (candidate, True)]
    monkeypatch.setattr(recover, "rungs", lambda job, failed: iter(steps))
    said: list[str] = []
    failed = converted["unbalanced"]
    assert not recover.recover(job, failed, say=said.append).passed
    # The second is not nearer to float than the first, so it is not confirmed.
    assert len(said) == 3 and sum("confirm" in line for line in said) == 1


def test_the_nearest_candidate_of_a_stage_is_taken(
    jobs: dict[str, Job], converted: dict[str, Converted], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, good = jobs["tiny"], converted["tiny"]
    near = conversion.judge(job.halves()[0], good.model, "int8", spec=good.spec)
    far = replace(near, comparison=replace(near.comparison, divergence_mean=0.5))
    near = replace(near, method={"which": "near"})
    assert near.passed and far.passed
    for steps, which in (
        ([(far, False), (near, False), (far, True)], "near"),
        ([(far, True), (near, True)], None),  # a stage that costs more is not begun
    ):
        monkeypatch.setattr(recover, "rungs", lambda job, failed, steps=steps: iter(steps))
        taken = recover.recover(job, converted["unbalanced"], say=lambda line: None)
        assert taken.passed and taken.method.get("which") == which


def test_a_candidate_within_chance_of_the_bar_is_not_the_first_choice(
    jobs: dict[str, Job], converted: dict[str, Converted], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, good = jobs["tiny"], converted["tiny"]
    near = conversion.judge(job.halves()[0], good.model, "int8", spec=good.spec)
    sure = replace(near, comparison=replace(near.comparison, divergence_mean=0.0))
    near = replace(near, comparison=replace(near.comparison, divergence_mean=0.1))
    near, sure = replace(near, method={"which": "near"}), replace(sure, method={"which": "sure"})
    shares = {"near": 98.1, "sure": 99.9}
    monkeypatch.setattr(recover, "margin", lambda bar, images: 0.2)
    monkeypatch.setattr(recover, "equal_share", lambda *args: shares[args[-1].method["which"]])
    for candidates, which in (([near, sure], "sure"), ([near], "near")):
        steps = [(candidate, True) for candidate in candidates]
        monkeypatch.setattr(recover, "rungs", lambda job, failed, steps=steps: iter(steps))
        said: list[str] = []
        taken = recover.recover(job, converted["unbalanced"], say=said.append)
        assert taken.passed and taken.method["which"] == which
        assert "but 98.10% with mirror images in all, of 98.20% asked" in said[1]
    assert len(said) == 2


def test_the_mirror_images_count_as_much(
    jobs: dict[str, Job], converted: dict[str, Converted]
) -> None:
    job, good = jobs["tiny"], converted["tiny"]
    assert recover.margin(job.bar, 6984) == pytest.approx(0.1675, abs=1e-4)
    mirrored = recover.answers_in_the_mirror(job, job.reference, job.manifest("float32"))
    others = job.judged.mirrored.faces
    np.testing.assert_array_equal(others, job.judged.faces[:, :, ::-1])
    whole = (good.comparison,)
    share = recover.equal_share(job, whole, mirrored, good)
    assert share == pytest.approx((good.comparison.agreement + 100) / 2, abs=2)
    wrong = recover.equal_share(job, whole, np.roll(mirrored, 1, axis=1), good)
    assert wrong == pytest.approx(good.comparison.agreement / 2, abs=2)


def test_mixed_models_keep_the_corrected_biases(jobs: dict[str, Job]) -> None:
    job = jobs["unbalanced"]
    calibrated = job.calibrator().calibrated()
    faces, spec = job.calibration_images.faces[:16], job.spec_of(calibrated)
    first = Graph(calibrated.model).operators[-1]
    name = Graph(calibrated.model).tensors[first.outputs[0]].name
    plain = quantize.quantize(calibrated.model, keep_float=[name])
    corrected = recover.correct_biases(job, calibrated, spec, faces, keep_float=[name])
    biases = [
        [
            graph.values(op.inputs[2])
            for op in graph.operators
            if op.name in WEIGHTED and graph.tensors[op.inputs[2]].kind == "INT32"
        ]
        for graph in (Graph(plain), Graph(corrected))
    ]
    assert biases[0] and any((a != b).any() for a, b in zip(*biases, strict=True))


def test_corrected_biases_bring_the_channel_means_back(jobs: dict[str, Job]) -> None:
    job = jobs["tiny"]
    calibrator = Calibrator(from_keras(convolutional()), FACES, 1, 0)
    calibrated = calibrator.calibrated("percentile-99.9")
    spec = job.spec_of(calibrated)
    spec = type(spec)(24, 24, 1, "gray", spec.scale, spec.offset)
    plain = quantize.quantize(calibrated.model)
    recovered = recover.correct_biases(job, calibrated, spec, FACES)
    assert {tensor.kind for tensor in Graph(recovered).tensors} == {"INT8", "INT32"}

    def error(model: bytes) -> float:
        graph, real = Graph(model), Graph(calibrated.model)
        twin = {tensor.name: tensor.index for tensor in real.tensors}
        dense = [op for op in graph.operators if op.name in WEIGHTED][-1].outputs[0]
        out = graph.tensors[dense]
        run, run_real = ranges.preserving(model), ranges.preserving(calibrated.model)
        total = np.zeros(out.shape[-1])
        for face, image in zip(FACES, quantize.inputs(FACES, spec.scale, spec.offset), strict=True):
            pixels = (face.astype(int) - 128).astype(np.int8)[None, ..., None]
            value = (run(pixels)(dense).astype(float) - out.zero_points[0]) * out.scales[0]
            total += (run_real(image)(twin[out.name]) - value).ravel()
        return float(np.abs(total / len(FACES)).mean())

    assert error(recovered) < 0.5 * error(plain)


def test_the_most_harmful_operator_comes_first(jobs: dict[str, Job]) -> None:
    job = jobs["unbalanced"]
    calibrated = job.calibrator().calibrated()
    order = recover.sensitivity(job, calibrated, job.spec_of(calibrated), job.judged.faces[:14])
    graph = Graph(calibrated.model)
    names = {graph.tensors[op.outputs[0]].name: op.name for op in graph.operators}
    assert set(order) == set(names)
    assert names[order[0]] in ("CONV_2D", "MEAN", "FULLY_CONNECTED")
    assert names[order[-1]] == "SOFTMAX"
