"""What a supervisor does after each tick, besides its subprocesses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from cgmem.config.settings import Settings
from cgmem.contract import Backend, SystemMemory
from cgmem.supervising.journal import Journal
from cgmem.supervising.supervision import Supervision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgmem.supervising.remains import Sweeper

REWRITTEN_SECONDS = 5.0
"""How often to ask whether records were rewritten. Nothing is told or done without asking, so
only a lowered threshold can wait that long."""


class Upkeep:
    """Called by the poller's thread alone."""

    def __init__(
        self,
        backends: Callable[[], Sequence[Backend]],
        live: Callable[[], Sequence[Supervision]],
        journal: Journal,
        *,
        settings: Callable[[], Settings],
        memory: Callable[[], SystemMemory],
        warn: Callable[[str], None],
    ) -> None:
        self.swept = False
        """What earlier supervisors left beside our scopes is gone."""
        self._backends = backends
        self._live = live
        self._journal = journal
        self._settings = settings
        self._memory = memory
        self._warn = warn
        self._sweeper: Sweeper | None = None
        self._rewritten_at = 0.0

    def after_tick(self, now: float) -> None:
        """Write what waits, take over budgets that somebody else wrote down, sweep a little."""
        self._journal.tick(now)
        if now >= self._rewritten_at:
            self._rewritten_at = now + REWRITTEN_SECONDS
            self._take_rewritten()
        if not self.swept and self._backends():
            sweeper, self._sweeper = self._sweeper or self._begin_sweeping(), None
            self.swept = not sweeper.step()
            self._sweeper = sweeper  # not after an error, which has used it up: the next tick tries

    def _take_rewritten(self) -> None:
        rung = [backend.rung() for backend in self._backends()]  # each has to be asked
        if any(rung):
            for supervision in self._live():
                if supervision.take_rewritten():
                    supervision.check()

    def _begin_sweeping(self) -> Sweeper:
        from cgmem.supervising.remains import Sweeper, sweep  # a short run has ended by now

        settings, memory = self._settings(), self._memory()
        found = (sweep(backend, settings, memory, nearby=True) for backend in self._backends())
        return Sweeper(chain.from_iterable(found), tell=self._journal.found, warn=self._warn)
