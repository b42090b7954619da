"""systemd's notification protocol: ready, alive, stopping (sd_notify(3)).

Without systemd (no ``NOTIFY_SOCKET``) everything here does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Watchdog:
    """Reports to systemd that frames flow, or that the loop waits for a camera and is alive.

    The loop that does the work calls ``alive``, not a timer: when the loop hangs, the calls stop
    and systemd restarts the service.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        meant_for = environment.get("WATCHDOG_PID", "")
        usec = environment.get("WATCHDOG_USEC", "")
        watched = usec.isdigit() and meant_for in ("", str(os.getpid()))
        # Half of the limit, as sd_watchdog_enabled(3) advises.
        self.interval_s: float | None = int(usec) / 2e6 if watched else None
        self._last = float("-inf")
        self._status = ""
        self._reloading = False

    def ready(self, status: str) -> None:
        """The service is up: its model is loaded and its outputs are open."""
        self._status = status
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self, status: str = "") -> None:
        """Work was done; sent when half of the limit has passed or the status is new."""
        now = time.monotonic()
        message = []
        if self.interval_s is not None and now - self._last >= self.interval_s:
            self._last = now
            message.append("WATCHDOG=1")
        if status and status != self._status:
            self._status = status
            message.append(f"STATUS={status}")
        if message:
            self._send("\n".join(message))

    def reloading(self) -> None:
        """The next ``stopping`` is followed by another run."""
        self._reloading = True

    def stopping(self) -> None:
        """The service ends, or begins again with another configuration."""
        if self._reloading:
            self._reloading = False
            self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        else:
            self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # An address that starts with @ is in Linux' abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.connect(address)
                channel.send(message.encode())
        except OSError:
            pass  # systemd is restarting: the next message will reach it
