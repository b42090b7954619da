"""The training loop on JAX: data set, augmentation, optimiser and average stay on the device.

A step is one compiled function of the state and of the numbers of its rows: it takes the faces
from the data set on the device, augments them, and updates weights, optimiser and the averaged
weights. On a GPU several steps are one call. With several devices the batch is spread over them
(``keras.distribution.DataParallel``), on one host or on several; the state is the same everywhere.
The compiled function sees the batch as a whole, so batch statistics, gradients and random draws are
those of one device, up to rounding.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from numpy.typing import NDArray

from emotion_edge.errors import UsageError
from train.errors import TrainingError
from train.hosts import Host
from train.jax_augment import augment, speaking, talking_variants

if TYPE_CHECKING:
    from train.fit import Batches, Run

_STEPS = 32  # of one call on an accelerator


class Devices:
    """The devices of a run and how arrays lie on them."""

    def __init__(self, per_host: int, batch: int, host: Host) -> None:
        """per_host: how many of each host's devices. Raises UsageError."""
        if per_host < 1:
            raise UsageError(f"--devices is {per_host}: use 1 or more")
        chosen = []
        for index in range(host.count):
            found = [device for device in jax.devices() if device.process_index == index]
            if len(found) < per_host:
                raise UsageError(
                    f"--devices {per_host}, but host {index} has {len(found)}: "
                    f"{', '.join(map(str, found))}"
                )
            chosen += found[:per_host]
        if batch % len(chosen):
            raise UsageError(
                f"a batch of {batch} cannot be spread over {len(chosen)} devices: "
                "choose a multiple with --set fit.batch=N"
            )
        names = [f"{device.platform}:{device.id}" for device in chosen]
        self.parallel = keras.distribution.DataParallel(devices=names)
        self.mesh = self.parallel.device_mesh.backend_mesh
        axis = self.parallel.batch_dim_name
        self.everywhere = NamedSharding(self.mesh, PartitionSpec())
        self.spread = NamedSharding(self.mesh, PartitionSpec(axis))
        self.steps = 1 if chosen[0].platform == "cpu" else _STEPS

    def put(self, values: Any) -> Any:
        """A tree of arrays, the same on every device."""

        def one(value: Any) -> Any:
            array = np.asarray(value)
            return jax.make_array_from_callback(
                array.shape, self.everywhere, lambda index: array[index]
            )

        return jax.tree.map(one, values)


def train(
    model: keras.Model,
    run: Run,
    batches: Batches,
    loss: Any,
    accuracy: Any,
    start: int,
    devices: Devices,
    host: Host,
) -> None:
    """Train from epoch ``start`` (from 0) to the end; ``run`` receives every epoch.

    loss, accuracy: functions of targets and logits, one value for each row.
    Raises TrainingError when the loss is not a number or another host is lost.
    """
    config = batches.config
    start, state = _shared(_state(model, run), start, host)
    state = devices.put(state)
    data = devices.put(_data(batches))
    call = _compiled(model, batches, loss, accuracy, run, devices)
    size, steps = config.fit.batch, len(batches)
    for epoch in range(start, config.fit.epochs):
        run.on_epoch_begin(epoch)
        rows = batches.epoch_rows()[: steps * size].reshape(steps, -1).astype(np.int32)
        sums = np.zeros(2)
        try:
            for at in range(0, steps, devices.steps):
                numbers = np.arange(at, min(steps, at + devices.steps), dtype=np.int32)
                state, figures = call(state, data, np.int32(epoch), numbers, rows[numbers])
                sums += np.asarray(figures)
                done = int(numbers[-1]) + 1
                run.watch(done, float(sums[0]) / done)
        except jax.errors.JaxRuntimeError as error:
            if host.count == 1:
                raise
            reason = str(error).partition("\n")[0][:120]
            raise TrainingError(
                f"lost another host in epoch {epoch + 1} ({reason}): start all hosts again to "
                "continue after the last finished epoch"
            ) from error
        if host.is_first:
            _give_back(model, run, state)
            run.on_epoch_end(epoch, {"accuracy": sums[1] / steps, "loss": sums[0] / steps})
        if _any_stop(run, host):
            break


def _state(model: keras.Model, run: Run) -> dict[str, Any]:
    """Everything a step changes, as NumPy arrays."""
    state: dict[str, Any] = {
        "trainable": [np.asarray(v.value) for v in model.trainable_variables],
        "others": [np.asarray(v.value) for v in model.non_trainable_variables],
        "optimizer": [np.asarray(v.value) for v in model.optimizer.variables],
        "average": [],
        "count": np.int32(0),
    }
    if run.average:
        state["average"] = [np.array(value) for value in run.average.values]
        state["count"] = np.int32(run.average.count)
    return state


