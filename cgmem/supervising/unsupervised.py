"""What stands in for a supervision where memory monitoring is switched off.

CLAUDE_PM_DISABLE_MEMORY_MONITOR (spec, "Environment Variables"): no limits, no poller, no logs;
the command runs as under subprocess.Popen, and the outcome still says how it ended.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from subprocess import Popen

from cgmem.contract import (
    Cause,
    Counters,
    EffectiveLimits,
    Level,
    Limits,
    MemoryEvents,
    SystemMemory,
)
from cgmem.judging.ended import Ended, WhatWeDid
from cgmem.judging.figures import Figures
from cgmem.judging.verdict import CAUSE_OF, verdict
from cgmem.supervising.outcome import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Unsupervised:
    """The part of a `Supervision` that a process's owner uses.

    `on_abort` and `on_end` are told once each; the end, which nobody watches for, when it is asked
    about.
    """

    level: Level = "NOT_MONITORED"
    limit_passed = False

    def __init__(
        self,
        subprocess_id: str,
        command: tuple[str, ...],
        popen: Popen[Any],
        grace_seconds: float,
        on_abort: Callable[[Cause], None],
        on_end: Callable[[Outcome], None],
    ) -> None:
        self.subprocess_id = subprocess_id
        self.popen = popen
        self.outcome: Outcome | None = None
        self.ended = threading.Event()
        self._command = command
        self._grace_seconds = grace_seconds
        self._on_abort = on_abort
        self._on_end = on_end
        self._lock = threading.RLock()  # a signal's handler may ask in the middle of asking
        self._forked_away = False
        self._late: threading.Timer | None = None
        self._sigkill_needed = False
        self._started = time.monotonic()
        self._started_at = time.time()
        self._what_we_did: WhatWeDid | None = None

    def check(self) -> tuple[float, Level]:
        """Nothing is measured."""
        return 0.0, self.level

    @property
    def ending(self) -> bool:
        """We are ending it."""
        return self._what_we_did is not None

    def abort(self, why: WhatWeDid, grace_seconds: float | None = None) -> None:
        """SIGTERM, `grace_seconds`, SIGKILL; to the main process alone: there is no scope."""
        with self._lock:
            if self._what_we_did is not None or self.popen.poll() is not None:
                return
            self._what_we_did = why
        try:
            self._on_abort(CAUSE_OF[why])
        finally:  # also where a KeyboardInterrupt came in between
            self.popen.terminate()
            self._kill_after(self._grace_seconds if grace_seconds is None else grace_seconds, why)

    def _kill_after(self, seconds: float, why: WhatWeDid) -> None:
        self._late = threading.Timer(seconds, self.kill, (why,))
        self._late.daemon = True
        try:
            self._late.start()
        except RuntimeError:  # no thread to be had: not one that is waited for for ever
            self.kill(why)

    def kill(self, why: WhatWeDid) -> None:
        """Send SIGKILL to the main process."""
        with self._lock:
            if self.popen.poll() is not None:
                return
            first, self._what_we_did = self._what_we_did is None, self._what_we_did or why
            self._sigkill_needed = True
        if first:
            self._on_abort(CAUSE_OF[why])
        self.popen.send_signal(signal.SIGKILL)

    def pause(self, seconds: float) -> None:
        """There is no timer to move."""

    def awaited(self) -> AbstractContextManager[None]:
        """There is no poller to hold off."""
        return nullcontext()

    def idle(self) -> None:
        """There is no scope to make ready."""

    def left(self) -> None:
        """The main process has been waited for."""
        self.settle()

    def settle(self) -> bool:
        """If it has ended, say how. True once the outcome is there."""
        if self._forked_away:
            return False
        with self._lock:
            first = self.outcome is None
            if first and self.popen.poll() is None:
                return False
            outcome = self.outcome = self.outcome or self._make_outcome()
        try:
            if first:
                self._on_end(outcome)
        finally:  # whoever asks again must not wait, if a KeyboardInterrupt came in between
            self.ended.set()
            if self._late is not None:
                self._late.cancel()
        return True

    def after_fork_in_child(self) -> None:
        """Leave the process to the parent: it is no child of this one."""
        self._lock = threading.RLock()
        self._forked_away = True
        self.ended.set()

    def _make_outcome(self) -> Outcome:
        found = verdict(
            Ended(
                returncode=self.popen.returncode,
                counters=Counters(),
                figures=Figures(),
                limits=Limits(swap_max_bytes=None, oom_group=False),
                what_we_did=self._what_we_did,
                sigkill_needed=self._sigkill_needed,
                kernel_limits=False,
            )
        )
        return Outcome(
            subprocess_id=self.subprocess_id,
            command=self._command,
            pid=self.popen.pid,
            backend="none",
            cause=found.cause,
            exit_code=found.exit_code,
            signal=found.signal,
            message="memory monitoring is disabled",
            start_mb=0.0,
            peak_mb=0.0,
            end_mb=0.0,
            peak_charged_mb=None,
            duration_seconds=round(time.monotonic() - self._started, 3),
            warnings=(),
            aborted=found.cause == "aborted",
            enforced=False,
            limits=EffectiveLimits(None, None, None, None, None, enforced=False),
            events=MemoryEvents(),
            counters_cached=False,
            stalls=(),
            leftovers=(),
            kept=False,
            metric="none",
            system_memory=SystemMemory(0, 0),
            log_dir=None,
            sigkill_needed=self._sigkill_needed,
            started_at=self._started_at,
        )
