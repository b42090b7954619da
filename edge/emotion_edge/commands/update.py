"""``emotion-edge update``: installs another release on a kiosk, on trial; or goes back."""

from __future__ import annotations

from emotion_edge.kiosk.update import add_arguments, run

HELP = "update a kiosk: test, switch, watch its health, go back if it is not healthy"

__all__ = ["HELP", "add_arguments", "run"]
