"""Reports what happens to a camera."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

from emotion_edge.values import Event

Listener = Callable[[Event], None]
"""Receives a change of state. It may be called from a camera's own thread."""


def report(
    listener: Listener | None, kind: str, message: str, *, trouble: bool = True, **details: Any
) -> None:
    """Pass an event to the listener.

    Without a listener, trouble becomes a RuntimeWarning; other events are dropped.
    details: values that JSON can hold.
    """
    if listener is not None:
        listener(Event(kind, message, time.monotonic_ns(), details))
    elif trouble:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
