"""``emotion-edge status``: the health of a running kiosk, from its ``/healthz``."""

from __future__ import annotations

import argparse
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emotion_edge.errors import EmotionEdgeError, UsageError
from emotion_edge.kiosk.configuration import load_config
from emotion_edge.sinks.health import HEALTHY
from emotion_edge.sinks.metrics import MetricsSettings

HELP = "check the health of a running emotion-edge (needs its metrics output)"
SERVICE_CONFIG = Path("/etc/emotion-edge/kiosk.toml")
"""Where the installer puts the service's configuration."""

_TIMEOUT_S = 5


class NotRunning(EmotionEdgeError):
    """Nothing answers where the metrics output should listen."""

    exit_code = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--config", metavar="FILE", help="the kiosk.toml it runs with, by default the service's"
    )
    parser.add_argument(
        "--url", help="where it listens, by default http://127.0.0.1:9188 or as --config says"
    )
    parser.add_argument("--json", action="store_true", help="print the answer unchanged")


def run(options: argparse.Namespace) -> int:
    """0 while frames arrive and every output works, or while paused; otherwise 1.

    3 when nothing answers.
    """
    url = options.url or _configured(options.config)
    health = read_health(url)
    if options.json:
        print(json.dumps(health, ensure_ascii=False))
    else:
        print("\n".join(describe(health)))
    return 0 if health.get("status") in HEALTHY else 1


def read_health(url: str) -> dict[str, Any]:
    """What ``/healthz`` below ``url`` returns. Raises NotRunning, UsageError for no URL."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"--url {url} is not an address: use http://127.0.0.1:9188")
    try:
        # Not through a proxy: it runs on this machine, or on one in its network.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url.rstrip('/')}/healthz", timeout=_TIMEOUT_S) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
    except ValueError as error:
        raise UsageError(f"--url {url} is not an address: use http://127.0.0.1:9188") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise NotRunning(
            f"nothing answers at {url} ({reason}): start emotion-edge run --metrics, or "
            "sudo systemctl start emotion-edge"
        ) from error
    try:
        health = json.loads(text)
    except ValueError:
        health = None
    if not isinstance(health, dict):
        raise NotRunning(f"{url} is not emotion-edge: give its address with --url")
    return health


def describe(health: Mapping[str, Any]) -> list[str]:
    """Lines for a person."""
    since = health.get("seconds_since_frame")
    faces, reason = health.get("faces"), health.get("reason")
    lines = [
        f"{health.get('status', 'unknown')}{f': {reason}' if reason else ''}",
        f"version {health.get('version')}, up {_duration(health.get('uptime_s') or 0)}",
        f"camera  {health.get('camera')}"
        + (f": {health['message']}" if health.get("message") else ""),
        f"frames  {health.get('frames', 0)}, {health.get('skipped', 0)} skipped, "
        + ("none yet" if since is None else f"the last {since:.1f} s ago"),
        "faces   unknown: no frames" if faces is None else f"faces   {faces} now",
    ]
    if health.get("temperature_c") is not None:
        lines.append(f"board   {health['temperature_c']:.0f} °C")
    for sink in health.get("sinks", []):
        dropped = f", {sink['dropped']} dropped" if sink.get("dropped") else ""
        failing = f", failing: {sink['failing']}" if sink.get("failing") else ""
        lines.append(f"output  {sink.get('name')}: {sink.get('written')} written{dropped}{failing}")
    return lines


def _configured(path: str | None) -> str:
    settings = MetricsSettings()
    if path is None and SERVICE_CONFIG.is_file():
        path = str(SERVICE_CONFIG)
    if path is not None:
        found = [one for one in load_config(path).sinks if isinstance(one, MetricsSettings)]
        if not found:
            raise UsageError(f"{path} has no metrics output: add [sinks.metrics]")
        settings = found[0]
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _duration(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{days} d {hours:02}:{minutes:02}" if days else f"{hours}:{minutes:02}:{rest:02}"
