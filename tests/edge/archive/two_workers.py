"""A local Ray cluster of two workers, one of which is killed while ``emotion-edge label`` runs.

``python two_workers.py FOLDER OUT KILL ARGUMENTS...`` prints one JSON object. KILL: number of
finished chunks after which a worker is killed; 0 for never.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_health_check_period_ms", "500")
os.environ.setdefault("RAY_health_check_timeout_ms", "1000")

import ray
from ray.cluster_utils import Cluster

TOO_BUSY = 75
"""Exit status: a part of Ray did not start within the 30 seconds that Ray allows."""

MEMORY = {"object_store_memory": 80_000_000}


def main(source: str, out: str, kill: int, nodes: int, arguments: list[str]) -> None:
    try:
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, **MEMORY},
        )
        workers = [cluster.add_node(num_cpus=1, **MEMORY) for _ in range(nodes)]
    except Exception as error:  # Ray raises nothing more specific
        if "timed out during startup" in str(error):
            sys.exit(TOO_BUSY)
        raise
    try:
        command = [sys.executable, "-m", "emotion_edge", "label", source, "--out", out]
        start = time.monotonic()
        run = subprocess.Popen([*command, "--ray", cluster.address, *arguments])
        parts = Path(f"{out}.parts")
        killed = at = 0
        while run.poll() is None:
            time.sleep(0.02)
            at = len(list(parts.glob("0*.jsonl"))) or at
            if kill and not killed and at >= kill:
                killed = at
                cluster.remove_node(workers.pop(), allow_graceful=False)
        print(
            json.dumps(
                {
                    "status": run.returncode,
                    "killed_after": killed,
                    "seconds": round(time.monotonic() - start, 1),
                }
            )
        )
    finally:
        cluster.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
