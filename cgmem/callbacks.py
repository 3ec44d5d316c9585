"""Callers' callbacks: run off the poller's thread, their errors reported, a hang bounded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

TIME_LIMIT = 10.0
"""Seconds after which a callback counts as hung and the next ones get another thread."""

_BACKLOG = 1000


class Callbacks:
    """Runs callbacks one after the other, in the order given. The thread starts with the first."""

    def __init__(self, warn: Callable[[str], None], time_limit: float = TIME_LIMIT) -> None:
        self._warn = warn
        self._time_limit = time_limit
        self._queue: queue.Queue[tuple[Callable[..., Any], tuple[Any, ...]]] = queue.Queue(_BACKLOG)
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Have `function(*args)` called soon. Never blocks, never raises."""
        try:
            self._queue.put_nowait((function, args))
        except queue.Full:
            self._warn(f"callback {_named(function)} dropped: {_BACKLOG} others wait before it")
            return
        with self._lock:
            if self._worker is None:
                self._worker = threading.Thread(
                    target=self._work, name="cgmem-callbacks", daemon=True
                )
                self._worker.start()

    def drain(self, timeout: float) -> None:
        """Wait until every callback so far has run, `timeout` seconds at most."""
        done = threading.Event()
        self.call(done.set)
        done.wait(timeout)

    def _work(self) -> None:
        while True:
            function, args = self._queue.get()
            watchdog = threading.Timer(self._time_limit, self._give_up, (function,))
            watchdog.daemon = True
            watchdog.start()
            try:
                function(*args)
            except Exception as error:  # noqa: BLE001  (the caller's code may raise anything)
                self._warn(f"callback {_named(function)}: {type(error).__name__}: {error}")
            finally:
                watchdog.cancel()
            with self._lock:
                if self._worker is not threading.current_thread():
                    return

    def _give_up(self, function: Callable[..., Any]) -> None:
        self._warn(
            f"callback {_named(function)} has run for {self._time_limit:g} s; not waited for"
        )
        with self._lock:
            self._worker = threading.Thread(target=self._work, name="cgmem-callbacks", daemon=True)
            self._worker.start()


def _named(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
