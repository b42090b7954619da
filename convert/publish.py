"""Writes a converted file with its manifest, under the right name."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata as distributions
from pathlib import Path
from typing import Any

from convert import metadata, quantize
from convert.conversion import Attempt, Converted, Job
from convert.gate import Comparison
from emotion_edge.errors import UsageError
from emotion_edge.model import manifest as manifests
from emotion_edge.model.manifest import InputSpec, Manifest
from train.files import refuse_existing, replacing

_MEASURED = frozenset(
    {
        *("name", "variant", "model_sha256", "labels", "input", "output", "licence", "schema"),
        *("accuracy", "calibration", "training", "versions", "gate"),
        *("convention", "certainty", "prior"),
    }
)
_MEASURED_INPUT = frozenset({"height", "width", "channels", "colour", "scale", "offset", "margin"})
"""What the converter itself puts into the manifest. All other fields pass through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the manifest contains beyond the converter's own measurements.

    training: of the training run. fields, input_fields: optional fields of the manifest and of its
    input, by name. licence: of the weights.
    """

    training: Mapping[str, Any]
    fields: Mapping[str, Any]
    input_fields: Mapping[str, Any]
    licence: str


def facts(
    record: Mapping[str, Any] | None, fields: Mapping[str, Any], *, licence: str = ""
) -> Facts:
    """Combine the training run's record with fields given by hand, which win.

    record: ``training.json``; None without one. fields: names as in the manifest, those of its
    input as ``input.NAME``.
    Raises UsageError for a field that the manifest does not have or that the converter sets.
    """
    optional = _optional(Manifest, _MEASURED)
    optional_input = _optional(InputSpec, _MEASURED_INPUT)
    allowed = [*optional, *(f"input.{name}" for name in optional_input)]
    unknown = [name for name in fields if name not in allowed]
    if unknown:
        raise UsageError(
            f"--manifest-field {unknown[0]}: the manifest has no such optional field; "
            f"expected one of {', '.join(allowed)}"
        )
    record = record or {}
    of_input = record.get("input")
    recorded_input = of_input if isinstance(of_input, Mapping) else {}
    return Facts(
        training=training_facts(record),
        fields={
            **{name: record[name] for name in optional if name in record},
            **{name: fields[name] for name in optional if name in fields},
        },
        input_fields={
            **{name: recorded_input[name] for name in optional_input if name in recorded_input},
            **{
                name: fields[f"input.{name}"]
                for name in optional_input
                if f"input.{name}" in fields
            },
        },
        licence=licence,
    )


def _optional(kind: Any, measured: frozenset[str]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.name not in measured]


def describe(job: Job, attempt: Attempt, facts: Facts | None = None, *, name: str = "") -> Manifest:
    """The manifest of a converted model."""
    facts = facts or Facts(training={}, fields={}, input_fields={}, licence="")
    converted = attempt.converted
    first = converted.comparison
    return dataclasses.replace(
        job.manifest(converted.variant, converted.spec),
        name=name or job.model.name,
        input=dataclasses.replace(converted.spec, **facts.input_fields),
        licence=facts.licence,
        certainty=_rounded({"split": first.split, **first.certainty}),
        prior=tuple(_rounded(first.prior)),
        accuracy={result.split: _accuracy(result) for result in (first, *attempt.reported)},
        calibration={**job.calibration, **converted.method}
        if converted.variant in ("int8", "mixed")
        else {},
        training={
            "keras_sha256": job.model.sha256,
            "parameters": job.model.parameters,
            **({"preprocessing": dict(job.model.preprocessing)} if job.model.preprocessing else {}),
            **facts.training,
        },
        versions=versions(),
        gate={
            "split": first.split,
            "passed": converted.passed,
            "forced": not converted.passed,
            "failures": list(converted.failures),
            **(_choice(converted.selection) if converted.selection else {}),
            "bar": {
                "drop_points": job.bar.drop,
                "agreement_percent": job.bar.agreement,
                "recall_points": job.bar.recall_points,
                "recall_images": job.bar.recall_images,
            },
            "runtime": "LiteRT with XNNPACK",
            "float32_against_keras": float(f"{job.keras_difference:.1e}"),
        },
        **facts.fields,
    )


def _choice(selection: Comparison) -> dict[str, Any]:
    """The figures on the images that chose a recovered model's method."""
    return {
        "chosen_on": {
            "images": selection.n,
            **_rounded({"drop_points": selection.drop, "agreement_percent": selection.agreement}),
        }
    }


def write(path: Path, converted: Converted, manifest: Manifest, *, overwrite: bool) -> Path:
    """Write the model with its metadata and manifest, completely or not at all.

    Raises OutputExists; UsageError when the file's name says another variant.
    """
    require_name(path, converted.variant)
    network = metadata.with_metadata(converted.model, manifest)
    write_bytes(path, manifests.attach(network, manifest), overwrite=overwrite)
    return path


def written(path: Path, converted: Converted) -> str:
    """One line about a file that was written."""
    return f"{path}: {path.stat().st_size:,} bytes, {quantize.VARIANTS[converted.variant]}"


def final_place(path: Path, attempt: Attempt) -> Path:
    """Where the file goes: ``path``, renamed where int8 became mixed."""
    made = attempt.converted.variant
    if made == attempt.variant:
        return path
    return path.with_name(path.name.replace(attempt.variant, made))


def require_name(path: Path, variant: str) -> None:
    """Raises UsageError when a file's name says another variant."""
    for other in quantize.VARIANTS:
        if other in path.stem.replace("_", "-").split("-") and other != variant:
            raise UsageError(
                f"{path.name} would contain a {variant} model: "
                f"name it {path.name.replace(other, variant)}"
            )


def require_absent(path: Path, variant: str) -> None:
    """Fail before the work starts if the file could not be written after it."""
    require_name(path, variant)
    refuse_existing(path, overwrite=False)


def write_bytes(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write to a temporary name, then rename. Raises OutputExists or DataError."""
    refuse_existing(path, overwrite)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


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
    "tau",
    "temperature",
)


def training_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the record that ``python -m train`` writes which the manifest contains.

    A record of another origin is kept whole.
    """
    if not {"name", "config", "data_sha256"} <= set(record):
        return dict(record)
    return {key: record[key] for key in _TRAINING if key in record}


def versions() -> dict[str, str]:
    """The versions that made the file; no dates, so the same input gives the same bytes."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("keras", "tensorflow", "tensorflow-cpu", "ai-edge-litert", "numpy"):
        try:
            found[name] = distributions.version(name)
        except distributions.PackageNotFoundError:
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
    "balanced_accuracy",
    "recall_six",
    "original_labels",
    "recall",
    "calibration_error",
    "calibration_noise",
    "confusion",
)
"""The part of ``train.evaluate.score`` that the manifest contains, for the cards."""


def _accuracy(result: Comparison) -> dict[str, Any]:
    def figures(found: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: found[key] for key in _KEPT if found.get(key) is not None}
        if found.get("ferplus", {}).get("images"):
            kept["ferplus"] = {
                key: found["ferplus"][key]
                for key in ("accuracy", "images", "original_label", "eight_classes")
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
    """Six decimal places: readable, and correct when rounded further."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
