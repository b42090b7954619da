"""``emotion-edge receipt``: lists what a configuration stores and sends."""

from __future__ import annotations

import argparse
import json
import sys

from emotion_edge.commands.status import SERVICE_CONFIG
from emotion_edge.errors import UsageError
from emotion_edge.kiosk import receipt
from emotion_edge.kiosk.configuration import load_config

HELP = "list what a configuration stores and sends, where, and for how long"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--config", metavar="FILE", help="a kiosk.toml, by default the service's own"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def run(options: argparse.Namespace) -> int:
    """Print the receipt. Raises UsageError for an invalid configuration."""
    path = options.config or (str(SERVICE_CONFIG) if SERVICE_CONFIG.is_file() else None)
    if path is None:
        raise UsageError(f"there is no {SERVICE_CONFIG}: name a configuration with --config FILE")
    config = load_config(path)
    for line in config.ignored:
        print(f"emotion-edge: {line} (ignored)", file=sys.stderr)
    if options.json:
        print(json.dumps(receipt.as_json(config), ensure_ascii=True))
    else:
        print("\n".join(line.removeprefix("receipt: ") for line in receipt.lines(config)))
    return 0