def _give_back(model: keras.Model, run: Run, state: dict[str, Any]) -> None:
    """Put the state where checkpoint, validation and export look for it."""
    for name, variables in (
        ("trainable", model.trainable_variables),
        ("others", model.non_trainable_variables),
        ("optimizer", model.optimizer.variables),
    ):
        for variable, value in zip(variables, state[name], strict=True):
            variable.assign(np.asarray(value))
    if run.average:
        run.average.values = [np.array(value) for value in state["average"]]
        run.average.count = int(state["count"])


def _data(batches: Batches) -> dict[str, NDArray[Any]]:
    """The data set, as it lies on the device: uint8 faces and float32 targets."""
    data: dict[str, NDArray[Any]] = {"images": batches.images, "target": batches.target}
    if batches.config.augment.talk and batches.calm is not None and batches.calm.any():
        data["variants"], data["place"] = talking_variants(
            batches.images, batches.calm, batches.config.fit.seed
        )
    return data


def _compiled(
    model: keras.Model, batches: Batches, loss: Any, accuracy: Any, run: Run, devices: Devices
) -> Any:
    """A function of state, data, epoch, numbers of steps (S,) and their rows (S, batch).

    It returns the new state and the sums of loss and accuracy over the steps.
    """
    how, fit = batches.config.augment, batches.config.fit
    optimizer = model.optimizer
    order = {id(v): ("trainable", i) for i, v in enumerate(model.trainable_variables)}
    order |= {id(v): ("others", i) for i, v in enumerate(model.non_trainable_variables)}
    weights = [order[id(v)] for v in model.weights]
    every, last = (run.average.EVERY, len(batches)) if run.average else (1, 1)

    def step(
        state: dict[str, Any], data: dict[str, Any], key: Any, number: Any, rows: Any
    ) -> tuple[dict[str, Any], Any]:
        faces, target = data["images"][rows], data["target"][rows]
        mouth, rest = jax.random.split(jax.random.fold_in(key, number))
        if "variants" in data:
            faces = speaking(faces, rows, data["variants"], data["place"], how.talk, mouth)
        faces, target = augment(faces, target, how, rest)
        faces = jax.lax.with_sharding_constraint(faces, devices.spread)
        target = jax.lax.with_sharding_constraint(target, devices.spread)

        def compute(trainable: Any) -> Any:
            logits, others, extra = model.stateless_call(
                trainable, state["others"], faces, training=True, return_losses=True
            )
            value = jnp.mean(loss(target, logits)) + sum(extra)
            mapping = list(zip(optimizer.variables, state["optimizer"], strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                scaled = optimizer.scale_loss(value)
            right = jnp.mean(accuracy(target, logits).astype(jnp.float32))
            return scaled, (others, jnp.stack([value, right]))

        gradients, (others, figures) = jax.grad(compute, has_aux=True)(state["trainable"])
        trainable, variables = optimizer.stateless_apply(
            state["optimizer"], gradients, state["trainable"]
        )
        new = {"trainable": trainable, "others": others, "optimizer": variables}
        average, count = state["average"], state["count"]
        if fit.ema:
            due = ((number + 1) % every == 0) | (number + 1 == last)
            count = count + due.astype(jnp.int32)
            # A young average would remember the random start for hundreds of steps.
            keep = jnp.minimum(fit.ema**every, count / (count + 9.0))
            keep = jnp.where(due, keep, 1.0).astype(jnp.float32)
            average = [
                mean * keep + (1 - keep) * new[kind][place]
                for mean, (kind, place) in zip(average, weights, strict=True)
            ]
        return {**new, "average": average, "count": count}, figures

    @functools.partial(
        jax.jit, donate_argnums=0, out_shardings=(devices.everywhere, devices.everywhere)
    )
    def call(state: Any, data: Any, epoch: Any, numbers: Any, rows: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(fit.seed), epoch)
        state, figures = jax.lax.scan(
            lambda state, each: step(state, data, key, *each), state, (numbers, rows)
        )
        return state, figures.sum(axis=0)

    return call


def _shared(state: Any, start: int, host: Host) -> tuple[int, Any]:
    """The first host's state and the epoch it continues with, on all hosts."""
    if host.count == 1:
        return start, state
    from jax.experimental import multihost_utils

    start, state = multihost_utils.broadcast_one_to_all((np.int32(start), state))
    return int(start), jax.tree.map(np.asarray, state)


def _any_stop(run: Run, host: Host) -> bool:
    """Whether the first host stops early."""
    stop = bool(run.model is not None and getattr(run.model, "stop_training", False))
    if host.count == 1:
        return stop
    from jax.experimental import multihost_utils

    try:
        return bool(multihost_utils.broadcast_one_to_all(np.int32(stop)))
    except jax.errors.JaxRuntimeError as error:
        raise TrainingError(
            "lost another host after an epoch: start all hosts again to continue after it"
        ) from error
