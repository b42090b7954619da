"""A crash of TensorFlow's native code becomes one line."""

from __future__ import annotations

import sys

from convert import isolation


def test_a_crash_becomes_one_line() -> None:
    code = "from convert import isolation; import os; isolation.entering('testing'); os.abort()"
    status, line = isolation.run([sys.executable, "-c", code])
    assert status == 2 and "while testing" in line and "--variant" in line
    assert isolation.run([sys.executable, "-c", "raise SystemExit(5)"]) == (5, "")
