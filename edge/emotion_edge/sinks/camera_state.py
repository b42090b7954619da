"""Reads the camera's state from an event."""

from __future__ import annotations

from emotion_edge.values import Event

_AWAY = ("camera.lost", "camera.retry", "camera.gave_up")


def camera_state(event: Event) -> str | None:
    """``ok``, why the camera is away (``absent``, ``busy``, ``frozen``, ...), or None for neither.

    Only a camera that delivers no frames is away. One that skipped a file or dropped a damaged
    frame works.
    """
    if event.kind in _AWAY:
        return str(event.details.get("reason", "lost"))
    return "ok" if event.kind == "camera.recovered" else None
