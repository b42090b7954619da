"""Trains one configuration on one data set.

On TensorFlow the loop is ``keras.Model.fit`` with a data set of our own, on JAX it is
``train.jax_loop``. Each batch is drawn from (seed, epoch, batch number) and from nothing else, so
a killed run continues where it stopped and sees the very batches it would have seen.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from emotion_edge.errors import OutputExists, UsageError
from train import networks, targets
from train.augment import augment
from train.config import Config
from train.data import Dataset, Split
from train.errors import ConfigError, TrainingError
from train.files import replacing, write_history, write_json
from train.hosts import ALONE, Host, part

Floats = NDArray[np.float32]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras is untyped
    """Augmented batches of one epoch; ``epoch`` is set by the callback that starts it."""

    def __init__(self, images: NDArray[np.uint8], target: Floats, config: Config) -> None:
        super().__init__()
        self.images, self.target, self.config = images, target, config
        self.epoch = 0
        self.calm: NDArray[np.bool_] | None = None
        """Rows whose label does not change when the mouth moves."""
        self.draw: NDArray[np.float64] | None = None
        """Probability of each row when balancing by oversampling."""
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return max(1, len(self.images) // self.config.fit.batch)

    def epoch_rows(self) -> NDArray[np.int64]:
        """The rows of this epoch in their order, int64 (N,); drawn once, not for every batch."""
        if self._order is None or self._order[0] != self.epoch:
            rng = np.random.default_rng((self.config.fit.seed, self.epoch))
            count = len(self.images)
            drawn = (
                rng.permutation(count)
                if self.draw is None
                else rng.choice(count, count, p=self.draw)
            )
            self._order = self.epoch, drawn
        return self._order[1]

    def __getitem__(self, index: int) -> tuple[Floats, Floats]:
        size = self.config.fit.batch
        rows = self.epoch_rows()[index * size : (index + 1) * size]
        rng = np.random.default_rng((self.config.fit.seed, self.epoch, index))
        calm = None if self.calm is None else self.calm[rows]
        return augment(self.images[rows], self.target[rows], self.config.augment, rng, calm)


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
        soft = _soft_labels(config, split, len(heads), classes)
        heads = [
            (1 - how.soft_share) * head + how.soft_share * taught
            for head, taught in zip(heads, soft, strict=True)
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
        raise ConfigError(f"{path} has {soft.shape[1:]} per row, expected {(heads, classes)}")
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

    Taken every few steps in NumPy: the optimiser's own average omits the batch statistics,
    which then belong to other weights.
    """

    EVERY = 8

    def __init__(self, model: keras.Model, decay: float) -> None:
        self.model, self.decay = model, decay
        self.values: list[Floats] = [np.array(w) for w in model.get_weights()]
        self.count = 0

    def update(self) -> None:
        """Move towards the weights of this moment."""
        self.count += 1
        # A young average would remember the random start for hundreds of steps.
        keep = min(self.decay**self.EVERY, self.count / (self.count + 9))
        # Weights can overflow one step before the loss shows it, which then stops the run.
        with np.errstate(invalid="ignore", over="ignore"):
            for mean, now in zip(self.values, self.model.get_weights(), strict=True):
                mean += np.float32(1 - keep) * (now - mean)


def _numpy(variable: Any) -> NDArray[Any]:
    # Not np.array(): TensorFlow's __array__ still lacks the keyword that NumPy 2 requires.
    return np.asarray(variable.numpy())


