"""Whether a process that is no child of ours has ended, with a pidfd and without one."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

import pytest

from cgmem.errors import CgmemError, CgroupError
from cgmem.supervising.main_process import ASK_SECONDS, MainProcess
from tests.unit.fakes import NOBODY, FakeClock


@pytest.fixture
def no_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, where seccomp forbids it, and where no descriptor is left."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)


@pytest.mark.usefixtures("no_pidfd")
def test_an_id_that_is_another_process_s_by_now() -> None:
    """The scope has only its own processes: a reused id, or a zombie, is none of them."""
    living, clock = [os.getpid()], FakeClock()
    main = MainProcess(os.getpid(), None, lambda: living, clock)
    before = main.has_ended()
    living.clear()
    soon = main.has_ended()
    clock.now += ASK_SECONDS

    assert not before
    assert not soon
    assert main.has_ended()
    living.append(os.getpid())
    assert main.has_ended()


@pytest.mark.usefixtures("no_pidfd")
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        CgroupError(OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "reading", "/fake"),
    ],
)
def test_where_nobody_can_tell(error: OSError) -> None:
    """What can't be looked at has not ended for that."""

    def refuse() -> Sequence[int]:
        raise error

    assert not MainProcess(os.getpid(), None, refuse).has_ended()


@pytest.mark.usefixtures("no_pidfd")
def test_by_its_id_alone() -> None:
    """Without a scope to ask, whoever has the id is taken for it."""
    assert MainProcess(NOBODY, None).has_ended()
    assert not MainProcess(os.getpid(), None).has_ended()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="pidfds are Linux's")
def test_a_pidfd_is_asked_first() -> None:
    """It is this very process for ever; looking through a tree costs more."""

    def unwanted() -> Sequence[int]:
        raise CgmemError("not wanted here")

    main = MainProcess(os.getpid(), None, unwanted)
    if main.exit_fd is None:
        pytest.skip("no pidfd here")
    assert not main.has_ended()
    main.close()
