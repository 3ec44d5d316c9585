"""Waiting for descriptors: epoll, and poll where there is no epoll."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cgmem.supervising import wakeups as module
from cgmem.supervising.wakeups import READ, Wakeups
from tests.helpers.proc import open_descriptors

PATIENCE = 20.0

Pipe = tuple[int, int]


@pytest.fixture(params=["default", "poll"])
def wakeups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wakeups]:
    """Both sets: this platform's, and the one of platforms without epoll."""
    if request.param == "poll":
        monkeypatch.setattr(module, "_new_set", module._PollSet)
    made = Wakeups()
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[Callable[[], Pipe]]:
    """Makes pipes, (read end, write end), and closes what a test left open."""
    made: list[int] = []

    def make() -> Pipe:
        ends = os.pipe()
        made.extend(ends)
        return ends

    yield make
    for descriptor in made:
        try:
            os.close(descriptor)
        except OSError:
            continue


def test_reports_once_until_rearmed(wakeups: Wakeups, pipe: Callable[[], Pipe]) -> None:
    """A ready descriptor is reported once, and again only after `rearm`."""
    out, into = pipe()
    wakeups.add(out, READ)
    os.write(into, b"x")

    assert wakeups.wait(PATIENCE) == [out]
    assert wakeups.wait(0) == []

    wakeups.rearm(out, READ)

    assert wakeups.wait(PATIENCE) == [out]


def test_hang_up_is_reported_once(wakeups: Wakeups, pipe: Callable[[], Pipe]) -> None:
    """The other end's close, which poll(2) reports whatever the mask, does not make it spin."""
    out, into = pipe()
    wakeups.add(out, READ)
    os.close(into)

    assert wakeups.wait(PATIENCE) == [out]
    assert wakeups.wait(0) == []


def test_remove(wakeups: Wakeups, pipe: Callable[[], Pipe]) -> None:
    """A removed descriptor is silent, whatever happens to it, until it is added again."""
    out, into = pipe()
    wakeups.add(out, READ)
    wakeups.remove(out)
    wakeups.remove(out)
    os.write(into, b"x")
    os.close(into)
    assert wakeups.wait(0) == []

    wakeups.add(out, READ)

    assert wakeups.wait(PATIENCE) == [out]


def test_add_during_a_wait(wakeups: Wakeups, pipe: Callable[[], Pipe]) -> None:
    """A descriptor that another thread adds ends a wait that is under way."""
    out, into = pipe()
    os.write(into, b"x")
    found: list[int] = []

    def wait() -> None:
        deadline = time.monotonic() + PATIENCE
        while not found and time.monotonic() < deadline:
            found.extend(wakeups.wait(PATIENCE))

    waiter = threading.Thread(target=wait)
    waiter.start()
    wakeups.add(out, READ)
    waiter.join(PATIENCE)

    assert found == [out]


def test_wake_ends_a_wait_and_reports_nothing(wakeups: Wakeups) -> None:
    """`wake` makes `wait` return with nothing ready, however often it was called."""
    for _ in range(100_000 if isinstance(wakeups._set, module._PollSet) else 10):
        wakeups.wake()

    assert wakeups.wait(None) == []


def test_wake_works_again_and_again(wakeups: Wakeups) -> None:
    """The waker is rearmed by the wait that it ends."""
    for _ in range(3):
        wakeups.wake()

        assert wakeups.wait(None) == []


def test_wait_keeps_its_time(wakeups: Wakeups) -> None:
    """Less than a millisecond is still waited for, so that a caller's loop does not spin."""
    began = time.monotonic()
    wakeups.wait(0.0004)

    assert time.monotonic() - began >= 0.0004


def test_a_closed_descriptor_is_forgotten(wakeups: Wakeups, pipe: Callable[[], Pipe]) -> None:
    """A descriptor that was closed may be rearmed without an error, and ends no later wait."""
    out, into = pipe()
    wakeups.add(out, READ)
    os.write(into, b"x")
    assert wakeups.wait(PATIENCE) == [out]
    os.close(out)

    wakeups.rearm(out, READ)
    wakeups.wait(0)

    assert wakeups.wait(0) == []


def test_others_are_still_reported_after_a_close(
    wakeups: Wakeups, pipe: Callable[[], Pipe]
) -> None:
    """One closed descriptor does not hide another that is ready."""
    closed, _ = pipe()
    out, into = pipe()
    wakeups.add(closed, READ)
    wakeups.add(out, READ)
    os.close(closed)
    os.write(into, b"x")

    assert out in wakeups.wait(PATIENCE)


def test_nothing_is_written_after_close(wakeups: Wakeups) -> None:
    """`wake` after `close` must not write into a stranger's descriptor of the same number."""
    waker = wakeups._waker_in
    out, into = os.pipe()
    os.set_blocking(out, False)
    wakeups.close()
    stranger = os.dup2(into, waker)
    try:
        wakeups.wake()

        with pytest.raises(BlockingIOError):
            os.read(out, 1)
    finally:
        for descriptor in (out, into, stranger):
            os.close(descriptor)


def test_close_gives_up_every_descriptor() -> None:
    """Opening and closing many leaves no descriptor behind, also when closed twice."""
    before = len(open_descriptors())
    for _ in range(50):
        made = Wakeups()
        made.close()
        made.close()

    assert len(open_descriptors()) == before


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="epoll is Linux's")
def test_an_unusable_descriptor_is_refused() -> None:
    """A descriptor that can't be waited on raises OSError, for the caller to do without."""
    made = Wakeups()
    with Path(__file__).open("rb") as regular, pytest.raises(OSError, match="not permitted"):
        made.add(regular.fileno(), READ)
    made.close()
