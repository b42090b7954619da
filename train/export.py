"""Exports the model to ship from a trained run: one head, temperature, record, plots.

Everything here is chosen on PublicTest. Mix, class adjustment and temperature are folded into the
last layer (:mod:`train.heads`), so they cost nothing on the device.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from emotion_edge.kiosk.board import read_board
from emotion_edge.model.labels import EMOTIONS
from train import heads, metrics, networks, plots, targets
from train.augment import Augmentation, augment
from train.config import Config, Fit, Overrides, Targets, load_config
from train.data import Dataset, Split
from train.errors import ConfigError, DataError, TrainingError
from train.evaluate import mistakes, percent, score
from train.files import read_history, replacing, table, write_json, write_text
from train.fit import fit, is_finished, make_model, predict_logits, training_rows
from train.heads import Heads
from train.hosts import ALONE, Host

Floats = NDArray[np.float32]

HEADS = "heads.npz"
"""Next to an exported model: the heads that its last layer was folded from."""


def plot_curve(curve: list[dict[str, float]], chosen: dict[str, float], stem: Path) -> None:
    """Original labels against FER+ majority for each mix, one point per tau."""
    with plots.figure(6.4, 4) as (page, axes):
        for index, tau in enumerate((0.0, 0.25, 0.5)):
            points = [row for row in curve if row["tau"] == tau and row["mix"] >= 0]
            axes.plot(
                [100 * row["original"] for row in points],
                [100 * row["ferplus"] for row in points],
                label=f"tau {tau:g}",
                **plots.series(index),
            )
        axes.plot(
            100 * chosen["original"],
            100 * chosen["ferplus"],
            "k*",
            label=f"exported: mix {chosen['mix']:g}, tau {chosen['tau']:g}",
        )
        axes.set(
            xlabel="accuracy on original labels, PublicTest, %",
            ylabel="FER+ majority, PublicTest, %",
            title="One trunk, two conventions",
        )
        axes.legend()
        plots.save(page, stem)


def hardware() -> str:
    """The processor and the number of its cores, as this machine names them."""
    board = read_board()
    backend = keras.backend.backend()
    return f"{board.cpu}, {os.cpu_count()} cores, Keras {keras.__version__} on {backend}"


def train(
    config: Config,
    data: Dataset,
    folder: Path,
    *,
    overrides: Overrides | None = None,
    overwrite: bool = False,
    save_h5: bool = False,
    later: frozenset[Path] = frozenset(),
    host: Host = ALONE,
    **how: Any,
) -> dict[str, Any]:
    """Train a configuration and export it, after those it depends on; returns its record.

    Each has its folder next to ``folder``, under its own name, and is kept where it was trained
    before. ``overrides`` are those of ``load_config``, for all of them; ``later`` are the folders
    of those that wait for this one; ``how`` goes to ``fit``. Raises ConfigError before any
    training when two would share a folder: a circle of ``after``, or an ``--out`` of that name;
    also for a first stage that is not trained yet where there are several hosts. Of these, all but
    the first return an empty record.
    """
    weights = None
    later |= {folder}
    if config.after and config.start:
        raise ConfigError(f"{config.name} has both `after` and `start`: give one of them")
    if config.after:
        first = load_config(config.path.parent / config.after, overrides=overrides)
        before = folder.parent / first.name
        if before in later:
            raise ConfigError(
                f"{config.name} comes after {first.name}, whose run would be in {before}, the "
                "folder of a later stage: give another --out, or change `after`"
            )
        if not is_finished(before, first):
            if host.count > 1:
                raise ConfigError(
                    f"{config.name} comes after {first.name}, which is not in {before}: train it "
                    "first, and copy its folder to every host"
                )
            train(first, data, before, overrides=overrides, overwrite=overwrite, later=later, **how)
        weights = load_run(before, data)[1].get_weights()
    if config.start:
        weights = start_weights(config, data)
    model = fit(config, data, folder, overwrite=overwrite, weights=weights, host=host, **how)
    if not host.is_first:
        return {}
    return export(model, config, data, folder, save_h5=save_h5)


def start_weights(config: Config, data: Dataset) -> list[Floats]:
    """The weights of an exported model and its heads as those of the configuration's network.

    Raises ConfigError when there is no such model or it is another network.
    """
    path = config.path.parent / config.start
    if not path.is_file():
        raise ConfigError(f"{config.name} starts from {path}, which does not exist")
    weights: list[Floats] = _two_headed(path, config, data).get_weights()
    return weights


def _two_headed(path: Path, config: Config, data: Dataset) -> keras.Model:
    """The network of an exported model with the heads next to it, logits out."""
    images = data.split("Training").images
    network = make_model(config, len(data.labels), (images.shape[1], images.shape[2]))
    networks.reopen(keras.models.load_model(path, compile=False), network)
    found = Heads.load(path.with_name(HEADS))
    names = ["label", "votes"] if config.targets.votes_head else ["label"]
    parts = [found.heads[name] for name in names]
    kernel, bias = (np.concatenate(values, axis=-1) for values in zip(*parts, strict=True))
    network.get_layer("logits").set_weights([kernel, bias])
    return network


def heads_of(model: keras.Model, data: Dataset) -> Heads:
    """The heads of a trained network, and the class shares of the votes it was trained on."""
    classes = len(data.labels)
    kernel, bias = model.get_layer("logits").get_weights()
    names = ("label", "votes")[: len(bias) // classes]
    kernels = np.split(kernel, len(names), axis=-1)
    biases = np.split(bias, len(names))
    votes = training_rows(data).votes
    shares = {}
    if "votes" in names and votes is not None:
        shares["votes"] = heads.class_shares(targets.vote_shares(votes))
    return Heads(dict(zip(names, zip(kernels, biases, strict=True), strict=True)), shares)


def export(
    model: keras.Model, config: Config, data: Dataset, folder: Path, *, save_h5: bool = False
) -> dict[str, Any]:
    """Fold the heads into one, and write ``model.keras``, ``heads.npz`` and the run's report.

    Returns the record that is also in ``training.json``.
    """
    classes = len(data.labels)
    how = config.targets
    found = heads_of(model, data)
    record: dict[str, Any] = {
        "name": config.name,
        "about": config.about,
        "config": config.as_dict(),
        "labels": list(data.labels),
        "data": data.source,
        "data_sha256": data.sha256,
        "dropped": dict(data.dropped),
        "training_rows": len(training_rows(data)),
    }
    temperature = 1.0
    public = data.splits.get("PublicTest")
    if public is not None:
        logits = predict_logits(model, public.images)
        record |= _choose(logits, found, how, public, folder)
        temperature = record["temperature"]
        probabilities = metrics.softmax(_point(logits, found, how) / np.float32(temperature))
        record["PublicTest"] = score(probabilities, public, data.labels, convention=how.convention)
        title = f"{config.name}, PublicTest"
        plots.confusion(
            np.array(record["PublicTest"]["confusion"]), data.labels, folder / "confusion", title
        )
        rows, truth = targets.judged(public, how.convention)
        judged = dataclasses.replace(public.select(rows), labels=truth)
        mistakes(probabilities[rows], judged, data.labels, folder / "mistakes", title)
    history = read_history(folder)
    cost = {
        "epochs": len(history),
        "hours": round(history[-1]["seconds"] / 3600, 3) if history else 0.0,
        "hardware": hardware(),
        "finished": time.strftime("%Y-%m-%d"),
    }
    stages = [*_stages_before(config, folder), {"name": config.name, **cost}]
    record |= {**cost, "stages": stages}
    if history:
        plots.curves(history, folder / "curves", f"Loss: {config.name}")
    head = found.folded(mix=how.mix, tau=how.tau, classes=classes, temperature=temperature)
    done = networks.export(model, head)
    record |= networks.cost(done)
    save_model(done, folder / "model.keras")
    found.save(folder / HEADS)
    if save_h5:
        save_model(done, folder / "model.h5")
    write_json(folder / "training.json", record)
    write_text(folder / "report.md", markdown(record))
    return record


def _point(logits: Floats, found: Heads, how: Targets) -> Floats:
    """The logits (N, classes) of the configuration's point of the curve."""
    if len(found.heads) == 1:
        return logits
    label, votes = np.split(logits, 2, axis=1)
    shares = found.shares.get("votes", np.ones(label.shape[1], np.float32))
    return heads.adjusted(label, votes, shares, mix=how.mix, tau=how.tau)


