"""Written histories of one subprocess, replayed with a fake scope and clock: no processes."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cgmem.contract import (
    MB,
    Counters,
    Limits,
    MemoryEvents,
    MemoryStat,
    ProcessMemory,
    Sample,
    Scope,
    Snapshot,
)
from cgmem.errors import CgroupError, ScopeVanished
from cgmem.supervising.main_process import ASK_SECONDS
from cgmem.supervising.process import MonitoredProcess
from cgmem.supervising.snapshot import Inspection, Snapshots
from cgmem.supervising.supervision import Supervision
from cgmem.supervising.telling import MOST_TOLD
from cgmem.supervising.wakeups import READ
from tests.unit.fakes import NOBODY, DrivenPoller, FakeClock, FakeScope, FakeSinks, a_plan

TERM, CONT, KILL = signal.SIGTERM, signal.SIGCONT, signal.SIGKILL
PATIENCE = 20.0


class HeldSnapshots(Snapshots):
    """Snapshots that arrive when the test says."""

    def __init__(self) -> None:
        super().__init__(lambda text: None)
        self.asked: list[tuple[Inspection, Callable[[], None]]] = []

    def take(self, scope: Scope, arrived: Callable[[], None]) -> Inspection:
        """Note it."""
        self.asked.append((Inspection(scope, arrived), arrived))
        return self.asked[-1][0]

    def arrive(self, snapshot: Snapshot) -> None:
        """The last one is done."""
        inspection, arrived = self.asked[-1]
        inspection.so_far, inspection.done = snapshot, True
        arrived()


class Play:
    """One supervised subprocess with everything around it faked."""

    def __init__(
        self, *, kernel_limits: bool = True, snapshots: bool = False, **arguments: object
    ) -> None:
        self.clock = FakeClock()
        self.scope = FakeScope(self.clock)
        self.sinks = FakeSinks()
        self.poller = DrivenPoller(self.clock)
        self.snapshots = HeldSnapshots()
        self.supervision = Supervision(
            self.scope,
            a_plan(kernel_limits=kernel_limits, **arguments),
            self.sinks,
            self.poller,
            snapshots=self.snapshots if snapshots else None,
            clock=self.clock,
        )

    def begin(self) -> Play:
        """The process has started."""
        self.supervision.begin(NOBODY, self.scope.popen.as_popen())
        return self

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.poller.advance(seconds)

    @property
    def signals(self) -> list[Any]:
        """What the scope was sent."""
        return self.scope.asked("signal")

    @property
    def cause(self) -> str:
        """How it ended."""
        assert self.supervision.outcome is not None
        assert self.sinks.outcomes == [self.supervision.outcome]
        assert self.supervision.ended.is_set()
        assert self.scope.detached == 1
        return self.supervision.outcome.cause


@pytest.fixture
def play() -> Iterator[Callable[..., Play]]:
    """Makes plays."""
    made: list[Play] = []

    def make(**arguments: Any) -> Play:
        made.append(Play(**arguments))
        return made[-1]

    yield make
    for one in made:
        one.poller.stop()


def denied(path: str = "/fake") -> CgroupError:
    """What a backend raises for EACCES."""
    return CgroupError(OSError(errno.EACCES, os.strerror(errno.EACCES)), "touching", path)


# --- ends


def test_an_end_is_told_before_the_scope_goes(play: Callable[..., Play]) -> None:
    """Told once; who was put into the empty scope is killed, and then it is done."""
    one = play().begin()
    one.scope.late = [99]
    one.scope.end(3)
    one.advance(2)

    assert len(one.sinks.outcomes) == 1
    assert not one.supervision.ended.is_set()
    one.scope.late = []
    one.scope.living = []
    one.advance(2)
    assert one.cause == "exited"
    assert one.signals == [signal.SIGKILL]


def test_exit(play: Callable[..., Play]) -> None:
    """An exit is found by the next tick, read, cleaned up and reported once."""
    one = play().begin()
    one.scope.end(3)
    one.advance(2)

    assert one.cause == "exited"
    outcome = one.sinks.outcomes[0]
    assert (outcome.exit_code, outcome.signal, outcome.returncode) == (3, None, 3)
    assert outcome.leftovers == ()
    assert one.signals == []
    order = [name for name, _ in one.scope.calls if name in ("counters", "close", "detach")]
    assert order == ["counters", "close", "detach"]


def test_exit_by_descriptor(play: Callable[..., Play], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a descriptor tells of the exit it is settled at once, and the descriptor closed."""
    out, into = os.pipe()
    monkeypatch.setattr(os, "pidfd_open", lambda pid, flags=0: out, raising=False)
    one = play().begin()
    one.advance(0.5)
    one.scope.end(0)
    os.close(into)
    one.advance(0)

    assert one.cause == "exited"
    assert one.sinks.outcomes[0].duration_seconds == 0.5
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(out)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let a pipe stand in for the pidfd, whose other end this closes: the process has ended."""
    out, into = os.pipe()
    monkeypatch.setattr(os, "pidfd_open", lambda pid, flags=0: out, raising=False)
    return lambda: os.close(into)


def test_who_waits_settles(play: Callable[..., Play], exits: Callable[[], None]) -> None:
    """While a caller waits for the exit the poller lets it be; 20 ms after, it does the rest."""
    one = play().begin()
    with one.supervision.awaited():
        one.scope.end(0)
        exits()
        one.advance(1)
        assert one.sinks.outcomes == []
        assert one.poller.steps == 0
    one.supervision.left()
    one.advance(0.02)

    assert one.cause == "exited"


def test_a_wait_in_vain(play: Callable[..., Play], exits: Callable[[], None]) -> None:
    """A caller whose wait was cut short need not ask again: the poller tells the end."""
    one = play().begin()
    with pytest.raises(TimeoutError), one.supervision.awaited():
        raise TimeoutError
    one.scope.end(0)
    exits()
    one.advance(0)

    assert one.cause == "exited"


def test_interrupted_before_the_wait(play: Callable[..., Play], exits: Callable[[], None]) -> None:
    """So it is for a Ctrl-C while the next scope is made ready."""
    one = play().begin()

    def interrupt(supervision: Supervision) -> None:
        raise KeyboardInterrupt

    one.sinks.idle = interrupt  # type: ignore[method-assign]  # it comes at any time
    with pytest.raises(KeyboardInterrupt), one.supervision.awaited():
        pass
    one.scope.end(0)
    exits()
    one.advance(0)

    assert one.cause == "exited"


def test_no_room_to_hear_of_the_exit_again(
    play: Callable[..., Play], exits: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel has no room for the descriptor any more, ticks find the end; it is told."""
    one = play().begin()

    def full(descriptor: int, mask: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(one.poller.wakeups, "add", full)
    with pytest.raises(TimeoutError), one.supervision.awaited():
        raise TimeoutError
    exits()
    one.scope.end(0)
    one.advance(2)

    assert one.cause == "exited"
    assert any("no wake-ups, only ticks: " in text for text in one.sinks.warnings)


def test_asking_again_puts_nothing_off(
    play: Callable[..., Play], exits: Callable[[], None]
) -> None:
    """A caller who asks for the status every few milliseconds does not keep the poller away."""
    one = play().begin()
    with one.supervision.awaited():
        one.scope.end(0)
        exits()
    for _ in range(3):
        one.supervision.left()
        one.advance(0.01)

    assert one.cause == "exited"


def test_an_interrupted_settling(
    play: Callable[..., Play], exits: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Ctrl-C while the caller settles leaves it to the poller."""
    one = play().begin()
    one.scope.end(0)
    exits()

    def interrupt() -> Counters:
        raise KeyboardInterrupt

    process = MonitoredProcess(one.scope.popen.as_popen(), one.supervision)
    with monkeypatch.context() as patched:
        patched.setattr(one.scope, "counters", interrupt)
        with pytest.raises(KeyboardInterrupt):
            process.outcome()
    one.advance(0.02)

    assert one.cause == "exited"


def test_the_main_process_is_ended_where_the_group_is_out_of_reach(
    play: Callable[..., Play],
) -> None:
    """Out of descriptors the group can't be signalled; its main process can, and is."""
    one = play().begin()
    one.scope.errors["pids"] = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    one.supervision.abort("abort")
    assert TERM in one.scope.popen.sent

    one.advance(60)

    assert KILL in one.scope.popen.sent


def test_an_end_is_told_whatever_fails(play: Callable[..., Play]) -> None:
    """Whatever keeps the machine's memory from being read, the end has an outcome, at once."""
    one = play().begin()
    one.scope.end(0)
    one.sinks.errors["system_memory"] = RuntimeError("x")

    assert one.supervision.settle()

    assert one.cause == "exited"
    assert any("memory can't be read: x" in text for text in one.sinks.warnings)


def test_leftovers_are_killed_and_named(play: Callable[..., Play]) -> None:
    """What lives on in the scope is killed; the outcome names it and waits for its end."""
    one = play().begin()
    one.scope.end(0, leftovers=[41, 42])

    assert not one.supervision.settle()
    assert one.supervision.settle()

    assert one.cause == "exited"
    assert one.sinks.outcomes[0].leftovers == (41, 42)
    assert not one.sinks.outcomes[0].kept
    assert one.signals == [KILL]


def test_leftovers_that_die_slowly(play: Callable[..., Play]) -> None:
    """Who waits for leftovers in D state looks ever less often, and never more than it must."""
    one = play().begin()
    one.scope.errors["signal"] = ScopeVanished("x")
    del one.scope.errors["signal"]
    one.scope.end(0, leftovers=[41])

    class Undying(list[int]):
        """Not emptied by a signal."""

    one.scope.living = Undying([41])
    one.scope.signal = lambda signum: None  # type: ignore[method-assign]  # a kill that takes long
    one.supervision.settle()
    before = one.poller.steps
    one.advance(60)

    assert one.supervision.outcome is None
    assert one.poller.steps - before < 120

    one.scope.living = []
    one.advance(2)

    assert one.cause == "exited"


def test_keep(play: Callable[..., Play]) -> None:
    """With `keep` the leftovers live on, without a brake that nobody would lift."""
    one = play(keep=True).begin()
    one.scope.end(0, leftovers=[41])
    one.advance(2)

    assert one.cause == "exited"
    assert one.sinks.outcomes[0].kept
    assert one.sinks.outcomes[0].leftovers == (41,)
    assert one.signals == []
    assert one.scope.asked("set_limits")[-1].high_bytes is None


def test_who_only_observes_kills_nothing(play: Callable[..., Play]) -> None:
    """With `enforcement: off` what the command leaves behind is left alone."""
    one = play(enforcement="off").begin()
    one.scope.end(0, leftovers=[41])
    one.advance(2)

    assert one.sinks.outcomes[0].kept
    assert one.signals == []


def test_keep_without_leftovers(play: Callable[..., Play]) -> None:
    """With `keep` and nothing left, the scope goes and nothing is said to be kept."""
    one = play(keep=True).begin()
    one.scope.end(0)
    one.advance(2)

    assert one.cause == "exited"
    assert not one.sinks.outcomes[0].kept


def test_timeout_obeyed(play: Callable[..., Play]) -> None:
    """When its time is up every process gets SIGTERM, and SIGCONT so that a stopped one obeys."""
    one = play(timeout=7).begin()
    one.advance(6.9)
    assert one.signals == []
    one.advance(0.2)
    assert one.signals == [TERM, CONT]
    one.advance(2)

    assert one.cause == "timeout"
    outcome = one.sinks.outcomes[0]
    assert outcome.aborted
    assert not outcome.sigkill_needed
    assert one.supervision.level == "ABORTED"


def test_timeout_ignored(play: Callable[..., Play]) -> None:
    """Who ignores SIGTERM gets SIGKILL after the grace time, not before."""
    one = play(timeout=7, grace=3).begin()
    one.scope.term_obeyed = False
    one.advance(9.9)
    assert one.signals == [TERM, CONT]
    one.advance(0.2)
    assert one.signals == [TERM, CONT, KILL]
    one.advance(2)

    assert one.cause == "timeout"
    assert one.sinks.outcomes[0].sigkill_needed


def test_a_late_poller_calls_no_exit_a_timeout(play: Callable[..., Play]) -> None:
    """A process that ended in time has exited, also when the poller comes late to see it."""
    one = play(timeout=7).begin()
    one.clock.now += 5
    one.scope.end(0)
    one.clock.now += 10
    one.advance(2)

    assert one.cause == "exited"
    assert not one.sinks.outcomes[0].aborted


def test_abort_after_the_end(play: Callable[..., Play]) -> None:
    """An abort or a kill that comes after the process's own end does not change its cause."""
    for act in ("abort", "kill"):
        one = play().begin()
        one.scope.end(0, leftovers=[41])
        getattr(one.supervision, act)("abort")
        one.advance(3)

        assert one.cause == "exited"


def test_abort_of_a_frozen_group(play: Callable[..., Play]) -> None:
    """A group that was frozen before is thawed to obey, after SIGTERM is pending."""
    one = play().begin()
    one.scope.freeze(True)
    one.scope.calls.clear()
    one.supervision.abort("abort")

    acts = [call for call in one.scope.calls if call[0] in ("signal", "freeze")]
    assert acts == [("freeze", True), ("signal", TERM), ("signal", CONT), ("freeze", False)]
    one.advance(2)
    assert one.cause == "aborted"


def test_abort_twice(play: Callable[..., Play]) -> None:
    """A second abort neither signals again nor moves the deadline nor changes the cause."""
    one = play(grace=5).begin()
    one.scope.term_obeyed = False
    one.supervision.abort("timeout")
    one.advance(4)
    one.supervision.abort("abort")
    one.advance(1.1)

    assert one.signals == [TERM, CONT, KILL]
    one.advance(2)
    assert one.cause == "timeout"


def test_the_grace_is_the_groups(play: Callable[..., Play]) -> None:
    """A main process that obeys at once does not cost the others in its group their grace."""
    one = play(grace=5).begin()
    one.scope.term_obeyed = False
    one.supervision.abort("abort")
    one.scope.end(-15, leftovers=[41])
    one.advance(4.9)
    assert one.signals == [TERM, CONT]
    one.advance(0.2)
    assert one.signals == [TERM, CONT, KILL]
    one.advance(2)

    assert one.cause == "aborted"
    outcome = one.sinks.outcomes[0]
    assert outcome.sigkill_needed
    assert outcome.leftovers == ()


def test_a_late_poller_calls_no_obedience_too_late(play: Callable[..., Play]) -> None:
    """Who obeyed in its grace needed no SIGKILL, however late that is seen."""
    one = play(grace=5).begin()
    one.scope.term_obeyed = False
    one.supervision.abort("abort")
    one.scope.end(-15)
    one.clock.now += 60
    one.advance(2)

    assert one.cause == "aborted"
    assert one.signals == [TERM, CONT]
    assert not one.sinks.outcomes[0].sigkill_needed


def test_an_abort_lifts_the_brake(play: Callable[..., Play]) -> None:
    """A clean-up is not held by memory.high, and the hard limit stays."""
    one = play().begin()
    one.supervision.abort("abort")

    assert one.scope.asked("set_limits") == [Limits(None, 400 * MB)]


def test_interrupted_between_the_line_and_the_removal(
    play: Callable[..., Play], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of an end: what follows removes the scope, and tells nothing twice."""
    one = play().begin()

    def interrupted(before: Callable[[], object]) -> bool:
        before()
        raise KeyboardInterrupt

    one.scope.end(3)
    with monkeypatch.context() as patched:
        patched.setattr(one.scope, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            one.supervision.settle()
    assert one.scope.asked("close") == []
    one.supervision.left()

    assert one.scope.asked("close") == [None]
    assert one.cause == "exited"


@pytest.mark.parametrize("step", ["concluded", "ended", "detach"])
def test_an_interrupted_step_of_the_end(play: Callable[..., Play], step: str) -> None:
    """Wherever a Ctrl-C comes, who asks next tells what is untold and ends it."""
    one = play().begin()
    one.scope.end(3)
    place = one.scope.errors if step == "detach" else one.sinks.errors
    place[step] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        one.supervision.settle()
    del place[step]
    one.supervision.left()

    assert one.supervision.ended.is_set()
    assert one.sinks.order[-2:] == (
        ["ended", "ended"] if step == "ended" else ["concluded", "ended"]
    )
    assert one.supervision.outcome == one.sinks.outcomes[-1]


def test_interrupted_with_its_exit_not_heard_of(
    play: Callable[..., Play], exits: Callable[[], None]
) -> None:
    """Cut short once the poller has let it go, it is ended by whoever waits for the status."""
    one = play().begin()
    one.scope.end(3)
    exits()
    one.scope.errors["detach"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        one.supervision.settle()
    del one.scope.errors["detach"]
    one.supervision.left()

    assert one.supervision.ended.is_set()
    assert len(one.sinks.outcomes) == 1


def test_an_interrupted_abort_thaws_and_kills(play: Callable[..., Play]) -> None:
    """A KeyboardInterrupt in the middle leaves nobody frozen and nobody alive."""
    one = play(grace=5).begin()
    one.scope.errors["signal"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        one.supervision.abort("abort")
    del one.scope.errors["signal"]
    one.advance(8)

    assert one.scope.asked("freeze") == [True, False]
    assert one.signals == [TERM, KILL]
    assert one.cause == "aborted"


def test_nothing_is_frozen_in_its_grace(play: Callable[..., Play]) -> None:
    """A stall that is judged after SIGTERM was sent does not freeze who is to obey it."""
    one = play(on_stall="freeze", grace=60).begin()
    one.scope.term_obeyed = False
    one.supervision.abort("abort")
    calls = len(one.scope.calls)
    for action in ("freeze", "brake", "release", "abort"):
        one.supervision._act(action)

    assert len(one.scope.calls) == calls


def test_closing_finishes_an_abort(play: Callable[..., Play]) -> None:
    """One that is being ended is killed, not let go of half-way."""
    one = play().begin()
    one.scope.term_obeyed = False
    one.supervision.abort("abort")
    one.supervision.let_go()

    assert one.signals == [TERM, CONT, KILL]
    assert one.cause == "aborted"
    assert one.sinks.outcomes[0].sigkill_needed


def test_an_oom_kill_under_way_is_no_abort(play: Callable[..., Play]) -> None:
    """Who aborts a group that the kernel is killing at its limit has not ended it."""
    one = play().begin()
    killed = MemoryEvents(3, 9, 1, 1, 1)
    one.scope.next_counters = Counters(killed, killed, peak_bytes=400 * MB)
    one.scope.term_obeyed = False
    one.supervision.abort("abort")
    one.scope.end(-9)
    one.advance(2)

    assert one.cause == "hard_limit"


def test_a_kill_seen_only_at_the_end_is_told(play: Callable[..., Play]) -> None:
    """The alert of an OOM kill comes also where the end is seen before any wake-up for it."""
    one = play().begin()
    killed = MemoryEvents(3, 9, 1, 1, 1)
    one.scope.next_counters = Counters(killed, killed, peak_bytes=400 * MB)
    one.scope.end(-9)
    assert one.supervision.settle()

    assert one.cause == "hard_limit"
    assert [alert.kind for alert in one.sinks.alerts][-1] == "kill"
    assert one.sinks.outcomes[0].warnings[-1] == one.sinks.alerts[-1].message


def test_an_exit_that_a_waiter_is_about_to_take_is_no_timeout(
    play: Callable[..., Play], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another thread holds Popen's lock the pidfd tells: it ended in time, by itself."""
    out, into = os.pipe()
    monkeypatch.setattr(os, "pidfd_open", lambda pid, flags=0: out, raising=False)
    one = play(timeout=7).begin()
    os.close(into)
    one.clock.now += 60
    one.advance(0)
    one.supervision.abort("abort")
    one.supervision.kill("abort")
    one.scope.end(0)
    one.supervision.left()
    one.advance(2)

    assert one.cause == "exited"
    assert TERM not in one.signals


def test_a_main_process_that_moved_out_is_ended_too(play: Callable[..., Play]) -> None:
    """What su starts may be moved to a session's cgroup: it gets the same signals by itself."""
    one = play(grace=5).begin()
    one.scope.living = []
    one.scope.term_obeyed = False
    one.supervision.abort("abort")
    assert one.scope.popen.sent == [TERM, CONT]
    one.advance(5.5)
    assert one.scope.popen.sent == [TERM, CONT, KILL]


def test_a_main_process_inside_is_told_once(play: Callable[..., Play]) -> None:
    """A second SIGTERM means "at once" to many programs."""
    one = play(grace=5).begin()
    one.supervision.abort("abort")

    assert one.signals == [TERM, CONT]
    assert one.scope.popen.sent == []


def test_kill_at_once(play: Callable[..., Play]) -> None:
    """`kill` is SIGKILL without grace."""
    one = play().begin()
    one.supervision.kill("abort")
    one.advance(2)

    assert one.signals == [KILL]
    assert one.cause == "aborted"


def test_pause_moves_deadlines(play: Callable[..., Play]) -> None:
    """Stopped time counts neither for the time-out nor for the grace."""
    one = play(timeout=7, grace=3).begin()
    one.scope.term_obeyed = False
    one.supervision.pause(10)
    one.advance(16.9)
    assert one.signals == []
    one.advance(0.2)
    assert one.signals == [TERM, CONT]
    one.supervision.pause(10)
    one.advance(12.8)
    assert one.signals == [TERM, CONT]
    one.advance(0.3)

    assert one.signals == [TERM, CONT, KILL]


def test_hard_limit_by_the_kernel(play: Callable[..., Play]) -> None:
    """A kill at the own limit is a hard limit: the level, the alert, the peak and the cause."""
    one = play().begin()
    one.advance(2)
    killed = MemoryEvents(3, 9, 1, 1, 1)
    one.scope.next_counters = Counters(killed, killed, peak_bytes=400 * MB)
    one.scope.end(-9)
    one.scope.current_bytes = 0
    one.advance(2)

    assert one.cause == "hard_limit"
    outcome = one.sinks.outcomes[0]
    assert outcome.aborted
    assert outcome.peak_mb == 400.0
    assert outcome.events == killed
    assert one.supervision.level == "ABORTED"
    assert one.sinks.alerts[-1].kind == "kill"
    assert one.sinks.alerts[-1].message == "CRITICAL: Memory exceeded 400MB limit at 400.0MB"


def test_hard_limit_by_us(play: Callable[..., Play]) -> None:
    """Where no kernel holds the limit, the group is killed once it is seen above it."""
    one = play(kernel_limits=False).begin()
    one.scope.current_bytes = 401 * MB
    one.advance(2)

    assert one.signals[0] == KILL
    assert one.cause == "hard_limit"


def test_thresholds_alert_once(play: Callable[..., Play]) -> None:
    """Crossing a threshold is told once, and stands in the outcome's warnings."""
    one = play().begin()
    one.scope.current_bytes = 150 * MB
    one.advance(20)
    assert one.supervision.level == "WARNING"
    one.scope.end(0)
    one.advance(2)

    assert one.cause == "exited"
    assert len(one.sinks.alerts) == 1
    assert one.sinks.outcomes[0].warnings == (one.sinks.alerts[0].message,)


# --- trouble


@pytest.mark.parametrize("when", ["before", "running", "ended", "leftovers"])
def test_the_scope_vanishes(play: Callable[..., Play], when: str) -> None:
    """A scope that somebody removes is a normal end, at whatever step it goes."""
    one = play()
    if when == "before":
        one.scope.vanish()
    one.begin()
    one.advance(3)
    if when == "running":
        one.scope.vanish()
        one.advance(5)
        assert one.supervision.outcome is None
    one.scope.end(0, leftovers=[41] if when == "leftovers" else [])
    if when == "leftovers":
        assert not one.supervision.settle()
    one.scope.vanish()
    one.advance(5)

    assert one.cause == "exited"
    assert one.sinks.outcomes[0].counters_cached
    assert one.poller.told == []


@pytest.mark.parametrize("act", ["abort", "kill", "check", "let_go"])
def test_calls_on_a_vanished_scope(play: Callable[..., Play], act: str) -> None:
    """No call of the owner fails because the scope is gone."""
    one = play().begin()
    one.scope.vanish()
    arguments = ("abort",) if act in ("abort", "kill") else ()
    getattr(one.supervision, act)(*arguments)
    one.scope.popen.end(-9)
    one.advance(8)

    assert one.supervision.outcome is not None
    assert one.supervision.ended.is_set()


@pytest.mark.parametrize("method", ["counters", "close", "detach", "signal", "pids"])
def test_a_step_of_the_end_fails(play: Callable[..., Play], method: str) -> None:
    """Whatever step of the clean-up fails, there is one outcome and at most one warning of it."""
    one = play().begin()
    one.scope.end(0, leftovers=[41])
    one.scope.errors[method] = denied()
    one.advance(1)
    one.supervision.settle()
    one.advance(4)

    assert one.supervision.outcome is not None
    assert one.supervision.ended.is_set()
    assert len(one.sinks.outcomes) == 1
    assert one.sinks.outcomes[0].cause == "exited"
    assert len(one.sinks.warnings) == (0 if method == "pids" else 1)


def test_a_last_read_that_fails_uses_the_last_sample(play: Callable[..., Play]) -> None:
    """Without a last read the outcome tells the counters of the last look, and says so."""
    one = play().begin()
    one.scope.next_counters = Counters(MemoryEvents(5, 0, 0, 0, 0))
    one.scope.current_bytes = 150 * MB
    one.advance(2)
    one.scope.errors["counters"] = denied()
    one.scope.end(0)
    one.advance(2)

    assert one.sinks.outcomes[0].events.high == 5
    assert one.sinks.outcomes[0].counters_cached


def test_a_last_read_that_fails_forgets_no_kill(play: Callable[..., Play]) -> None:
    """What was read of an OOM kill at the own limit counts, if nothing can be read at the end."""
    one = play().begin()
    kill = MemoryEvents(0, 9, 1, 1, 0)
    one.scope.next_counters = Counters(kill, kill)
    one.scope.current_bytes += MB
    one.advance(2)
    one.scope.errors["counters"] = CgroupError(OSError(errno.EMFILE, "full"), "reading", "fake")
    one.scope.end(-9)
    one.advance(2)

    assert one.cause == "hard_limit"


def test_sampling_fails(play: Callable[..., Play]) -> None:
    """A scope that can't be read is told of once; its time-out and its end are still seen."""
    one = play(timeout=21).begin()
    one.scope.errors["sample"] = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    one.advance(20)
    assert len(one.sinks.warnings) == 1
    assert one.poller.told == []
    one.advance(5)

    assert one.cause == "timeout"


def test_sampling_fails_again(play: Callable[..., Play]) -> None:
    """Trouble that came back is told again."""
    one = play().begin()
    for _ in range(2):
        one.scope.errors["sample"] = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        one.advance(6)
        del one.scope.errors["sample"]
        one.advance(6)

    assert len(one.sinks.warnings) == 2


def test_the_first_look_fails(play: Callable[..., Play]) -> None:
    """A first look that fails leaves a supervised subprocess, not an exception at its start."""
    one = play()
    one.scope.errors["sample"] = denied()
    one.begin()
    one.scope.end(0)
    one.advance(2)

    assert one.cause == "exited"
    assert one.sinks.outcomes[0].start_mb == 0.0


def test_signals_are_refused(play: Callable[..., Play]) -> None:
    """A group that can't be signalled is told of, once a step, and is still supervised."""
    one = play(timeout=1, grace=1).begin()
    one.scope.errors["signal"] = denied()
    one.advance(30)
    assert one.supervision.outcome is None
    assert len(one.sinks.warnings) == 2
    one.scope.end(0)
    one.advance(2)

    assert one.cause == "timeout"


@pytest.mark.parametrize(
    "sink", ["alert", "aborted", "concluded", "ended", "warn", "system_memory"]
)
def test_a_raising_sink_hurts_nothing(play: Callable[..., Play], sink: str) -> None:
    """Whichever sink raises, the limit is enforced and the outcome is there."""
    one = play(kernel_limits=False)
    one.sinks.errors[sink] = OSError(errno.ENOSPC, "full")
    one.begin()
    one.scope.errors["detach"] = denied()
    one.scope.current_bytes = 500 * MB
    one.advance(4)

    assert sink in one.sinks.order
    assert one.signals[0] == KILL
    assert one.cause == "hard_limit"
    assert one.poller.told == []


def test_a_descriptor_that_cannot_be_waited_on(
    play: Callable[..., Play], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel takes no more descriptors to wait on, ticks find the end."""
    out, into = os.pipe()
    monkeypatch.setattr(os, "pidfd_open", lambda pid, flags=0: out, raising=False)

    def refuse(descriptor: int, mask: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    one = play()
    monkeypatch.setattr(one.poller.wakeups, "add", refuse)
    one.begin()
    os.close(into)
    one.scope.end(0)
    one.advance(2)

    assert one.cause == "exited"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(out)


def test_no_descriptor_left_for_the_exit(
    play: Callable[..., Play], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any refusal of a pidfd (ENFILE as well as EMFILE) means ticks."""

    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    one = play().begin()
    one.scope.end(0)
    one.advance(2)

    assert one.cause == "exited"


def test_sigchld_ignored(play: Callable[..., Play]) -> None:
    """Where the kernel reaps children itself, Popen's 0 is nobody's status: it is unknown."""
    one = play().begin()
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        one.scope.end(0)
        one.advance(2)
    finally:
        signal.signal(signal.SIGCHLD, before)

    assert one.cause == "unknown"
    assert one.sinks.outcomes[0].returncode is None


# --- the brake


def stalled(play: Callable[..., Play] | Play, on_stall: str) -> Play:
    """A subprocess that memory.high has held for long."""
    one = (play if isinstance(play, Play) else play(on_stall=on_stall)).begin()
    high = 200 * MB

    def sample(detail_above: int | None = None, *, if_changed: bool = False) -> Sample | None:
        run = one.clock.now - 1000
        events = MemoryEvents(int(100 * run) + 1, 0, 0, 0, 0)
        current = high + int(run * 1000)
        return Sample(
            one.clock.now, current, "cgroup", events, 0, 0, run * 0.95, run * 0.95, 0.01 * run, 0
        )

    one.scope.sample = sample  # type: ignore[method-assign]  # a history of its own
    one.advance(60)
    return one


def test_a_stall_releases_the_brake(play: Callable[..., Play]) -> None:
    """By default a stalled subprocess gets memory.high = max; every other limit stays."""
    one = stalled(play, "release")

    assert one.scope.asked("set_limits")[0] == Limits(None, 400 * MB)
    assert one.sinks.alerts[-1].kind == "stall"
    one.scope.end(0)
    one.advance(2)
    (stall,) = one.sinks.outcomes[0].stalls
    assert stall["action"] == "release"
    assert 10 <= stall["at"] <= 30


def test_the_brake_returns(play: Callable[..., Play]) -> None:
    """Once the memory was below the warning threshold for 30 s, memory.high is set again."""
    one = stalled(play, "release")
    del one.scope.sample
    one.scope.current_bytes = 10 * MB
    one.advance(40)

    assert [limits.high_bytes for limits in one.scope.asked("set_limits")] == [None, 200 * MB]


def test_a_stall_aborts(play: Callable[..., Play]) -> None:
    """`on_stall: abort` ends it, and says so."""
    one = stalled(play, "abort")

    assert one.signals == [TERM, CONT]
    assert one.cause == "stalled"


def test_a_stall_freezes(play: Callable[..., Play]) -> None:
    """`on_stall: freeze` stops the group and keeps it."""
    one = stalled(play, "freeze")

    assert one.scope.asked("freeze")[0] is True
    assert one.supervision.outcome is None


def test_a_freeze_that_fails_is_tried_again(play: Callable[..., Play]) -> None:
    """Once the signs have come anew: nobody waits for a group to be frozen that never will."""
    one = play(on_stall="freeze")
    one.scope.errors["freeze"] = denied()
    one = stalled(one, "freeze")

    assert len(one.scope.asked("freeze")) == 5
    assert any("freeze: " in text for text in one.sinks.warnings)


def test_a_release_that_fails(play: Callable[..., Play]) -> None:
    """A memory.high that can't be written is told of and stops nothing."""
    one = play()
    one.scope.errors["set_limits"] = denied()
    one.begin()
    one.supervision.let_go()

    assert any("release" in text for text in one.sinks.warnings)
    assert one.supervision.outcome is not None


def test_another_budget(play: Callable[..., Play]) -> None:
    """A budget that is set later is the one that the outcome names, its brake the judge's."""
    one = play().begin()
    one.supervision.set_limits(Limits(None, 800 * MB))
    assert one.supervision.plan.policy.high_bytes is None
    one.scope.end(0)
    one.advance(2)

    assert one.sinks.outcomes[0].limits.max_bytes == 800 * MB


# --- letting go, observing, owners


def test_let_go(play: Callable[..., Play]) -> None:
    """A live subprocess is let go of: no signal, no brake, its processes named."""
    one = play().begin()
    one.supervision.let_go()

    outcome = one.sinks.outcomes[0]
    assert one.signals == []
    assert one.scope.asked("set_limits") == [Limits(None, 400 * MB)]
    assert outcome.cause == "unknown"
    assert outcome.leftovers == (NOBODY,)
    one.advance(10)
    assert len(one.sinks.outcomes) == 1


def test_let_go_of_one_that_stays(play: Callable[..., Play]) -> None:
    """Told, but somebody is in its scope and won't die: let go of, nobody waits for it longer."""
    one = play().begin()
    one.scope.late = [99]
    one.scope.end(3)
    one.scope.errors["signal"] = denied()
    one.supervision.settle()
    assert not one.supervision.ended.is_set()
    assert "ended" not in one.sinks.order
    one.supervision.let_go()

    assert one.cause == "exited"
    assert one.sinks.order.count("ended") == 1
    assert one.scope.record.concluded


def test_let_go_before_it_began(play: Callable[..., Play]) -> None:
    """A supervisor that closes while a subprocess starts neither kills it nor polls it later."""
    one = play()
    assert not one.supervision.settle()
    one.supervision.let_go()
    one.begin()
    samples = len(one.scope.asked("sample"))
    one.advance(10)

    assert one.signals == []
    assert len(one.scope.asked("sample")) == samples


def test_observe(play: Callable[..., Play], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is no child of ours has ended when its descriptor says so."""
    out, into = os.pipe()
    monkeypatch.setattr(os, "pidfd_open", lambda pid, flags=0: out, raising=False)
    one = play()
    one.supervision.begin(NOBODY, None)
    one.advance(5)
    assert one.supervision.outcome is None
    one.scope.living = []
    os.close(into)
    one.advance(2)

    assert one.cause == "unknown"
    assert one.sinks.outcomes[0].pid == NOBODY


def test_observe_without_descriptors(play: Callable[..., Play]) -> None:
    """Without a pidfd the process id is asked for; nobody's id has ended."""
    one = play()
    one.supervision.begin(NOBODY, None)
    one.scope.living = []
    one.advance(2)

    assert one.cause == "unknown"


def test_observe_where_there_are_no_pidfds(
    play: Callable[..., Play], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who lives is the scope's to say: a process id may belong to another process by now."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    one = play()
    one.scope.living = [os.getpid()]
    one.supervision.begin(os.getpid(), None)
    one.advance(4)
    assert one.supervision.outcome is None
    one.scope.living = []
    one.advance(ASK_SECONDS)

    assert one.cause == "unknown"


def test_check(play: Callable[..., Play]) -> None:
    """`check` looks now, and after the end tells the last numbers."""
    one = play().begin()
    one.scope.current_bytes = 150 * MB
    assert one.supervision.check() == (150.0, "WARNING")
    one.scope.end(0)
    one.scope.current_bytes = 0
    one.advance(2)

    assert one.supervision.check()[0] == 150.0
    assert one.sinks.outcomes[0].end_mb == 150.0


def test_one_outcome_for_many_threads(play: Callable[..., Play]) -> None:
    """However many threads settle at once, there is one outcome, told once."""
    for _ in range(20):
        one = play().begin()
        one.scope.end(0)
        together = threading.Barrier(4)

        def settle(one: Play = one, together: threading.Barrier = together) -> None:
            together.wait(PATIENCE)
            one.supervision.settle()

        threads = [threading.Thread(target=settle) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert one.cause == "exited"


def test_after_a_fork(play: Callable[..., Play]) -> None:
    """In a forked child a supervision is inert, even if another thread held its lock."""
    one = play().begin()
    held = threading.Event()

    def hold() -> None:
        one.supervision._lock.acquire()
        held.set()

    holder = threading.Thread(target=hold)
    holder.start()
    holder.join()
    assert held.is_set()
    one.supervision.after_fork_in_child()
    one.scope.end(0, leftovers=[41])
    calls = list(one.scope.calls)

    assert not one.supervision.settle()
    one.supervision.let_go()
    assert one.scope.calls == calls
    assert one.sinks.outcomes == []
    assert one.supervision.ended.is_set()


# --- the cost of watching


def test_an_idle_polled_scope_costs_a_look_a_tick(play: Callable[..., Play]) -> None:
    """Without kernel limits an idle subprocess is looked at once a tick, never in a loop."""
    one = play(kernel_limits=False).begin()
    one.advance(10)
    before = one.poller.steps
    one.advance(200)

    assert one.poller.steps - before <= 220
    assert len(one.scope.asked("sample")) < 340


def test_a_vanished_polled_scope_is_not_looked_at_in_a_loop(play: Callable[..., Play]) -> None:
    """Nor does one whose looks fail make the poller spin."""
    for error in (ScopeVanished("x"), denied()):
        one = play(kernel_limits=False).begin()
        one.scope.errors["sample"] = error
        one.advance(100)

        assert one.poller.steps <= 110


def test_wake_descriptors_wake(play: Callable[..., Play]) -> None:
    """A kernel event makes it look at once, not at the next tick."""
    out, into = os.pipe()
    one = play()
    one.scope.wake_descriptors = [(out, READ)]
    one.begin()
    one.scope.current_bytes = 150 * MB
    os.write(into, b"x")
    one.advance(0.3)

    assert one.supervision.level == "WARNING"
    os.close(out)
    os.close(into)


def test_the_emptied_descriptor_ends_the_wait(play: Callable[..., Play]) -> None:
    """The end of the last leftover is seen when its descriptor tells, within a poller's step."""
    out, into = os.pipe()
    one = play().begin()
    one.scope.emptied_descriptor = (out, READ)
    one.scope.end(0, leftovers=[41])
    one.supervision.settle()
    os.write(into, b"x")
    one.advance(0)

    assert one.cause == "exited"
    os.close(out)
    os.close(into)


def test_a_failing_sigkill_is_tried_again(play: Callable[..., Play]) -> None:
    """A SIGKILL that can't be sent (no descriptor left) is not the last one."""
    one = play(timeout=10.0, grace=5.0).begin()
    one.scope.term_obeyed = False
    one.advance(10.5)
    one.scope.errors["signal"] = denied()
    one.advance(6.0)

    del one.scope.errors["signal"]
    one.advance(3.0)

    assert one.cause == "timeout"
    assert one.supervision.outcome is not None
    assert one.supervision.outcome.sigkill_needed


def test_a_failing_clean_up_is_tried_again_and_given_up(play: Callable[..., Play]) -> None:
    """Leftovers that can't be killed don't count as gone; after some tries the outcome comes."""
    one = play().begin()
    one.scope.end(0, leftovers=[NOBODY + 1])
    one.scope.errors["signal"] = denied()

    assert not one.supervision.settle()
    one.advance(30.0)

    assert one.cause == "exited"
    assert one.supervision.outcome is not None
    assert one.supervision.outcome.leftovers == (NOBODY + 1,)


def test_a_fork_after_the_end(play: Callable[..., Play]) -> None:
    """A forked child knows how it ended, even if another thread held its lock."""
    one = play().begin()
    one.scope.end(3)
    one.advance(2)
    holder = threading.Thread(target=one.supervision._lock.acquire)
    holder.start()
    holder.join()
    one.supervision.after_fork_in_child()
    one.supervision.left()

    assert one.supervision.settle()
    assert one.cause == "exited"


def test_a_forked_child_kills_nothing(play: Callable[..., Play]) -> None:
    """After a fork, kill and abort in the child leave the parent's subprocess alone."""
    one = play().begin()
    one.supervision.after_fork_in_child()

    one.supervision.kill("abort")
    one.supervision.abort("abort")

    assert one.signals == []


# --- what another process has started


def test_adopted(play: Callable[..., Play]) -> None:
    """It ends with the last process in its scope, whichever that is; its age counts."""
    one = play()
    one.supervision.begin_adopted(60.0)
    one.advance(4)
    before = one.supervision.outcome
    one.scope.end(0)
    one.advance(2)

    assert before is None
    assert one.cause == "unknown"
    outcome = one.sinks.outcomes[0]
    assert (outcome.pid, outcome.exit_code, outcome.signal) == (None, None, None)
    assert outcome.duration_seconds == 66.0
    assert not outcome.unobserved


@pytest.mark.parametrize(("kills", "cause"), [(2, "unknown"), (4, "hard_limit")])
def test_kills_before_it_was_adopted(kills: int, cause: str) -> None:
    """Only what was counted since then tells of its end."""
    clock = FakeClock()
    scope, sinks, poller = FakeScope(clock), FakeSinks(), DrivenPoller(clock)
    baseline = MemoryEvents(0, 9, 1, 2, 1)
    supervision = Supervision(scope, a_plan(), sinks, poller, clock=clock, baseline=baseline)
    scope.next_counters = Counters(baseline)
    supervision.begin_adopted(1.0)
    now = MemoryEvents(0, 9, kills // 2, kills, 1)
    scope.next_counters = Counters(now, now)
    scope.current_bytes = 2 * MB
    scope.end(0)
    poller.advance(2)
    poller.stop()

    assert [outcome.cause for outcome in sinks.outcomes] == [cause]
    assert len([alert for alert in sinks.alerts if alert.kind == "kill"]) == (kills > 2)


def test_handing_back(play: Callable[..., Play]) -> None:
    """Let go of, it lives on without a brake, and its end is not told."""
    one = play()
    one.supervision.begin_adopted(60.0)
    one.supervision.let_go()
    one.supervision.kill("abort")
    one.supervision.settle()

    assert one.supervision.ended.is_set()
    assert one.sinks.outcomes == []
    assert one.scope.asked("set_limits")[-1].high_bytes is None
    assert one.scope.asked("set_limits")[-1].max_bytes == 400 * MB
    assert one.scope.asked("rewrite") == []
    assert one.signals == []


def test_what_stays_is_noted(play: Callable[..., Play]) -> None:
    """A scope that outlives its outcome says that its end was told; one that goes does not."""
    kept, let_go, gone = play(keep=True).begin(), play().begin(), play().begin()
    kept.scope.end(0, leftovers=[77])
    let_go.supervision.let_go()
    gone.scope.end(0)
    for one in (kept, gone):
        one.advance(2)

    assert [record.concluded for record in kept.scope.asked("rewrite")] == [True]
    assert [record.concluded for record in let_go.scope.asked("rewrite")] == [True]
    assert gone.scope.asked("rewrite") == []


# --- snapshots and aborts

LEAK = Snapshot(
    MemoryStat(anon=300 * MB),
    (
        ProcessMemory(7, ("/usr/bin/leak", "--token", "***"), 300 * MB, "pss"),
        ProcessMemory(8, ("helper",), 40 * MB, "rss"),
        ProcessMemory(9, ("sh",), MB, "rss"),
    ),
    partial=False,
)


def critical(play: Callable[..., Play], **arguments: Any) -> Play:
    """A subprocess that has passed the critical threshold, its snapshot asked for."""
    one = play(snapshots=True, **arguments).begin()
    one.scope.current_bytes = 250 * MB
    one.advance(2)
    assert len(one.snapshots.asked) == 1
    return one


def test_a_critical_alert_waits_for_its_snapshot(play: Callable[..., Play]) -> None:
    """The WARNING goes at once, the CRITICAL one with its snapshot, as soon as that is there."""
    one = critical(play)
    assert [alert.level for alert in one.sinks.alerts] == ["WARNING"]

    one.snapshots.arrive(LEAK)

    assert [alert.level for alert in one.sinks.alerts] == ["WARNING", "CRITICAL"]
    assert [alert.snapshot for alert in one.sinks.alerts] == [None, LEAK]


def test_a_late_snapshot_is_not_waited_for(play: Callable[..., Play]) -> None:
    """After 100 ms the poller hands the alert out with what there is."""
    one = critical(play)
    one.advance(0.09)
    assert len(one.sinks.alerts) == 1
    one.advance(0.02)

    assert one.sinks.alerts[1].snapshot == Snapshot()


def test_the_end_comes_after_the_alert(play: Callable[..., Play]) -> None:
    """An outcome that comes while an alert waits neither overtakes nor loses it."""
    one = critical(play)
    one.sinks.order.clear()
    one.scope.end(0)
    one.supervision.settle()
    one.snapshots.arrive(LEAK)

    assert [name for name in one.sinks.order if name in ("alert", "ended")] == ["alert", "ended"]


def test_the_outcome_has_the_last_snapshot(play: Callable[..., Play]) -> None:
    """The outcome shows it, and the message of an end for memory names who was largest."""
    one = critical(play)
    one.snapshots.arrive(LEAK)
    one.supervision.abort("stall")
    one.advance(2)

    assert one.cause == "stalled"
    outcome = one.sinks.outcomes[0]
    assert outcome.snapshot is not None
    assert outcome.snapshot["at"] == 2.0
    assert outcome.snapshot["memory_stat"]["anon_mb"] == 300.0
    assert outcome.snapshot["memory_stat"]["kernel_mb"] is None
    assert [found["metric"] for found in outcome.snapshot["processes"]] == ["pss", "rss", "rss"]
    largest = "Largest when last seen: leak --token ***[7] 300.0MB, helper[8] 40.0MB."
    assert largest in outcome.message


def test_without_a_snapshot_the_message_says_nothing(play: Callable[..., Play]) -> None:
    """Memory that jumps to the limit leaves nobody to name."""
    one = play(snapshots=True).begin()
    one.scope.next_counters = Counters(MemoryEvents(0, 9, 1, 1, 0), MemoryEvents(0, 9, 1, 1, 0))
    one.scope.end(-9)
    one.advance(2)

    assert one.cause == "hard_limit"
    assert one.sinks.outcomes[0].snapshot is None
    assert "Largest" not in one.sinks.outcomes[0].message


@pytest.mark.parametrize(
    ("why", "cause"),
    [("abort", "aborted"), ("timeout", "timeout"), ("stall", "stalled")],
)
def test_an_abort_is_told_once(play: Callable[..., Play], why: Any, cause: str) -> None:
    """Whatever it is ended for is told once, when it begins, after the alerts before it."""
    one = play().begin()
    one.supervision.abort(why)
    assert one.sinks.aborts == [cause]
    one.supervision.kill("abort")
    one.advance(5)

    assert one.sinks.aborts == [cause] == [one.cause]


def test_the_kernels_kill_is_an_abort(play: Callable[..., Play]) -> None:
    """The end at the hard limit is told, also where only the last read shows it."""
    one = play().begin()
    one.scope.next_counters = Counters(MemoryEvents(0, 9, 1, 1, 0), MemoryEvents(0, 9, 1, 1, 0))
    one.scope.end(-9)
    one.supervision.settle()

    assert one.cause == "hard_limit"
    assert one.sinks.aborts == ["hard_limit"]


def test_a_descendant_killed_alone_is_no_end(play: Callable[..., Play]) -> None:
    """With `oom_group` off the kernel may kill one of many: who goes on is not being ended."""
    one = play()
    limits = one.supervision.plan.limits._replace(oom_group=False)
    one.supervision.plan = one.supervision.plan._replace(limits=limits)
    one.begin()
    one.scope.next_counters = Counters(MemoryEvents(0, 9, 1, 1, 0), MemoryEvents(0, 9, 1, 1, 0))
    one.scope.current_bytes += MB
    one.advance(4)

    assert one.supervision.level == "ABORTED"
    assert not one.supervision.ending
    assert one.sinks.aborts == []


def test_an_alarm_that_never_ends_keeps_the_outcome_small(play: Callable[..., Play]) -> None:
    """Of very many alerts the outcome has the first and the last."""
    one = play(tick=40).begin()
    for _ in range(3 * MOST_TOLD):
        for size in (150, 1):
            one.scope.current_bytes = size * MB
            one.advance(40)
    one.scope.end(0)
    one.advance(40)

    assert len(one.sinks.alerts) > 2 * MOST_TOLD
    told = one.sinks.outcomes[0].warnings
    assert len(told) == MOST_TOLD
    assert (told[0], told[-1]) == (one.sinks.alerts[0].message, one.sinks.alerts[-1].message)


def test_an_end_of_its_own_is_no_abort(play: Callable[..., Play]) -> None:
    """Who exits, or is killed by somebody else, was not aborted."""
    for status in (0, 3, -9):
        one = play().begin()
        one.scope.end(status)
        one.advance(2)

        assert one.sinks.aborts == []


# --- a budget set by another process


def rewritten(play: Play, **sizes: int) -> None:
    """Somebody writes another budget down."""
    kept: dict[str, Any] = {"warning_bytes": 100 * MB, "critical_bytes": 200 * MB}
    play.scope.rewritten = play.scope.record._replace(**{**kept, "max_bytes": 400 * MB, **sizes})


def test_a_budget_written_by_somebody_else_is_taken_over(play: Callable[..., Play]) -> None:
    """Thresholds, kernel limits and the brake follow the record; once."""
    one = play().begin()
    rewritten(one, critical_bytes=300 * MB, max_bytes=800 * MB)

    assert one.supervision.take_rewritten() is True
    assert one.supervision.take_rewritten() is False
    assert one.scope.asked("set_limits")[-1][:2] == (300 * MB, 800 * MB)
    assert one.supervision.plan.thresholds == (100 * MB, 300 * MB, 800 * MB)
    assert one.supervision.plan.policy.high_bytes == 300 * MB


def test_nothing_is_told_on_an_outdated_budget(play: Callable[..., Play]) -> None:
    """A raised threshold that was not yet known raises no alert; the new one does."""
    one = play().begin()
    rewritten(one, warning_bytes=150 * MB)
    one.scope.current_bytes = 120 * MB
    one.advance(2.0)
    quiet = list(one.sinks.alerts)
    one.scope.current_bytes = 160 * MB
    one.advance(2.0)

    assert quiet == []
    assert [alert.message for alert in one.sinks.alerts] == [
        "WARNING: Memory exceeded 150MB at 160.0MB"
    ]


def test_nothing_is_killed_on_an_outdated_budget(play: Callable[..., Play]) -> None:
    """Where we kill at the hard limit, a raised one counts from the moment it is written."""
    one = play(kernel_limits=False).begin()
    rewritten(one, max_bytes=800 * MB)
    one.scope.current_bytes = 500 * MB
    one.advance(2.0)

    assert one.signals == []
    assert one.supervision.level == "CRITICAL"


def test_a_record_that_cannot_be_read_changes_nothing(play: Callable[..., Play]) -> None:
    """Torn, gone or without thresholds: the budget stays."""
    one = play().begin()
    assert one.supervision.take_rewritten() is False
    one.scope.rewritten = one.scope.record
    assert one.supervision.take_rewritten() is False
    assert one.scope.asked("set_limits") == []


def test_a_refused_budget_is_told(play: Callable[..., Play]) -> None:
    """The kernel refuses what was written down: one warning, and supervision goes on."""
    one = play().begin()
    one.scope.errors["set_limits"] = denied()
    rewritten(one, max_bytes=800 * MB)
    one.supervision.take_rewritten()
    one.advance(4.0)

    assert len(one.sinks.warnings) == 1
    assert one.supervision.outcome is None
