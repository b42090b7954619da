"""Parses ``HOST``, ``HOST:PORT`` or ``PORT`` from a flag."""

from __future__ import annotations


def from_address(text: str, *, port_alone: bool = True) -> dict[str, str]:
    """The keys ``host`` and ``port``, those that the text gives.

    text: ``broker:1883``, ``[::1]:8080``, either part alone, or empty.
    port_alone: whether digits alone are a port rather than a host.
    """
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.isdigit() and port_alone:
        host, port = "", text
    else:
        host, _, port = text.partition(":")
    return {name: value for name, value in (("host", host), ("port", port)) if value}
