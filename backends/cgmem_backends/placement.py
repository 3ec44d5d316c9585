"""How a child gets inside a cgroup before its first instruction: two roads, chosen once.

posix_spawn with a cgroup (glibc 2.39, clone3) where a probe child proved it; else, and for the
Popen arguments that posix_spawn can't honour, the exec trampoline. Never preexec_fn of our own:
it is unsafe with threads and forces a fork of the whole parent.
See also: placed_popen (the first road), trampoline_start (the second).
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cgmem.shapes import NamedTuple
from cgmem_backends.hierarchy import parse_own_cgroup
from cgmem_backends.start_errors import cgroup_refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen
    from typing import Any, Literal, TypeAlias

    from cgmem_backends.spawn_attr import SpawnLibrary
    from cgmem_backends.subtree_source import Attach

Method: TypeAlias = "Literal['posix_spawn', 'trampoline']"

_CGROUP_AT_FAULT = frozenset({errno.EACCES, errno.EBUSY, errno.ENOENT, errno.ENODEV})
_NO_RESOURCES = frozenset({errno.EAGAIN, errno.ENOMEM})


class _Choice(NamedTuple):
    method: Method
    reason: str
    settled: bool
    """No probe is due."""
    library: SpawnLibrary | None = None


def load_library() -> SpawnLibrary | str:
    """Bind posix_spawn with a cgroup, or say why this process can't have it."""
    version = _glibc_version()
    if version is None:
        return "the C library is not glibc"
    if version < (2, 39):
        found = ".".join(map(str, version))
        return f"glibc {found} has no posix_spawnattr_setcgroup_np (2.39 has)"
    # ctypes costs memory and time that an older glibc need not pay.
    import ctypes

    from cgmem_backends.execute_child import signature_matches
    from cgmem_backends.spawn_attr import SpawnLibrary

    if not signature_matches():
        return "this Python's Popen._execute_child has other parameters than CPython 3.11-3.14"
    try:
        return SpawnLibrary(ctypes.CDLL(None))
    except AttributeError as error:
        return f"the C library lacks a function: {error}"


_NOT_OURS_TO_ENTER = "this process may not put others into the family scope: systemd does"


class Placement:
    """The choice of road, for one process's life. Safe to use from several threads."""

    def __init__(self, load: Callable[[], SpawnLibrary | str] = load_library) -> None:
        self._load = load
        self._attach: Attach | None = None
        self._lock = threading.Lock()
        self._chosen: _Choice | None = None

    @property
    def method(self) -> Method:
        """The road that a plain start takes."""
        return self._choice().method

    def attach_by(self, attach: Attach) -> None:
        """From now on `attach` puts each child in, while the trampoline waits for it.

        It may block, and raises `BackendUnavailable` or `ScopeVanished`.
        """
        self._attach = attach
        self._chosen = _Choice("trampoline", _NOT_OURS_TO_ENTER, settled=True)

    @property
    def attaches(self) -> bool:
        """Whether `attach_by` was called."""
        return self._attach is not None

    @property
    def reason(self) -> str:
        """Why that road, in one clause."""
        return self._choice().reason

    def start(
        self,
        args: Any,
        options: Mapping[str, Any],
        *,
        cgroup_path: str,
        cgroup_fd: int,
    ) -> Popen[Any]:
        """Start `args` inside the cgroup; returns after exec.

        `cgroup_path` is the directory's absolute path, `cgroup_fd` an O_PATH|O_DIRECTORY
        descriptor of it. Arguments and errors are subprocess.Popen's; also raises
        `ScopeVanished`, `CgroupError`, and `BackendUnavailable` if the trampoline can't run.
        """
        given, args = args, _repeatable(args)
        if "pass_fds" in options:
            options = {**options, "pass_fds": tuple(options["pass_fds"])}
        process = self._spawn(args, options, cgroup_path, cgroup_fd)
        if process is None:
            from cgmem_backends.trampoline_start import start_by_trampoline

            process = start_by_trampoline(
                args, options, cgroup_path=cgroup_path, cgroup_fd=cgroup_fd, attach=self._attach
            )
        process.args = given
        return process

    def probe(self, *, cgroup_path: str, cgroup_fd: int) -> None:
        """Settle the choice, if it isn't yet, with a child in this cgroup; `start` does it too.

        Raises `ScopeVanished` or `CgroupError` if it is the cgroup that refuses, OSError if there
        is no process to be had; the choice then stays open.
        """
        with self._lock:
            choice = self._chosen or self._first_choice()
            if choice.settled or choice.library is None:
                return
            failure = _probe(choice.library, cgroup_path, cgroup_fd)
            if failure is None:
                proven = "a probe child was inside its cgroup before its first instruction"
                self._chosen = choice._replace(settled=True, reason=proven)
            else:
                self._chosen = _Choice("trampoline", failure, settled=True)

    def _spawn(
        self,
        args: Any,
        options: Mapping[str, Any],
        cgroup_path: str,
        cgroup_fd: int,
    ) -> Popen[Any] | None:
        choice = self._choice()
        if not choice.settled:
            self.probe(cgroup_path=cgroup_path, cgroup_fd=cgroup_fd)
            choice = self._choice()
        if choice.library is None:
            return None
        from cgmem_backends.execute_child import NotHonoured
        from cgmem_backends.placed_popen import Destination, PlacedPopen

        try:
            to = Destination(choice.library, cgroup_path, cgroup_fd)
            return PlacedPopen(args, destination=to, **options)
        except NotHonoured as refusal:
            if refusal.lasting:
                self._chosen = _Choice("trampoline", str(refusal), settled=True)
            return None

    def _choice(self) -> _Choice:
        chosen = self._chosen
        if chosen is None:
            with self._lock:
                chosen = self._chosen or self._first_choice()
        return chosen

    def _first_choice(self) -> _Choice:
        loaded = self._load()
        if isinstance(loaded, str):
            choice = _Choice("trampoline", loaded, settled=True)
        else:
            untried = "glibc offers it; no child was placed yet in this process"
            choice = _Choice("posix_spawn", untried, settled=False, library=loaded)
        self._chosen = choice
        return choice