class Run(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Everything that happens around an epoch: average, validation, checkpoint, log."""

    def __init__(
        self, folder: Path, config: Config, batches: Batches, public: Split | None, classes: int
    ) -> None:
        super().__init__()
        self.folder, self.config, self.batches = folder, config, batches
        self.public, self.classes = public, classes
        self.history: list[dict[str, float]] = []
        self.average: Average | None = None
        self.best: list[Floats] = []
        self.on_epoch: Callable[[Mapping[str, float]], None] | None = None
        self.shows = True
        """Whether it prints progress; of several hosts only the first does."""
        self.started = time.monotonic()
        self.seconds_before = 0.0

    # --- state ---

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything the next epoch depends on."""
        model = self.model
        assert model is not None
        values = {f"model/{i}": _numpy(v) for i, v in enumerate(model.variables)}
        values |= {f"optimizer/{i}": _numpy(v) for i, v in enumerate(model.optimizer.variables)}
        if self.average:
            values |= {f"average/{i}": v for i, v in enumerate(self.average.values)}
            values["count"] = np.array(self.average.count)
        values |= {f"best/{i}": v for i, v in enumerate(self.best)}
        values["history"] = np.array(json.dumps(self.history))
        return values

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        with replacing(self.folder / "checkpoint.npz") as part:
            np.savez(part, allow_pickle=False, **self.state())

    def restore(self, model: keras.Model, *, read: bool = True) -> int:
        """Load the last checkpoint, if there is one, and return the epoch to continue with.

        read: whether to look for one; of several hosts only the first does.
        """
        model.optimizer.build(model.trainable_variables)
        if self.config.fit.ema:
            self.average = Average(model, self.config.fit.ema)
        path = self.folder / "checkpoint.npz"
        if not read or not path.is_file():
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
                            f"{path} belongs to another network or optimiser: {variable.path} is "
                            f"{tuple(variable.shape)} here and {value.shape} there; give another "
                            "--out or --overwrite"
                        )
                    variable.assign(value)
            if self.average:
                self.average.values = [
                    store[f"average/{i}"] for i in range(len(self.average.values))
                ]
                self.average.count = int(store["count"])
            if "best/0" in store:
                self.best = [store[f"best/{i}"] for i in range(len(model.weights))]
            self.history = json.loads(str(store["history"]))
        if self.history:
            self.seconds_before = self.history[-1]["seconds"]
        return len(self.history)

    def result(self) -> list[Floats]:
        """The weights that the configuration asks to keep."""
        assert self.model is not None
        if self.config.fit.keep == "best" and self.best:
            return self.best
        return self.average.values if self.average else list(self.model.get_weights())

    # --- callbacks ---

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Tell the batches which epoch to draw."""
        self.batches.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Average, watch for a loss that is not a number, show progress."""
        if (batch + 1) % Average.EVERY and batch + 1 < len(self.batches):
            return
        self.watch(batch + 1, float((logs or {}).get("loss", 0.0)))
        if self.average:
            self.average.update()

    def watch(self, done: int, loss: float) -> None:
        """Check the loss after ``done`` batches of this epoch, and show progress."""
        _require_finite("the loss", loss, f"near batch {done} of epoch {self.batches.epoch + 1}")
        if sys.stderr.isatty() and self.shows:
            epochs = self.batches.epoch + done / len(self.batches)
            self._progress(epochs, f"batch {done}/{len(self.batches)}  loss {loss:.4f}")

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def _progress(self, epochs: float, text: str) -> None:
        total = self.config.fit.epochs
        left = self._seconds() * (total / max(epochs, 1e-6) - 1)
        bar = "█" * int(20 * epochs / total)
        print(
            f"\r\x1b[K{self.config.name} {bar:·<20} epoch {epochs:.1f}/{total}  {text}  "
            f"{left / 60:.0f} min left",
            end="",
            file=sys.stderr,
            flush=True,
        )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Validate the averaged weights, write checkpoint and history, report."""
        logs = {} if logs is None else logs
        model = self.model
        assert model is not None
        if self.public is not None:
            kept = model.get_weights()
            if self.average:
                model.set_weights(self.average.values)
            logs.update(self.validate(self.public))
            _require_finite("the loss on PublicTest", logs["val_loss"], f"after epoch {epoch + 1}")
            if self.config.fit.keep == "best" and logs["val_accuracy"] > max(
                (row["val_accuracy"] for row in self.history), default=-1.0
            ):
                self.best = [np.array(value) for value in model.get_weights()]
            model.set_weights(kept)
        row = {"epoch": epoch + 1, **{k: float(v) for k, v in logs.items()}}
        row["seconds"] = self._seconds()
        self.history.append(row)
        self.save()
        write_history(self.folder, self.history)
        self._report(row)
        self._stop_early()
        if self.on_epoch is not None:
            self.on_epoch(row)

    def _report(self, row: dict[str, float]) -> None:
        epoch, total = int(row["epoch"]), self.config.fit.epochs
        left = (total - epoch) * row["seconds"] / epoch
        figures = (f"{k} {v:.4f}" for k, v in row.items() if k not in ("epoch", "seconds"))
        start = "\r\x1b[K" if sys.stderr.isatty() else ""
        print(
            f"{start}epoch {epoch}/{total}  {'  '.join(figures)}  "
            f"{row['seconds'] / 60:.1f} min, {left / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )

    def _stop_early(self) -> None:
        patience = self.config.fit.early_stop
        if patience and self.public is not None and self.model is not None:
            values = [row["val_accuracy"] for row in self.history]
            if len(values) - 1 - int(np.argmax(values)) >= patience:
                self.model.stop_training = True

    def validate(self, public: Split) -> dict[str, float]:
        """Figures on PublicTest of the model's present weights."""
        assert self.model is not None
        logits = predict_logits(self.model, public.images)
        first = logits[:, : self.classes]
        shifted = first - first.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        result = {
            "val_accuracy": float(np.mean(first.argmax(axis=1) == public.labels)),
            "val_loss": float(-np.mean(log_p[np.arange(len(public)), public.labels])),
        }
        if public.votes is not None and self.classes == 7:
            wanted, clear = targets.majority(public.votes)
            for head in range(logits.shape[1] // self.classes):
                part = logits[:, head * self.classes : (head + 1) * self.classes]
                name = "val_ferplus" if head == 0 else "val_ferplus_votes"
                result[name] = float(np.mean((part.argmax(axis=1) == wanted)[clear]))
        return result


def _require_finite(what: str, value: float, where: str) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"{what} is {value} {where}: lower learning_rate or set precision to float32; the last "
            "epoch's checkpoint is kept"
        )


