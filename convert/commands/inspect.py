"""``python -m convert inspect``: what a .tflite file contains."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "show operators, tensors, cost, manifest, TFLite metadata and XNNPACK's share of a file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", type=Path, metavar="FILE.tflite")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document with every tensor"
    )


def run(options: argparse.Namespace) -> int:
    """Print what the file contains."""
    from convert import inspection

    found = inspection.inspect(options.file)
    print(json.dumps(found.to_dict(), ensure_ascii=False) if options.json else found.to_text())
    return 0
