"""Tries to make a failing int8 model pass, with the cheapest methods first.

Cheap means cheap on the device: other ranges, equalised channels and corrected biases cost
nothing there; an operator left in float costs time on every frame, so it is tried last.

1. ranges: of the logits, that which keeps the probabilities nearest to float's; of all activations,
   other calibration sizes and other ways to choose a range from what was seen;
2. equalisation: channels of one tensor brought to like ranges, by scaling the weights before and
   after (Nagel et al. 2019, Data-Free Quantization through Weight Equalization and Bias
   Correction, section 4.1); batch norms are folded into the convolutions before that;
3. bias correction: the mean error of each channel, measured on the calibration set, taken out of
   the int32 bias (the same paper, section 4.2, measured instead of derived);
4. fine-tuning: a few hundred training steps with rounding simulated (``finetune``);
5. mixed: the operators that do most harm stay in float32, as few as will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert import conversion, finetune, gate, quantize, ranges
from convert.conversion import Converted, Job
from convert.flatbuffer import WEIGHTED, Graph, Operator
from convert.quantize import Calibrated, Calibrator
from convert.ranges import Observations
from emotion_edge.model.backend import LITERT
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.manifest import InputSpec
from emotion_edge.values import Image
from train import metrics

SIZES = (128, 2048)
"""Calibration set sizes to try in addition to the requested one."""

PASSING = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD", "RELU")
"""What a positive factor on a channel goes through unchanged."""

LARGEST_FACTOR = 16.0
"""Of equalisation; more than 4 bits would be taken from noise."""

MEASURED = 96
"""Calibration images behind a bias correction and a sensitivity."""

FLOAT_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""How many operators are left in float, one after the other."""


def recover(job: Job, failed: Converted, *, say: Callable[[str], None]) -> Converted:
    """Try each step until a model passes; if none does, return the one nearest to float.

    One half of the judging images chooses, the other confirms: of twenty candidates, the first to
    pass on the images that choose is partly lucky. After a failed confirmation the next candidate
    to be confirmed has to be nearer to float than that one was.
    say: is called with the outcome of each step, one line.
    """
    choosing, confirming = job.halves()
    best, bound, tried = failed, math.inf, 0
    for candidate in rungs(choosing, failed):
        say(_outcome(candidate))
        divergence = candidate.comparison.divergence_mean
        if candidate.passed and divergence < bound:
            tried, bound = tried + 1, divergence
            candidate = replace(
                conversion.judge(
                    confirming,
                    candidate.model,
                    candidate.variant,
                    spec=candidate.spec,
                    method={**candidate.method, "confirmations tried": tried},
                ),
                selection=candidate.comparison,
            )
            say(_outcome(candidate))
            if candidate.passed:
                return candidate
        if not candidate.passed and divergence < best.comparison.divergence_mean:
            best = candidate
    return best


def _outcome(converted: Converted) -> str:
    result = converted.comparison
    method = ", ".join(f"{key} {value}" for key, value in converted.method.items())
    step = "recover" if converted.selection is None else "confirm on the other half"
    return (
        f"  {step}: {method}: drop {result.drop:+.2f}, {result.agreement:.2f}% equal, "
        f"KL {result.divergence_mean:.2g}: {'passes' if converted.passed else 'fails'}"
    )


