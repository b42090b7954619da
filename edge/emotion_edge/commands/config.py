"""``emotion-edge config check``: checks a configuration file without running it."""

from __future__ import annotations

import argparse
import sys

from emotion_edge.kiosk import configuration
from emotion_edge.model.shipped import model_path

HELP = "check a configuration file, and print what it amounts to"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    help = (
        "print one line for each problem, and the effective configuration without secrets; "
        "0: valid, 1: it has keys that are ignored, 2: invalid"
    )
    check = actions.add_parser("check", help=help, description=help)
    check.add_argument("file", metavar="FILE", help="a kiosk.toml; conf.d/*.toml next to it count")
    check.add_argument("--quiet", action="store_true", help="print problems only")


def run(options: argparse.Namespace) -> int:
    """Problems on standard error, the configuration on standard output.

    Raises ModelError for the name of a model that does not exist.
    """
    layers = configuration.read_layers(options.file)
    tables = configuration.combined(layers)
    config, errors = configuration.examine(tables, options.file, layers=layers)
    for line in errors:
        print(f"emotion-edge: {line}", file=sys.stderr)
    if config is None:
        return 2
    if not config.model.endswith(".tflite"):  # a file may be on the kiosk only
        model_path(config.model)
    for line in config.ignored:
        print(f"emotion-edge: {line} (ignored)", file=sys.stderr)
    if not options.quiet:
        print(f"# {' + '.join(path for path, _ in layers)}")
        print("\n".join(configuration.effective(config)))
    return 1 if config.ignored else 0
