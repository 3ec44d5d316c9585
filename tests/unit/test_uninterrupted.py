"""Short steps that a Ctrl-C must not cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from cgmem.supervising import uninterrupted as module
from cgmem.supervising.uninterrupted import uninterrupted


def test_a_ctrl_c_waits_for_the_end_of_the_block() -> None:
    """It is not lost: it comes right after."""
    done = []

    def interrupted() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["all of it"]


def test_a_signal_just_before_leaves_nothing_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocking can itself raise, with the mask changed: it is as it was all the same."""

    def held() -> Iterator[int]:
        yield signal.SIGINT
        signal.raise_signal(signal.SIGINT)  # the handler runs here, or as the mask is set

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(module, "_HELD_BACK", held())
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def interrupted() -> None:
        with uninterrupted():
            pass

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == masked


def test_what_was_held_back_before_stays_so() -> None:
    """A caller's own mask is as it was."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with uninterrupted():
            pass
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | {signal.SIGTERM}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_other_threads_run_no_handlers() -> None:
    """So their masks are left alone."""
    masks: list[object] = []

    def look() -> None:
        with uninterrupted():
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    other = threading.Thread(target=look)
    other.start()
    other.join()

    assert masks == [signal.pthread_sigmask(signal.SIG_BLOCK, ())]
