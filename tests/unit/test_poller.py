"""When the poller calls whom. Time is the test's; descriptors are real pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgmem.supervising.poller import COALESCE_SECONDS, LINGER_SECONDS, Poller
from cgmem.supervising.wakeups import READ
from tests.helpers.proc import open_descriptors
from tests.unit.fakes import DrivenPoller, FakeClock

PATIENCE = 20.0


class Seen:
    """Something to watch, which writes down its calls and reads its pipe empty."""

    def __init__(self, clock: FakeClock, name: str = "seen", *, reads: int | None = None) -> None:
        self.ticks: list[float] = []
        self.wakes: list[float] = []
        self.error: Exception | None = None
        self._clock = clock
        self._name = name
        self._reads = reads

    def __str__(self) -> str:
        return self._name

    def tick(self, now: float) -> None:
        """Write it down."""
        self.ticks.append(now - 1000)
        if self.error is not None:
            raise self.error

    def woken(self, now: float) -> None:
        """Write it down."""
        self.wakes.append(round(now - 1000, 6))
        if self._reads is not None:
            os.read(self._reads, 100)
        if self.error is not None:
            raise self.error


@pytest.fixture
def clock() -> FakeClock:
    """Starts at 1000 s."""
    return FakeClock()


@pytest.fixture
def poller(clock: FakeClock) -> Iterator[DrivenPoller]:
    """A poller of 2 s that the test drives."""
    made = DrivenPoller(clock)
    yield made
    made.stop()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """(read end, write end)."""
    ends = os.pipe()
    yield ends
    for descriptor in ends:
        try:
            os.close(descriptor)
        except OSError:
            continue


def test_ticks_all(clock: FakeClock, poller: DrivenPoller) -> None:
    """Every watched one is ticked every `tick_seconds`, and nothing is called in between."""
    first, second = Seen(clock), Seen(clock)
    poller.add(first, ())
    poller.add(second, ())

    poller.advance(7)

    assert first.ticks == second.ticks == [2, 4, 6]
    assert first.wakes == []
    assert poller.steps == 3


def test_one_at_rest_is_not_ticked(clock: FakeClock, poller: DrivenPoller) -> None:
    """One at rest is ticked only when its glance says that something moved, or with no glance."""
    seen, unmoved = Seen(clock), [True]
    poller.add(seen, ())
    poller.at_rest(seen, lambda: unmoved[0])
    poller.advance(3)
    unmoved[0] = False
    poller.advance(2)
    poller.at_rest(seen, None)
    poller.advance(2)

    assert seen.ticks == [4, 6]


def test_a_removed_one_does_not_rest(clock: FakeClock, poller: DrivenPoller) -> None:
    """What was removed is neither ticked nor glanced at, though it says so too late."""
    seen, glances = Seen(clock), []

    def glance() -> bool:
        glances.append(clock())
        return False

    poller.add(seen, ())
    poller.remove(seen)
    poller.at_rest(seen, glance)
    poller.advance(4)

    assert seen.ticks == glances == []


def test_a_raising_glance_hurts_nobody_else(clock: FakeClock, poller: DrivenPoller) -> None:
    """A glance that raises is reported once, and the others are ticked."""
    broken, sound = Seen(clock, "broken"), Seen(clock)
    poller.add(broken, ())
    poller.add(sound, ())
    poller.at_rest(broken, lambda: 1 // 0 == 0)
    poller.advance(4)

    assert sound.ticks == [2, 4]
    assert poller.told == ["broken: ZeroDivisionError: integer division or modulo by zero"]


def test_ticking_more_often(clock: FakeClock, poller: DrivenPoller) -> None:
    """The shortest tick that is asked for counts from then on; a longer one changes nothing."""
    seen = Seen(clock)
    poller.add(seen, ())
    poller.tick_at_least_every(5)
    poller.advance(3)
    poller.tick_at_least_every(0.5)
    poller.advance(1)

    assert seen.ticks == [2, 3.5, 4]


def test_one_fault_hurts_nobody_else(clock: FakeClock, poller: DrivenPoller) -> None:
    """What one watched one raises is reported once, and the others are called all the same."""
    broken, sound = Seen(clock, "broken"), Seen(clock)
    broken.error = ValueError("x")
    poller.add(broken, ())
    poller.add(sound, ())
    poller.schedule(broken, clock() + 1)
    poller.schedule(sound, clock() + 1)

    poller.advance(21)

    assert len(sound.ticks) == len(broken.ticks) == 10
    assert sound.wakes == [1]
    assert poller.told == ["broken: ValueError: x"]


def test_another_fault_is_told(clock: FakeClock, poller: DrivenPoller) -> None:
    """A fault is told again when it is another one."""
    broken = Seen(clock, "broken")
    poller.add(broken, ())
    for text in ("x", "x", "y"):
        broken.error = ValueError(text)
        poller.advance(2)

    assert poller.told == ["broken: ValueError: x", "broken: ValueError: y"]


def test_a_raising_after_tick_stops_nothing(clock: FakeClock) -> None:
    """A fault of what runs after a tick is told once, and ticks go on."""

    def fail(now: float) -> None:
        raise OSError("disk")

    poller = DrivenPoller(clock, after_tick=fail)
    seen = Seen(clock)
    poller.add(seen, ())

    poller.advance(9)

    assert seen.ticks == [2, 4, 6, 8]
    assert len(poller.told) == 1
    poller.stop()


def test_a_raising_warn_stops_nothing(clock: FakeClock) -> None:
    """The caller's `warn` may raise: the others are still called."""

    def warn(text: str) -> None:
        raise RuntimeError(text)

    poller = Poller(2.0, warn=warn, clock=clock)
    broken, sound = Seen(clock), Seen(clock)
    broken.error = ValueError("x")
    poller._glances = dict.fromkeys((broken, sound), lambda: False)

    poller.tick(clock())

    assert len(sound.ticks) == 1
    poller.stop()


