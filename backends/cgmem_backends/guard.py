"""Lets go of brake and freeze when the supervisor has died, so that the hard limit decides.

One shell per supervisor, blocked on a pipe whose other end only the supervisor holds. It reads the
end of file once that is gone, however it went, and then lifts memory.high and cgroup.freeze of the
scopes. A line on the pipe means that all is well, and it ends. memory.max stays as it is.
Does not cover: where scopes are made; it gets their directory and the beginning of their names.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from cgmem.errors import CgmemError, CgroupError
from cgmem_backends import kernel_files as kf
from cgmem_backends.placement import Placement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREFIX = "cgmem-guard-"
"""How the names of the guards' cgroups begin; the supervisor's pid and a number follow."""

CLOSE_SECONDS = 5.0
"""How long `close` waits at most, for the guard to stand and to be gone. It takes milliseconds."""

_SHELL = "/bin/sh"

# $1: the scope's path and $2 nothing, or the beginning of several paths and a star.
# $3: the cgroup.procs to enter, or nothing.
# Descriptor 3, as a shell gives what it starts with & an empty standard input.
_SCRIPT = """
trap '' HUP INT QUIT PIPE ALRM TERM USR1 USR2 TSTP TTIN TTOU
exec 3<&0 < /dev/null
if [ -n "$3" ]; then echo 0 > "$3"; fi
{
    read -r goodbye <&3 && exit
    for scope in "$1"$2/; do
        echo max > "${scope}memory.high"
        echo 0 > "${scope}cgroup.freeze"
    done
} &
"""

_numbers = itertools.count(1)


class Guard:
    """One guard process for the scopes of this process in one directory. Thread-safe.

    It is no child of this process, so nobody who waits for children meets it; it is in a session
    and a cgroup of its own, and keeps nothing open but the pipe.
    """

    def __init__(
        self,
        placement: Placement,
        *,
        shell: str = _SHELL,
        mkdir: Callable[[Path], None] = os.mkdir,
        rmdir: Callable[[Path], None] = os.rmdir,
    ) -> None:
        self._placement = placement
        self.warn: Callable[[str], None] = lambda _text: None
        self._shell = shell
        self._mkdir = mkdir
        self._rmdir = rmdir
        self._begin_idle()
        _guards.add(self)

    def _begin_idle(self) -> None:
        self._lock = threading.Lock()
        self._asked = False
        self._write_fd: int | None = None
        self._leaf: Path | None = None
        self._starter: threading.Thread | None = None

    def start(self, base: Path, scopes: str) -> None:
        """Start it, unless that was done. Returns at once; `warn` is told if it fails.

        `scopes` names what it will see to in `base`: one cgroup, or all whose names begin so and
        then a `*`.
        """
        if not self._asked:  # the common case costs no lock
            with self._lock:
                asked_meanwhile, self._asked = self._asked, True
                if not asked_meanwhile:
                    self._start_in_thread(base, scopes)

    def close(self) -> None:
        """Send it away and remove its cgroup. A later `start` starts another."""
        with self._lock:
            starter, self._starter = self._starter, None
            if starter is not None:
                starter.join(CLOSE_SECONDS)
            write_fd, self._write_fd = self._write_fd, None
            if write_fd is not None:
                _say_goodbye(write_fd)
            self._asked = False
            leaf, self._leaf = self._leaf, None
        if leaf is not None:
            self._remove(leaf, CLOSE_SECONDS)

    def abandon(self) -> None:
        """Be to the guard as if this process had died, once it stands. It stays to be closed."""
        with self._lock:
            if self._starter is not None:
                self._starter.join(CLOSE_SECONDS)
            write_fd, self._write_fd = self._write_fd, None
            if write_fd is not None:
                os.close(write_fd)

    def after_fork_in_child(self) -> None:
        """Give up the copy of the pipe's end: this process's life is not the supervisor's."""
        if self._write_fd is not None:
            os.close(self._write_fd)
        self._begin_idle()

    def __del__(self) -> None:
        # Nobody closed it. Its backend's scopes have ended, other backends' here may live.
        if self._write_fd is not None:
            _say_goodbye(self._write_fd)

    def _start_in_thread(self, base: Path, scopes: str) -> None:
        try:
            read_fd, self._write_fd = os.pipe()
        except OSError as error:
            self._failed(error)
            return
        starter = threading.Thread(
            target=self._start,
            args=(base, scopes, read_fd),
            name="cgmem-guard-start",
            daemon=True,
        )
        try:
            starter.start()
        except RuntimeError as error:  # no thread to be had
            os.close(read_fd)
            self._failed(error)
        else:
            self._starter = starter

    def _start(self, base: Path, scopes: str, read_fd: int) -> None:
        # Signals are for the host program's own threads, and the guard inherits this.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._leaf = self._make_leaf(base)
            starter = self._spawn(self._leaf, base, scopes, read_fd)
            # Short-lived: the guard is its child, and an orphan as soon as it has ended.
            status = starter.wait()
            if status:
                raise ChildProcessError(errno.ECHILD, f"{self._shell} ended with status {status}")
        except (CgmemError, OSError, subprocess.SubprocessError, ImportError) as error:
            self._failed(error)
        finally:
            os.close(read_fd)

    def _spawn(self, leaf: Path, base: Path, scopes: str, read_fd: int) -> subprocess.Popen[Any]:
        placed = self._placement.method == "posix_spawn" or self._placement.attaches
        # Entering by a write costs the machine a pause of its forks, starting an interpreter for
        # it costs more.
        enter = "" if placed else f"{leaf}/{kf.PROCS}"
        name, star, _ = scopes.partition("*")
        command = [self._shell, "-c", _SCRIPT, "cgmem-guard", f"{base}/{name}", star, enter]
        options: dict[str, Any] = {
            "stdin": read_fd,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            "cwd": "/",
            "env": {},
            "start_new_session": True,
        }
        if not placed:
            return subprocess.Popen(command, **options)
        leaf_fd = os.open(leaf, getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return self._placement.start(command, options, cgroup_path=str(leaf), cgroup_fd=leaf_fd)
        except CgroupError:  # not allowed to put it there; it can do its work from here
            return subprocess.Popen(command, **options)
        finally:
            os.close(leaf_fd)

    def _make_leaf(self, base: Path) -> Path:
        for number in _numbers:
            leaf = base / f"{PREFIX}{os.getpid()}-{number}"
            with suppress(FileExistsError):  # left by an earlier process with our pid
                self._mkdir(leaf)
                return leaf
        raise AssertionError("unreachable: the numbers never end")

    def _failed(self, error: Exception) -> None:
        write_fd, self._write_fd = self._write_fd, None
        if write_fd is not None:
            os.close(write_fd)
        leaf, self._leaf = self._leaf, None
        if leaf is not None:
            self._remove(leaf, 0.0)
        self.warn(
            f"no guard could be started ({error}): if this process is killed, memory.high and a"
            " freeze of its subprocesses stay in force"
        )

    def _remove(self, leaf: Path, seconds: float) -> None:
        deadline, pause = time.monotonic() + seconds, 0.0002
        while True:
            try:
                self._rmdir(leaf)
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    return  # gone already, or left for a later clean-up
            else:
                return
            time.sleep(pause)
            pause = min(2 * pause, 0.02)


def _say_goodbye(write_fd: int) -> None:
    # Without a reader somebody has killed the guard. Writing would be SIGPIPE, the end of a host
    # program that does not ignore it.
    reader = select.poll()
    reader.register(write_fd, 0)
    if not reader.poll(0):
        with suppress(OSError):
            os.write(write_fd, b"\n")
    os.close(write_fd)


_guards: WeakSet[Guard] = WeakSet()


def _after_fork_in_child() -> None:
    for guard in tuple(_guards):
        guard.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
