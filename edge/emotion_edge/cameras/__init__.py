"""Where frames come from.

To add a camera: write one file with a class that has ``Camera``'s members, and add its line to
``open_camera``.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from emotion_edge.values import Frame


class Camera(Protocol):
    """A source of frames, used as a context manager: entering opens it, leaving closes it.

    Two frame policies, and only two: a file yields every frame, a live camera the newest.
    """

    @property
    def name(self) -> str:
        """What the user would call it: ``demo``, ``/dev/video0``, ``clip.mp4``."""

    @property
    def live(self) -> bool:
        """Whether frames that nobody reads in time are skipped."""

    def __enter__(self) -> Self:
        """Open. Raises CameraNotFound or CameraBusy."""

    def read(self, timeout: float) -> Frame | None:
        """The next frame, or None at the end of the source.

        timeout: seconds to wait at most. A live camera never returns the same frame twice.
        Raises CameraLost when no frame came in time.
        """

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; safe to call twice, and after a failed open."""
