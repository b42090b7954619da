"""Makes a set of Keras files like the public ones, converts them, and counts what passes.

    python -m tests.convert.model_set make FOLDER --data fer2013.csv [--only NAMES] [--tf-keras DIR]
    python -m tests.convert.model_set count FOLDER --data fer2013.csv [--only NAMES]
    python -m tests.convert.model_set table FOLDER

``make`` trains the networks of ``zoo`` for less than a minute each, so they are better than chance
and no more, and writes each in its format. ``count`` converts each with ``--recover``: PublicTest
chooses (one half) and confirms (the other). Then the file is compared with float once more, on
Training rows that neither trained nor calibrated. PrivateTest is not used. Both continue where an
earlier run ended. ``table`` prints the results and counts.
DIR: where tf_keras is installed, if it is not in the environment.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from convert import conversion, float_model, gate, images, keras_file, preprocessing
from tests.convert import legacy_files, zoo
from tests.convert.zoo import Member
from train.data import load_fer2013

with_keras = float_model.keras
TRAINED = 4000
"""Rows of Training that train a network, the first ones in a seeded order."""

HELD = 4000
"""Rows of Training for the last comparison, the last ones in the same order."""

EPOCHS = 4


def order(count: int) -> Any:
    """The seeded order of Training's rows."""
    return np.random.default_rng(0).permutation(count)


def fed(member: Member, faces: Any, statistics: tuple[Any, Any]) -> Any:
    """Faces ``(n, 48, 48)`` as the network was trained on them, float32 ``(n, h, w, c)``."""
    x = faces[..., None].astype(np.float32)
    if member.shape[2] == 3:
        x = np.repeat(x, 3, axis=-1)
    if member.fed == "pixel":
        return (x - statistics[0][..., None]) / statistics[1][..., None]
    if isinstance(member.fed, str):
        mode = preprocessing.MODES[member.fed]
        return ((x - mode.mean) / mode.std).astype(np.float32)
    return x * np.float32(member.fed[0]) + np.float32(member.fed[1])


def train(name: str, member: Member, faces: Any, truth: Any, statistics: Any) -> Any:
    """The trained network, made by Keras 3."""
    keras = with_keras
    keras.utils.set_random_seed(len(name))
    if "bfloat16" in member.format:
        keras.config.set_dtype_policy("mixed_bfloat16")
    image = keras.Input(member.shape)
    network = keras.Model(image, member.build(keras, image, len(member.labels)))
    keras.config.set_dtype_policy("float32")
    own = [zoo.FER.index(label) if label in zoo.FER else -1 for label in member.labels]
    place = np.array([own.index(at) if at in own else -1 for at in range(7)])
    rows = np.flatnonzero(place[truth] >= 0)
    logits = network.layers[-1].__class__.__name__ == "Dense" and (
        network.layers[-1].activation is keras.activations.linear
    )
    network.compile(
        keras.optimizers.Adam(2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=logits),
        metrics=["accuracy"],
    )
    x, y = fed(member, faces[rows], statistics), place[truth[rows]]
    held = len(x) // 8
    history = network.fit(
        x[held:], y[held:], batch_size=64, epochs=EPOCHS, verbose=0,
        validation_data=(x[:held], y[:held]),
    )  # fmt: skip
    if name == "dead-branch":
        layer = network.get_layer("dead")
        layer.set_weights([weights * 1e-9 for weights in layer.get_weights()])
    print(f"{name}: validation {max(history.history['val_accuracy']):.3f}", flush=True)
    return network


def in_tf_keras(member: Member, network: Any) -> Any:
    """The same network in tf_keras."""
    import tf_keras

    image = tf_keras.Input(member.shape)
    made = tf_keras.Model(image, member.build(tf_keras, image, len(member.labels)))
    made.set_weights(network.get_weights())
    return made