def test_wake_by_descriptor(clock: FakeClock, poller: DrivenPoller, pipe: tuple[int, int]) -> None:
    """A ready descriptor wakes its owner alone, at once, between ticks."""
    owner, other = Seen(clock, reads=pipe[0]), Seen(clock)
    poller.add(owner, [(pipe[0], READ)])
    poller.add(other, ())
    clock.now += 0.5
    os.write(pipe[1], b"x")

    poller.advance(0)

    assert owner.wakes == [0.5]
    assert other.wakes == []


def test_coalesces(clock: FakeClock, poller: DrivenPoller, pipe: tuple[int, int]) -> None:
    """A descriptor that stays ready wakes its owner ten times a second, not more."""
    owner = Seen(clock)
    poller.add(owner, [(pipe[0], READ)])
    os.write(pipe[1], b"x")

    poller.advance(1.0)

    assert 9 <= len(owner.wakes) <= 12
    gaps = [after - before for before, after in zip(owner.wakes[1:], owner.wakes[2:], strict=False)]
    assert min(gaps) >= COALESCE_SECONDS - 1e-6
    assert poller.steps <= 25


def test_a_later_event_is_not_delayed(
    clock: FakeClock, poller: DrivenPoller, pipe: tuple[int, int]
) -> None:
    """After a quiet time a new event wakes its owner at once."""
    owner = Seen(clock, reads=pipe[0])
    poller.add(owner, [(pipe[0], READ)])
    for _ in range(2):
        os.write(pipe[1], b"x")
        poller.advance(1)

    assert owner.wakes == [0, 1]


def test_more_descriptors_later(
    clock: FakeClock, poller: DrivenPoller, pipe: tuple[int, int]
) -> None:
    """`wake_by` adds a descriptor to one that is watched, and none to one that is not."""
    owner, stranger = Seen(clock, reads=pipe[0]), Seen(clock)
    poller.add(owner, ())
    poller.wake_by(stranger, pipe[0], READ)
    os.write(pipe[1], b"x")
    poller.advance(0)
    assert stranger.wakes == []

    poller.wake_by(owner, pipe[0], READ)
    poller.advance(0)

    assert owner.wakes == [0]


