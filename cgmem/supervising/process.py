"""A supervised subprocess in the caller's hands: subprocess.Popen's methods, and the outcome."""

from __future__ import annotations

import os
import select
import subprocess
import time
from math import ceil
from types import TracebackType

from cgmem.contract import Level
from cgmem.errors import CgmemError
from cgmem.supervising.main_process import READABLE, exit_descriptor
from cgmem.supervising.outcome import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    from cgmem.supervising.supervision import Supervision
    from cgmem.supervising.unsupervised import Unsupervised


_LONGEST_POLL_MS = 2**31 - 1


class MonitoredProcess:
    """A process that was started under a budget. Feels like subprocess.Popen.

    The process's end is as Popen tells it; `outcome()` adds why, and waits until everything that
    it left behind is gone too.
    """

    def __init__(
        self, popen: subprocess.Popen[Any], supervision: Supervision | Unsupervised
    ) -> None:
        self.popen = popen
        self.supervision = supervision

    # --- what Popen has

    @property
    def args(self) -> Any:
        """The command as it was given."""
        return self.popen.args

    @property
    def pid(self) -> int:
        """Process id of the main process."""
        return self.popen.pid

    @property
    def stdin(self) -> IO[Any] | None:
        """The pipe to the standard input, where one was asked for."""
        return self.popen.stdin

    @property
    def stdout(self) -> IO[Any] | None:
        """The pipe from the standard output, where one was asked for."""
        return self.popen.stdout

    @property
    def stderr(self) -> IO[Any] | None:
        """The pipe from the standard error, where one was asked for."""
        return self.popen.stderr

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal, None while it runs (see `poll`)."""
        return self.popen.returncode

    def poll(self) -> int | None:
        """Return the exit status if the process has ended, else None."""
        returncode: int | None = self.popen.poll()
        if returncode is not None:
            self.supervision.left()
        return returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the main process and return its status. Raises subprocess.TimeoutExpired."""
        with self.supervision.awaited():
            if timeout is not None:
                self._wait_for_exit(timeout)
            returncode: int = self.popen.wait()
        self.supervision.left()
        return returncode

    def communicate(
        self,
        input: Any = None,  # noqa: A002  (as Popen)
        timeout: float | None = None,
    ) -> tuple[Any, Any]:
        """Send `input`, read both pipes to their ends, wait. Raises subprocess.TimeoutExpired.

        What holds a pipe open once the main process has ended is killed, unless it may stay
        (`keep`).
        """
        self.supervision.idle()
        streams = self.popen.communicate(input, timeout)
        self.supervision.left()
        return streams

    def send_signal(self, signum: int) -> None:
        """Send a signal to the main process. Nothing happens once it has ended."""
        self.popen.send_signal(signum)

    def terminate(self) -> None:
        """Send SIGTERM to the main process."""
        self.popen.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the main process; see `abort` for the whole group."""
        self.popen.kill()

    def __enter__(self) -> MonitoredProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.popen.__exit__(kind, value, traceback)
        self.supervision.left()

    # --- what a budget adds

    @property
    def subprocess_id(self) -> str:
        """The id under which it is logged and shown."""
        return self.supervision.subprocess_id

    @property
    def level(self) -> Level:
        """OK, WARNING, CRITICAL or ABORTED, as last judged."""
        return self.supervision.level

    def check_memory(self) -> tuple[float, Level]:
        """Look now: (judged MB, level)."""
        return self.supervision.check()

    def abort(self, grace_seconds: float | None = None) -> None:
        """End the whole group: SIGTERM, `grace_seconds` (default: the setting), SIGKILL."""
        self.supervision.abort("abort", grace_seconds)

    def outcome(self, timeout: float | None = None) -> Outcome:
        """Wait for the end of the main process and of its leftovers; say how it ended.

        Raises subprocess.TimeoutExpired after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self.supervision.ended.is_set():
            self._wait_to_settle(timeout)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self.supervision.ended.wait(left):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        outcome = self.supervision.outcome
        if outcome is None:
            raise CgmemError(
                f"subprocess {self.subprocess_id} belongs to the process that started it, and this"
                " one was forked from it",
                hint="ask for the outcome there",
            )
        return outcome

    def _wait_to_settle(self, timeout: float | None) -> None:
        with self.supervision.awaited():
            if timeout is not None:
                self._wait_for_exit(timeout)
            self.popen.wait()
        try:
            self.supervision.settle()
        except BaseException:  # interrupted: it is the poller's to do
            self.supervision.left()
            raise

    def _wait_for_exit(self, timeout: float) -> None:
        """Wait on a pidfd, to the millisecond; Popen.wait would look every 50 ms."""
        if self.popen.poll() is not None:
            return
        descriptor = exit_descriptor(self.pid)
        if descriptor is None:
            self.popen.wait(timeout)
            return
        try:
            waiter = select.poll()
            waiter.register(descriptor, READABLE)
            # poll(2) takes a C int: more than 24 days are as good as for ever.
            if not waiter.poll(ceil(min(max(0.0, timeout * 1000), _LONGEST_POLL_MS))):
                raise subprocess.TimeoutExpired(self.args, timeout)
        finally:
            os.close(descriptor)
