"""Train one configuration on one data set.

The loop is ``keras.Model.fit`` with a data set of our own: each batch is drawn from (seed,
epoch, batch number) and from nothing else, so a run that was killed goes on where it stopped
and sees the very batches it would have seen.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from train import networks, targets
from train.augment import augment
from train.config import Config
from train.data import Dataset, Split
from train.errors import ConfigError, TrainingError

Floats = NDArray[np.float32]


class Batches(keras.utils.PyDataset):
    """Augmented batches of one epoch; ``epoch`` is set by the callback that starts it."""

    def __init__(self, images: NDArray[np.uint8], target: Floats, config: Config) -> None:
        super().__init__()
        self.images, self.target, self.config = images, target, config
        self.epoch = 0
        self.draw: Floats | None = None
        """Probability of each row when balancing by oversampling."""

    def __len__(self) -> int:
        return max(1, len(self.images) // self.config.fit.batch)

    def _rows(self) -> NDArray[np.int64]:
        rng = np.random.default_rng((self.config.fit.seed, self.epoch))
        if self.draw is not None:
            return rng.choice(len(self.images), len(self.images), p=self.draw)
        return rng.permutation(len(self.images))

    def __getitem__(self, index: int) -> tuple[Floats, Floats]:
        size = self.config.fit.batch
        rows = self._rows()[index * size : (index + 1) * size]
        rng = np.random.default_rng((self.config.fit.seed, self.epoch, index))
        return augment(self.images[rows], self.target[rows], self.config.augment, rng)


def cross_entropy(classes: int) -> Any:
    """Sum over heads of the cross-entropy of ``classes`` logits each, targets scaled before."""

    def loss(target: Any, logits: Any) -> Any:
        heads = logits.shape[-1] // classes
        target = ops.reshape(target, (-1, heads, classes))
        logits = ops.reshape(logits, (-1, heads, classes))
        return -ops.sum(target * ops.log_softmax(logits, axis=-1), axis=(1, 2))

    return loss


def agreement(classes: int) -> Any:
    """Share of rows whose label head agrees with the peak of its target."""

    def accuracy(target: Any, logits: Any) -> Any:
        return ops.equal(
            ops.argmax(target[:, :classes], axis=-1), ops.argmax(logits[:, :classes], axis=-1)
        )

    return accuracy


def make_targets(config: Config, split: Split, classes: int) -> Floats:
    """Targets of all heads, scaled by their shares, float32 (N, heads * classes)."""
    how = config.targets
    main = targets.label_targets(
        split, classes, label_share=how.label_share, smoothing=how.smoothing, seed=config.fit.seed
    )
    if how.raw_votes:
        main = (1 - how.raw_votes) * main + how.raw_votes * targets.vote_targets(split, main)
    heads, shares = [main], [1 - how.votes_head]
    if how.votes_head:
        heads.append(targets.vote_targets(split, main))
        shares.append(how.votes_head)
    if how.soft_labels:
        heads = [
            (1 - how.soft_share) * head + how.soft_share * soft
            for head, soft in zip(heads, _soft_labels(config, split, len(heads), classes), strict=True)
        ]
    return targets.join_heads(heads, shares)


def _soft_labels(config: Config, split: Split, heads: int, classes: int) -> list[Floats]:
    path = config.path.parent / config.targets.soft_labels
    if not path.is_file():
        raise ConfigError(f"no soft labels at {path}: make them with python -m train soften")
    with np.load(path) as store:
        rows, soft = store["rows"], store["probabilities"].astype(np.float32)
    order = np.searchsorted(rows, split.rows)
    if not np.array_equal(rows[np.minimum(order, len(rows) - 1)], split.rows):
        raise ConfigError(f"{path} was made for other rows: make it again with this data")
    if soft.shape[1:] != (heads, classes):
        raise ConfigError(f"{path} holds {soft.shape[1:]} per row, expected {(heads, classes)}")
    return [soft[order, head] for head in range(heads)]


def optimizer(config: Config, steps: int) -> keras.optimizers.Optimizer:
    """The optimiser with its schedule over ``steps`` steps an epoch."""
    fit = config.fit
    rate: Any = fit.learning_rate
    if fit.schedule == "cosine":
        warm = round(fit.warmup_epochs * steps)
        rate = keras.optimizers.schedules.CosineDecay(
            fit.learning_rate / 100 if warm else fit.learning_rate,
            max(1, fit.epochs * steps - warm),
            warmup_target=fit.learning_rate if warm else None,
            warmup_steps=warm,
        )
    decay = fit.weight_decay or None
    if fit.optimizer == "sgd":
        made = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay)
    elif fit.optimizer == "adam":
        made = keras.optimizers.Adam(rate, weight_decay=decay)
    else:
        raise ConfigError(f"optimizer must be sgd or adam, got {fit.optimizer!r}")
    if decay:
        made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made


class Average:
    """Exponential average of all weights, batch statistics included.

    Taken every few steps in NumPy: the optimiser's own average leaves the batch statistics out,
    which then belong to other weights.
    """

    EVERY = 8

    def __init__(self, model: keras.Model, decay: float) -> None:
        self.model, self.decay = model, decay
        self.values: list[Floats] = [np.array(w) for w in model.get_weights()]
        self.count = 0

    def update(self) -> None:
        self.count += 1
        # A young average would remember the random start for hundreds of steps.
        keep = min(self.decay**self.EVERY, self.count / (self.count + 9))
        for mean, now in zip(self.values, self.model.get_weights(), strict=True):
            mean += np.float32(1 - keep) * (now - mean)


class Run(keras.callbacks.Callback):
    """Everything that happens around an epoch: average, validation, checkpoint, log."""

    def __init__(
        self, folder: Path, config: Config, batches: Batches, public: Split | None, classes: int
    ) -> None:
        super().__init__()
        self.folder, self.config, self.batches = folder, config, batches
        self.public, self.classes = public, classes
        self.history: list[dict[str, float]] = []
        self.average: Average | None = None
        self.started = time.monotonic()
        self.seconds_before = 0.0

    # --- state ---

    def state(self) -> dict[str, NDArray[Any]]:
        model = self.model
        assert model is not None
        values = {f"model/{i}": np.array(v) for i, v in enumerate(model.variables)}
        values |= {f"optimizer/{i}": np.array(v) for i, v in enumerate(model.optimizer.variables)}
        if self.average:
            values |= {f"average/{i}": v for i, v in enumerate(self.average.values)}
            values["count"] = np.array(self.average.count)
        values["history"] = np.array(json.dumps(self.history))
        return values

    def save(self) -> None:
        beside = self.folder / "checkpoint.tmp"
        with beside.open("wb") as file:
            np.savez(file, **self.state())
        beside.replace(self.folder / "checkpoint.npz")

    def restore(self, model: keras.Model) -> int:
        """Load the last checkpoint, if there is one, and return the epoch to go on with."""
        model.optimizer.build(model.trainable_variables)
        if self.config.fit.ema:
            self.average = Average(model, self.config.fit.ema)
        path = self.folder / "checkpoint.npz"
        if not path.is_file():
            return 0
        with np.load(path) as store:
            for name, variables in (
                ("model", model.variables),
                ("optimizer", model.optimizer.variables),
            ):
                for i, variable in enumerate(variables):
                    value = store[f"{name}/{i}"]
                    if tuple(value.shape) != tuple(variable.shape):
                        raise TrainingError(
                            f"{path} belongs to another network or optimiser: "
                            f"{variable.path} is {variable.shape} here and {value.shape} there"
                        )
                    variable.assign(value)
            if self.average:
                self.average.values = [
                    store[f"average/{i}"] for i in range(len(self.average.values))
                ]
                self.average.count = int(store["count"])
            self.history = json.loads(str(store["history"]))
        if self.history:
            self.seconds_before = self.history[-1]["seconds"]
        return len(self.history)

    # --- callbacks ---

    def on_train_begin(self, logs: Any = None) -> None:
        self.started = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.batches.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.average and (batch + 1) % Average.EVERY == 0:
            self.average.update()
        if logs and not math.isfinite(logs.get("loss", 0.0)):
            raise TrainingError(
                f"the loss is {logs['loss']} at batch {batch} of epoch {self.batches.epoch + 1}: "
                "lower the learning rate or train in float32; the last checkpoint is kept"
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = {} if logs is None else logs
        model = self.model
        assert model is not None
        if self.public is not None:
            kept = model.get_weights()
            if self.average:
                model.set_weights(self.average.values)
            logs |= self.validate()
            if self.average:
                model.set_weights(kept)
        seconds = self.seconds_before + time.monotonic() - self.started
        row = {"epoch": epoch + 1, **{k: float(v) for k, v in logs.items()}, "seconds": seconds}
        self.history.append(row)
        self.save()
        write_history(self.folder / "history.csv", self.history)
        left = (self.config.fit.epochs - epoch - 1) * seconds / (epoch + 1)
        print(
            f"epoch {epoch + 1}/{self.config.fit.epochs}  "
            + "  ".join(f"{k} {v:.4f}" for k, v in row.items() if k not in ("epoch", "seconds"))
            + f"  {seconds / 60:.1f} min, {left / 60:.0f} min left",
            flush=True,
        )

    def validate(self) -> dict[str, float]:
        assert self.public is not None and self.model is not None
        public = self.public
        logits = np.concatenate(
            [
                np.asarray(self.model.predict_on_batch(part[..., None].astype(np.float32)))
                for part in np.array_split(public.images, math.ceil(len(public) / 512))
            ]
        )
        first = logits[:, : self.classes]
        result = {"val_accuracy": float(np.mean(first.argmax(axis=1) == public.labels))}
        shifted = first - first.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        result["val_loss"] = float(-np.mean(log_p[np.arange(len(public)), public.labels]))
        if public.votes is not None and self.classes == 7:
            wanted, clear = targets.majority(public.votes)
            for head in range(logits.shape[1] // self.classes):
                part = logits[:, head * self.classes : (head + 1) * self.classes]
                name = "val_ferplus" if head == 0 else "val_ferplus_votes"
                result[name] = float(np.mean((part.argmax(axis=1) == wanted)[clear]))
        return result


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """All epochs as CSV, written beside and renamed."""
    beside = path.with_suffix(".tmp")
    with beside.open("w", newline="") as text:
        writer = csv.DictWriter(text, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)
    beside.replace(path)


def fit(config: Config, data: Dataset, folder: Path, *, deterministic: bool = False) -> keras.Model:
    """Train and return the model with its averaged weights, logits out; resumes by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = len(data.labels)
    if deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(config.fit.precision)
    train = data.split("Training")
    if train.votes is not None:
        train = train.select(~targets.not_a_face(train.votes))
    target = make_targets(config, train, classes)
    batches = Batches(train.images, target, config)
    if config.targets.balance != "off":
        weight = targets.class_weights(train.labels, classes, config.targets.balance_power)
        if config.targets.balance == "oversample":
            batches.draw = weight[train.labels] / weight[train.labels].sum(dtype=np.float64)
        else:
            batches.target = target * weight[train.labels][:, None]
    model = networks.build(
        config.network,
        classes=classes,
        heads=2 if config.targets.votes_head else 1,
        shape=train.images.shape[1:3],
        seed=config.fit.seed,
        **config.options,
    )
    model.compile(
        optimizer(config, len(batches)),
        cross_entropy(classes),
        metrics=[agreement(classes)],
        jit_compile=keras.backend.backend() == "jax",
    )
    run = Run(folder, config, batches, data.splits.get("PublicTest"), classes)
    start = run.restore(model)
    size = networks.cost(model)
    print(
        f"{config.name}: {size['parameters']:,} parameters, {size['macs'] / 1e6:.1f} MMAC, "
        f"{len(train)} faces, {len(batches)} steps an epoch, from epoch {start + 1}; "
        + "; ".join(f"dropped {count} {why}" for why, count in data.dropped.items()),
        flush=True,
    )
    if start < config.fit.epochs:
        model.fit(
            batches,
            epochs=config.fit.epochs,
            initial_epoch=start,
            shuffle=False,
            verbose=0,
            callbacks=[run],
        )
    if run.average:
        model.set_weights(run.average.values)
    return model
