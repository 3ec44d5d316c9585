"""One cgroup made ahead of its use, while the caller had nothing to do but wait.

Making and limiting a cgroup costs a fifth of starting a small process; done during the wait for
the one before, it costs nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress

from cgmem.contract import EffectiveLimits, Limits, ScopeRecord
from cgmem.errors import CgmemError
from cgmem_backends.cgroup_scope import CgroupScope

Make = Callable[[Limits], CgroupScope]


class Spare:
    """Holds at most one scope. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: tuple[Limits, CgroupScope] | None = None
        self._pid = os.getpid()

    def prepare(self, limits: Limits, make: Make) -> None:
        """Make one with this budget, unless there is one. Never raises: the next start will."""
        with suppress(CgmemError, OSError), self._lock:
            if self._held is None:
                self._held = limits, make(limits)

    def take(
        self, record: ScopeRecord, limits: Limits
    ) -> tuple[CgroupScope, EffectiveLimits] | None:
        """Give out the scope if it has this budget and is still there."""
        with self._lock:
            held, self._held = self._held, None
        if held is None:
            return None
        made_for, scope = held
        if made_for == limits:
            with suppress(CgmemError, OSError):
                return scope, scope.renew(record)
        self._discard(scope)
        return None

    def close(self) -> None:
        """Remove what was not used. A forked child leaves it to its parent."""
        with self._lock:
            held, self._held = self._held, None
        if held is not None and os.getpid() == self._pid:
            self._discard(held[1])

    def _discard(self, scope: CgroupScope) -> None:
        with suppress(CgmemError, OSError):
            scope.close()
        scope.detach()