def rungs(job: Job, failed: Converted) -> Iterator[Converted]:
    """Every attempt, cheapest first, each measured by the gate when it is asked for."""
    plain = job.calibrator()
    kept: list[tuple[float, Calibrator, Mapping[str, Any]]] = [
        (failed.comparison.divergence_mean, plain, dict(failed.method))
    ]

    def attempt(calibrator: Calibrator, facts: Mapping[str, Any]) -> Converted:
        calibrated = calibrator.calibrated(facts["ranges"], answers="logits" in facts)
        converted = conversion.judge(
            job,
            quantize.quantize(calibrated.model),
            "int8",
            spec=job.spec_of(calibrated),
            method=facts,
        )
        kept.append((converted.comparison.divergence_mean, calibrator, facts))
        return converted

    def best() -> tuple[float, Calibrator, Mapping[str, Any]]:
        return min(kept, key=lambda item: item[0])

    yield attempt(plain, {"ranges": "min-max", "logits": "least divergence"})
    logits = {key: value for key, value in best()[2].items() if key == "logits"}
    for method in list(ranges.METHODS)[1:]:
        yield attempt(plain, {"ranges": method, **logits})
    for size in SIZES:
        faces = job.calibration_faces(size)
        if len(faces) != len(plain.faces):
            other = plain.on(faces=faces)
            for method in ("min-max", "least-error"):
                yield attempt(other, {"ranges": method, **logits, "images": len(faces)})

    _, chosen, facts = best()
    level = chosen.on(graph=equalise(chosen.graph, chosen.seen))
    for way in dict.fromkeys((facts["ranges"], "min-max", "least-error")):
        yield attempt(level, {**facts, "ranges": way, "equalised": "channels"})

    divergence, chosen, facts = best()
    calibrated = chosen.calibrated(facts["ranges"], answers="logits" in facts)
    spec = job.spec_of(calibrated)
    faces = chosen.faces[:MEASURED]
    corrected = correct_biases(job, calibrated, spec, faces)
    facts = {**facts, "biases": "corrected"}
    result = conversion.judge(job, corrected, "int8", spec=spec, method=facts)
    divergence = min(divergence, result.comparison.divergence_mean)
    yield result

    missing = finetune.unsupported(calibrated.model)
    tuned = None
    if not missing:
        tuned = finetune.finetune(calibrated, job.calibration_faces(finetune.IMAGES))
        result = conversion.judge(
            job,
            quantize.quantize(tuned.model),
            "int8",
            spec=spec,
            method={**facts, "biases": "trained", "fine-tuned": f"{finetune.STEPS} steps"},
        )
        yield result
        if result.comparison.divergence_mean < divergence:
            calibrated, facts = tuned, result.method
        else:
            tuned = None

    order = sensitivity(job, calibrated, spec, faces)
    for count in FLOAT_STEPS:
        if count >= len(order):
            break
        mixed = (
            correct_biases(job, calibrated, spec, faces, keep_float=order[:count])
            if tuned is None  # trained biases are right already
            else quantize.quantize(calibrated.model, keep_float=order[:count])
        )
        method_facts = {**facts, "float operators": count}
        yield conversion.judge(job, mixed, "mixed", spec=spec, method=method_facts)


def equalise(model: bytes, seen: Observations) -> bytes:
    """The same float function with the channels between two weighted operators in like ranges.

    Where the second is depthwise, its weights are quantised channel by channel, so the activation
    alone decides; else the factor is the one that balances the activation's range with the range
    of the weights that read it, ``sqrt(weights / activation)``.
    """
    graph = Graph(model)
    for at in range(len(graph.operators)):
        first = graph.operators[at]
        second = _next_weighted(graph, first)
        if second is None:
            continue
        activation = seen[first.outputs[0]]
        width = np.maximum(np.abs(activation.low), np.abs(activation.high)).astype(np.float64)
        weights = graph.values(second.inputs[1])
        if len(width) != weights.shape[-1] or width.max() <= 0:
            continue
        if second.name == "DEPTHWISE_CONV_2D":
            wanted = 1 / np.maximum(width, 1e-9)
        else:
            reading = np.abs(weights).reshape(-1, len(width)).max(axis=0)
            wanted = np.sqrt(np.maximum(reading, 1e-9) / np.maximum(width, 1e-9))
        alive = width > 1e-6 * width.max()
        factor = np.where(alive, wanted * width.max() / (wanted * width)[alive].max(), 1.0)
        factor = np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
        _scale_outputs(graph, first, factor)
        graph.set_values(graph.own(second, 1), weights / factor)
    return graph.to_bytes()