def write(folder: Path, name: str, member: Member, network: Any) -> str:
    """Write the network in its format; returns the file's name."""
    match member.format:
        case "Keras 3" | "Keras 3, bfloat16":
            network.save(folder / f"{name}.keras")
            return f"{name}.keras"
        case "Keras 3 h5":
            network.save(folder / f"{name}.h5")
            return f"{name}.h5"
        case "tf_keras h5" | "HDF5 named .keras":
            in_tf_keras(member, network).save(folder / f"{name}.h5", save_format="h5")
            if member.format == "tf_keras h5":
                return f"{name}.h5"
            (folder / f"{name}.h5").rename(folder / f"{name}.keras")
            return f"{name}.keras"
        case "tf_keras .keras":
            in_tf_keras(member, network).save(folder / f"{name}.keras")
            return f"{name}.keras"
        case "SavedModel":
            in_tf_keras(member, network).save(folder / name, save_format="tf")
            return name
        case "weights and JSON":
            old = in_tf_keras(member, network)
            old.save_weights(folder / f"{name}.h5")
            (folder / f"{name}.json").write_text(old.to_json())
            return f"{name}.h5"
        case "Sequential of Keras 2.0":
            layers = network.layers[1:]
            config = legacy_files.keras_2(argparse.Namespace(layers=layers), "2.0.8")
            config["config"] = config["config"]["layers"]
            legacy_files.write_h5(folder / f"{name}.h5", config, layers)
            return f"{name}.h5"
        case "multi-GPU h5":
            old = in_tf_keras(member, network)
            old.save(folder / "inner.h5", save_format="h5")
            legacy_files.write_multi_gpu(folder / f"{name}.h5", folder / "inner.h5")
            return f"{name}.h5"
    raise ValueError(member.format)


def make(options: argparse.Namespace) -> None:
    """Train and write every member."""
    if options.tf_keras:
        sys.path.append(str(options.tf_keras))
    options.folder.mkdir(parents=True, exist_ok=True)
    part = load_fer2013(options.data).split("Training")
    rows = order(len(part))[:TRAINED]
    faces, truth = part.images[rows], part.labels[rows]
    statistics = zoo.pixel_statistics(faces)
    for at, values in enumerate(statistics):
        np.save(options.folder / ("mean.npy", "std.npy")[at], values)
    for name in options.names:
        if (options.folder / f"{name}.written").is_file():
            continue
        member = zoo.MEMBERS[name]
        network = train(name, member, faces, truth, statistics)
        written = write(options.folder, name, member, network)
        (options.folder / f"{name}.written").write_text(written)


def load(folder: Path, name: str) -> float_model.FloatModel:
    """The file of a member, read as a user would."""
    member = zoo.MEMBERS[name]
    path = folder / (folder / f"{name}.written").read_text()
    return float_model.load(
        path,
        architecture=str(folder / f"{name}.json") if "JSON" in member.format else None,
        custom_objects=keras_file.import_custom_objects("tests.convert.zoo")
        if name == "lambda"
        else None,
    )


def job_of(options: argparse.Namespace, name: str) -> conversion.Job:
    """What ``python -m convert`` prepares, with the held-back rows left out of calibration."""
    member, folder = zoo.MEMBERS[name], options.folder
    scale, offset = member.fed if isinstance(member.fed, tuple) else (None, 0.0)
    prepared = None
    if member.fed == "pixel":
        prepared = preprocessing.read(str(folder / "mean.npy"), str(folder / "std.npy"), None)
    elif isinstance(member.fed, str):
        prepared = preprocessing.read(None, None, member.fed)
    job = conversion.prepare(
        load(folder, name),
        options.data,
        labels=member.labels,
        scale=scale,
        offset=offset,
        prepared=prepared,
    )
    source = job.source.at(positions(options, member, held=False))
    chosen = source.at(images.stratified(source.truth, 512, job.seed))
    return replace(job, source=source, calibration_images=chosen)


def positions(options: argparse.Namespace, member: Member, *, held: bool) -> Any:
    """Rows that are held back, or the others, among those whose label the model has."""
    part = load_fer2013(options.data).split("Training")
    is_held = np.zeros(len(part), bool)
    is_held[order(len(part))[-HELD:]] = True
    known = [at for at, label in enumerate(zoo.FER) if label in member.labels]
    return np.flatnonzero(is_held[np.isin(part.labels, known)] == held)


