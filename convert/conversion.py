"""The whole way: convert, compare, judge, describe. `python -m convert` is a layer over it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from convert import gate, images, inspection, quantize
from convert.float_model import FloatModel
from convert.gate import Bar, Comparison, Probabilities
from convert.images import Images
from convert.quantize import Calibrated, Calibrator
from emotion_edge.errors import UsageError
from emotion_edge.model import manifest as manifests
from emotion_edge.model.manifest import InputSpec, Manifest
from emotion_edge.values import Image
from train.files import refuse_existing, replacing

KERAS_CHECKED = 64
"""Images on which the float32 ``.tflite`` is compared with Keras itself."""


@dataclass(frozen=True, slots=True)
class Job:
    """A float model, what it is fed, and the images that shape and judge its conversion.

    reference: the float32 ``.tflite``. expected: its probabilities on ``judged``.
    source: all that may be calibrated on. calibration: what the manifest says of the part chosen.
    """

    model: FloatModel
    spec: InputSpec
    labels: tuple[str, ...]
    source: Images
    calibration_images: Images
    seed: int
    calibration: Mapping[str, Any]
    judged: Images
    bar: Bar
    reference: bytes
    expected: Probabilities
    keras_difference: float
    threads: int = 1

    def manifest(self, variant: str, spec: InputSpec | None = None, **facts: Any) -> Manifest:
        """The manifest of one variant; ``spec`` where it is fed otherwise than the float model."""
        return Manifest(
            name=self.model.name,
            variant=variant,
            model_sha256="",
            labels=self.labels,
            input=spec or self.spec,
            output=self.model.output,
            **facts,
        )

    def calibrator(self) -> Calibrator:
        """Over the calibration set."""
        faces = self.calibration_images.faces
        return Calibrator(self.model, faces, self.spec.scale, self.spec.offset)

    def calibration_faces(self, count: int) -> Image:
        """A calibration set of another size, chosen in the same way."""
        return self.source.at(images.stratified(self.source.truth, count, self.seed)).faces

    def spec_of(self, calibrated: Calibrated) -> InputSpec:
        """What a model quantised from ``calibrated`` is fed."""
        return replace(self.spec, scale=calibrated.scale, offset=calibrated.offset)


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted model with the figures that speak for or against it.

    spec: what it is fed. failures: what the bar does not allow, empty when it passes.
    method: how it was made, e.g. ``{"ranges": "min-max"}``.
    """

    model: bytes
    variant: str
    spec: InputSpec
    comparison: Comparison
    failures: tuple[str, ...]
    method: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the bar allows it."""
        return not self.failures


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
    threads: int = 1,
) -> Job:
    """Read everything a conversion needs and score the float model.

    Raises UsageError, DataError or ConversionError for what cannot be.
    """
    if scale is None:
        if not model.rescales:
            raise UsageError(
                f"{model.name} has no Rescaling layer: say how a pixel becomes its input "
                "(pixel * scale + offset), e.g. --scale 1/255, or --scale 1 if it takes 0..255"
            )
        scale = 1.0
    if calibration_count < 1:
        raise UsageError(f"--calibration-images {calibration_count}: give 1 or more")
    spec = InputSpec(
        model.height,
        model.width,
        model.channels,
        "gray" if model.channels == 1 else colour or "rgb",
        scale,
        offset,
        margin,
    )
    labels = tuple(labels or images.default_labels(model.outputs, data, gate_split))
    if len(labels) != model.outputs:
        raise UsageError(
            f"{len(labels)} labels ({', '.join(labels)}) for the {model.outputs} outputs of "
            f"{model.name}: give one for each, in their order"
        )
    source = images.calibration_set(
        data, calibration_split, spec, labels, judged=(gate_split, *report_splits)
    )
    chosen = source.at(images.stratified(source.truth, calibration_count, seed))
    judged = images.read(data, gate_split, spec, labels)
    reference = quantize.float32(model)
    probe = Manifest(model.name, "float32", "", labels, spec, model.output)
    expected = gate.predict(reference, probe, judged, threads=threads)
    difference = gate.check_against_keras(model, probe, expected, judged, KERAS_CHECKED)
    return Job(
        model,
        spec,
        labels,
        source,
        chosen,
        seed,
        {
            "source": source.source,
            "split": calibration_split,
            "images": len(chosen),
            "of": len(source),
            "stratified": "by class",
            "seed": seed,
            "sha256": chosen.sha256,
        },
        judged,
        bar or Bar(),
        reference,
        expected,
        difference,
        threads,
    )


def convert(job: Job, variant: str) -> Converted:
    """One variant, measured.

    Raises ConversionError when the converter refuses, or leaves a float operator in int8.
    """
    if variant == "int8":
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
    """Compare a FlatBuffer with the float model, and hold it against the bar."""
    if variant == "int8":
        inspection.require_integer(model, job.model.name)
    manifest = job.manifest(variant, spec)
    answers = gate.predict(model, manifest, job.judged, threads=job.threads)
    comparison = gate.compare(job.expected, answers, job.judged)
    failures = tuple(comparison.failures(job.bar))
    return Converted(model, variant, manifest.input, comparison, failures, method or {})


def report_on(job: Job, converted: Converted, data: str | Path, split: str) -> Comparison:
    """The same comparison on a split that nothing was chosen on."""
    others = images.read(data, split, job.spec, job.labels)
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


def describe(
    job: Job,
    converted: Converted,
    reported: Sequence[Comparison] = (),
    *,
    name: str | None = None,
    training: Mapping[str, Any] | None = None,
    licence: str = "",
    forced: bool = False,
) -> Manifest:
    """The manifest of a finished conversion."""
    first = converted.comparison
    manifest = job.manifest(
        converted.variant,
        converted.spec,
        licence=licence,
        accuracy={result.split: _accuracy(result) for result in (first, *reported)},
        calibration={**job.calibration, **converted.method}
        if converted.variant in ("int8", "mixed")
        else {},
        training={
            "keras_sha256": job.model.sha256,
            "parameters": job.model.parameters,
            **(training or {}),
        },
        versions=versions(),
        gate={
            "split": first.split,
            "passed": converted.passed,
            "forced": forced,
            "failures": list(converted.failures),
            "bar": {
                "drop_points": job.bar.drop,
                "agreement_percent": job.bar.agreement,
                "recall_points": job.bar.recall_points,
                "recall_images": job.bar.recall_images,
            },
            "runtime": "LiteRT with XNNPACK",
            "float32_against_keras": float(f"{job.keras_difference:.1e}"),
        },
    )
    return replace(manifest, name=name or manifest.name)


def write(path: Path, converted: Converted, manifest: Manifest, *, overwrite: bool) -> Path:
    """Put the file in its place, whole or not at all.

    Raises OutputExists; UsageError when the name promises another variant.
    """
    require_name(path, converted.variant)
    write_bytes(path, manifests.attach(converted.model, manifest), overwrite=overwrite)
    return path


def require_name(path: Path, variant: str) -> None:
    """Raises UsageError when a file's name promises another variant."""
    for other in quantize.VARIANTS:
        if other in path.stem.replace("_", "-").split("-") and other != variant:
            raise UsageError(
                f"{path.name} would hold a {variant} model: "
                f"name it {path.name.replace(other, variant)}"
            )


