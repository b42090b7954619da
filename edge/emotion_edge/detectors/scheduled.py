"""Spreads the search for faces over the frames of a stream."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_edge.detectors import FaceDetector
from emotion_edge.detectors.geometry import distinct, overlap, reduce
from emotion_edge.values import Box, Image

_CELL = 8  # pixels of the frame per pixel of the thumbnails in which changes are looked for
_CHANGE = 16  # gray levels by which such a pixel differs when something moved, above the noise
_SHARE = 0.004  # share of the thumbnail that differs when something moved
_SURROUNDINGS = 0.7  # sides of a box around a known face in which its own movement shows
_COVERS = 0.3  # overlap, of the smaller box, from which a box lies on a known face
_GROWS = 1.5  # times its side by which a followed face may grow or shrink from look to look
_STILL = 0.06  # of its side: a face that moved less from one look to the next holds still


@dataclass(slots=True)
class _Known:
    """A face in view.

    seen: a window showed it. lost: the last window did not. still: it hardly moved from one look
    to the next. age: frames since the last look.
    """

    box: Box
    seen: bool = False
    lost: bool = False
    still: bool = False
    age: int = 0


class ScheduledDetector:
    """Full detail around the known faces, the rest of the frame in turn.

    The whole frame is searched at low resolution, often while something changes outside the known
    faces and now and then otherwise. What might be a face is looked at again in detail, in a window
    of its own, before it counts. Known faces are followed in such windows, less often while they
    hold still. In between, one part of the frame after another is searched in detail, for faces too
    small or too faint for the whole.

    Its memory is of one stream of frames; ``reset`` clears it.
    """

    def __init__(
        self,
        full: FaceDetector,
        window: FaceDetector | None = None,
        part: FaceDetector | None = None,
        *,
        sure: float = -math.inf,
        likely: float = -math.inf,
        every: int = 3,
        full_every: int = 30,
        idle_every: int = 20,
        window_every: int = 2,
        still_every: int = 4,
        part_every: int = 6,
        reach: float = 0.4,
        window_size: int = 96,
        part_size: int = 256,
        parts_of: int = 640,
    ) -> None:
        """Put a schedule around a detector.

        full: searches whole frames. window: searches the windows, None for ``full``. part: searches
            parts of the frame in detail, None for no such search.
        sure: score from which a face found by ``full`` or ``part`` counts without a second look.
        likely: score from which a window shows a new face; a known one is followed below it, too.
        every: frames from one search of the whole frame to the next, at least, while something
            changes. idle_every: at most, while no face is known. full_every: at most, while faces
            are known.
        window_every: frames from one look at a known face's window to the next; in between its
            box stays where it was. still_every: the same for a face that holds still.
        part_every: frames from one search of a part to the next, once each has been searched.
        reach: how far a window stretches beyond the last box, in that box's sides.
        window_size: pixels of a window's side after shrinking.
        part_size, parts_of: pixels of a part's longer side, and of the whole frame's at that scale.
        """
        self.full = full
        self.window = window or full
        self.part = part
        self._sure = sure
        self._likely = likely
        self._every = every
        self._full_every = full_every
        self._idle_every = idle_every
        self._window_every = window_every
        self._still_every = still_every
        self._part_every = part_every
        self._reach = reach
        self._window_size = window_size
        self._part_size = part_size
        self._parts_of = parts_of
        self._thorough = False
        self.candidates: tuple[Box, ...] = ()
        """What the last search of the whole frame took for a face, sure or not."""
        self.reset()

    def search_every_frame(self) -> None:
        """Search each frame whole and one part of it, so that a new face is found immediately.

        It costs several times as much: for runs that hide faces.
        """
        self._thorough = True

    def reset(self) -> None:
        """Forget the stream: the next frame is searched whole."""
        self._known: list[_Known] = []
        self._since_full = 0
        self._since_part = 0
        self._next_part = 0
        self._swept = False  # whether each part has been searched since the stream began
        self._shape: tuple[int, ...] = ()
        # Thumbnails of what was searched last: of the whole frame, and pieced together of parts.
        self._whole_seen: Image | None = None
        self._parts_seen: Image | None = None

    def detect(self, image: Image) -> list[Box]:
        """The faces in view, largest first; the box of a moving face is at most
        ``window_every - 1`` frames old, that of a still one ``still_every - 1``.

        A face that its window no longer shows is looked for in the whole frame right away. A frame
        of another size starts over.
        """
        if image.shape[:2] != self._shape:
            self.reset()
            self._shape = image.shape[:2]
            return self._search_all(image)
        self._since_full += 1
        self._since_part += 1
        if self._thorough:
            self._search_all(image)
            if self.part is not None:
                self._search_part(image, self.part)
            return self._boxes()
        limit = self._full_every if self._known else self._idle_every
        if self._since_full >= limit or (
            self._since_full >= self._every
            and self._changes(_thumbnail(image), self._whole_seen).mean() > _SHARE
        ):
            return self._search_all(image)
        for known in self._known:
            known.age += 1
        due = [known for known in self._known if self._is_due(known)]
        if due and not self._look(image, due):
            return self._search_all(image)
        if self.part is not None and (
            not self._swept or (not due and self._since_part >= self._part_every)
        ):
            self._search_part(image, self.part)
        return self._boxes()

    def _is_due(self, known: _Known) -> bool:
        """Whether it is time to look at a known face's window."""
        # The frame after a whole search is looked at too: a false face seldom shows twice.
        if not known.seen:
            return True
        return known.age >= (self._still_every if known.still else self._window_every)

    def _boxes(self) -> list[Box]:
        return sorted((known.box for known in self._known), key=lambda box: -box.area)

    def _search_all(self, image: Image) -> list[Box]:
        """Search the whole frame; what is not sure counts once its window shows it."""
        before, found = self._known, self.full.detect(image)
        self._since_full = 0
        self._whole_seen = _thumbnail(image)
        self.candidates = tuple(found)
        self._known = [
            _Known(box, seen=any(k.seen and overlap(k.box, box) > _COVERS for k in before))
            for box in found
            if box.score >= self._sure
        ]
        # A known face may be too faint for the whole frame. It comes before what is faint and new,
        # whose box is often misplaced.
        for known in before:
            self._verify(image, known.box, -math.inf if known.seen else self._likely)
        for box in found:
            if box.score < self._sure:
                self._verify(image, box, self._likely)
        return self._boxes()

    def _verify(self, image: Image, box: Box, likely: float) -> None:
        """Take a face that its window shows, unless it is known already."""
        if self._is_known(box):
            return
        seen = [
            one
            for one in self._search(image, box)
            if one.score >= likely and overlap(box, one) > _COVERS and not self._is_known(one)
        ]
        if seen:
            self._known.append(_Known(max(seen, key=box.iou), seen=True))

    def _is_known(self, box: Box) -> bool:
        return any(overlap(box, known.box) > _COVERS for known in self._known)

    def _look(self, image: Image, due: list[_Known]) -> bool:
        """Follow known faces in their windows; False if one is not there any more.

        A face that a window has shown may be missing once.
        """
        followed = []
        for known in due:
            seen = [one for one in self._search(image, known.box) if self._continues(known, one)]
            if seen:
                box = max(seen, key=known.box.iou)
                followed.append(_Known(box, seen=True, still=_moved(known.box, box) < _STILL))
            elif known.seen and not known.lost:
                followed.append(_Known(known.box, seen=True, lost=True))
            else:
                return False
        followed += [known for known in self._known if not any(known is one for one in due)]
        if len(distinct(known.box for known in followed)) < len(followed):
            return False
        self._known = followed
        return True

    def _continues(self, known: _Known, box: Box) -> bool:
        """Whether a box can be a known face a little later: a faint one of another size cannot."""
        size = box.width / max(1, known.box.width)
        return box.score >= self._sure or 1 / _GROWS <= size <= _GROWS

    def _search(self, image: Image, box: Box) -> list[Box]:
        height, width = image.shape[:2]
        reach = round(box.width * self._reach)
        left, top = max(0, box.x - reach), max(0, box.y - reach)
        right = min(width, box.x + box.width + reach)
        bottom = min(height, box.y + box.height + reach)
        if left >= right or top >= bottom:
            return []
        small, span = reduce(image[top:bottom, left:right], self._window_size)
        return [seen.placed(span, left, top) for seen in self.window.detect(small)]

    def _search_part(self, image: Image, part: FaceDetector) -> None:
        """Search one part of the frame in detail: where most has changed, or the next in turn."""
        height, width = image.shape[:2]
        scale = max(1.0, max(height, width) / self._parts_of)
        parts = _parts(height, width, self._part_size * scale)
        now = _thumbnail(image)
        changes = self._changes(now, self._parts_seen)
        counts = [np.count_nonzero(_cells(changes, one)) for one in parts]
        if max(counts) <= _SHARE * changes.size:
            self._swept = True
            # Nothing moved: less often will do.
            if self._since_part < self._part_every * (6 if self._known else 3):
                return
            self._next_part = (self._next_part + 1) % len(parts)
            chosen = parts[self._next_part]
        else:
            chosen = parts[int(np.argmax(counts))]
        self._since_part = 0
        if self._parts_seen is None:
            self._parts_seen = np.zeros_like(now)
        _cells(self._parts_seen, chosen)[:] = _cells(now, chosen)
        left, top, right, bottom = chosen
        small, span = reduce(image[top:bottom, left:right], self._part_size)
        for seen in part.detect(small):
            box = seen.placed(span, left, top)
            if box.score >= self._sure:
                if not self._is_known(box):
                    self._known.append(_Known(box, seen=True))
            else:
                self._verify(image, box, self._likely)

    def _changes(self, now: Image, before: Image | None) -> NDArray[np.bool_]:
        """Which pixels of a thumbnail differ from an earlier one, those of known faces left out."""
        if before is None:
            return np.ones(now.shape, bool)
        differs: NDArray[np.bool_] = cv2.absdiff(now, before) > _CHANGE
        for box in self._boxes():
            reach = round(box.width * _SURROUNDINGS)
            around = (
                max(0, box.x - reach),
                max(0, box.y - reach),
                max(0, box.x + box.width + reach),
                max(0, box.y + box.height + reach),
            )
            _cells(differs, around)[:] = False
        return differs


