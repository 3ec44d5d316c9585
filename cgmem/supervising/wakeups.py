"""Waiting for kernel events with a time-out: epoll on Linux, poll elsewhere.

Any thread may add a descriptor while the one waiter waits.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from contextlib import suppress
from math import ceil

from cgmem.shapes import Protocol

READ = getattr(select, "POLLIN", 0x1)


class Wakeups:
    """Descriptors to wait on. Each is reported once and then silent until `rearm`."""

    def __init__(self) -> None:
        self._waker_out, self._waker_in = os.pipe()
        for descriptor in (self._waker_out, self._waker_in):
            os.set_blocking(descriptor, False)
        self._lock = threading.Lock()
        self._closed = False
        self._set = _new_set()
        self._set.add(self._waker_out, READ)

    def add(self, descriptor: int, mask: int) -> None:
        """Start to wait for `mask` (poll(2) events) on a descriptor."""
        self._set.add(descriptor, mask)
        if not self._set.sees_additions:
            self.wake()

    def rearm(self, descriptor: int, mask: int) -> None:
        """Report the descriptor again. One that was closed meanwhile is forgotten."""
        with suppress(OSError):
            self._set.rearm(descriptor, mask)

    def remove(self, descriptor: int) -> None:
        """Stop to wait for a descriptor that is open.

        A mask of 0 would not do: what matters most is told whatever the mask, EPOLLHUP of a pidfd
        whose process was waited for, EPOLLERR of a cgroup's file (epoll_ctl(2)).
        """
        with suppress(OSError, KeyError):  # closed or removed meanwhile
            self._set.remove(descriptor)

    def wake(self) -> None:
        """Make `wait` return now."""
        with self._lock, suppress(BlockingIOError):  # full: it will wake anyway
            if not self._closed:  # else the number may be somebody else's descriptor by now
                os.write(self._waker_in, b"\0")

    def wait(self, timeout: float | None) -> list[int]:
        """Wait at most `timeout` seconds (None: for ever) and return the ready descriptors."""
        ready = self._set.wait(timeout)
        if self._waker_out in ready:
            ready.remove(self._waker_out)
            with suppress(BlockingIOError):
                os.read(self._waker_out, 4096)
            self._set.rearm(self._waker_out, READ)
        return ready

    def after_fork_in_child(self) -> None:
        """Give up the copies; the parent process goes on with its own."""
        self._lock = threading.Lock()  # a thread that is not here may have held it
        self.close()

    def close(self) -> None:
        """Give up every descriptor of our own."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._set.close()
            os.close(self._waker_out)
            os.close(self._waker_in)


class _Set(Protocol):
    """A set of descriptors to wait on, each reported once until it is rearmed."""

    sees_additions: bool
    """What another thread adds reaches a `wait` that is under way."""

    def add(self, descriptor: int, mask: int) -> None: ...
    def rearm(self, descriptor: int, mask: int) -> None: ...
    def remove(self, descriptor: int) -> None: ...
    def wait(self, timeout: float | None) -> list[int]: ...
    def close(self) -> None: ...


class _PollSet:
    sees_additions = False

    def __init__(self) -> None:
        self._poll = select.poll()

    def add(self, descriptor: int, mask: int) -> None:
        self._poll.register(descriptor, mask)

    def rearm(self, descriptor: int, mask: int) -> None:
        self._poll.register(descriptor, mask)

    def remove(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)

    def wait(self, timeout: float | None) -> list[int]:
        milliseconds = None if timeout is None else max(0, ceil(timeout * 1000))
        ready = [descriptor for descriptor, _ in self._poll.poll(milliseconds)]
        for descriptor in ready:
            # With a mask of 0 poll(2) still reports POLLHUP and POLLNVAL, again and again.
            with suppress(KeyError):  # removed during the wait
                self._poll.unregister(descriptor)
        return ready

    def close(self) -> None:
        """Nothing is held."""


if sys.platform == "linux":

    class _EpollSet:
        sees_additions = True

        def __init__(self) -> None:
            self._epoll = select.epoll()

        def close(self) -> None:
            self._epoll.close()

        def add(self, descriptor: int, mask: int) -> None:
            self._epoll.register(descriptor, mask | select.EPOLLONESHOT)

        def rearm(self, descriptor: int, mask: int) -> None:
            self._epoll.modify(descriptor, mask | select.EPOLLONESHOT)

        def remove(self, descriptor: int) -> None:
            self._epoll.unregister(descriptor)

        def wait(self, timeout: float | None) -> list[int]:
            return [descriptor for descriptor, _ in self._epoll.poll(timeout)]

    def _new_set() -> _Set:
        return _EpollSet()

else:

    def _new_set() -> _Set:
        return _PollSet()