def require_absent(path: Path, variant: str) -> None:
    """Refuse before the work what could not be written after it."""
    require_name(path, variant)
    refuse_existing(path, overwrite=False)


def write_bytes(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write beside, then rename. Raises OutputExists, or DataError when it cannot be."""
    refuse_existing(path, overwrite)
    with replacing(path) as beside:
        beside.write_bytes(data)


_TRAINING = (
    "name",
    "about",
    "config",
    "data",
    "data_sha256",
    "dropped",
    "training_rows",
    "epochs",
    "hours",
    "hardware",
    "finished",
    "stages",
    "mix",
    "temperature",
)


def training_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """Of the record that ``python -m train`` writes, what the manifest carries.

    A record of somebody else's is carried whole.
    """
    if not {"name", "config", "data_sha256"} <= set(record):
        return dict(record)
    return {key: record[key] for key in _TRAINING if key in record}


def versions() -> dict[str, str]:
    """What made the file; no dates, so that the same input gives the same bytes."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for distribution in ("keras", "tensorflow", "tensorflow-cpu", "ai-edge-litert", "numpy"):
        try:
            found[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return found


_KEPT = (
    "accuracy",
    "accuracy_interval",
    "without_twins",
    "without_twins_images",
    "twins",
    "twins_images",
    "flip_averaged",
    "macro_f1",
    "recall",
    "calibration_error",
    "calibration_noise",
    "confusion",
)
"""Of ``train.evaluate.score``, what the manifest carries for the cards."""


def _accuracy(result: Comparison) -> dict[str, Any]:
    def figures(found: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: found[key] for key in _KEPT if found.get(key) is not None}
        if found.get("ferplus", {}).get("images"):
            kept["ferplus"] = {
                key: found["ferplus"][key] for key in ("accuracy", "images", "original_label")
            }
        rounded: dict[str, Any] = _rounded(kept)
        return rounded

    return {
        "n": result.n,
        "protocol": result.protocol,
        "float": figures(result.float_figures),
        "converted": figures(result.converted_figures),
        **_rounded(
            {
                "drop_points": result.drop,
                "mcnemar_p": result.p_value,
                "agreement_percent": result.agreement,
                "divergence_mean": result.divergence_mean,
                "divergence_worst": result.divergence_worst,
            }
        ),
    }


def _rounded(value: Any) -> Any:
    """Six figures after the point: read by people, and still rounded rightly to any fewer."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
