"""``emotion-edge bench`` from a checkout, with environments for runtimes that need their own."""

from __future__ import annotations

import argparse

from benchmarks.environments import python_for
from emotion_edge.bench.report import progress_of
from emotion_edge.commands import bench
from emotion_edge.commands.bench import HELP, add_arguments

__all__ = ["HELP", "add_arguments", "run"]


def run(options: argparse.Namespace) -> int:
    """Measure, print, write; 0."""
    return bench.run(options, lambda runtime: python_for(runtime, progress_of(options)))
