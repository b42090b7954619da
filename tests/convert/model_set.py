"""Makes a set of Keras files like the public ones, converts them, and counts what passes.

    python -m tests.convert.model_set make FOLDER --data fer2013.csv [--only NAMES] [--tf-keras DIR]
    python -m tests.convert.model_set count FOLDER --data fer2013.csv [--only NAMES]
    python -m tests.convert.model_set tune FOLDER --data fer2013.csv [--only NAMES]
    python -m tests.convert.model_set table FOLDER

``make`` trains the networks of ``zoo`` for two minutes each, and writes each in its format.
``count`` converts each with ``--recover``: PublicTest chooses (one half) and confirms (the other).
The file is then compared with float on images that took no part in this: PrivateTest, and Training
rows that neither trained nor calibrated. Use the second to improve the method, so that the first
stays an independent test. Both commands continue where an earlier run ended. ``tune`` compares
plain int8, corrected biases and fine-tuning for the models that fail as plain int8. ``table``
prints the results and counts.
DIR: where tf_keras is installed, if it is not in the environment.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from convert import conversion, float_model, gate, images, keras_file, preprocessing
from tests.convert import counting, legacy_files, zoo
from tests.convert.zoo import Member
from train.data import load_fer2013

with_keras = float_model.keras
TRAINED = 12000
"""Rows of Training that train a network, the first ones in a seeded order."""

HELD = 4000
"""Rows of Training for the last comparison, the last ones in the same order."""

EPOCHS = 8
"""With fewer, the largest probabilities are so nearly equal that int8's steps do not separate them,
and the count says more about the training than about the conversion."""


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
        jit_compile=False,  # compiling takes longer than these few steps
    )
    x, y = fed(member, faces[rows], statistics), place[truth[rows]]
    held = len(x) // 8
    network.fit(x[held:], y[held:], batch_size=64, epochs=EPOCHS, verbose=0)
    right = float((network.predict(x[:held], verbose=0).argmax(axis=1) == y[:held]).mean())
    if name == "dead-branch":
        layer = network.get_layer("dead")
        layer.set_weights([weights * 1e-9 for weights in layer.get_weights()])
    print(f"{name}: validation {right:.3f}", flush=True)
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


def on_held_rows(options: argparse.Namespace, name: str, job: conversion.Job, made: Any) -> Any:
    """The comparison on the Training rows that nothing was fitted to."""
    member = zoo.MEMBERS[name]
    source = images.read(options.data, "Training", job.spec, member.labels)
    held = source.at(positions(options, member, held=True))
    plain = gate.predict(job.reference, job.manifest("float32"), held)
    answers = gate.predict(made.model, job.manifest(made.variant, made.spec), held)
    return gate.compare(plain, answers, held)


def count(options: argparse.Namespace) -> None:
    """Convert every member; one JSON line each."""
    counting.count(options.folder, options.names, lambda name: result(options, name))


def result(options: argparse.Namespace, name: str) -> counting.Row:
    """Load, convert, recover and verify one member."""
    job = job_of(options, name)
    found = counting.measure(
        job,
        "float16" if name == "gru" else "int8",
        held=lambda made: on_held_rows(options, name, job, made),
    )
    return {"format": zoo.MEMBERS[name].format, **found}


def tune(options: argparse.Namespace) -> None:
    """Fine-tune each model that fails as plain int8; one JSON line each, with and without."""
    counting.tune(options.folder, options.names, lambda name: job_of(options, name))


def table(options: argparse.Namespace) -> None:
    """One line per model, and the counts."""
    print(counting.table(counting.results(options.folder)))


COMMANDS = {"make": make, "count": count, "tune": tune, "table": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", help="names, separated by commas (default: all)")
    parser.add_argument("--tf-keras", type=Path, metavar="DIR")
    options = parser.parse_args()
    options.names = options.only.split(",") if options.only else list(zoo.MEMBERS)
    if options.tf_keras:
        sys.path.append(str(options.tf_keras))
    COMMANDS[options.command](options)


if __name__ == "__main__":
    main()
