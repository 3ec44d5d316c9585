"""One thread for every scope: a tick every `tick_seconds`, kernel events in between.

It knows when to call, not what is done: whoever is watched decides that. What a watched one
raises is reported once and hurts nobody else.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf

from cgmem.shapes import Protocol
from cgmem.supervising.wakeups import Wakeups

COALESCE_SECONDS = 0.1
"""A throttled group or page cache reclaim can notify 100 times a second: read it 10 times."""

LINGER_SECONDS = 10.0
"""How long the thread keeps ticking with nothing to watch. While it does, a new scope needs not
wake it."""


Glance = Callable[[], bool]
"""Says cheaply that nothing moved since the last look; False when in doubt."""


def _nothing_known() -> bool:
    return False


class Watched(Protocol):
    """What the poller calls. Called from the poller's thread alone."""

    def tick(self, now: float) -> None:
        """A tick has come. `now` is monotonic seconds."""

    def woken(self, now: float) -> None:
        """A descriptor was ready, or the time asked for by `schedule` has come."""


class Poller:
    """Ticks and wakes what it watches. The thread starts with the first one."""

    def __init__(
        self,
        tick_seconds: float,
        *,
        warn: Callable[[str], None],
        after_tick: Callable[[float], None] = lambda _now: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tick_seconds = tick_seconds
        self._warn = warn
        self._after_tick = after_tick
        self._clock = clock
        self._wakeups = Wakeups()
        self._watched: dict[Watched, list[int]] = {}
        self._glances: dict[Watched, Glance] = {}
        self._by_descriptor: dict[int, tuple[Watched, int]] = {}
        self._due_at: dict[Watched, float] = {}
        self._rearm_at: dict[int, float] = {}
        self._woken_at: dict[int, float] = {}
        self._reported: dict[Watched | str, str] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asleep = False
        self._stopping = False
        self._next_tick = clock() + tick_seconds
        self._idle_since: float | None = None
        self._wakes_at = inf
        """Until when the thread sleeps, if nothing wakes it; out of date while it does not."""

    def add(self, watched: Watched, descriptors: Sequence[tuple[int, int]]) -> None:
        """Start to watch; `descriptors` are (descriptor, poll(2) mask) pairs that wake it."""
        with self._lock:
            self._watched[watched] = []
            self._glances[watched] = _nothing_known
            for descriptor, mask in descriptors:
                self._listen(watched, descriptor, mask)
            if self._thread is None:
                self._start()
            elif self._asleep:
                self._wakeups.wake()

    def tick_at_least_every(self, seconds: float) -> None:
        """Tick more often from now on, if `seconds` is less than it was: one thread for all."""
        with self._lock:
            if seconds >= self.tick_seconds:
                return
            self.tick_seconds = seconds
            self._next_tick = min(self._next_tick, self._clock() + seconds)
            self._wakeups.wake()

    def at_rest(self, watched: Watched, glance: Glance | None) -> None:
        """Skip its ticks for as long as `glance()` is true; with None, tick it every time.

        The poller's thread calls it with no lock held, and perhaps once more after `remove`.
        """
        if watched in self._glances:
            self._glances[watched] = glance or _nothing_known

    def wake_by(self, watched: Watched, descriptor: int, mask: int) -> None:
        """Also wake a watched one by this descriptor."""
        with self._lock:
            self._listen(watched, descriptor, mask)

    def mute(self, watched: Watched, descriptor: int, muted: bool) -> None:
        """Stop to wake a watched one by this descriptor, or begin again.

        Raises OSError where there is no room to begin again (fs.epoll.max_user_watches, ENOMEM).
        """
        with self._lock:
            found = self._by_descriptor.get(descriptor)
            if found is None or found[0] is not watched:
                return
            self._rearm_at.pop(descriptor, None)
            self._wakeups.remove(descriptor)
            if not muted:
                self._wakeups.add(descriptor, found[1])

    def remove(self, watched: Watched) -> None:
        """Stop watching. To be called before the descriptors are closed, which ends the rest.

        Not taking them out of the kernel's set saves a system call each; what a forked child's
        copy still reports finds nobody here.
        """
        with self._lock:
            self._glances.pop(watched, None)
            self._due_at.pop(watched, None)
            self._reported.pop(watched, None)
            for descriptor in self._watched.pop(watched, ()):
                self._by_descriptor.pop(descriptor, None)
                self._rearm_at.pop(descriptor, None)
                self._woken_at.pop(descriptor, None)

    def schedule(self, watched: Watched, at: float) -> None:
        """Call `watched.woken` at `at` (monotonic seconds); replaces an earlier request."""
        with self._lock:
            if watched not in self._watched:
                return
            self._due_at[watched] = at
            sleeps_longer = at < self._wakes_at
        if sleeps_longer and threading.current_thread() is not self._thread:
            self._wakeups.wake()

    def stop(self) -> None:
        """End the thread and wait for it. Nothing is watched any more."""
        self._stopping = True
        self._wakeups.wake()
        thread = self._thread
        if thread is threading.current_thread():  # it ends by itself
            return
        if thread is not None:
            thread.join()
        self._thread = None
        self._wakeups.close()

    def after_fork_in_child(self) -> None:
        """Give up the copies of the descriptors; the thread is the parent process's."""
        self._wakeups.after_fork_in_child()

    def tick(self, now: float) -> None:
        """Tick every watched one once. The poller's thread calls it; so does the bench."""
        # Nearly every scope has not moved since the last tick: that way costs one call a scope.
        for watched, unmoved in self._glances.copy().items():
            try:
                if not unmoved():
                    watched.tick(now)
            except Exception as error:  # noqa: BLE001  (one watched one's fault is not the others')
                self._report(watched, error)
        try:
            self._after_tick(now)
        except Exception as error:  # noqa: BLE001  (what serves all must not stop the thread)
            self._report("after a tick", error)

    def _listen(self, watched: Watched, descriptor: int, mask: int) -> None:
        if watched in self._watched:
            self._wakeups.add(descriptor, mask)
            self._watched[watched].append(descriptor)
            self._by_descriptor[descriptor] = (watched, mask)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="cgmem-poller", daemon=True)
        thread.start()
        self._thread = thread

    def _run(self) -> None:
        # Signals are for the host program's own threads.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._stopping:
            ready = self._wakeups.wait(self._timeout())
            self._asleep = False
            self._handle(ready)
        self._wakeups.close()

    def _handle(self, ready: list[int]) -> None:
        now = self._clock()
        woken = self._owners(ready, now)
        if now >= self._next_tick:
            self._next_tick = now + self.tick_seconds
            self.tick(now)
        woken.update(self._due(now))
        for watched in woken:
            try:
                watched.woken(now)
            except Exception as error:  # noqa: BLE001  (as in tick)
                self._report(watched, error)
        self._rearm(now)

    def _owners(self, ready: list[int], now: float) -> set[Watched]:
        owners = set()
        with self._lock:
            for descriptor in ready:
                found = self._by_descriptor.get(descriptor)
                if found is not None:
                    owners.add(found[0])
                    quiet = now - self._woken_at.get(descriptor, 0.0)
                    self._woken_at[descriptor] = now
                    # The second event of a burst is seen at once too: it may be the kill.
                    wait = 0.0 if quiet >= 2 * COALESCE_SECONDS else COALESCE_SECONDS
                    self._rearm_at[descriptor] = now + wait
        return owners

    def _due(self, now: float) -> list[Watched]:
        with self._lock:
            due = [watched for watched, at in self._due_at.items() if at <= now]
            for watched in due:
                del self._due_at[watched]
        return due

    def _rearm(self, now: float) -> None:
        with self._lock:
            due = [descriptor for descriptor, at in self._rearm_at.items() if at <= now]
            for descriptor in due:
                del self._rearm_at[descriptor]
                self._wakeups.rearm(descriptor, self._by_descriptor[descriptor][1])

    def _timeout(self) -> float | None:
        now = self._clock()
        with self._lock:
            if self._watched:
                self._idle_since = None
            elif self._idle_since is None:
                self._idle_since = now
            elif now - self._idle_since > LINGER_SECONDS:
                self._asleep = True
                self._wakes_at = inf
                return None
            due = (self._next_tick, *self._rearm_at.values(), *self._due_at.values())
            self._wakes_at = min(due)
        return max(0.0, self._wakes_at - now)

    def _report(self, whose: Watched | str, error: Exception) -> None:
        text = f"{whose}: {type(error).__name__}: {error}"
        if self._reported.get(whose) == text:  # it may fail so at every tick
            return
        self._reported[whose] = text
        with suppress(Exception):  # the caller's code
            self._warn(text)
