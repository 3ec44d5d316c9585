"""Run a booted guest to its end: copy its output, watch its clock, stop it when asked."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from . import host
from .errors import GuestError, GuestStoppedError
from .qemu import Machine, qemu_argv

#: Emulated, on a busy host, a boot has been seen to take a minute.
BOOT_SECONDS = 300.0
TICK_SECONDS = 0.05
STARTED = b"cgmem-guest: the job starts"

Sink = Callable[[bytes], None]


@dataclass
class Follower:
    """Reads what a growing file has gained."""

    path: Path
    _handle: BinaryIO | None = None

    def read(self) -> bytes:
        """Return the bytes that came since the last call."""
        if self._handle is None:
            if not self.path.exists():
                return b""
            self._handle = self.path.open("rb")
        return self._handle.read()

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            self._handle.close()


@dataclass
class Run:
    """One guest from power-on to power-off."""

    machine: Machine
    sink: Sink
    timeout: float
    stop: threading.Event
    boot_seconds: float | None = None
    _console_tail: bytes = b""
    _began: float = field(default_factory=time.monotonic)

    def to_the_end(self) -> None:
        """Boot and copy the job's output to the sink until the guest has powered off.

        Raises GuestError when the guest is too slow to boot or to finish, or was told to stop.
        QEMU has ended when this returns or raises, whatever happened.
        """
        argv = qemu_argv(self.machine)
        setpriv = host.find("setpriv") or "setpriv"
        # Our own death must not leave a guest behind that eats a core for hours.
        argv = [setpriv, "--pdeathsig", "KILL", "--", host.find(argv[0]) or argv[0], *argv[1:]]
        console, live = Follower(self.machine.console), Follower(self.machine.live)
        log = self.machine.console.with_name("qemu.log")
        with log.open("wb") as errors:
            # A group of its own: Ctrl-C reaches us, and we stop the guest.
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True
            )
        try:
            self._watch(process, console, live)
        finally:
            process.kill()
            process.wait()
            console.close()
            live.close()
        if process.returncode:
            raise GuestError(f"QEMU failed ({process.returncode}): {host.last_lines(log, 5)}")

    def _watch(self, process: subprocess.Popen[bytes], console: Follower, live: Follower) -> None:
        ended = False
        while not ended:
            ended = process.poll() is not None  # before the read: what came last is not missed
            self._look_for_start(console)
            gained = live.read()
            if gained:
                self.sink(gained)
            if not ended:
                self._check_clock()
                time.sleep(TICK_SECONDS)

    def _look_for_start(self, console: Follower) -> None:
        if self.boot_seconds is None:
            self._console_tail = (self._console_tail + console.read())[-4096:]
            if STARTED in self._console_tail:
                self.boot_seconds = time.monotonic() - self._began

    def _check_clock(self) -> None:
        if self.stop.is_set():
            raise GuestStoppedError("stopped")
        elapsed = time.monotonic() - self._began
        if self.boot_seconds is None and elapsed > BOOT_SECONDS:
            raise GuestError(f"the guest has not started the job after {BOOT_SECONDS:.0f} s")
        if elapsed > self.timeout:
            raise GuestError(f"the guest was stopped: not done after {self.timeout:.0f} s")
