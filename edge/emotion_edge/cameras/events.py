"""How a camera tells what happened to it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

from emotion_edge.values import Event

Listener = Callable[[Event], None]
"""Takes a change of state. It may be called from a camera's own thread."""


def report(
    listener: Listener | None, kind: str, message: str, *, trouble: bool = True, **details: Any
) -> None:
    """Hand an event to the listener.

    Without a listener, trouble becomes a RuntimeWarning and good news is dropped.
    details: values that JSON can hold.
    """
    if listener is not None:
        listener(Event(kind, message, time.monotonic_ns(), details))
    elif trouble:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
