"""Snapshots of what fills a scope's memory: off the caller's thread, each with its share."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from cgmem.contract import MB, MemoryStat, ProcessMemory, Snapshot
from cgmem.errors import ScopeVanished
from cgmem.supervising.snapshot import TIME_LIMIT, Inspection, Snapshots
from tests.helpers.waiting import PATIENCE, until
from tests.unit.fakes import FakeClock, FakeScope

LEAK = ProcessMemory(7, ("leak", "--token", "hush"), 300 * MB, "pss")
RANKED = Snapshot(MemoryStat(anon=MB), (LEAK._replace(metric="rss", command=("leak",)),))


class Stepped(Snapshots):
    """The real one without its thread: `step` is what the worker does next."""

    def _start_worker(self) -> bool:
        self._worker = threading.current_thread()
        return True

    def step(self) -> None:
        """Advance whoever is next."""
        self._advance(self._waiting.popleft())

    @property
    def busy(self) -> bool:
        """Something waits."""
        return bool(self._waiting)


@pytest.fixture
def clock() -> FakeClock:
    """Time that the test sets."""
    return FakeClock()


@pytest.fixture
def told() -> list[str]:
    """What was warned of."""
    return []


@pytest.fixture
def snapshots(clock: FakeClock, told: list[str]) -> Stepped:
    """A worker that the test drives."""
    return Stepped(told.append, clock)


def a_scope(clock: FakeClock, *pictures: Snapshot) -> FakeScope:
    """A scope in which this is seen, step by step."""
    scope = FakeScope(clock)
    scope.pictures = pictures
    return scope


def test_the_last_picture_stays_and_secrets_are_masked(
    snapshots: Stepped, clock: FakeClock
) -> None:
    """Each step replaces the one before; what is seen at any time has no secret in it."""
    arrived: list[bool] = []
    scope = a_scope(clock, RANKED, Snapshot(MemoryStat(anon=MB), (LEAK,), partial=False))
    taken = snapshots.take(scope, lambda: arrived.append(True))
    assert taken.so_far == Snapshot()

    snapshots.step()
    assert taken.so_far == RANKED
    assert not taken.done

    snapshots.step()
    assert taken.so_far.processes == (LEAK._replace(command=("leak", "--token", "***")),)
    assert not taken.so_far.partial
    assert (taken.done, arrived, snapshots.busy) == (True, [True], False)


def test_a_late_one_is_given_up(snapshots: Stepped, clock: FakeClock) -> None:
    """After the time limit what is known is the snapshot, partial, and nothing more is read."""
    taken = snapshots.take(a_scope(clock, *[RANKED] * 100), lambda: None)
    snapshots.step()
    clock.now += TIME_LIMIT
    snapshots.step()

    assert taken.done
    assert taken.so_far == RANKED
    assert taken.so_far.partial
    assert not snapshots.busy


def test_each_in_turn_and_new_ones_first(snapshots: Stepped, clock: FakeClock) -> None:
    """One that takes many steps does not keep the others from their first."""
    endless = snapshots.take(a_scope(clock, *[RANKED] * 100), lambda: None)
    snapshots.step()
    others = [snapshots.take(a_scope(clock, RANKED, RANKED), lambda: None) for _ in range(3)]
    for _ in others:
        snapshots.step()

    assert [other.so_far for other in others] == [RANKED] * 3
    assert not endless.done


def test_a_vanished_scope(snapshots: Stepped, clock: FakeClock, told: list[str]) -> None:
    """A scope that goes meanwhile is a partial snapshot, not an error."""
    scope = a_scope(clock)
    scope.errors["inspect"] = ScopeVanished("gone")
    taken = snapshots.take(scope, lambda: None)
    snapshots.step()

    assert taken.done
    assert taken.so_far == Snapshot()
    assert told == []


def test_a_fault_hurts_only_its_own(snapshots: Stepped, clock: FakeClock, told: list[str]) -> None:
    """What a scope raises, or whoever is told, is warned of; the next one is taken."""
    scope = a_scope(clock)
    scope.errors["inspect"] = ZeroDivisionError("x")
    broken = snapshots.take(scope, lambda: None)
    snapshots.step()

    def fail() -> None:
        raise KeyError("y")

    snapshots.take(a_scope(clock, RANKED._replace(partial=False)), fail)
    snapshots.step()

    assert broken.done
    assert [text.partition(":")[0] for text in told] == ["snapshot", "snapshot"]
    assert "ZeroDivisionError" in told[0]
    assert "KeyError" in told[1]


def test_no_thread_left(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    """Where no thread can start the snapshot is done at once, and empty."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    taken = Snapshots(told.append).take(FakeScope(FakeClock()), lambda: None)

    assert taken.done
    assert "can't start new thread" in told[0]


# --- with its thread


def workers() -> int:
    """How many workers there are."""
    return [thread.name for thread in threading.enumerate()].count("cgmem-snapshots")


def test_one_thread_from_the_first_to_the_close(told: list[str]) -> None:
    """No thread before the first snapshot, one for all, none after `close`; then usable again."""
    snapshots = Snapshots(told.append)
    assert workers() == 0
    for _ in range(2):
        for _ in range(5):
            arrived = threading.Event()
            scope = a_scope(FakeClock(), RANKED, RANKED._replace(partial=False))
            taken = snapshots.take(scope, arrived.set)
            assert arrived.wait(PATIENCE)
            assert taken.done
            assert workers() == 1
        snapshots.close()
        assert until(lambda: workers() == 0)
    assert told == []


class StuckScope(FakeScope):
    """A scope whose second step blocks until the test lets it go."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.release = threading.Event()

    def inspect(self, most: int) -> Iterator[Snapshot]:
        """The ranks, then a read that hangs."""
        yield RANKED
        self.release.wait(PATIENCE)
        yield RANKED


def test_a_stuck_read_blocks_no_caller(told: list[str]) -> None:
    """While the worker hangs in a read, `take` and `close` return at once, and what was seen
    before can be had.
    """
    snapshots = Snapshots(told.append)
    scope = StuckScope()
    stuck = snapshots.take(scope, lambda: None)
    assert until(lambda: stuck.so_far == RANKED)

    waiting: list[Inspection] = [snapshots.take(FakeScope(FakeClock()), lambda: None)]
    snapshots.close()
    assert not stuck.done
    assert not waiting[0].done

    scope.release.set()
    assert until(lambda: stuck.done and waiting[0].done)
    assert until(lambda: workers() == 0)


STUCK_AT_EXIT = """
import threading, time
from cgmem.supervising.snapshot import Snapshots
class Stuck:
    def inspect(self, most):
        begun.set()
        time.sleep(3600)
        yield
begun = threading.Event()
Snapshots(print).take(Stuck(), lambda: None)
assert begun.wait(20)
"""


def test_a_stuck_read_does_not_hold_up_the_exit() -> None:
    """A host program ends while a snapshot hangs, with nothing said."""
    done = subprocess.run(
        [sys.executable, "-c", STUCK_AT_EXIT],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])},
        capture_output=True,
        timeout=3 * PATIENCE,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
