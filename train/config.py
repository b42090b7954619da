"""One TOML file says how a model is trained; unknown keys are errors.

>>> config = load_config("train/configs/fast.toml")
>>> config.fit.epochs
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.augment import Augmentation
from train.errors import ConfigError

Overrides = Mapping[str, Mapping[str, object]]
"""Values in place of a configuration's, by section and key."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What the network is trained towards (see ``train.targets``)."""

    label_share: float = 1.0
    """Share of the original label in its target; the rest is its calibrated votes."""
    smoothing: float = 0.0
    votes_head: float = 0.0
    """Share of the loss that goes to a second head, trained on FER+'s votes."""
    mix: float = 0.0
    """Share of the votes head in the deployed logits, chosen on PublicTest."""
    raw_votes: float = 0.0
    """Share of the raw votes in the label target: the plain way, kept for the sweep."""
    soft_labels: str = ""
    """``.npz`` of a teacher's predictions on Training rows, relative to the configuration."""
    soft_share: float = 0.5
    """Share of the teacher in the target."""
    balance: str = "off"
    """off, weights (class weights in the loss) or oversample (with augmentation)."""
    balance_power: float = 1.0
    """1 balances in full, 0.5 half way."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Optimisation."""

    epochs: int = 25
    batch: int = 64
    optimizer: str = "adam"
    """adam or sgd (Nesterov, momentum 0.9)."""
    learning_rate: float = 1e-3
    schedule: str = "constant"
    """constant or cosine (to zero)."""
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    """Decoupled, on kernels only. For SGD with momentum 0.9, ten times the usual L2 figure."""
    ema: float = 0.0
    """Decay per step of the averaged weights (batch statistics included); 0 is off."""
    precision: str = "float32"
    """float32, mixed_bfloat16 or mixed_float16."""
    seed: int = 0
    early_stop: int = 0
    """Epochs without a better validation accuracy before the run stops; 0 is off."""
    keep: str = "last"
    """last, or best: the epoch with the best validation accuracy."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a run needs besides the data."""

    name: str
    about: str = ""
    after: str = ""
    """The configuration whose run this one goes on from, a file beside it; empty for none."""
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


def _section(kind: type[Any], values: object, where: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"[{where}] must be a table, got {values!r}")
    known = {item.name: item for item in dataclasses.fields(kind)}
    unknown = set(values) - set(known)
    if unknown:
        raise ConfigError(
            f"unknown key {', '.join(sorted(unknown))} in [{where}]: known are {', '.join(known)}"
        )
    ready = {}
    for key, value in values.items():
        default = known[key].default
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(value, list):
            value = tuple(value)
        if type(value) is not type(default):
            raise ConfigError(f"{key} in [{where}] must be {type(default).__name__}, got {value!r}")
        ready[key] = value
    return kind(**ready)


def load_config(path: str | Path, *, overrides: Overrides | None = None) -> Config:
    """Read and check a configuration, overrides included; raises ``ConfigError`` naming the key."""
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text())
    except FileNotFoundError:
        here = sorted(item.stem for item in (Path(__file__).parent / "configs").glob("*.toml"))
        raise ConfigError(
            f"no configuration at {path}; shipped ones lie in train/configs: {', '.join(here)}"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    for section, values in (overrides or {}).items():
        raw.setdefault(section, {}).update(values)
    unknown = set(raw) - {"about", "after", "network", "targets", "augment", "fit"}
    if unknown:
        raise ConfigError(
            f"unknown key {', '.join(sorted(unknown))} in {path.name}: "
            "known are about, after, [network], [targets], [augment], [fit]"
        )
    network = dict(raw.get("network", {}))
    if "name" not in network:
        raise ConfigError(f"{path.name} needs a name in [network]")
    return Config(
        name=path.stem,
        about=str(raw.get("about", "")),
        after=str(raw.get("after", "")),
        network=str(network.pop("name")),
        options=network,
        targets=_section(Targets, raw.get("targets", {}), "targets"),
        augment=_section(Augmentation, raw.get("augment", {}), "augment"),
        fit=_section(Fit, raw.get("fit", {}), "fit"),
        path=path,
    )
