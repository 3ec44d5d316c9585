"""Callers' callbacks: run off the poller's thread, their errors reported, a hang bounded."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
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
        # The poller's thread, which may start the worker, blocks every signal; what a callback
        # starts must not inherit that.
        self._signal_mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Have `function(*args)` called soon. Never blocks, never raises."""
        try:
            self._queue.put_nowait((function, args))
        except queue.Full:
            self._warn(f"callback {_named(function)} dropped: {_BACKLOG} others wait before it")
            return
        with self._lock:
            if self._worker is None:
                self._start_worker()

    def close(self, timeout: float) -> None:
        """Wait until every callback so far has run, `timeout` seconds at most; end the thread."""
        worker = self._worker
        if worker is None or worker is threading.current_thread():
            return
        deadline = time.monotonic() + timeout
        with suppress(queue.Full):
            self._queue.put((self._end, ()), timeout=timeout)
            worker.join(max(0.0, deadline - time.monotonic()))

    def _end(self) -> None:
        with self._lock:
            if self._queue.empty():
                self._worker = None

    def _start_worker(self) -> None:
        worker = threading.Thread(target=self._work, name="cgmem-callbacks", daemon=True)
        try:
            worker.start()
        except RuntimeError as error:  # no thread left, or the interpreter is shutting down
            self._warn(f"callbacks wait: {error}")
            self._worker = None
        else:
            self._worker = worker

    def _work(self) -> None:
        # Signals are the callers' own threads' affair: not to be taken while it waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            function, args = self._queue.get()
            watchdog = threading.Timer(self._time_limit, self._give_up, (function,))
            watchdog.daemon = True
            with suppress(RuntimeError):  # no thread for it: better unwatched than not called
                watchdog.start()
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, self._signal_mask)
                function(*args)
            except BaseException as error:  # noqa: BLE001  (even SystemExit ends only itself)
                self._warn(f"callback {_named(function)}: {type(error).__name__}: {error}")
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
                watchdog.cancel()
            with self._lock:
                if self._worker is not threading.current_thread():
                    return

    def _give_up(self, function: Callable[..., Any]) -> None:
        self._warn(
            f"callback {_named(function)} has run for {self._time_limit:g} s; not waited for"
        )
        with self._lock:
            self._start_worker()


def _named(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
