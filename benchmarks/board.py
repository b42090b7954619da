"""Runs the standard set on this board and records it under ``results/``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import record
from emotion_edge.kiosk.board import read_board
from emotion_edge.model.shipped import shipped_models

HELP = "the standard set on this board, recorded under results/; about ten minutes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--data",
        type=Path,
        help="FER2013: adds accuracy and the float variants; needs a workstation",
    )
    parser.add_argument("--split", default="PublicTest", help="for accuracy; default: PublicTest")
    parser.add_argument("--soak", type=int, default=30_000, metavar="FRAMES", help="0: none")
    parser.add_argument(
        "--quick", action="store_true", help="a trial, too short for meaningful figures"
    )
    parser.add_argument("--note", help="one line about cooling, power supply, load")
    parser.add_argument("--folder", type=Path, default=record.RESULTS)


def run(options: argparse.Namespace) -> int:
    """Run every benchmark and record it; returns the last failure's exit status."""
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, words in enumerate(commands(options)):
            print(f"\n# python -m benchmarks {' '.join(words)}", flush=True)
            output = Path(folder) / f"{number}.json"
            # One process each: what one leaves in memory must not hide the next one's leak.
            command = [sys.executable, "-m", "benchmarks", *words, "--output", str(output)]
            status = subprocess.run(command, check=False).returncode or status
            if output.exists():
                document = record.read_document(output)
                print(record.add(document, options.folder, options.note))
    return status or record.renew(options.folder)


def commands(options: argparse.Namespace) -> list[list[str]]:
    """The command line of each benchmark."""
    names = list(shipped_models())
    cores = read_board().cores
    threads = ",".join(str(n) for n in (1, 2, 4) if n <= cores)
    words = [
        ["latency", *names, "--threads", threads, "--xnnpack", "both"],
        ["latency", *names, "--rate", "15", "--rounds", "5"],
        ["pipeline", "--model", names[0]],
        ["roofline", *names, "--variants", "int8"],
    ]
    if options.data:
        words[3] = ["roofline", *names, "--data", str(options.data)]
        stem = str(options.folder / f"pareto-{options.split}")
        words.append(["accuracy", *names, "--data", str(options.data), "--split", options.split])
        words[-1] += ["--plot", stem, "--overwrite"]
    if options.quick:
        short = ["--rounds", "1", "--restarts", "1"]
        pipeline = ["--frames", "10", "--live", "1", "--sizes", "320x240", "--faces", "1"]
        words = [[*one, *(pipeline if one[0] == "pipeline" else short)] for one in words]
    if options.soak:
        words.append(["soak", "--model", names[0], "--frames", str(options.soak)])
    return words