def predict_logits(model: keras.Model, images: NDArray[Any], batch: int = 512) -> Floats:
    """What ``model`` answers to faces (N, H, W) in 0..255, float32 (N, outputs)."""
    # predict(), not predict_on_batch(): the latter gives every device the whole batch.
    parts = [
        model.predict(
            images[at : at + 8192, ..., None].astype(np.float32), batch_size=batch, verbose=0
        )
        for at in range(0, len(images), 8192)
    ]
    return np.concatenate(parts).astype(np.float32)


def training_rows(data: Dataset) -> Split:
    """Training without the rows that FER+'s voters call no face."""
    train = data.split("Training")
    return train if train.votes is None else train.select(~targets.not_a_face(train.votes))


def devices(count: int) -> Any:
    """A context in which a model is spread over ``count`` devices; data parallel."""
    if count <= 1:
        return nullcontext()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        found = [device.name for device in tf.config.list_logical_devices(kind)]
        if len(found) < count:
            raise UsageError(f"--devices {count}, but TensorFlow sees {len(found)}: {found}")
        return tf.distribute.MirroredStrategy(
            [name.removeprefix("/device:") for name in found[:count]]
        ).scope()
    return nullcontext()  # JAX: see jax_loop.Devices


def make_model(config: Config, labels: int, shape: tuple[int, int]) -> keras.Model:
    """The network of a configuration in its training precision, freshly initialised."""
    keras.config.set_dtype_policy(config.fit.precision)
    return networks.build(
        config.network,
        classes=labels,
        heads=2 if config.targets.votes_head else 1,
        shape=shape,
        seed=config.fit.seed,
        **config.options,
    )


def prepare_folder(folder: Path, config: Config, *, overwrite: bool) -> None:
    """Make the run's folder, or check that the run in it is this one and unfinished."""
    kept = folder / "config.json"
    if overwrite:
        for name in ("checkpoint.npz", "config.json", "model.keras", "history.csv"):
            (folder / name).unlink(missing_ok=True)
    if (folder / "model.keras").exists():
        raise OutputExists(folder / "model.keras")
    if kept.exists() and not _is_of(folder, config):
        raise TrainingError(
            f"{folder} contains an unfinished run of another configuration: give another --out, or "
            "--overwrite to start again"
        )
    write_json(kept, config.as_dict())


