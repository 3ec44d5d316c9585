"""Waiting for what other threads and processes do."""

from __future__ import annotations

import threading
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


class Gate:
    """Holds a thread up until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def pass_through(self) -> None:
        """Say that a thread is here, and wait until the gate is opened."""
        self.reached.set()
        assert self._opened.wait(PATIENCE)

    def open(self) -> None:
        """Let it go on, and whoever comes later."""
        self._opened.set()