def verified(options: argparse.Namespace, name: str, job: conversion.Job, made: Any) -> Any:
    """The comparison on the rows that nothing was fitted to."""
    member = zoo.MEMBERS[name]
    source = images.read(options.data, "Training", job.spec, member.labels)
    held = source.at(positions(options, member, held=True))
    plain = gate.predict(job.reference, job.manifest("float32"), held)
    answers = gate.predict(made.model, job.manifest(made.variant, made.spec), held)
    return gate.compare(plain, answers, held)


def count(options: argparse.Namespace) -> None:
    """Convert every member; one JSON line each, then the table."""
    log = options.folder / "results.jsonl"
    done = {row["name"] for row in rows_of(log)}
    for name in options.names:
        if name in done:
            continue
        try:
            row = result(options, name)
        except Exception as error:
            traceback.print_exc()
            row = {"name": name, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(row), flush=True)
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")


def rows_of(log: Path) -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def table(options: argparse.Namespace) -> None:
    """One line per model, and the counts."""
    rows = rows_of(options.folder / "results.jsonl")
    print(
        "| model | file | float, % | int8 alone | after --recover | equal, other half | verified |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        if "error" in row:
            print(f"| {row['name']} | {zoo.MEMBERS[row['name']].format} | {row['error']} |||||")
            continue
        verdicts = ["passes" if row[key]["passes"] else "fails" for key in ("plain", "verified")]
        made = row["variant"] if row["gate"]["passes"] else "fails"
        print(
            f"| {row['name']} | {row['format']} | {row['float']} | {verdicts[0]} | {made} | "
            f"{row['gate']['equal']} | {verdicts[1]}, {row['verified']['equal']} |"
        )
    fine = [row for row in rows if "error" not in row]
    repaired = [row for row in fine if row["variant"] in ("int8", "mixed")]
    repaired = [row for row in repaired if not row["plain"]["passes"]]
    good = [row for row in repaired if row["variant"] == "int8" and row["gate"]["passes"]]
    print(
        f"\n{len(fine)} of {len(rows)} load; {len(repaired)} fail as plain int8, of which "
        f"--recover makes {len(good)} pure int8 that pass and "
        f"{sum(row['verified']['passes'] for row in good)} of these pass on the other images too"
    )


def result(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Load, convert, recover and verify one member."""
    job = job_of(options, name)
    accuracy = float((job.expected.argmax(axis=1) == job.judged.truth).mean())
    row: dict[str, Any] = {
        "name": name,
        "format": zoo.MEMBERS[name].format,
        "loads": True,
        "float": round(100 * accuracy, 2),
    }
    variant = "float16" if name == "gru" else "int8"
    plain = conversion.convert(job, variant)
    made = plain
    if not plain.passed:
        from convert import recover

        made = recover.recover(job, plain, say=lambda line: print(line, flush=True))
    check = verified(options, name, job, made)
    row |= {
        "plain": _short(plain.comparison, plain.passed),
        "variant": made.variant,
        "method": dict(made.method),
        "gate": _short(made.comparison, made.passed),
        "verified": _short(check, not check.failures(job.bar)),
        "failures": [*made.failures, *check.failures(job.bar)],
    }
    return row


def _short(comparison: Any, passed: bool) -> dict[str, Any]:
    return {
        "drop": round(comparison.drop, 2),
        "equal": round(comparison.agreement, 2),
        "clear": round(comparison.clear_agreement, 2),
        "passes": passed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("make", "count", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", help="names, separated by commas (default: all)")
    parser.add_argument("--tf-keras", type=Path, metavar="DIR")
    options = parser.parse_args()
    options.names = options.only.split(",") if options.only else list(zoo.MEMBERS)
    {"make": make, "count": count, "table": table}[options.command](options)


if __name__ == "__main__":
    main()
