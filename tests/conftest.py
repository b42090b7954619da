"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# A loaded machine must not fail a property, and a failure must come back the next time.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