def _choose(
    logits: Floats, found: Heads, how: Targets, public: Split, folder: Path | None
) -> dict[str, Any]:
    """The curve on PublicTest, where there are two heads and votes, and the temperature."""
    facts: dict[str, Any] = {"convention": how.convention, "mix": how.mix, "tau": how.tau}
    if len(found.heads) > 1 and "votes" in found.shares and public.votes is not None:
        label, votes = np.split(logits, 2, axis=1)
        rows = heads.curve(label, votes, found.shares["votes"], public)
        facts["curve"] = rows
        facts["best_for_people"] = heads.best_for_people(rows)
        nearest = min(rows, key=lambda r: abs(r["mix"] - how.mix) + abs(r["tau"] - how.tau))
        if folder is not None:
            plot_curve(rows, nearest, folder / "mix")
    rows_judged, truth = targets.judged(public, how.convention)
    point = _point(logits, found, how)[rows_judged]
    facts["temperature"] = metrics.fit_temperature(point, truth)
    return facts


def export_again(
    path: Path,
    data: Dataset,
    out: Path,
    *,
    mix: float | None = None,
    tau: float | None = None,
    classes: int = len(EMOTIONS),
    convention: str = "people",
) -> dict[str, Any]:
    """Export another point of the curve from an exported model and the heads next to it.

    ``mix`` and ``tau`` default to the point that :func:`heads.best_for_people` chooses on
    PublicTest for ``people``, and to 0 for ``fer2013``. A head that the heads file does
    not hold yet is fitted on Training. Writes ``out``, its
    ``training.json`` and ``heads.npz``; returns the record. Raises ConfigError, DataError.
    """
    public = data.split("PublicTest")
    found = Heads.load(path.with_name(HEADS))
    model = keras.models.load_model(path, compile=False)
    trunk = networks.trunk(model)
    record_path = path.with_name("training.json")
    record = json.loads(record_path.read_text()) if record_path.is_file() else {}
    for key in ("curve", "best_for_people"):  # of the seven classes; written again below
        record.pop(key, None)
    for name in ("votes", "eight") if classes == len(heads.EIGHT) else ("votes",):
        if name not in found.heads:
            found = with_head(name, trunk, found, data)
    features = predict_logits(trunk, public.images)
    labels = heads.EIGHT if classes == len(heads.EIGHT) else EMOTIONS
    if classes == len(EMOTIONS):
        label, votes = (
            np.asarray(features @ kernel + bias, np.float32)
            for kernel, bias in (found.heads["label"], found.heads["votes"])
        )
        rows = heads.curve(label, votes, found.shares["votes"], public)
        best = heads.best_for_people(rows)
        record |= {"curve": rows, "best_for_people": best}
        if convention == "people":
            mix = best["mix"] if mix is None else mix
            tau = best["tau"] if tau is None else tau
    mix, tau = mix or 0.0, tau or 0.0
    kernel, bias = found.folded(mix=mix, tau=tau, classes=classes)
    judged, truth = targets.judged(public, convention, classes)
    point = features @ kernel + bias
    temperature = metrics.fit_temperature(point[judged], truth)
    head = found.folded(mix=mix, tau=tau, classes=classes, temperature=temperature)
    done = networks.export(model, head)
    probabilities = metrics.softmax(point / np.float32(temperature))
    record |= {
        "convention": convention,
        "mix": mix,
        "tau": tau,
        "temperature": temperature,
        "labels": list(labels),
        "PublicTest": score(probabilities, public, labels, convention=convention),
        **networks.cost(done),
    }
    save_model(done, out)
    found.save(out.with_name(HEADS))
    write_json(out.with_name("training.json"), record)
    return record


