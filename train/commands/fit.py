"""``python -m train fit``: train a configuration and export the result."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from emotion_edge.errors import EmotionEdgeError
from train.arguments import add_data_arguments, quiet_tensorflow, read_data
from train.files import refuse_existing
from train.hosts import ALONE, end, join, parse_host

HELP = "train a configuration; continues where a killed run stopped"
FAST_EPOCHS = 4
"""Epochs of ``--fast-run``; ``--set`` takes precedence."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument("--config", type=Path, required=True, help="train/configs/NAME.toml")
    parser.add_argument("--out", type=Path, help="the run's folder (default: runs/NAME)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a value of the configuration (and of those before it), e.g. fit.epochs=3",
    )
    parser.add_argument(
        "--fast-run",
        action="store_true",
        help=f"{FAST_EPOCHS} epochs: minutes, to see every step work",
    )
    parser.add_argument("--keep-leaks", action="store_true", help="do not drop the leaking rows")
    parser.add_argument(
        "--deterministic", action="store_true", help="identical bits on identical machines"
    )
    parser.add_argument(
        "--devices", type=int, default=1, metavar="N", help="spread each batch over N devices"
    )
    parser.add_argument(
        "--host",
        metavar="I/N@ADDRESS:PORT",
        help="spread it over the devices of N hosts, of which this is number I (from 0) and the "
        "first is at ADDRESS; JAX only",
    )
    parser.add_argument(
        "--soft-labels",
        type=Path,
        metavar="FILE.npz",
        help="then write this run's averaged predictions, to train students on (see soften)",
    )
    parser.add_argument("--save-h5", action="store_true", help="also write the legacy .h5")
    parser.add_argument("--no-tensorboard", action="store_true", help="write no TensorBoard log")
    parser.add_argument(
        "--overwrite", action="store_true", help="start again in an existing folder"
    )


def run(options: argparse.Namespace) -> int:
    """Train and export. Raises ConfigError, DataError, TrainingError or OutputExists."""
    from train.config import load_config, parse_overrides

    overrides = parse_overrides(options.set)
    if options.fast_run:
        overrides["fit"] = {"epochs": FAST_EPOCHS} | overrides.get("fit", {})
    config = load_config(options.config, overrides=overrides)
    host = parse_host(options.host) if options.host else ALONE
    if options.soft_labels is not None and host.is_first:
        refuse_existing(options.soft_labels, options.overwrite)
    data = read_data(options, clean=not options.keep_leaks)
    quiet_tensorflow()
    join(host, debug=options.debug)
    from train import export

    folder = options.out or Path("runs") / config.name
    try:
        export.train(
            config,
            data,
            folder,
            overrides=overrides,
            overwrite=options.overwrite,
            save_h5=options.save_h5,
            deterministic=options.deterministic,
            device_count=options.devices,
            host=host,
            tensorboard=not options.no_tensorboard,
        )
    except EmotionEdgeError as error:
        if host.count > 1 and not options.debug:
            end(error, error.exit_code)
        raise
    except KeyboardInterrupt:
        print("\ntrain: interrupted; the last epoch's checkpoint is kept", file=sys.stderr)
        raise
    if not host.is_first:
        print(f"host {host.index} of {host.count}: done; the first host has the run")
        return 0
    print(f"{folder / 'model.keras'}\n{folder / 'report.md'}")
    if options.soft_labels is not None:
        export.soften([folder], data, options.soft_labels)
        print(options.soft_labels)
    return 0
