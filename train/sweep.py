"""Searches values of a configuration with Optuna (extra ``[sweep]``).

A trial is one run of ``fit`` in a folder named after its values, so that a trial that was killed
continues in the middle when its values come again. The study is Optuna's journal, ``study.log``,
which ``optuna`` itself and its dashboard can open.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from emotion_edge.errors import MissingExtra, UsageError
from train.config import Overrides, load_config, parse_overrides
from train.data import Dataset
from train.errors import TrainingError
from train.files import read_history, table, write_text
from train.fit import fit

_TRIALS = 20
_WARM_EPOCHS = 3  # of a trial before it may be stopped
_FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``; whole ones if both are."""

    low: float
    high: float
    log: bool = False


Space = Mapping[str, Range | Sequence[Any]]
"""What to search: a range or a list of values by ``section.key``."""


def parse_space(pairs: Sequence[str]) -> dict[str, Range | Sequence[Any]]:
    """``SECTION.KEY=VALUES`` texts, as ``--vary`` takes them. Raises UsageError."""
    space: dict[str, Range | Sequence[Any]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip()
        low, dots, rest = text.partition("..")
        if not equals or not text:
            raise UsageError(f"--vary {pair}: expected SECTION.KEY=VALUES, e.g. fit.batch=64,128")
        if dots:
            high, _, scale = rest.partition(":")
            space[name] = _range(pair, _value(name, low), _value(name, high), scale)
        else:
            space[name] = [_value(name, each) for each in text.split(",")]
    return space


def _range(pair: str, low: Any, high: Any, scale: str) -> Range:
    numbers = all(isinstance(end, int | float) and math.isfinite(end) for end in (low, high))
    if not numbers or low >= high or scale not in ("", "log") or (scale and low <= 0):
        raise UsageError(
            f"--vary {pair}: a range is LOW..HIGH with numbers, LOW below HIGH; with :log both "
            "above 0"
        )
    return Range(low, high, bool(scale))


def _value(name: str, text: str) -> Any:
    section, _, last = name.partition(".")
    return parse_overrides([f"{name}={text}"])[section][last]


def sweep(
    path: Path,
    data: Dataset,
    folder: Path,
    space: Space,
    *,
    overrides: Overrides | None = None,
    trials: int | None = None,
    metric: str = "val_accuracy",
    prune: bool = True,
) -> dict[str, Any]:
    """Run the trials that are not done yet, write ``sweep.md``, and return the best values.

    path: of the configuration. overrides: of every trial. trials: in all; None for every
    combination of lists, or 20 where there is a range. metric: a column of ``history.csv``.
    prune: stop a trial that is worse than the median of the others at the same epoch.
    Raises MissingExtra, UsageError, ConfigError, or TrainingError when no trial succeeded.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("train sweep", "sweep", "optuna") from error
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lists = {name: list(each) for name, each in space.items() if not isinstance(each, Range)}
    whole = len(lists) == len(space)
    count = trials or (math.prod(map(len, lists.values())) if whole else _TRIALS)
    if count < 1:
        raise UsageError(f"--trials is {count}: use 1 or more")
    folder.mkdir(parents=True, exist_ok=True)
    _check_same(folder, {"space": repr(sorted(space.items())), "metric": metric})
    study = optuna.create_study(
        study_name=path.stem,
        storage=JournalStorage(JournalFileBackend(str(folder / "study.log"))),
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=_WARM_EPOCHS)
        if prune
        else optuna.pruners.NopPruner(),
        direction="minimize" if "loss" in metric else "maximize",
        load_if_exists=True,
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # of a process that was killed
        study.tell(trial.number, state=TrialState.FAIL)
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    cut = [
        trial.params
        for trial in study.get_trials(states=(TrialState.FAIL,))
        if _FAILED not in trial.user_attrs
    ]
    names, values_of = list(lists), list(lists.values())
    combinations = [dict(zip(names, each, strict=True)) for each in itertools.product(*values_of)]
    known = [trial.params for trial in study.get_trials(states=done)]
    known += [
        trial.system_attrs.get("fixed_params", {})
        for trial in study.get_trials(states=(TrialState.WAITING,))
    ]
    for values in (combinations if whole else []) + cut:
        if len(values) == len(space) and values not in known:
            study.enqueue_trial(values)
            known.append(values)

    def objective(trial: Any) -> float:
        values = {name: _suggested(trial, name, each) for name, each in space.items()}
        config = load_config(path, overrides=_merged(overrides, values))
        own = folder / f"trial-{_identifier(values)}"

        def each_epoch(row: Mapping[str, float]) -> None:
            if metric not in row:
                raise UsageError(
                    f"--metric {metric} is not a column of the history: {', '.join(sorted(row))}"
                )
            epoch = int(row["epoch"])
            trial.report(row[metric], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        keras.backend.clear_session()
        if not (own / "done").exists():
            try:
                fit(config, data, own, tensorboard=False, on_epoch=each_epoch)
            except TrainingError as error:
                trial.set_user_attr(_FAILED, str(error))  # unlike one that was cut short
                raise
            write_text(own / "done", "")
        return float(read_history(own)[-1][metric])

    left = count - len(study.get_trials(deepcopy=False, states=done))
    if left > 0:
        study.optimize(objective, n_trials=left, catch=(TrainingError,))
    finished = study.get_trials(states=(TrialState.COMPLETE,))
    write_text(folder / "sweep.md", _page(path.stem, metric, study.get_trials(states=done)))
    if not finished:
        raise TrainingError(f"no trial of {folder} succeeded: see the messages above")
    return dict(study.best_params)


def _suggested(trial: Any, name: str, each: Range | Sequence[Any]) -> Any:
    if not isinstance(each, Range):
        return trial.suggest_categorical(name, list(each))
    if isinstance(each.low, int) and isinstance(each.high, int):
        return trial.suggest_int(name, each.low, each.high, log=each.log)
    return trial.suggest_float(name, each.low, each.high, log=each.log)


def _merged(overrides: Overrides | None, values: Mapping[str, Any]) -> Overrides:
    merged = {section: dict(keys) for section, keys in (overrides or {}).items()}
    for name, value in values.items():
        section, _, last = name.partition(".")
        merged.setdefault(section, {})[last] = value
    return merged


def _identifier(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check_same(folder: Path, settings: dict[str, str]) -> None:
    """Write a sweep's settings, or check that they are those of the sweep in the folder."""
    path = folder / "sweep.json"
    if not path.exists():
        write_text(path, json.dumps(settings, indent=1))
    elif json.loads(path.read_text()) != settings:
        raise TrainingError(
            f"{folder} contains a sweep of other values or another metric: give another --out"
        )


def _page(name: str, metric: str, trials: Sequence[Any]) -> str:
    """The trials as a Markdown table, the best first."""
    ordered = sorted(
        trials,
        key=lambda trial: (trial.value is None, trial.value or 0),
        reverse="loss" not in metric,
    )
    ordered = [t for t in ordered if t.value is not None] + [t for t in ordered if t.value is None]
    keys = sorted({key for trial in trials for key in trial.params})
    rows = [
        [
            f"trial-{_identifier(trial.params)}",
            *(f"{trial.params.get(key, '-')}" for key in keys),
            "-" if trial.value is None else f"{trial.value:.4f}",
            trial.state.name.lower(),
        ]
        for trial in ordered
    ]
    return f"# Sweep: {name}\n\n{table(['trial', *keys, metric, 'state'], rows)}"
