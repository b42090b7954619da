"""Reduces a latency document to what may be published: the board and its figures, nothing personal.

The result has the same format as the document, so every tool that reads one reads the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_DOCUMENT = ("schema", "type", "benchmark", "duration_s", "warnings")
_MACHINE = (
    "name",
    "cpu",
    "machine",
    "cores",
    "memory_mb",
    "os",
    "python",
    "packages",
    "governor",
    "clock_mhz",
    "temperature_c",
    "throttle_bits",
    "others_share",
)
_SETTINGS = ("warmup", "rounds", "runs", "restarts", "rate", "cpus", "seed", "discard", "inputs")
_CASE = (
    "model",
    "variant",
    "file_bytes",
    "sha256",
    "runtime",
    "runtime_version",
    "python",
    "numpy",
    "threads",
    "xnnpack",
    "import_ms",
    "load_ms",
    "first_ms",
    "warmup_ms",
    "latency_ms",
    "invoke_ms",
    "response_ms",
    "round_p50_ms",
    "memory_mb",
)


def shareable(document: Mapping[str, Any]) -> dict[str, Any]:
    """A latency document without names of files, people and computers.

    Keys are copied from a fixed list. The time becomes a day, the kernel's release its version
    without the builder's suffix, and a file's name that of its model's manifest.
    """
    machine = document["machine"]
    version = re.match(r"\d+(\.\d+)*", machine["kernel"])
    return {
        **{key: document[key] for key in _DOCUMENT},
        "created": f"{document['created'][:10]}T00:00:00+00:00",
        "settings": {key: document["settings"][key] for key in _SETTINGS},
        "machine": {
            **{key: machine[key] for key in _MACHINE},
            "kernel": version[0] if version else "",
        },
        "cases": [_case(case) for case in document["cases"]],
    }


def _case(case: Mapping[str, Any]) -> dict[str, Any]:
    # Without a manifest, a model goes by the name of its file.
    name = case["model"] if case["variant"] else f"model-{case['sha256'][:8]}"
    return {key: case[key] for key in _CASE} | {
        "model": name,
        "file": f"{name}.tflite",
        "delegate": "yes" if case["delegate"] else None,
    }
