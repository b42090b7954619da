"""Takes commands while a run goes on: pause, resume, reload."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from emotion_edge.errors import EmotionEdgeError, SinkError
from emotion_edge.files import write_whole

MARK = "paused"
"""The file in the state folder that exists during a pause that outlasts a restart."""


class Control:
    """Whether the camera is to be closed; every method may be called from any thread.

    It belongs to the process: a pause continues over a reload of the configuration.
    """

    def __init__(
        self,
        reload: Callable[[], None] | None = None,
        tell: Callable[[str], None] | None = None,
        set_zones: Callable[[Sequence[str]], Path | None] | None = None,
    ) -> None:
        """reload: reads the configuration again. tell: takes a line for a person.

        set_zones: as the attribute.
        """
        self.set_zones = set_zones
        """Applies ``zones.areas`` and saves them; returns the file, None where nothing is saved.

        Raises EmotionEdgeError: then the old zones stay, in the file too. None where a run takes no
        zones.
        """
        self._reload = reload
        self._tell = tell or (lambda line: None)
        self._lock = threading.Lock()
        self._mark: Path | None = None
        self._paused = False

    @property
    def paused(self) -> bool:
        """Whether the camera is to be closed."""
        return self._paused

    def remember(self, folder: Path | None, *, start: bool = False) -> None:
        """Keep the pause in this folder from now on, None to keep none.

        start: whether a pause that an earlier process kept there begins again.
        """
        with self._lock:
            mark = folder / MARK if folder is not None else None
            if mark == self._mark:
                return
            previous, self._mark = self._mark, mark
            if previous is not None:  # or a later run that uses it again would begin paused
                with contextlib.suppress(OSError):
                    previous.unlink(missing_ok=True)
            if start:
                self._paused = mark is not None and mark.exists()
                return
        try:
            self._set(self._paused)
        except EmotionEdgeError as error:
            self._tell(str(error))

    def pause(self) -> None:
        """Close the camera. Raises SinkError when a pause that is to be kept cannot be."""
        self._set(True)

    def resume(self) -> None:
        """Open the camera again. Raises SinkError as ``pause`` does."""
        self._set(False)

    def reload(self) -> None:
        """Read the configuration again; it takes as long as loading a model."""
        if self._reload is not None:
            self._reload()

    def obey(self, command: str) -> bool:
        """Carry out ``pause``, ``resume`` or ``reload``; False for another text."""
        known = {"pause": self.pause, "resume": self.resume, "reload": self.reload}
        if command not in known:
            return False
        try:
            known[command]()
        except EmotionEdgeError as error:
            self._tell(f"{command}: {error}")
        return True

    def _set(self, paused: bool) -> None:
        with self._lock:
            self._paused = paused  # first: a full disk must not keep the camera open
            if self._mark is None:
                return
            if paused:
                write_whole(self._mark, "")
                return
            try:
                self._mark.unlink(missing_ok=True)
            except OSError as error:
                raise SinkError(
                    f"cannot remove {self._mark}: {error.strerror}: the next start will be paused"
                ) from error