def correct_biases(
    job: Job,
    calibrated: Calibrated,
    spec: InputSpec,
    faces: Image,
    *,
    keep_float: Collection[str] = (),
) -> bytes:
    """int8 with the mean error of each channel taken out of the biases, from input to output.

    In eight groups of layers: a layer is corrected for what reaches it after the layers before it
    were corrected, in an eighth of the time of one layer after the other.
    keep_float: as for ``quantize.quantize``.
    """
    float_graph = Graph(calibrated.model)
    graph = Graph(quantize.quantize(calibrated.model, keep_float=keep_float))
    twin = {tensor.name: tensor.index for tensor in float_graph.tensors}
    layers = [
        operator
        for operator in graph.operators
        if operator.name in WEIGHTED
        and len(operator.inputs) > 2
        and operator.inputs[2] >= 0
        and graph.tensors[operator.outputs[0]].kind == "INT8"
        and graph.tensors[operator.outputs[0]].name in twin
    ]
    if not layers:
        return graph.to_bytes()
    variant = "mixed" if keep_float else "int8"
    classifier = TFLiteClassifier(graph.to_bytes(), job.manifest(variant, spec), LITERT)
    wanted = _channel_means(
        calibrated.model,
        quantize.inputs(faces, spec.scale, spec.offset),
        [twin[graph.tensors[operator.outputs[0]].name] for operator in layers],
    )
    for group in np.array_split(np.arange(len(layers)), min(8, len(layers))):
        outputs = [layers[at].outputs[0] for at in group]
        found = _channel_means(
            graph.to_bytes(), (classifier.tensor(face) for face in faces), outputs
        )
        for at, output, mean in zip(group, outputs, found, strict=True):
            layer = graph.operators[layers[at].index]
            out = graph.tensors[output]
            error = wanted[at] - (mean - out.zero_points[0]) * out.scales[0]
            steps = graph.tensors[layer.inputs[0]].scales[0] * np.array(
                graph.tensors[layer.inputs[1]].scales
            )
            bias = graph.values(layer.inputs[2]) + np.rint(error / steps)
            graph.set_values(graph.own(layer, 2), bias)
    return graph.to_bytes()


def sensitivity(job: Job, calibrated: Calibrated, spec: InputSpec, faces: Image) -> list[str]:
    """Operators by the harm they do when they alone are int8, the worst first, by output tensor.

    Harm is the divergence of the answers from the float model's on some calibration images.
    """
    graph = Graph(calibrated.model)
    names = [graph.tensors[operator.outputs[0]].name for operator in graph.operators]
    expected = TFLiteClassifier(job.reference, job.manifest("float32"), LITERT).predict(faces)
    harm = {}
    for name in names:
        alone = quantize.quantize(calibrated.model, keep_float=[n for n in names if n != name])
        answers = TFLiteClassifier(alone, job.manifest("mixed", spec), LITERT).predict(faces)
        harm[name] = float(
            metrics.kl_divergence(expected, answers, smoothing=gate.SMOOTHING).mean()
        )
    return sorted(names, key=lambda name: -harm[name])


def _next_weighted(graph: Graph, first: Operator) -> Operator | None:
    """The weighted operator that alone reads ``first``, if a channel's factor can pass to it."""
    if first.name not in WEIGHTED or first.activation not in ("", "RELU"):
        return None
    at, channels = first.outputs[0], graph.tensors[first.outputs[0]].shape[-1]
    while True:
        readers = graph.readers(at)
        if len(readers) != 1 or at in graph.outputs:
            return None
        reader = readers[0]
        if reader.name in WEIGHTED:
            return reader if reader.inputs[0] == at else None
        shape = graph.tensors[reader.outputs[0]].shape
        if reader.name not in PASSING or reader.activation not in ("", "RELU"):
            return None
        if shape[-1] != channels:
            return None
        at = reader.outputs[0]


def _scale_outputs(graph: Graph, operator: Operator, factor: NDArray[np.float64]) -> None:
    weights = graph.values(operator.inputs[1])
    if operator.name == "DEPTHWISE_CONV_2D":
        scaled = weights * factor
    else:
        scaled = weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
    graph.set_values(graph.own(operator, 1), scaled)
    operator = graph.operators[operator.index]
    if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
        bias = graph.values(operator.inputs[2]) * factor
        graph.set_values(graph.own(operator, 2), bias)


def _channel_means(
    model: bytes, inputs: Iterator[NDArray[Any]], tensors: list[int]
) -> list[NDArray[np.float64]]:
    """Mean of each channel of some tensors over all inputs and positions."""
    run = ranges.preserving(model)
    sums = [np.zeros(0)] * len(tensors)
    count = 0
    for fed in inputs:
        values = run(fed)
        count += 1
        for at, tensor in enumerate(tensors):
            found = values(tensor)
            mean = found.reshape(-1, found.shape[-1]).mean(axis=0, dtype=np.float64)
            sums[at] = mean if count == 1 else sums[at] + mean
    return [total / max(count, 1) for total in sums]
