"""Takes snapshots of what fills a scope's memory, off the poller's thread.

One worker for all scopes, started with the first snapshot. It takes one step of each in turn, so
that one that gets stuck leaves the others their share. What is late is given up: what it has by
then is the snapshot, `partial`. Secrets are masked here; nothing unmasked gets out.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from cgmem.contract import Scope, Snapshot
from cgmem.errors import CgmemError

MOST = 5
"""Processes in a snapshot."""

TIME_LIMIT = 0.1
"""Seconds after which a snapshot is given up, and an alert no longer waits for it."""


def _nobody() -> None:
    """Whoever waited has been told, and is not kept alive."""


class Inspection:
    """One snapshot on its way. The worker writes it, any thread may read it."""

    def __init__(self, scope: Scope, arrived: Callable[[], None]) -> None:
        self.so_far = Snapshot()
        self.done = False
        self._scope = scope
        self._arrived = arrived
        self._steps: Iterator[Snapshot] | None = None
        self._give_up_at = 0.0

    def step(self, clock: Callable[[], float]) -> None:
        """Go on with it, for as long as one step takes."""
        if self._steps is None:
            self._give_up_at = clock() + TIME_LIMIT
            self._steps = self._scope.inspect(MOST)
        found = next(self._steps, None)
        if found is not None:
            self.so_far = _masked(found)
        self.done = found is None or not found.partial or clock() >= self._give_up_at

    def finish(self) -> None:
        """Say that there is no more to come."""
        arrived, self._arrived = self._arrived, _nobody
        self._steps = None
        self.done = True
        arrived()


def _masked(snapshot: Snapshot) -> Snapshot:
    if not snapshot.processes:
        return snapshot
    from cgmem.text.secrets import masked  # most processes never take a snapshot

    return snapshot._replace(
        processes=tuple(
            process._replace(command=masked(process.command)) for process in snapshot.processes
        )
    )


class Snapshots:
    """The worker. Thread-safe."""

    def __init__(
        self, warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._warn = warn
        self._clock = clock
        self._waiting: deque[Inspection] = deque()
        self._more = threading.Condition(threading.Lock())
        self._worker: threading.Thread | None = None

    def take(self, scope: Scope, arrived: Callable[[], None]) -> Inspection:
        """Begin a snapshot; `arrived()` is called on the worker's thread once it is `done`.

        Never blocks, never raises. Where no thread can start it is done at once, and empty.
        """
        inspection = Inspection(scope, arrived)
        with self._more:
            if self._worker is None and not self._start_worker():
                inspection.done = True
                return inspection
            # A new one goes first: its cheap part may be all that it gets.
            self._waiting.appendleft(inspection)
            self._more.notify()
        return inspection

    def close(self) -> None:
        """Let the worker end once it has done what waits. Waits for nothing itself."""
        with self._more:
            self._worker = None
            self._more.notify()

    def _start_worker(self) -> bool:
        worker = threading.Thread(target=self._work, name="cgmem-snapshots", daemon=True)
        try:
            worker.start()
        except RuntimeError as error:  # no thread left, or the interpreter is shutting down
            self._warn(f"no snapshot of the memory: {error}")
            return False
        self._worker = worker
        return True

    def _work(self) -> None:
        # Signals are the main thread's, whoever started this one.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while (inspection := self._next()) is not None:
            self._advance(inspection)

    def _next(self) -> Inspection | None:
        with self._more:
            while not self._waiting:
                if self._worker is not threading.current_thread():
                    return None
                self._more.wait()
            return self._waiting.popleft()

    def _advance(self, inspection: Inspection) -> None:
        """One step of one, and who is not done goes to the back."""
        try:
            inspection.step(self._clock)
        except (CgmemError, OSError):  # the scope is gone, no descriptor left: so it is partial
            inspection.done = True
        except Exception as error:  # noqa: BLE001  (the worker serves all scopes)
            inspection.done = True
            self._warn(f"snapshot: {type(error).__name__}: {error}")
        if not inspection.done:
            with self._more:
                self._waiting.append(inspection)
            return
        try:
            inspection.finish()
        except Exception as error:  # noqa: BLE001  (as above)
            self._warn(f"snapshot: {type(error).__name__}: {error}")
