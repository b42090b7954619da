"""Counts the networks of ``published.toml`` again: ``python -m benchmarks.estimation.recount``.

Writes ``counts.json`` after every network and skips those that it already holds; delete the file to
start over. Needs the extra ``[train]`` and the tools of ``make estimate-tools``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.estimation import calibration, emulator, ncnn_networks, networks
from emotion_edge.files import write_whole

COUNTS = Path(__file__).with_name("counts.json")


def main() -> None:
    """Count what is missing."""
    boards = calibration.boards()
    counts = json.loads(COUNTS.read_text()) if COUNTS.is_file() else {}
    for point in calibration.published():
        core = boards[point.board]
        found = counts.setdefault(core["cpu"], {})
        if point.network in found:
            continue
        print(f"{point.network} on {core['cpu']}", file=sys.stderr, flush=True)
        name, _, variant = point.network.rpartition("-")
        with tempfile.TemporaryDirectory() as folder:
            if name.startswith("ncnn-"):
                path = Path(folder, "network.param")
                ncnn_networks.write(name.removeprefix("ncnn-"), variant, path)
            else:
                path = Path(folder, "network.tflite")
                networks.write(name, variant, path)
            counted = emulator.count([path], core)[0].as_dict()
            del counted["operators"]  # calibration needs the sum
            found[point.network] = counted
        write_whole(COUNTS, json.dumps(counts, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