def _repeatable(args: Any) -> Any:
    """Make `args` fit to be read twice: once for each road."""
    if isinstance(args, str | bytes | os.PathLike | list | tuple):
        return args
    return list(args)


def _glibc_version() -> tuple[int, ...] | None:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, ValueError, OSError):
        return None
    parts = version.split(".")
    if name != "glibc" or not all(part.isdecimal() for part in parts):
        return None
    return tuple(map(int, parts))


def _probe(library: SpawnLibrary, cgroup_path: str, cgroup_fd: int) -> str | None:
    """Place a child that waits, look where it is, let it end: None, or why not to trust it."""
    from cgmem_backends.placed_popen import unsupported

    try:
        with _waiting_child(library, cgroup_fd) as pid:
            return _misplaced(_cgroup_line(str(pid)), cgroup_path)
    except OSError as error:
        failure = error.errno or 0
        if failure in _CGROUP_AT_FAULT:
            raise cgroup_refused(failure, cgroup_path) from error
        if failure in _NO_RESOURCES:
            raise
        return unsupported(failure)


@contextmanager
def _waiting_child(library: SpawnLibrary, cgroup_fd: int) -> Iterator[int]:
    # It waits for the end of its stdin, rather than lie as a zombie, because a zombie is not to be
    # had where SIGCHLD is ignored or another thread waits for any child.
    from cgmem_backends.spawn_attr import CloseFrom, Dup2

    command = _waiting_command()
    read_fd, write_fd = os.pipe()
    pid = 0
    try:
        pid = library.spawn(
            os.fsencode(command[0]),
            [os.fsencode(argument) for argument in command],
            None,
            cgroup_fd=cgroup_fd,
            actions=[Dup2(read_fd, 0), CloseFrom(3)],
        )
        yield pid
    finally:
        os.close(read_fd)
        os.close(write_fd)
        if pid:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _waiting_command() -> tuple[str, ...]:
    if os.access("/bin/cat", os.X_OK):
        return ("/bin/cat",)
    return (sys.executable, "-I", "-S", "-c", "import posix; posix.read(0, 1)")


def _cgroup_line(pid: str) -> str:
    """Return the cgroup v2 path of a process, from /proc/PID/cgroup; "" if there is none."""
    try:
        return parse_own_cgroup(Path(f"/proc/{pid}/cgroup").read_bytes()) or ""
    except OSError:
        return ""


def _misplaced(found: str, cgroup_path: str) -> str | None:
    # Only the last name is compared: below it, a cgroup namespace or a bind mount shows another
    # path than the one that we opened.
    if found.endswith(f"/{Path(cgroup_path).name}") and found != _cgroup_line("self"):
        return None
    return f"a probe child was to be in {cgroup_path}, and was in {found or 'no cgroup'}"
