"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 90.0
"""Seconds, for an emulated machine that has other things to do."""


def until(what: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Wait until `what` returns something true; False after `seconds`."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