def with_head(name: str, trunk: keras.Model, found: Heads, data: Dataset) -> Heads:
    """The same heads and one fitted to Training's votes: ``votes``, or ``eight`` with contempt."""
    rows = training_rows(data)
    if rows.votes is None:
        raise DataError("this head needs FER+'s votes: put fer2013new.csv next to the data")
    shares = heads.eight_shares(rows.votes) if name == "eight" else targets.vote_shares(rows.votes)
    head = heads.fit_head(predict_logits(trunk, rows.images), shares)
    return Heads({**found.heads, name: head}, {**found.shares, name: heads.class_shares(shares)})


def _stages_before(config: Config, folder: Path) -> list[dict[str, Any]]:
    """The cost of the runs that this one continues, first to last."""
    if config.start:
        path = (config.path.parent / config.start).with_name("training.json")
        return _stages_in(path)
    path = folder.parent / Path(config.after).stem / "training.json"
    return _stages_in(path) if config.after else []


def _stages_in(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    stages: list[dict[str, Any]] = json.loads(path.read_text()).get("stages", [])
    return stages


def save_model(model: keras.Model, path: Path) -> None:
    """Save whole or not at all; the extension decides the format."""
    with replacing(path) as part:
        model.save(part)


def markdown(record: dict[str, Any]) -> str:
    """The run as a Markdown page."""
    text = [f"# {record['name']}\n", f"{record['about']}\n"]
    rows = [
        ["parameters", f"{record['parameters']:,}"],
        ["multiply-accumulates", f"{record['macs'] / 1e6:.1f} M"],
        ["training rows", f"{record['training_rows']:,}"],
        *[[f"dropped: {why}", str(count)] for why, count in record["dropped"].items()],
        ["epochs", str(record["epochs"])],
        ["hours", f"{record['hours']:.2f} on {record['hardware']}"],
        *[
            [f"before: {stage['name']}", f"{stage['epochs']} epochs, {stage['hours']:.2f} hours"]
            for stage in record["stages"][:-1]
        ],
        ["seed", str(record["config"]["fit"]["seed"])],
    ]
    public = record.get("PublicTest")
    if public:
        rows += [
            [f"PublicTest, {record['convention']} convention", percent(public["accuracy"])],
            ["PublicTest, macro-F1", percent(public["macro_f1"])],
            ["PublicTest, calibration error", percent(public["calibration_error"])],
            ["temperature folded in", f"{record['temperature']:.3f}"],
        ]
        if "ferplus" in public:
            rows.append(["PublicTest, FER+ majority", percent(public["ferplus"]["accuracy"])])
        rows += [[f"recall of {k}", percent(v)] for k, v in public["recall"].items()]
    text.append(table(["", ""], rows))
    text.append("![curves](curves.png)\n\n![confusion](confusion.png)\n")
    return "\n".join(text)


# --- runs on disk -----------------------------------------------------------------------------


def export_run(folder: Path, data: Dataset) -> dict[str, Any]:
    """Export a run again as its configuration says, without training."""
    config, model = load_run(folder, data)
    return export(model, config, data, folder)


def load_run(folder: Path, data: Dataset) -> tuple[Config, keras.Model]:
    """A run's configuration and its model with the kept weights, two-headed, logits out.

    The folder of a shipped model counts as a run. Raises TrainingError for any other folder.
    """
    path, checkpoint = folder / "config.json", folder / "checkpoint.npz"
    record, shipped = folder / "training.json", folder / f"{folder.resolve().name}.keras"
    if record.is_file() and shipped.is_file() and not path.is_file():
        config = _config(json.loads(record.read_text())["config"])
        return config, _two_headed(shipped, config, data)
    if not path.is_file() or not checkpoint.is_file():
        raise TrainingError(f"{folder} contains no run: expected config.json and checkpoint.npz")
    config = _config(json.loads(path.read_text()))
    images = data.split("Training").images
    model = make_model(config, len(data.labels), (images.shape[1], images.shape[2]))
    with np.load(checkpoint) as store:
        kind = "best" if config.fit.keep == "best" and "best/0" in store else "average"
        if f"{kind}/0" in store:
            model.set_weights([store[f"{kind}/{i}"] for i in range(len(model.weights))])
        else:
            for i, variable in enumerate(model.variables):
                variable.assign(store[f"model/{i}"])
    return config, model


def _config(raw: dict[str, Any]) -> Config:
    """A configuration from its JSON."""
    return Config(
        **{
            **raw,
            "targets": Targets(**raw["targets"]),
            "augment": Augmentation(**raw["augment"]),
            "fit": Fit(**raw["fit"]),
            "path": Path(raw["path"]),
        }
    )


def soften(folders: list[Path], data: Dataset, out: Path, *, views: int = 8, seed: int = 0) -> None:
    """Average the predictions of runs over augmented views of Training rows, for a student.

    Writes ``rows`` int64 (N,) and ``probabilities`` float16 (N, heads, classes).
    """
    train = training_rows(data)
    classes = len(data.labels)
    total: Floats | None = None
    for folder in folders:
        config, model = load_run(folder, data)
        mild = dataclasses.replace(config.augment, erase=0.0, mixup=0.0, cutmix=0.0)
        for view in range(views):
            rng = np.random.default_rng((seed, view))
            faces, _ = augment(train.images, np.zeros((len(train), 1), np.float32), mild, rng)
            logits = predict_logits(model, faces[..., 0])
            probabilities = metrics.softmax(logits.reshape(len(train), -1, classes))
            total = probabilities if total is None else total + probabilities
    if total is None:
        raise DataError("soften needs at least one run")
    mean = (total / (views * len(folders))).astype(np.float16)
    with replacing(out) as part, part.open("wb") as file:
        np.savez_compressed(file, rows=train.rows, probabilities=mean)
