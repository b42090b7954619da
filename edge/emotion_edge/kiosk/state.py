"""Finds the folder for what outlasts a restart: the drift baseline, a pause."""

from __future__ import annotations

import os
from pathlib import Path

from emotion_edge.errors import UsageError


def state_folder(configured: Path | None) -> Path:
    """``state_dir``, else systemd's folder for the service, else the user's. It need not exist.

    Raises UsageError for a user without a home folder.
    """
    if configured is not None:
        return configured
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    try:
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:
        raise UsageError("this user has no home folder: set state_dir") from None
    return Path(home) / "emotion-edge"