def _moved(before: Box, after: Box) -> float:
    """How far a box moved or grew, in its sides."""
    across = after.x - before.x + (after.width - before.width) / 2
    down = after.y - before.y + (after.height - before.height) / 2
    grown = after.width - before.width
    return max(abs(across), abs(down), abs(grown)) / max(1, before.width)


def _thumbnail(image: Image) -> Image:
    """A small gray copy that is cheap to make: every eighth pixel of every eighth row."""
    sparse = np.ascontiguousarray(image[::_CELL, ::_CELL])
    gray = sparse if sparse.ndim == 2 else cv2.cvtColor(sparse, cv2.COLOR_BGR2GRAY)
    return np.asarray(gray, dtype=np.uint8)


def _cells(thumbnail: NDArray[Any], part: tuple[int, int, int, int]) -> NDArray[Any]:
    """The view of a thumbnail that shows a part of the frame."""
    left, top, right, bottom = part
    return thumbnail[top // _CELL : -(-bottom // _CELL), left // _CELL : -(-right // _CELL)]


def _parts(height: int, width: int, side: float) -> list[tuple[int, int, int, int]]:
    """Overlapping parts of a frame, as left, top, right and bottom."""

    def spans(extent: int) -> list[tuple[int, int]]:
        count = max(1, math.ceil(extent / side * 1.05))
        length = min(extent, round(side))
        starts = [round(i * (extent - length) / max(1, count - 1)) for i in range(count)]
        return [(start, start + length) for start in starts]

    return [
        (left, top, right, bottom) for top, bottom in spans(height) for left, right in spans(width)
    ]