def is_finished(folder: Path, config: Config) -> bool:
    """Whether a folder holds the finished run of exactly this configuration."""
    return (folder / "model.keras").is_file() and _is_of(folder, config)


def _is_of(folder: Path, config: Config) -> bool:
    kept = folder / "config.json"
    wanted = json.loads(json.dumps(config.as_dict()))  # tuples are lists in the file
    return kept.is_file() and bool(json.loads(kept.read_text()) == wanted)


def fit(
    config: Config,
    data: Dataset,
    folder: Path,
    *,
    deterministic: bool = False,
    device_count: int = 1,
    host: Host = ALONE,
    tensorboard: bool = True,
    overwrite: bool = False,
    weights: list[Floats] | None = None,
    on_epoch: Callable[[Mapping[str, float]], None] | None = None,
) -> keras.Model:
    """Train, and return the model with the weights to keep, logits out.

    Continues where an earlier run in ``folder`` stopped; a new run begins with
    ``weights``, where they are given. device_count: devices of this host, over which each batch
    is spread. host: which of several hosts this is; only the first writes ``folder``, and only
    its model has the trained weights. on_epoch: called with each epoch's row of the history; what
    it raises ends the run, which can be continued.
    Raises ``TrainingError`` when the loss is not a number, the folder belongs to another run or
    another host is lost; UsageError for too few devices.
    """
    on_jax = keras.backend.backend() == "jax"
    if host.is_first:
        prepare_folder(folder, config, overwrite=overwrite)
    classes = len(data.labels)
    if deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    train = training_rows(data)
    target = make_targets(config, train, classes)
    batches = Batches(train.images, target, config)
    if config.augment.talk:
        batches.calm = targets.calm_faces(train)
    weight = targets.class_weights(train.labels, classes, config.targets.balance_power)
    if config.targets.balance == "oversample":
        chance = weight[train.labels].astype(np.float64)
        batches.draw = chance / chance.sum()
    elif config.targets.balance == "weights":
        batches.target = target * weight[train.labels][:, None]
    elif config.targets.balance != "off":
        raise ConfigError(
            f"balance must be off, weights or oversample, got {config.targets.balance!r}"
        )
    shape = (train.images.shape[1], train.images.shape[2])
    with devices(device_count):
        model = make_model(config, classes, shape)
        networks.freeze(model, config.fit.freeze)
        model.compile(
            optimizer(config, len(batches)),
            cross_entropy(classes),
            metrics=[agreement(classes)],
            # XLA's convolutions are ten times slower than oneDNN's on a CPU.
            jit_compile=on_jax,
        )
        run = Run(folder, config, batches, data.splits.get("PublicTest"), classes)
        run.set_model(model)
        if weights is not None:
            model.set_weights(weights)
        start = run.restore(model, read=host.is_first)
        run.shows = host.is_first
        run.on_epoch = on_epoch
    size = networks.cost(model)
    print(
        f"{config.name}: {size['parameters']:,} parameters, {size['macs'] / 1e6:.1f} MMAC; "
        f"{len(train):,} faces, {len(batches)} steps an epoch"
        + "".join(f"; dropped {count} {why}" for why, count in data.dropped.items())
        + (f"; continues after epoch {start}" if start else ""),
        file=sys.stderr,
        flush=True,
    )
    if on_jax:
        # Not at the top: jax is an extra.
        from train import jax_loop

        spread = jax_loop.Devices(device_count, config.fit.batch, host)
        run.on_train_begin()
        loss, accuracy = cross_entropy(classes), agreement(classes)
        jax_loop.train(model, run, batches, loss, accuracy, start, spread, host)
        part(host)
        if not host.is_first:
            return model
    elif start < config.fit.epochs:
        callbacks: list[keras.callbacks.Callback] = [run]
        if tensorboard:
            callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard"))
        model.fit(
            batches,
            epochs=config.fit.epochs,
            initial_epoch=start,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
    model.set_weights(run.result())
    return model