def test_muted(clock: FakeClock, poller: DrivenPoller, pipe: tuple[int, int]) -> None:
    """Nothing that a muted descriptor tells wakes, a hang-up included, until it is heard again."""
    out, into = pipe
    owner = Seen(clock)
    poller.add(owner, [(out, READ)])
    os.write(into, b"x")
    poller.advance(0.01)  # it is due again in a moment
    before = len(owner.wakes)
    poller.mute(owner, out, True)
    os.close(into)
    poller.advance(1)
    assert len(owner.wakes) == before

    poller.mute(owner, out, False)
    poller.advance(0)

    assert owner.wakes[before] == 1.01


def test_a_schedule_in_good_time_wakes_nobody(
    clock: FakeClock, poller: DrivenPoller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread is woken for what is due sooner than it looks anyway, and for nothing else."""
    seen, later, woken = Seen(clock), Seen(clock), list[float]()
    monkeypatch.setattr(poller.wakeups, "wake", lambda: woken.append(clock() - 1000))
    poller.add(seen, ())
    poller.add(later, ())
    poller._thread = threading.Thread()  # another than the one that schedules
    poller.advance(0.5)
    poller.schedule(seen, clock() + 0.3)
    poller.advance(0.1)

    poller.schedule(later, clock() + 0.3)
    poller.advance(1)

    assert woken == [0.5]
    assert seen.wakes == [0.8]
    assert later.wakes == [0.9]
    poller._thread = threading.current_thread()


def test_schedule(clock: FakeClock, poller: DrivenPoller) -> None:
    """`schedule` wakes once at its time, and a later request replaces an earlier one."""
    seen = Seen(clock)
    poller.add(seen, ())
    poller.schedule(seen, clock() + 0.3)
    poller.schedule(seen, clock() + 0.7)

    poller.advance(1.5)

    assert seen.wakes == [0.7]
    assert poller.steps == 1


def test_schedule_of_a_stranger(clock: FakeClock, poller: DrivenPoller) -> None:
    """A time that is asked for by one that is not watched any more does nothing."""
    seen = Seen(clock)
    poller.add(seen, ())
    poller.schedule(seen, clock() + 0.3)
    poller.remove(seen)
    poller.schedule(seen, clock() + 0.3)

    poller.advance(5)

    assert seen.wakes == seen.ticks == []


def test_remove_before_close(clock: FakeClock, poller: DrivenPoller, pipe: tuple[int, int]) -> None:
    """After `remove` a descriptor's number may be closed and reused by another watched one."""
    gone, heir = Seen(clock, reads=pipe[0]), Seen(clock, reads=pipe[0])
    out, into = pipe
    poller.add(gone, [(out, READ)])
    os.write(into, b"x")
    poller.advance(0)
    os.write(into, b"x")
    poller.remove(gone)
    os.close(out)
    fresh_out, fresh_into = os.pipe()
    os.dup2(fresh_out, out)
    poller.add(heir, [(out, READ)])
    os.write(fresh_into, b"x")

    poller.advance(0.5)

    assert gone.wakes == [0]
    assert heir.wakes == [0]
    os.close(fresh_out)
    os.close(fresh_into)


def test_a_removal_by_the_woken_one(
    clock: FakeClock, poller: DrivenPoller, pipe: tuple[int, int]
) -> None:
    """One that removes itself while it is called is a normal end."""
    seen = Seen(clock)

    class Ending(Seen):
        def woken(self, now: float) -> None:
            super().woken(now)
            poller.remove(self)

    ending = Ending(clock)
    poller.add(ending, [(pipe[0], READ)])
    poller.add(seen, ())
    os.write(pipe[1], b"x")

    poller.advance(3)

    assert ending.wakes == [0]
    assert ending.ticks == []
    assert seen.ticks == [2]
    assert poller.told == []


def test_falls_asleep_and_wakes(clock: FakeClock, poller: DrivenPoller) -> None:
    """With nothing to watch it ticks on for a while, then waits without a time-out."""
    seen = Seen(clock)
    poller.add(seen, ())
    poller.remove(seen)

    poller.advance(LINGER_SECONDS + 3)
    assert poller._timeout() is None
    before = poller.steps
    poller.advance(1000)
    assert poller.steps == before

    poller.add(seen, ())
    poller.advance(0)

    assert len(seen.ticks) == 1


def test_the_thread_starts_with_the_first(clock: FakeClock, poller: DrivenPoller) -> None:
    """One thread, asked for when there is something to watch and not before."""
    assert poller.starts == 0
    poller.add(Seen(clock), ())
    poller.add(Seen(clock), ())

    assert poller.starts == 1


def test_an_unusable_descriptor_raises(clock: FakeClock, poller: DrivenPoller) -> None:
    """What can't be waited on is the caller's to know; the poller goes on."""
    seen = Seen(clock)
    if sys.platform == "linux":
        with Path(__file__).open("rb") as regular, pytest.raises(OSError, match="permitted"):
            poller.add(seen, [(regular.fileno(), READ)])
    poller.remove(seen)
    poller.add(seen, ())
    poller.advance(2)

    assert seen.ticks == [2]


class Counting:
    """Counts its calls, in the poller's real thread."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.thread: threading.Thread | None = None
        self.blocked: set[int] = set()

    def tick(self, now: float) -> None:
        """A tick."""
        self.woken(now)

    def woken(self, now: float) -> None:
        """Remember where it was called."""
        self.thread = threading.current_thread()
        self.blocked = {int(signum) for signum in signal.pthread_sigmask(signal.SIG_BLOCK, ())}
        self.called.set()


def test_the_real_thread() -> None:
    """The real thread calls, takes none of the host's signals, and ends with `stop`."""
    poller = Poller(60.0, warn=print)
    counting = Counting()
    poller.add(counting, ())
    poller.schedule(counting, time.monotonic())

    assert counting.called.wait(PATIENCE)
    assert counting.thread is not None
    assert counting.thread.daemon
    assert signal.SIGINT in counting.blocked
    assert signal.SIGTERM in counting.blocked

    poller.stop()

    assert not counting.thread.is_alive()


def test_stop_leaves_nothing() -> None:
    """Neither threads nor descriptors stay after `stop`, whether it was used, once or twice."""
    threads = threading.active_count()
    descriptors = len(open_descriptors())
    for use in (False, True) * 10:
        poller = Poller(60.0, warn=print)
        if use:
            poller.add(Counting(), ())
        poller.stop()
        poller.stop()

    assert threading.active_count() == threads
    assert len(open_descriptors()) == descriptors


def test_calls_after_stop_do_nothing(pipe: tuple[int, int]) -> None:
    """A late `schedule` or `remove` after `stop` is no error."""
    poller = Poller(60.0, warn=print)
    counting = Counting()
    poller.add(counting, [(pipe[0], READ)])
    poller.stop()

    poller.schedule(counting, time.monotonic())
    poller.remove(counting)


def test_added_and_removed_by_many_threads() -> None:
    """Threads that add, schedule and remove at once never stop the poller's thread."""
    told: list[str] = []
    poller = Poller(0.001, warn=told.append)

    def churn() -> None:
        for _ in range(200):
            out, into = os.pipe()
            watched = Counting()
            poller.add(watched, [(out, READ)])
            os.write(into, b"x")
            poller.schedule(watched, time.monotonic())
            poller.remove(watched)
            os.close(out)
            os.close(into)

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = Counting()
    poller.add(last, ())

    assert last.called.wait(PATIENCE)
    assert told == []
    poller.stop()


def test_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, `add` says so, and a later one tries again."""
    poller = Poller(60.0, warn=print)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            poller.add(Counting(), ())
    counting = Counting()
    poller.add(counting, ())
    poller.schedule(counting, time.monotonic())

    assert counting.called.wait(PATIENCE)
    poller.stop()


def test_imports_little() -> None:
    """The poller costs no asyncio: its import is paid by every host program."""
    code = (
        "import sys, cgmem.supervising.poller;"
        " print(sorted({'asyncio', 'logging'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert found.stdout == "[]\n"
