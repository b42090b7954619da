"""``python -m train sweep``: search values of a configuration with Optuna."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.arguments import add_data_arguments, quiet_tensorflow, read_data

HELP = "search values of a configuration with Optuna; continues where a killed sweep stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument("--config", type=Path, required=True, help="train/configs/NAME.toml")
    parser.add_argument(
        "--vary",
        action="append",
        required=True,
        metavar="SECTION.KEY=VALUES",
        help="what to search: a list (0,0.1,0.3), a range (0.01..0.3), or one on a logarithmic "
        "scale (0.01..0.3:log); repeat it for several keys",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a value of the configuration in every trial",
    )
    parser.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="trials in all (default: every combination of lists; 20 where there is a range)",
    )
    parser.add_argument(
        "--metric",
        default="val_accuracy",
        help="column of history.csv to make as large as possible, or as small as possible for a "
        "loss (default: %(default)s, on PublicTest)",
    )
    parser.add_argument("--no-pruning", action="store_true", help="train every trial to its end")
    parser.add_argument("--out", type=Path, help="the sweep's folder (default: runs/NAME-sweep)")


def run(options: argparse.Namespace) -> int:
    """Search. Raises UsageError, ConfigError, DataError, MissingExtra or TrainingError."""
    from train.config import load_config, parse_overrides
    from train.sweep import parse_space, sweep

    overrides = parse_overrides(options.set)
    space = parse_space(options.vary)
    config = load_config(options.config, overrides=overrides)
    data = read_data(options)
    quiet_tensorflow()
    folder = options.out or Path("runs") / f"{config.name}-sweep"
    best = sweep(
        options.config,
        data,
        folder,
        space,
        overrides=overrides,
        trials=options.trials,
        metric=options.metric,
        prune=not options.no_pruning,
    )
    print(f"{folder / 'sweep.md'}\nbest: {best}")
    return 0
