"""Reads the camera's state from an event."""

from __future__ import annotations

from emotion_edge.values import Event

PAUSED = "paused"
_CHOSEN = {"camera.paused": PAUSED, "camera.resumed": "starting"}
_AWAY = ("camera.lost", "camera.retry", "camera.gave_up")


def camera_state(event: Event) -> str | None:
    """``ok``, why the camera is away (``absent``, ``busy``, ``frozen``, ...), or None for neither.

    Only a camera that delivers no frames is away. One that skipped a file or dropped a damaged
    frame works. ``paused``: it was closed on request. ``starting``: it is being opened after that.
    """
    if event.kind in _CHOSEN:
        return _CHOSEN[event.kind]
    if event.kind in _AWAY:
        return str(event.details.get("reason", "lost"))
    return "ok" if event.kind == "camera.recovered" else None
