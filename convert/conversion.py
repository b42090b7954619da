"""Converts a model step by step: prepare a job, convert each variant, compare it with float."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from convert import flatbuffer, gate, images, inspection, preprocessing, quantize
from convert.errors import ConversionError
from convert.float_model import FloatModel
from convert.gate import Bar, Comparison, Probabilities
from convert.images import Images
from convert.preprocessing import Preprocessing
from convert.quantize import Calibrated, Calibrator
from emotion_edge.errors import UsageError
from emotion_edge.model.manifest import InputSpec, Manifest
from emotion_edge.values import Image

KERAS_CHECKED = 64
"""Number of images on which the float32 ``.tflite`` is compared with Keras itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A float model, how it is fed, and the images that calibrate and judge its conversion.

    data: where the images come from. source: every image that may be used for calibration.
    calibration: what the manifest says about the calibration images. reference: the float32
    ``.tflite``. expected: its probabilities on ``judged``. keras_difference: the largest
    difference of a probability between it and Keras. calibrators: those made so far, by the hash of
    their images; jobs made from this one share them.
    """

    model: FloatModel
    spec: InputSpec
    labels: tuple[str, ...]
    data: Path
    source: Images
    calibration_images: Images
    seed: int
    calibration: Mapping[str, Any]
    judged: Images
    bar: Bar
    reference: bytes
    expected: Probabilities
    keras_difference: float
    convention: str = "fer2013"
    threads: int = 1
    calibrators: dict[str, Calibrator] = field(default_factory=dict, repr=False, compare=False)

    def manifest(self, variant: str, spec: InputSpec | None = None) -> Manifest:
        """The manifest that a variant runs with; ``spec`` if it is fed differently from float."""
        return Manifest(
            name=self.model.name,
            variant=variant,
            model_sha256="",
            labels=self.labels,
            input=spec or self.spec,
            output=self.model.output,
            convention=self.convention,
        )

    def calibrator(self) -> Calibrator:
        """A calibrator over the calibration images, made once."""
        key, faces = self.calibration_images.sha256, self.calibration_images.faces
        if key not in self.calibrators:
            made = Calibrator(self.model, faces, self.spec.scale, self.spec.offset)
            self.calibrators[key] = made
        return self.calibrators[key]

    def calibration_faces(self, count: int) -> Image:
        """A calibration set of another size, chosen in the same way."""
        return self.source.at(images.stratified(self.source.truth, count, self.seed)).faces

    def halves(self) -> tuple[Job, Job]:
        """The same job with half of the judging images each, stratified by class."""
        truth = self.judged.truth
        first = np.zeros(len(truth), np.bool_)
        first[images.stratified(truth, (len(truth) + 1) // 2, self.seed)] = True
        one, other = (
            replace(
                self,
                judged=replace(
                    self.judged.at(np.flatnonzero(rows)),
                    protocol=f"{self.judged.protocol}; {name}",
                ),
                expected=self.expected[rows],
            )
            for rows, name in (
                (first, "half that chose the method"),
                (~first, "half that confirms"),
            )
        )
        return one, other

    def spec_of(self, calibrated: Calibrated) -> InputSpec:
        """How a model quantised from ``calibrated`` is fed."""
        return replace(self.spec, scale=calibrated.scale, offset=calibrated.offset)


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted model and how it compares with float.

    spec: how it is fed. failures: what the bar does not allow, empty when it passes.
    method: how it was made, e.g. ``{"ranges": "min-max"}``. selection: for a recovered model, the
    comparison on the images that chose its method; ``comparison`` is then on other images.
    """

    model: bytes
    variant: str
    spec: InputSpec
    comparison: Comparison
    failures: tuple[str, ...]
    method: Mapping[str, Any] = field(default_factory=dict)
    selection: Comparison | None = None

    @property
    def passed(self) -> bool:
        """Whether the bar allows it."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class Attempt:
    """One variant that was asked for, and what came of it.

    variant: as asked; ``converted.variant`` is ``mixed`` where int8 was recovered so.
    reported: the same comparison on further splits. recovered: whether recovery was tried.
    """

    variant: str
    converted: Converted
    reported: tuple[Comparison, ...] = ()
    recovered: bool = False

    @property
    def passed(self) -> bool:
        """Whether the bar allows the file."""
        return self.converted.passed


def prepare(
    model: FloatModel,
    data: str | Path,
    *,
    labels: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float = 0.0,
    colour: str | None = None,
    margin: float = 0.0,
    calibration_split: str = images.TRAINING,
    calibration_count: int = 512,
    seed: int = 0,
    gate_split: str = images.GATE,
    report_splits: Sequence[str] = (),
    bar: Bar | None = None,
    convention: str = "fer2013",
    threads: int = 1,
    prepared: Preprocessing | None = None,
) -> Job:
    """Read everything a conversion needs and score the float model.

    convention: what counts as correct (``train.targets.judged``). prepared: mean and deviation of
    the network's input, after scale and offset.
    Raises UsageError, DataError or ConversionError.
    """
    if calibration_count < 1:
        raise UsageError(f"--calibration-images {calibration_count}: give 1 or more")
    model, scale, offset, colour = _fed(model, prepared, scale, offset, colour)
    spec = _input_spec(model, scale, offset, colour, margin)
    labels = tuple(labels or images.default_labels(model.outputs, data, gate_split))
    if len(labels) != model.outputs:
        raise UsageError(
            f"{len(labels)} labels ({', '.join(labels)}) for the {model.outputs} outputs of "
            f"{model.name}: give one per output, in their order"
        )
    source = images.calibration_set(
        data,
        calibration_split,
        spec,
        labels,
        judged=(gate_split, *report_splits),
        convention=convention,
    )
    chosen = source.at(images.stratified(source.truth, calibration_count, seed))
    judged = images.read(data, gate_split, spec, labels, convention)
    reference = quantize.float32(model)
    probe = Manifest(model.name, "float32", "", labels, spec, model.output)
    expected = gate.predict(reference, probe, judged, threads=threads)
    return Job(
        model=model,
        spec=spec,
        labels=labels,
        data=Path(data),
        source=source,
        calibration_images=chosen,
        seed=seed,
        calibration={
            "source": source.source,
            "split": calibration_split,
            "images": len(chosen),
            "of": len(source),
            "stratified": "by class",
            "seed": seed,
            "sha256": chosen.sha256,
        },
        judged=judged,
        bar=bar or Bar(),
        reference=reference,
        expected=expected,
        keras_difference=gate.check_against_keras(model, probe, expected, judged, KERAS_CHECKED),
        convention=convention,
        threads=threads,
    )


def _fed(
    model: FloatModel,
    prepared: Preprocessing | None,
    scale: float | None,
    offset: float,
    colour: str | None,
) -> tuple[FloatModel, float | None, float, str | None]:
    """The model, scale, offset and colour once mean and deviation are included."""
    if prepared is None:
        return model, scale, offset, colour
    if prepared.colour and colour and colour != prepared.colour:
        raise UsageError(
            f"--colour {colour}: {prepared.source} takes {prepared.colour}; omit --colour"
        )
    scale, colour = 1.0 if scale is None else scale, colour or prepared.colour
    if prepared.uniform:  # a scale and an offset, which the device applies
        std = float(prepared.std.item())
        offset = (offset - float(prepared.mean.item())) / std
        return replace(model, preprocessing=prepared.facts()), scale / std, offset, colour
    return preprocessing.build_in(model, prepared), scale, offset, colour


def _input_spec(
    model: FloatModel, scale: float | None, offset: float, colour: str | None, margin: float
) -> InputSpec:
    if scale is None:
        if not model.rescales:
            raise UsageError(
                f"{model.name} has no Rescaling layer: give the scale of its input "
                "(pixel * scale + offset), e.g. --scale 1/255, or --scale 1 if it takes 0..255; "
                "or --mean and --std, or --preprocess"
            )
        scale = 1.0
    colour = "gray" if model.channels == 1 else colour or "rgb"
    return InputSpec(model.height, model.width, model.channels, colour, scale, offset, margin)


def attempt(
    job: Job,
    variant: str,
    *,
    recovering: bool = False,
    report_splits: Sequence[str] = (),
    forced: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Attempt:
    """Convert one variant, recover it if asked, and report on further splits.

    forced: whether a file that fails is written too, and so reported on.
    say: is called with each step of a recovery, one line.
    """
    converted = convert(job, variant)
    recovers = recovering and variant == "int8" and not converted.passed
    if recovers:
        from convert import recover

        converted = recover.recover(job, converted, say=say)
    reported = (
        tuple(report_on(job, converted, split) for split in report_splits)
        if converted.passed or forced
        else ()
    )
    return Attempt(variant, converted, reported, recovers)


def convert(job: Job, variant: str) -> Converted:
    """Convert one variant and compare it with float.

    Raises ConversionError when the converter fails, or leaves a float operator in int8.
    """
    if variant == "int8":
        if flatbuffer.subgraphs(job.reference) > 1:  # TFLite's calibrator crashes on a loop
            raise ConversionError(
                f"{job.model.name} contains a loop (LSTM, GRU or another recurrent layer), which "
                "TFLite cannot quantise to int8: use --variant float16"
            )
        calibrated = job.calibrator().calibrated()
        return judge(
            job,
            quantize.quantize(calibrated.model),
            "int8",
            spec=job.spec_of(calibrated),
            method={"ranges": "min-max"},
        )
    make = {
        "float32": lambda model: job.reference,
        "float16": quantize.float16,
        "dynamic": quantize.dynamic,
    }
    if variant not in make:
        raise UsageError(f"variant {variant!r}; expected int8, {', '.join(make)}")
    return judge(job, make[variant](job.model), variant)


def judge(
    job: Job,
    model: bytes,
    variant: str,
    *,
    spec: InputSpec | None = None,
    method: Mapping[str, Any] | None = None,
) -> Converted:
    """Compare a FlatBuffer with the float model and apply the bar."""
    if variant == "int8":
        inspection.require_integer(model, job.model.name)
    manifest = job.manifest(variant, spec)
    answers = gate.predict(model, manifest, job.judged, threads=job.threads)
    comparison = gate.compare(job.expected, answers, job.judged)
    failures = tuple(comparison.failures(job.bar))
    return Converted(model, variant, manifest.input, comparison, failures, method or {})


def report_on(job: Job, converted: Converted, split: str) -> Comparison:
    """The same comparison on a split that nothing was chosen on."""
    others = images.read(job.data, split, job.spec, job.labels, job.convention)
    plain, mirrored = (
        (
            gate.predict(job.reference, job.manifest("float32"), faces, threads=job.threads),
            gate.predict(
                converted.model,
                job.manifest(converted.variant, converted.spec),
                faces,
                threads=job.threads,
            ),
        )
        for faces in (others, others.mirrored)
    )
    return gate.compare(*plain, others, flipped=mirrored)
