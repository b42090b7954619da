"""Reads how a model is trained from one TOML file; unknown keys are errors.

>>> config = load_config("train/configs/fast.toml")
>>> config.fit.epochs
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_edge import settings
from emotion_edge.errors import UsageError
from emotion_edge.settings import REQUIRED, Settings, key
from train.augment import Augmentation
from train.errors import ConfigError

Overrides = Mapping[str, Mapping[str, object]]
"""Values that replace a configuration's, by section and key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets(Settings):
    """What the network is trained towards (see ``train.targets``)."""

    label_share: float = key(
        1.0,
        "share of the original label in its target; the rest is its calibrated votes.",
        ge=0,
        le=1,
    )
    smoothing: float = key(0.0, "label smoothing.", ge=0, le=1)
    votes_head: float = key(
        0.0, "share of the loss of a second head, trained on FER+'s votes.", ge=0, le=1
    )
    mix: float = key(
        0.0, "share of the votes head in the deployed logits, chosen on PublicTest.", ge=-1, le=1
    )
    convention: str = key(
        "fer2013", "`fer2013` or `people`: what the exported model answers and is scored on."
    )
    tau: float = key(
        0.0,
        "part of the class shares in the votes that is removed at export, chosen on PublicTest.",
        ge=0,
        le=2,
    )
    raw_votes: float = key(
        0.0, "share of the raw votes in the label target: the plain way, for the sweep.", ge=0, le=1
    )
    soft_labels: str = key(
        "", "`.npz` of a teacher's predictions on Training rows, relative to the configuration."
    )
    soft_share: float = key(0.5, "share of the teacher in the target.", ge=0, le=1)
    balance: str = key(
        "off", "`off`, `weights` (class weights in the loss) or `oversample` (with augmentation)."
    )
    balance_power: float = key(1.0, "1 balances in full, 0.5 half way.", ge=0, le=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit(Settings):
    """Optimisation."""

    epochs: int = key(25, "passes over the training set.", ge=0, le=100_000)
    batch: int = key(64, "images per step.", ge=1, le=1_000_000)
    optimizer: str = key("adam", "`adam` or `sgd` (Nesterov, momentum 0.9).")
    learning_rate: float = key(1e-3, "of the first epoch after the warm-up.", ge=0, le=1000)
    schedule: str = key("constant", "`constant` or `cosine` (to zero).")
    warmup_epochs: float = key(0.0, "epochs of a linearly rising rate.", ge=0, le=100_000)
    weight_decay: float = key(
        0.0,
        "decoupled, on kernels only. For SGD with momentum 0.9, ten times the usual L2 figure.",
        ge=0,
        le=1000,
    )
    ema: float = key(
        0.0,
        "decay per step of the averaged weights (batch statistics included); 0 is off.",
        ge=0,
        le=1,
    )
    precision: str = key("float32", "`float32`, `mixed_bfloat16` or `mixed_float16`.")
    seed: int = key(0, "of everything random.", ge=0, le=2**32 - 1)
    early_stop: int = key(
        0,
        "epochs without a better validation accuracy before the run stops; 0 is off.",
        ge=0,
        le=100_000,
    )
    freeze: int = key(
        0, "the first convolutions, which keep the weights they start with.", ge=0, le=1000
    )
    keep: str = key("last", "`last`, or `best`: the epoch with the best validation accuracy.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables(Settings):
    """A configuration file."""

    about: str = key("", "what the configuration is for.")
    after: str = key("", "the configuration that this one continues.")
    start: str = key("", "an exported model whose trunk and heads this one starts with.")
    network: dict[str, Any] = key(REQUIRED, "name of the network, and its keyword arguments.")
    targets: Targets = key(Targets(), "what the network is trained towards.")
    augment: Augmentation = key(Augmentation(), "how images are changed.")
    fit: Fit = key(Fit(), "optimisation.")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a run needs except the data."""

    name: str
    about: str = ""
    after: str = ""
    """The configuration whose run this one continues, a file in the same folder; empty for none."""
    start: str = ""
    """An exported model to take trunk and heads from, relative to this file; empty for none."""
    network: str = "three_block"
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network."""
    targets: Targets = field(default_factory=Targets)
    augment: Augmentation = field(default_factory=Augmentation)
    fit: Fit = field(default_factory=Fit)
    path: Path = field(default_factory=Path)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**dataclasses.asdict(self), "path": self.path.name}


def parse_overrides(pairs: Iterable[str]) -> dict[str, dict[str, object]]:
    """``SECTION.KEY=VALUE`` texts by section and key. Raises UsageError."""
    hints = settings.keys(_Tables)
    result: dict[str, dict[str, object]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        section, dot, last = name.strip().partition(".")
        if not (equals and dot):
            raise UsageError(f"--set {pair}: expected SECTION.KEY=VALUE, e.g. fit.epochs=3")
        if section != "network" and f"{section}.{last}" not in hints:
            raise settings.unknown_key("--set", f"{section}.{last}", hints)
        hint = hints.get(f"{section}.{last}", object)
        result.setdefault(section, {})[last] = settings.parse_text(hint, text.strip())
    return result


def load_config(path: str | Path, *, overrides: Overrides | None = None) -> Config:
    """Read and check a configuration, overrides included. Raises ConfigError naming the key."""
    path = Path(path)
    if not path.exists():
        here = sorted(item.stem for item in (Path(__file__).parent / "configs").glob("*.toml"))
        raise ConfigError(
            f"no configuration at {path}; shipped ones are in train/configs: {', '.join(here)}"
        )
    try:
        raw = settings.read_toml(path)
        for section, values in (overrides or {}).items():
            raw[section] = {**raw.get(section, {}), **values}
        tables = settings.from_table(_Tables, raw, where=path.name)
    except UsageError as error:
        raise ConfigError(str(error)) from error
    network = dict(tables.network)
    if "name" not in network:
        raise ConfigError(f"{path.name} needs a name in [network]")
    return Config(
        name=path.stem,
        about=tables.about,
        after=tables.after,
        start=tables.start,
        network=str(network.pop("name")),
        options=network,
        targets=tables.targets,
        augment=tables.augment,
        fit=tables.fit,
        path=path,
    )
