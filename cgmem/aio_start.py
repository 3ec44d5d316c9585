"""A start in another thread, which goes on when its task is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Start(Generic[T]):
    """Starts something that must not run on when nobody takes it.

    `start` makes it; `end` gets what it made once the task that waited is cancelled.
    """

    def __init__(self, start: Callable[[], T], end: Callable[[T], object]) -> None:
        self._start, self._end = start, end
        self._lock = threading.Lock()
        self._given_up = False
        self._started: list[T] = []

    async def result(self) -> T:
        """Wait for it."""
        try:
            return await asyncio.to_thread(self._run)
        except asyncio.CancelledError:
            self._give_up()
            raise

    def _run(self) -> T:
        started = self._start()
        with self._lock:
            self._started.append(started)
            if self._given_up:
                self._end(started)
        return started

    def _give_up(self) -> None:
        """Nobody will take it: end it, now or once it has started."""
        with self._lock:
            self._given_up = True
            for started in self._started:
                self._end(started)
