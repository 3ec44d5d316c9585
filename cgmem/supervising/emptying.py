"""The scope after its main process has ended: what is left inside is killed, then it is removed."""

from __future__ import annotations

import signal
from collections.abc import Callable

from cgmem.contract import Scope
from cgmem.errors import CgmemError, ScopeVanished

RETRY_SECONDS = 0.02
"""How soon to look again whether the last process has gone, where no descriptor tells."""

LONGEST_RETRY_SECONDS = 1.0

_MOST_FAILURES = 10
"""Failures (no permission, no descriptor) after which a scope is left as it is: some 5 seconds."""


class Emptying:
    """Not thread-safe. `keep`: what is left behind may live on."""

    def __init__(self, scope: Scope, warn: Callable[[str], None], *, keep: bool) -> None:
        self.leftovers: tuple[int, ...] = ()
        """What the main process left behind."""
        self.stays = False
        """The scope is not removed as the supervision ends."""
        self._scope = scope
        self._warn = warn
        self._keep = keep
        self._failures = 0
        self._retry_seconds = RETRY_SECONDS

    def leave(self) -> None:
        """Leave the scope with whoever lives in it."""
        self.leftovers = self._pids()
        self.stays = True

    def step(self, before: Callable[[], object], *, dying: bool, in_grace: bool) -> bool:
        """Whether the scope is gone, or is to be left; else what is left in it gets killed.

        `before` is called before the scope is removed, if nothing is seen to live in it.
        `dying`: it was killed as a group, so whoever is still inside was not left behind.
        `in_grace`: SIGTERM was sent, and what obeys may yet do so.
        """
        try:
            if self._scope.close(before):
                return True
            if not self.leftovers and not dying:
                self.leftovers = self._pids()
            if self._keep and self.leftovers:
                self.stays = True
                return True
            if not in_grace:
                self._scope.signal(signal.SIGKILL)
        except ScopeVanished:
            return True
        except (CgmemError, OSError) as error:
            self._warn(f"clean-up: {error}")
            self._failures += 1
            self.stays = self._failures >= _MOST_FAILURES
        return self.stays

    def retry_seconds(self) -> float:
        """How long until the next step, longer each time.

        A process in D state can take long to die, and a look at a process tree is not cheap.
        """
        seconds = self._retry_seconds
        self._retry_seconds = min(2 * seconds, LONGEST_RETRY_SECONDS)
        return seconds

    def _pids(self) -> tuple[int, ...]:
        try:
            return tuple(self._scope.pids())
        except (CgmemError, OSError):
            return ()
