"""Compares two estimates: counts hardly depend on the machine, so small changes are real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emotion_edge.errors import UsageError

GROWTH = 1.03
"""More instructions than this many times the old count are a regression."""


def regressions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What got worse from one estimate document to the next, one line each.

    Raises UsageError when they share no model on a board.
    """
    before = {_key(case): case for case in old["estimates"]}
    both = [case for case in new["estimates"] if _key(case) in before]
    if not both:
        raise UsageError("the estimates share no model on a board: estimate the same ones")
    found = []
    for case in both:
        was, name = before[_key(case)], " ".join(map(str, _key(case)))
        if was["kernel"] != case["kernel"]:
            found.append(f"{name}: the kernel was {was['kernel']!r} and is {case['kernel']!r}")
        ratio = case["counts"]["instructions"] / was["counts"]["instructions"]
        if ratio > GROWTH:
            found.append(f"{name}: {ratio - 1:.1%} more instructions")
    return found


def _key(case: Mapping[str, Any]) -> tuple[Any, ...]:
    return case["board"], case["model"], case["variant"]
