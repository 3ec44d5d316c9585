"""What a supervisor does after each tick, on fake backends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from cgmem.config.settings import resolve
from cgmem.contract import Scope, SystemMemory
from cgmem.errors import CgroupError
from cgmem.supervising.journal import Journal
from cgmem.supervising.upkeep import Upkeep
from tests.unit.fakes import FakeBackend, FakeClock, FakeScope, a_record

MEMORY = SystemMemory(8 << 30, 4 << 30)


class FewDescriptors(FakeBackend):
    """Can't look for remains at first."""

    def remains(self, *, nearby: bool = False) -> Iterator[Scope]:
        """Refuse once."""
        self.looked_nearby.append(nearby)
        if len(self.looked_nearby) == 1:
            error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            raise CgroupError(error, "reading", "/fake")
        yield from self.left


def test_a_clean_up_that_failed_begins_anew() -> None:
    """Out of descriptors for a moment: at a later tick what is left is swept all the same."""
    scope = FakeScope(FakeClock(), a_record("stale_1")._replace(concluded=True))
    scope.living = []
    backend = FewDescriptors(FakeClock())
    backend.left = [scope]
    told: list[str] = []
    upkeep = Upkeep(
        lambda: [backend],
        list,
        Journal(lambda: MEMORY, told.append),
        settings=lambda: resolve({}, environ={}, cwd="/"),
        memory=lambda: MEMORY,
        warn=told.append,
    )
    with pytest.raises(CgroupError, match="Too many open files"):
        upkeep.after_tick(1.0)
    swept_at_once = upkeep.swept
    upkeep.after_tick(3.0)

    assert not swept_at_once
    assert upkeep.swept
    assert len(scope.asked("sweep")) == 1
    assert backend.looked_nearby == [True, True]
    assert told == []
