"""Images per second of ``emotion-edge label``: processes against Ray workers, interleaved.

``python -m tests.edge.archive.scaling [IMAGES] [ROUNDS]`` labels the same images with one process,
two processes, one Ray worker and two Ray workers, in this order and then in reverse, and prints the
median rate of each and the ratios. The images are crops of one photograph at 640x480. It needs two
free cores and the extra ``[ray]``; the times are those that ``label`` reports, without the
start of Ray.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

from emotion_edge.cameras.demo import HOPPER
from emotion_edge.model.preprocessing import read_image
from tests.edge.archive.two_workers import MEMORY, Cluster, ray

CASES = ("1 process", "2 processes", "1 Ray worker", "2 Ray workers")


def images(folder: Path, count: int) -> None:
    """JPEG files of 640x480 with a face each."""
    face = read_image(HOPPER)
    for number in range(count):
        top, left = number % 60, number // 60 % 40
        crop = face[top : top + 384, left : left + 472]
        cv2.imwrite(str(folder / f"{number:06}.jpg"), cv2.resize(crop, (640, 480)))


def rate(folder: Path, case: str, address: str) -> float:
    """Images per second of one run."""
    count = case.split()[0]
    how = ["--ray", address] if "Ray" in case else ["--workers", count]
    with tempfile.TemporaryDirectory() as out:
        words = ["label", str(folder), "--out", f"{out}/out.jsonl", "--quiet", *how]
        done = subprocess.run(
            [sys.executable, "-m", "emotion_edge", *words],
            capture_output=True,
            text=True,
            check=True,
        )
    found = re.search(r"([\d,.]+) images/s", done.stderr)
    assert found, done.stderr
    return float(found[1].replace(",", ""))


def main(count: int, rounds: int) -> None:
    """Label, and print the figures as JSON."""
    rates: dict[str, list[float]] = {case: [] for case in CASES}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **MEMORY}
    )
    try:
        with tempfile.TemporaryDirectory() as name:
            images(Path(name), count)
            cluster.add_node(num_cpus=1, **MEMORY)
            second = None
            for number in range(rounds):
                for case in CASES if number % 2 == 0 else reversed(CASES):
                    if case == CASES[3] and second is None:
                        second = cluster.add_node(num_cpus=1, **MEMORY)
                    elif case != CASES[3] and second is not None:
                        cluster.remove_node(second)
                        second = None
                    rates[case].append(rate(Path(name), case, cluster.address))
                    print(f"{case}: {rates[case][-1]:.1f} images/s", file=sys.stderr, flush=True)
    finally:
        cluster.shutdown()
        ray.shutdown()
    ratios = {
        f"{case} / {base}": round(
            statistics.median(a / b for a, b in zip(rates[case], rates[base], strict=True)), 2
        )
        for case, base in (
            (CASES[1], CASES[0]),
            (CASES[2], CASES[0]),
            (CASES[3], CASES[2]),
            (CASES[3], CASES[1]),
        )
    }
    medians = {case: statistics.median(each) for case, each in rates.items()}
    load = round(os.getloadavg()[1], 1)
    print(json.dumps({"images/s": medians, "ratios": ratios, "load": load}, indent=1))


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [400, 4][len(given) :]))
