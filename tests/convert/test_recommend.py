"""The recommended variant passes, is fast, and among equally fast ones the smallest."""

from __future__ import annotations

from dataclasses import replace

from convert import recommend
from convert.conversion import Attempt, Converted, Job


def test_the_fastest_passing_variant_is_recommended(
    jobs: dict[str, Job], converted: dict[str, Converted]
) -> None:
    small = Attempt("int8", converted["tiny"])
    large = replace(converted["tiny"], model=converted["tiny"].model + b"\0" * 100)
    other = Attempt("float16", replace(large, variant="float16"))
    failing = Attempt("int8", replace(converted["tiny"], failures=("too much",)))
    assert recommend.choose([small, other], [1.0, 0.8]) is other
    assert recommend.choose([small, other], [1.0, 0.95]) is small  # as fast, and smaller
    assert recommend.choose([failing, other], [0.1, 1.0]) is other
    assert recommend.choose([failing], [0.1]) is None
    text = recommend.table(jobs["tiny"], [small, failing])
    assert "recommended: int8" in text and "fails" in text
