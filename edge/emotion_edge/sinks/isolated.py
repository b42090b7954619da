"""Runs a sink in its own thread, so that the camera never waits for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Self

from emotion_edge.errors import EmotionEdgeError, SinkError
from emotion_edge.sinks import Sink
from emotion_edge.sinks.wrapper import Wrapper
from emotion_edge.values import Event, Observation

_EVENTS = 64  # queued at most
_CLOSE_S = 1.5  # for a sink that is closed on its own
_REPORT_DROPS_S = 60.0  # between two reports of drops


class Isolated(Wrapper):
    """Opens, writes and closes another sink in one thread, behind a short queue.

    A full queue drops its oldest observation and counts it (a sink that shows images has one
    slot, for the newest). An error is reported once as an event ``sink.failed`` and the write
    tried again, after 1, 2, 4 ... 60 seconds, until ``sink.recovered`` is reported. An error
    that is not a SinkError is a fault in the sink: that one record is dropped, and the next one
    is tried after the same pause. A required sink is not retried: ``fatal`` holds its error
    from then on. A console whose reader has gone (``| head``) is ``ended``: it takes nothing
    more, and that is not a failure.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        pixels: bool = False,
        depth: int | None = None,
        required: bool = False,
        wait: bool = False,
        retry_s: tuple[float, float] = (1.0, 60.0),
    ) -> None:
        """Wrap ``sink``.

        pixels: whether it looks at the pixels.
        depth: observations queued at most; by default 64, or for a sink that shows images 1 (8 with
            ``wait``).
        wait: ``write`` waits for room instead of dropping, as long as the sink works.
        retry_s: the first and the longest pause after an error, in seconds.
        """
        super().__init__(sink)
        self.pixels = pixels
        self._depth = depth or (64 if not pixels else 8 if wait else 1)
        self._required = required
        self._wait = wait
        self._retry_s = retry_s
        self._changed = threading.Condition()
        self._queue: deque[Observation | Event] = deque()
        self._observations = 0  # of the queue
        self._reports: deque[Event] = deque(maxlen=16)
        self._thread: threading.Thread | None = None
        self._opened = threading.Event()
        self._opening_error: BaseException | None = None
        self._deadline: float | None = None
        self._dropped = 0
        self._drops_reported = 0
        self._drops_reported_at = float("-inf")  # monotonic seconds
        self.written = 0
        self.failing = ""
        self.fatal: EmotionEdgeError | None = None
        self.ended = False
        self._failed_with: type | None = None  # what could not be written: observation or event

    @property
    def dropped(self) -> int:
        """Records dropped here and by the wrapped sink."""
        return self._dropped + self._sink.dropped

    @property
    def trouble(self) -> str:
        """The wrapped sink's last error while it lasts."""
        return self.failing

    def __enter__(self) -> Self:
        """Open the wrapped sink in its thread, and wait for that. Raises what it raises."""
        self._thread = threading.Thread(target=self._run, name=f"sink {self.name}", daemon=True)
        self._thread.start()
        self._opened.wait()
        if self._opening_error is not None:
            self._thread.join()
            self._thread = None
            raise self._opening_error
        return self

    def write(self, observation: Observation) -> None:
        """Queue one observation."""
        with self._changed:
            if self._wait:
                self._changed.wait_for(
                    lambda: self._observations < self._depth or self.failing or self._closed
                )
            if self._closed:
                self._dropped += not self.ended
                return
            if self._observations >= self._depth:
                self._drop_oldest(Observation)
                self._report_drops()
            self._observations += 1
            self._queue.append(observation)
            self._changed.notify_all()

    def event(self, event: Event) -> None:
        """Queue one change of state; it never waits, and no observation displaces it."""
        with self._changed:
            if self._closed:
                return
            if len(self._queue) - self._observations >= _EVENTS:
                self._drop_oldest(Event)
            self._queue.append(event)
            self._changed.notify_all()

    def take_reports(self) -> list[Event]:
        """What happened to the sink since the last call: failed, recovered, dropping."""
        reports = []
        while self._reports:
            reports.append(self._reports.popleft())
        return reports

    def stop(self, deadline: float) -> None:
        """Ask for the end: flush what is queued and close, by ``deadline`` (monotonic seconds)."""
        with self._changed:
            if self._deadline is None:
                self._deadline = deadline
            self._changed.notify_all()

    def __exit__(self, *error: object) -> None:
        """Flush and close. A sink that hangs is reported and left behind."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self.stop(time.monotonic() + _CLOSE_S)
        assert self._deadline is not None
        thread.join(max(0.1, self._deadline - time.monotonic()))
        if thread.is_alive():
            self._fail(
                SinkError(
                    f"{self.name} did not close in time: what it held may be missing; "
                    "look at the disk or the network behind it"
                )
            )

    @property
    def _closed(self) -> bool:
        return self._deadline is not None or self.fatal is not None or self.ended

    def _drop_oldest(self, kind: type[Observation] | type[Event]) -> None:
        del self._queue[next(i for i, old in enumerate(self._queue) if isinstance(old, kind))]
        self._observations -= kind is Observation
        self._dropped += 1

    def _report_drops(self) -> None:
        now = time.monotonic()
        # A sink that shows images shows the newest: skipping some is not a failure.
        if self.pixels or self.failing or now - self._drops_reported_at < _REPORT_DROPS_S:
            return
        self._report(
            "sink.dropping",
            f"{self.name} is too slow: {self._dropped - self._drops_reported} records dropped",
        )
        self._drops_reported, self._drops_reported_at = self._dropped, now

    def _report(self, kind: str, message: str) -> None:
        details = {"sink": self.name, "dropped": self.dropped}
        self._reports.append(Event(kind, message, time.monotonic_ns(), details))

    def _run(self) -> None:
        """The thread: the sink's whole life."""
        try:
            self._sink.__enter__()
        except BaseException as error:
            self._opening_error = error
            return
        finally:
            self._opened.set()
        try:
            self._work()
        finally:
            try:
                self._sink.__exit__(None, None, None)
            except Exception as error:
                self._fail(error)

    def _work(self) -> None:
        pause = 0.0
        while (item := self._take()) is not None:
            while True:
                last = self._closed  # read before the attempt: once asked to stop, one more try
                error = self._attempt(item)
                if error is None:
                    pause = 0.0
                    break
                self._fail(error, item)
                if self.ended:
                    break
                pause = min(max(2 * pause, self._retry_s[0]), self._retry_s[1])
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, timeout=pause)
                if last or self.fatal is not None or not isinstance(error, SinkError):
                    with self._changed:
                        self._dropped += 1
                    break

    def _take(self) -> Observation | Event | None:
        """The next to write, or None when it is time to close."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            late = self._deadline is not None and time.monotonic() > self._deadline
            if not self._queue or late or self.fatal is not None or self.ended:
                self._dropped += len(self._queue) * (not self.ended)
                self._queue.clear()
                self._observations = 0
                return None
            item = self._queue.popleft()
            self._observations -= isinstance(item, Observation)
            self._changed.notify_all()
            return item

    def _attempt(self, item: Observation | Event) -> Exception | None:
        try:
            if isinstance(item, Event):
                self._sink.event(item)
            else:
                self._sink.write(item)
        except Exception as error:
            return error
        self.written += 1
        if trouble := self._sink.trouble:
            self._fail(SinkError(trouble))
        elif self.failing and isinstance(item, self._failed_with or object):
            # Not for an event when observations fail: many sinks ignore events.
            self.failing = ""
            self._report("sink.recovered", f"{self.name} works again")
        return None

    def _fail(self, error: Exception, item: Observation | Event | None = None) -> None:
        if isinstance(error, BrokenPipeError):
            # Nothing reads standard output any more. The reader decided so: it is not a failure.
            with self._changed:
                self.ended = True
                self._report(
                    "sink.closed",
                    f"nothing reads {self.name} any more: it is closed, other outputs continue",
                )
                self._changed.notify_all()
            return
        self._failed_with = type(item) if item is not None else None
        message = f"{self.name}: {type(error).__name__}: {error}"
        if isinstance(error, EmotionEdgeError):
            message = str(error)
        first, self.failing = not self.failing, message
        with self._changed:
            if self._required:
                self.fatal = SinkError(message)
                self.fatal.__cause__ = error
            elif first:
                self._report("sink.failed", message)
            self._changed.notify_all()
