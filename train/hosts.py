"""Joins the hosts of one training run (JAX): ``--host INDEX/COUNT@ADDRESS:PORT``.

Every host runs the same command with its own index. The address is that of host 0, which also
writes the run's folder; the others write nothing. Each host needs the data, not the folder.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import NoReturn

from emotion_edge.errors import UsageError

_LOST_AFTER_S = 30  # without a sign of life; a lost connection is noticed immediately


@dataclass(frozen=True, slots=True)
class Host:
    """One of the hosts of a run. address: of host 0, with a free port."""

    index: int = 0
    count: int = 1
    address: str = ""

    @property
    def is_first(self) -> bool:
        """Whether this host writes the run's folder."""
        return self.index == 0


ALONE = Host()


def parse_host(text: str) -> Host:
    """``0/2@10.0.0.1:8476``: host 0 of 2, of which the first is at 10.0.0.1. Raises UsageError."""
    found = re.fullmatch(r"(\d+)/(\d+)@(\S+:\d+)", text)
    if not found or not int(found[1]) < int(found[2]):
        raise UsageError(
            f"--host {text!r}: give INDEX/COUNT@ADDRESS:PORT with an index from 0 to COUNT - 1, "
            "e.g. 0/2@10.0.0.1:8476 on the first of two hosts"
        )
    return Host(int(found[1]), int(found[2]), found[3])


def join(host: Host) -> None:
    """Connect to the other hosts; waits for them up to five minutes. Raises UsageError.

    Before any other use of JAX, which then sees the devices of all hosts.
    """
    if host.count == 1:
        return
    import keras

    if keras.backend.backend() != "jax":
        raise UsageError(
            f"--host needs the JAX backend, and this is {keras.backend.backend()}: "
            "set KERAS_BACKEND=jax"
        )
    import jax

    try:
        jax.distributed.initialize(
            host.address,
            num_processes=host.count,
            process_id=host.index,
            heartbeat_timeout_seconds=_LOST_AFTER_S,
        )
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"host {host.index} cannot join {host.address} ({reason}): start all {host.count} "
            "hosts, and check the address and the firewall"
        ) from error


def part(host: Host) -> None:
    """Leave the others once the training is done; what follows is local."""
    if host.count > 1:
        import jax

        jax.distributed.shutdown()


def end(error: Exception, status: int) -> NoReturn:
    """Print an error and end the process without waiting for hosts that are lost."""
    print(f"train: {error}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)
