"""Tries to make a failing int8 model pass, with the cheapest methods first.

Cheap means cheap on the device: other ranges, equalised channels, corrected and trained biases cost
nothing there; an operator left in float costs time on every frame, so it is tried last.

1. ranges: of the logits, that which keeps the probabilities nearest to float's; of all activations,
   other calibration sizes and other ways to choose a range from what was seen;
2. equalisation: channels of one tensor brought to like ranges (``channels.equalise``);
3. bias correction: the mean error of each channel, measured on the calibration set, taken out of
   the int32 bias (Nagel et al. 2019, Data-Free Quantization through Weight Equalization and Bias
   Correction, section 4.2, measured instead of derived);
4. fine-tuning: a few hundred training steps with rounding simulated (``finetune``);
5. mixed: the operators that do most harm stay in float32, as few as will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert import channels, conversion, finetune, gate, quantize, ranges
from convert.conversion import Converted, Job
from convert.flatbuffer import WEIGHTED, Graph
from convert.gate import Bar, Comparison, Probabilities
from convert.quantize import Calibrated, Calibrator
from emotion_edge.model.backend import LITERT
from emotion_edge.model.classifier import TFLiteClassifier
from emotion_edge.model.manifest import InputSpec, Manifest
from emotion_edge.values import Image
from train import metrics

SIZES = (128, 2048)
"""Calibration set sizes to try in addition to the requested one."""

MEASURED = 96
"""Calibration images behind a bias correction and a sensitivity."""

FLOAT_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""How many operators are left in float, one after the other."""


def recover(job: Job, failed: Converted, *, say: Callable[[str], None]) -> Converted:
    """Try each step until a model passes; if none does, return the one nearest to float.

    Of the candidates of a stage that pass, the one nearest to float is taken: the first to pass is
    partly lucky. One half of the judging images chooses, the other confirms. In both together and
    their mirror images the share of equal predictions has to pass by ``margin``, or luck would
    decide whether the file passes on other images. After a failed confirmation the next candidate
    has to be nearer to float than that one was. If none has the margin, the last that passed
    without it is returned.
    say: is called with the outcome of each step, one line.
    """
    choosing, confirming = job.halves()
    asked = min(100.0, job.bar.agreement + margin(job.bar, 2 * len(job.judged)))
    mirrored: Probabilities | None = None
    best, bound, tried = failed, math.inf, 0
    passing: list[Converted] = []
    close: Converted | None = None
    for candidate, ends_stage in rungs(choosing, failed):
        say(_outcome(candidate))
        if candidate.passed:
            passing.append(candidate)
        elif _divergence(candidate) < _divergence(best):
            best = candidate
        if not ends_stage or not passing:
            continue
        chosen = min(passing, key=_divergence)
        passing.clear()
        if _divergence(chosen) >= bound:
            continue
        tried, bound = tried + 1, _divergence(chosen)
        confirmed = replace(
            conversion.judge(
                confirming,
                chosen.model,
                chosen.variant,
                spec=chosen.spec,
                method={**chosen.method, "confirmations tried": tried},
            ),
            selection=chosen.comparison,
        )
        unsure = ""
        if confirmed.passed:
            if mirrored is None:
                mirrored = answers_in_the_mirror(job, job.reference, job.manifest("float32"))
            equal = equal_share(job, (chosen.comparison, confirmed.comparison), mirrored, chosen)
            if equal < asked:
                unsure = f", but {equal:.2f}% with mirror images in all, of {asked:.2f}% asked"
        say(_outcome(confirmed, unsure))
        if confirmed.passed and not unsure:
            return confirmed
        if confirmed.passed:
            close = confirmed
        elif bound < _divergence(best):
            best = confirmed
    return close or best


def answers_in_the_mirror(job: Job, model: bytes, manifest: Manifest) -> Probabilities:
    """A model's probabilities on the mirror images of those that judge."""
    return gate.predict(model, manifest, job.judged.mirrored, threads=job.threads)


def equal_share(
    job: Job, parts: Sequence[Comparison], mirrored: Probabilities, converted: Converted
) -> float:
    """Percent of predictions equal to float's, over the judging images and their mirror images.

    Mirror images need no label and are nearly other images to a network: rounding flips others.
    parts: the comparisons of the judging images. mirrored: float's probabilities on the mirror
    images.
    """
    manifest = job.manifest(converted.variant, converted.spec)
    answers = answers_in_the_mirror(job, converted.model, manifest)
    turned = 100 * float((answers.argmax(axis=1) == mirrored.argmax(axis=1)).mean())
    upright = sum(part.n * part.agreement for part in parts) / sum(part.n for part in parts)
    return (upright + turned) / 2


def margin(bar: Bar, images: int) -> float:
    """One standard error of a share of equal predictions that is just enough, percent."""
    share = bar.agreement / 100
    return 100 * math.sqrt(share * (1 - share) / images)


def _divergence(converted: Converted) -> float:
    """From float, on the images that choose."""
    return (converted.selection or converted.comparison).divergence_mean


def _outcome(converted: Converted, but: str = "") -> str:
    result = converted.comparison
    method = ", ".join(f"{key} {value}" for key, value in converted.method.items())
    step = "recover" if converted.selection is None else "confirm on the other half"
    return (
        f"  {step}: {method}: drop {result.drop:+.2f}, {result.agreement:.2f}% equal, "
        f"KL {result.divergence_mean:.2g}: {'passes' if converted.passed else 'fails'}{but}"
    )


def rungs(job: Job, failed: Converted) -> Iterator[tuple[Converted, bool]]:
    """Every attempt, cheapest first, each measured by the gate when it is asked for.

    With each comes whether it ends a stage: the next one takes longer to make, or costs more on the
    device.
    """
    plain = job.calibrator()
    kept: list[tuple[float, Calibrator, Mapping[str, Any]]] = [
        (failed.comparison.divergence_mean, plain, dict(failed.method))
    ]

    def attempt(calibrator: Calibrator, facts: Mapping[str, Any]) -> tuple[Converted, bool]:
        calibrated = calibrator.calibrated(facts["ranges"], answers="logits" in facts)
        converted = conversion.judge(
            job,
            quantize.quantize(calibrated.model),
            "int8",
            spec=job.spec_of(calibrated),
            method=facts,
        )
        kept.append((converted.comparison.divergence_mean, calibrator, facts))
        return converted, False

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
    for kind in ("channels", "activations"):
        level = chosen.on(
            graph=channels.equalise(chosen.graph, chosen.seen, with_weights=kind == "channels")
        )
        for way in dict.fromkeys((facts["ranges"], "min-max", "least-error")):
            yield attempt(level, {**facts, "ranges": way, "equalised": kind})

    divergence, chosen, facts = best()
    calibrated = chosen.calibrated(facts["ranges"], answers="logits" in facts)
    spec = job.spec_of(calibrated)
    faces = chosen.faces[:MEASURED]
    corrected = correct_biases(job, calibrated, spec, faces)
    corrected_facts = {**facts, "biases": "corrected"}
    result = conversion.judge(job, corrected, "int8", spec=spec, method=corrected_facts)
    yield result, True
    # Where a rectifier's rounding moved the means, other biases make it worse from layer to layer.
    helps = result.comparison.divergence_mean < divergence
    if helps:
        divergence, facts = result.comparison.divergence_mean, corrected_facts

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
        yield result, True
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
            if helps and tuned is None  # trained biases are right already
            else quantize.quantize(calibrated.model, keep_float=order[:count])
        )
        method_facts = {**facts, "float operators": count}
        yield conversion.judge(job, mixed, "mixed", spec=spec, method=method_facts), True


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
