"""Look rarely, and look small: a detector around a detector, for a stream of frames."""

from __future__ import annotations

from emotion_edge.detectors import FaceDetector
from emotion_edge.detectors.geometry import distinct, reduce
from emotion_edge.values import Box, Image


class ScheduledDetector:
    """Searches the whole frame now and then, and around the known faces in between.

    Its memory is of one stream of frames; ``reset`` forgets it.
    """

    def __init__(
        self,
        full: FaceDetector,
        window: FaceDetector | None = None,
        *,
        every: int = 3,
        full_every: int = 30,
        window_every: int = 2,
        reach: float = 0.4,
        window_size: int = 96,
    ) -> None:
        """Put a schedule around a detector.

        full: searches whole frames. window: searches the windows; None for ``full``.
        every: frames from one search of the whole frame to the next while no face is known.
        full_every: the same while faces are known, to find those who joined.
        window_every: frames from one look at the known faces' windows to the next; in between
            their boxes stay where they were.
        reach: how far a window stretches beyond the last box, in that box's sides.
        window_size: pixels of a window's side after shrinking.
        """
        self.full = full
        self.window = window or full
        self._every = every
        self._full_every = full_every
        self._window_every = window_every
        self._reach = reach
        self._window_size = window_size
        self.reset()

    @property
    def name(self) -> str:
        """The inner detector's name."""
        return str(getattr(self.full, "name", type(self.full).__name__))

    def reset(self) -> None:
        """Forget the stream: the next frame is searched whole."""
        self._known: list[Box] = []
        self._since_full = 0
        self._since_look = 0
        self._shape: tuple[int, ...] = ()

    def detect(self, image: Image) -> list[Box]:
        """The faces in view, largest first; a box is at most ``window_every - 1`` frames old.

        A face that its window no longer shows is looked for in the whole frame at once. A frame of
        another size starts afresh.
        """
        if image.shape[:2] != self._shape:
            self.reset()
            self._shape = image.shape[:2]
            return self._search_all(image)
        self._since_full += 1
        self._since_look += 1
        if self._since_full >= (self._full_every if self._known else self._every):
            return self._search_all(image)
        # The frame after a whole search is looked at too: a false face seldom shows twice.
        if self._known and (self._since_look >= self._window_every or self._since_full == 1):
            self._since_look = 0
            found = self._look(image)
            if found is None:
                return self._search_all(image)
            self._known = found
        return list(self._known)

    def _search_all(self, image: Image) -> list[Box]:
        self._known = self.full.detect(image)
        self._since_full = self._since_look = 0
        return list(self._known)

    def _look(self, image: Image) -> list[Box] | None:
        """The known faces in their windows, or None when one is not there."""
        found = []
        for box in self._known:
            candidates = self._search(image, box)
            if not candidates:
                return None
            found.append(max(candidates, key=box.iou))
        merged = distinct(found)
        return merged if len(merged) == len(found) else None

    def _search(self, image: Image, box: Box) -> list[Box]:
        height, width = image.shape[:2]
        reach = round(box.width * self._reach)
        left, top = max(0, box.x - reach), max(0, box.y - reach)
        right = min(width, box.x + box.width + reach)
        bottom = min(height, box.y + box.height + reach)
        if left >= right or top >= bottom:
            return []
        small, span = reduce(image[top:bottom, left:right], self._window_size)
        return [
            Box(
                left + round(seen.x * span),
                top + round(seen.y * span),
                round(seen.width * span),
                round(seen.height * span),
                seen.score,
            )
            for seen in self.window.detect(small)
        ]
