"""Callers' callbacks: in order, off the caller's thread, whatever they do."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from cgmem.supervising.callbacks import Callbacks
from tests.helpers.waiting import PATIENCE, until


@pytest.fixture
def told() -> list[str]:
    """What was warned of."""
    return []


@pytest.fixture
def callbacks(told: list[str]) -> Iterator[Callbacks]:
    """With a time limit that a loaded machine does not come near."""
    made = Callbacks(told.append, time_limit=PATIENCE)
    yield made
    made.close(PATIENCE)


def test_in_order_on_one_other_thread(callbacks: Callbacks) -> None:
    """Callbacks run one after the other, in their order, not on the caller's thread."""
    seen: list[tuple[int, threading.Thread]] = []
    for number in range(200):
        callbacks.call(lambda number=number: seen.append((number, threading.current_thread())))

    assert until(lambda: len(seen) == 200)
    assert [number for number, _ in seen] == list(range(200))
    assert len({thread for _, thread in seen}) == 1
    assert seen[0][1] is not threading.current_thread()


def test_no_thread_before_the_first(callbacks: Callbacks) -> None:
    """Who passes no callback pays for no thread."""
    assert "cgmem-callbacks" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
def test_errors_are_told(callbacks: Callbacks, told: list[str], error: BaseException) -> None:
    """What a callback raises, SystemExit included, is told, and the next one runs."""

    def bad() -> None:
        raise error

    ran = threading.Event()
    callbacks.call(bad)
    callbacks.call(ran.set)

    assert ran.wait(PATIENCE)
    assert len(told) == 1
    assert type(error).__name__ in told[0]
    assert "bad" in told[0]


def test_a_hang_holds_up_nobody(told: list[str]) -> None:
    """After the time limit the next callbacks get another thread; the hung one may end later."""
    callbacks = Callbacks(told.append, time_limit=0.05)
    release, ran = threading.Event(), threading.Event()

    def hang() -> None:
        release.wait(PATIENCE)

    callbacks.call(hang)
    callbacks.call(ran.set)

    assert ran.wait(PATIENCE)
    assert "hang" in told[0]
    release.set()

    again = threading.Event()
    callbacks.call(again.set)

    assert again.wait(PATIENCE)
    named = "cgmem-callbacks"
    assert until(lambda: [thread.name for thread in threading.enumerate()].count(named) == 1)
    callbacks.close(PATIENCE)


def test_a_flood_is_bounded(callbacks: Callbacks, told: list[str]) -> None:
    """Behind a hang the backlog is bounded: what is dropped is told, and `call` never blocks."""
    release = threading.Event()
    callbacks.call(release.wait, PATIENCE)
    for _ in range(1100):
        callbacks.call(int)

    assert any("dropped" in text for text in told)
    release.set()


def test_close_runs_what_waits_and_ends_the_thread(callbacks: Callbacks) -> None:
    """`close` lets everything so far run; no thread stays."""
    seen: list[int] = []
    for number in range(50):
        callbacks.call(seen.append, number)

    callbacks.close(PATIENCE)

    assert seen == list(range(50))
    assert until(lambda: "cgmem-callbacks" not in {t.name for t in threading.enumerate()})


def test_close_does_not_wait_for_ever() -> None:
    """A callback that hangs delays `close` by its timeout alone."""
    release = threading.Event()
    callbacks = Callbacks(lambda _: None)
    ended: list[bool] = []
    callbacks.call(lambda: ended.append(release.wait()))

    callbacks.close(0.05)

    assert ended == []
    release.set()


def test_usable_after_close(callbacks: Callbacks) -> None:
    """A closed one begins again with the next callback."""
    callbacks.call(int)
    callbacks.close(PATIENCE)
    ran = threading.Event()
    callbacks.call(ran.set)

    assert ran.wait(PATIENCE)


def test_no_thread_left(
    callbacks: Callbacks, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can start (the interpreter shuts down) `call` tells, and does not raise."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        callbacks.call(int)

    assert "can't start new thread" in told[0]


def test_runs_without_a_watchdog(callbacks: Callbacks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the thread that watches for hangs can't start, the callback runs all the same."""
    callbacks.call(int)
    ran = threading.Event()

    def refuse(self: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Timer, "start", refuse, raising=False)
        callbacks.call(ran.set)

        assert ran.wait(PATIENCE)


def test_signals_are_not_blocked(told: list[str]) -> None:
    """A callback that was called from the poller's thread can start programs that obey SIGTERM."""
    callbacks = Callbacks(told.append)
    masks: list[set[int]] = []

    def call_with_all_blocked() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        callbacks.call(lambda: masks.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))))

    thread = threading.Thread(target=call_with_all_blocked)
    thread.start()
    thread.join()
    callbacks.close(PATIENCE)

    assert masks == [signal.pthread_sigmask(signal.SIG_BLOCK, ())]
