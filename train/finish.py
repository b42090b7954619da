"""From a trained run to the model that ships: head share, temperature, record, pictures.

Everything here is chosen on PublicTest. The share of the votes head and the temperature are
folded into the last layer, so they cost nothing on the device.
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
from train import metrics, networks, plots, targets
from train.augment import Augmentation, augment
from train.config import Config, Fit, Overrides, Targets, load_config
from train.data import Dataset, Split
from train.errors import ConfigError, DataError, TrainingError
from train.evaluate import mistakes, percent, score
from train.files import read_history, replacing, table, write_json, write_text
from train.fit import fit, is_finished, make_model, predict_logits, training_rows

Floats = NDArray[np.float32]


def mix_heads(logits: Floats, classes: int, mix: float) -> Floats:
    """One set of logits (N, classes) from one or two heads."""
    if logits.shape[1] == classes:
        return logits
    return (1 - mix) * logits[:, :classes] + mix * logits[:, classes:]


def mix_curve(logits: Floats, split: Split, classes: int) -> list[dict[str, float]]:
    """Both accuracies on ``split`` for each share of the votes head.

    Below zero too: calibrated votes in its targets pull the label head towards the votes, and a
    small negative share pulls it back.
    """
    rows = []
    for mix in np.linspace(-0.2, 1, 25):
        predicted = mix_heads(logits, classes, float(mix)).argmax(axis=1)
        row = {"mix": float(mix), "accuracy": float(np.mean(predicted == split.labels))}
        if split.votes is not None:
            wanted, clear = targets.majority(split.votes)
            row["ferplus"] = float(np.mean((predicted == wanted)[clear]))
        rows.append(row)
    return rows


def plot_mix(curve: list[dict[str, float]], chosen: float, stem: Path, title: str) -> None:
    """Original labels against FER+ majority as the share of the votes head grows."""
    with plots.figure(6.4, 4) as (page, axes):
        for index, (key, label) in enumerate(
            (("accuracy", "original labels"), ("ferplus", "FER+ majority"))
        ):
            axes.plot(
                [row["mix"] for row in curve],
                [100 * row[key] for row in curve],
                label=label,
                **plots.series(index),
            )
        axes.axvline(chosen, color="#999999", linestyle=":", label=f"chosen: {chosen:g}")
        axes.set(
            xlabel="share of the votes head in the logits",
            ylabel="accuracy on PublicTest, %",
            title=title,
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
    **how: Any,
) -> dict[str, Any]:
    """Train a configuration and finish it, the ones it comes after first; returns its record.

    Each has its folder beside ``folder``, under its own name, and is left as it is where it was
    trained before. ``overrides`` are those of ``load_config``, for all of them; ``later`` are the
    folders of those that wait for this one; ``how`` goes to ``fit``. Raises ConfigError before
    any training when two would share a folder: a circle of ``after``, or an ``--out`` of that name.
    """
    weights = None
    later |= {folder}
    if config.after:
        first = load_config(config.path.parent / config.after, overrides=overrides)
        before = folder.parent / first.name
        if before in later:
            raise ConfigError(
                f"{config.name} comes after {first.name}, whose run is to be in {before} as well "
                "as a later one's: give another --out, or mend `after`"
            )
        if not is_finished(before, first):
            train(first, data, before, overrides=overrides, overwrite=overwrite, later=later, **how)
        weights = load_run(before, data)[1].get_weights()
    model = fit(config, data, folder, overwrite=overwrite, weights=weights, **how)
    return finish(model, config, data, folder, save_h5=save_h5)


def finish(
    model: keras.Model, config: Config, data: Dataset, folder: Path, *, save_h5: bool = False
) -> dict[str, Any]:
    """Fold head share and temperature, write ``model.keras`` and everything that tells of it.

    Returns the record that is also in ``training.json``.
    """
    classes = len(data.labels)
    public = data.splits.get("PublicTest")
    mix, temperature = config.targets.mix, 1.0
    record: dict[str, Any] = {
        "name": config.name,
        "about": config.about,
        "config": config.as_dict(),
        **networks.cost(networks.finish(model, classes)),
        "labels": list(data.labels),
        "data": data.source,
        "data_sha256": data.sha256,
        "dropped": dict(data.dropped),
        "training_rows": len(training_rows(data)),
    }
    if public is not None:
        logits = predict_logits(model, public.images)
        if logits.shape[1] > classes:
            curve = mix_curve(logits, public, classes)
            plot_mix(curve, mix, folder / "mix", config.name)
            record["mix_curve"] = curve
        mixed = mix_heads(logits, classes, mix)
        temperature = metrics.fit_temperature(mixed, public.labels)
        probabilities = metrics.softmax(mixed / np.float32(temperature))
        record["mix"], record["temperature"] = mix, temperature
        record["PublicTest"] = score(probabilities, public, data.labels)
        title = f"{config.name}, PublicTest"
        plots.confusion(
            np.array(record["PublicTest"]["confusion"]), data.labels, folder / "confusion", title
        )
        mistakes(probabilities, public, data.labels, folder / "mistakes", title)
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
    done = networks.finish(model, classes, mix=mix, temperature=temperature)
    save_model(done, folder / "model.keras")
    if save_h5:
        save_model(done, folder / "model.h5")
    write_json(folder / "training.json", record)
    write_text(folder / "report.md", markdown(record))
    return record


def _stages_before(config: Config, folder: Path) -> list[dict[str, Any]]:
    """What the runs cost that this one goes on from, first to last."""
    path = folder.parent / Path(config.after).stem / "training.json"
    if not config.after or not path.is_file():
        return []
    stages: list[dict[str, Any]] = json.loads(path.read_text()).get("stages", [])
    return stages


def save_model(model: keras.Model, path: Path) -> None:
    """Save beside and rename; the extension decides the format."""
    with replacing(path) as beside:
        model.save(beside)


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
            ["PublicTest, original labels", percent(public["accuracy"])],
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


def load_run(folder: Path, data: Dataset) -> tuple[Config, keras.Model]:
    """A run's configuration and its model with the kept weights, two-headed, logits out."""
    path, checkpoint = folder / "config.json", folder / "checkpoint.npz"
    if not path.is_file() or not checkpoint.is_file():
        raise TrainingError(f"{folder} holds no run: expected config.json and checkpoint.npz")
    raw = json.loads(path.read_text())
    config = Config(
        **{
            **raw,
            "targets": Targets(**raw["targets"]),
            "augment": Augmentation(**raw["augment"]),
            "fit": Fit(**raw["fit"]),
            "path": Path(raw["path"]),
        }
    )
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
    with replacing(out) as beside, beside.open("wb") as file:
        np.savez_compressed(file, rows=train.rows, probabilities=mean)
