"""One cgroup as a directory: read and write its files, list its processes, remove it.

`OSError` becomes `ScopeVanished` or `CgroupError` here and nowhere above.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cgmem.errors import CgmemError, CgroupError, ScopeVanished, out_of_descriptors
from cgmem_backends import kernel_files as kf
from cgmem_backends import linux_calls

_GONE = frozenset({errno.ENOENT, errno.ENODEV})
_READ_SIZE = 1 << 14
_PAGE = 2048
"""Less than half a page, so that a line that did not fit is not taken for the end."""
_AT_ONCE = 64
_FREEZE_SECONDS = 1.0
"""How long all may take to stop, 4 to 14 ms as a rule; who is in D state does not."""
_FREEZE_LOOK_SECONDS = 0.001
_FEW_DESCRIPTORS = "raise the limit on open descriptors: ulimit -n 65536"


class translated:  # noqa: N801  (used as a word: `with translated(…)`)
    """Turn OSError into the library's errors, with what was being done and where.

    A class, since a generator's context manager would cost as much as the system call inside.
    """

    __slots__ = ("_doing", "_path")

    def __init__(self, doing: str, path: Path | str) -> None:
        self._doing = doing
        self._path = path

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, OSError) or isinstance(error, CgmemError):
            return
        path = Path(self._path)
        # ENODEV: a held descriptor of a removed cgroup. ENOENT: the directory itself is gone.
        if error.errno == errno.ENODEV or (
            error.errno == errno.ENOENT and not path.parent.exists()
        ):
            raise ScopeVanished(f"the cgroup of {path} was removed") from error
        raise CgroupError(error, self._doing, str(path), hint=_hint(error)) from error


def read_file(directory: Path, name: str) -> bytes | None:
    """Read one interface file; None where this kernel lacks it or the cgroup is gone."""
    try:
        descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise CgroupError(error, "reading", str(directory / name)) from error
    try:
        return _read_all(descriptor)
    except OSError as error:
        # A file that is there and answers EOPNOTSUPP (memory.pressure with psi=0) is a lack too.
        if error.errno in _GONE or error.errno == errno.EOPNOTSUPP:
            return None
        raise CgroupError(error, "reading", str(directory / name)) from error
    finally:
        os.close(descriptor)


def write_file(directory: Path, name: str, value: bytes) -> None:
    """Write one interface file. Raises `ScopeVanished` or `CgroupError`."""
    path = f"{directory}/{name}"
    with translated(f"writing {value.decode()!r} to", path):
        # No O_CREAT: on a missing interface file it would turn ENOENT into EACCES.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value)
        finally:
            os.close(descriptor)


def write_limit(directory: Path, name: str, limit: int | None) -> int | None:
    """Write a limit and return what the kernel then has (it rounds down to pages)."""
    path = f"{directory}/{name}"
    with translated(f"writing {kf.limit_text(limit).decode()!r} to", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(descriptor, kf.limit_text(limit))
            return _parsed_limit(os.pread(descriptor, 64, 0), Path(path))
        finally:
            os.close(descriptor)


def read_limit(directory: Path, name: str) -> int | None:
    """Read a limit; None for "max" and where the file is absent (the root has none)."""
    text = read_file(directory, name)
    return None if text is None else _parsed_limit(text, directory / name)


def subdirectories(directory: Path) -> list[Path]:
    """The child cgroups of a cgroup; empty once it is gone or where it can't be read."""
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def walk(directory: Path) -> Iterator[Path]:
    """Every cgroup of a subtree, children before their parents."""
    for child in subdirectories(directory):
        yield from walk(child)
    yield directory


def populated(directory: Path) -> bool:
    """Whether a process lives in a cgroup or below it (cgroup.events); True where it isn't said."""
    return kf.parse_keyed(read_file(directory, kf.EVENTS) or b"").get("populated") != 0


def pids(directory: Path) -> list[int]:
    """Processes in a cgroup and in the cgroups below it."""
    return [pid for cgroup in walk(directory) for pid in own_pids(cgroup)]


def own_pids(directory: Path) -> list[int]:
    """Processes in this cgroup itself."""
    return kf.parse_pids(read_file(directory, kf.PROCS) or b"")


def send_signal(directory: Path, signum: int) -> None:
    """Signal every process of a subtree; SIGKILL through cgroup.kill, which forks can't outrun."""
    if signum == signal.SIGKILL and _kill_file(directory):
        return
    # Again until a round finds nobody new: SIGKILL without cgroup.kill (before 5.14), and a group
    # that is being frozen, where one may be forked until all have stopped. In one that runs, who is
    # new may be a handler's helper.
    freezing = (read_file(directory, kf.FREEZE) or b"").strip() == b"1"
    deadline = time.monotonic() + _FREEZE_SECONDS
    seen: set[int] = set()
    while True:
        stopped = not freezing or _is_frozen(directory) or time.monotonic() > deadline
        new = set(pids(directory)) - seen
        _signal_members(directory, new, signum)
        seen |= new
        if not (freezing or signum == signal.SIGKILL) or (stopped and not new):
            return
        if not new:
            time.sleep(_FREEZE_LOOK_SECONDS)


def _is_frozen(directory: Path) -> bool:
    return kf.parse_keyed(read_file(directory, kf.EVENTS) or b"").get("frozen") != 0


def remove(directory: Path, rmdir: Callable[[Path], None] = os.rmdir) -> bool:
    """Remove a cgroup and those below it, deepest first; False while a process is inside."""
    if _removal(directory, rmdir) != errno.EBUSY:  # nearly always: nothing is nested in it
        return True
    return all(_removal(cgroup, rmdir) != errno.EBUSY for cgroup in walk(directory))


def remove_once(directory: Path, rmdir: Callable[[Path], None] = os.rmdir) -> bool:
    """As `remove`, but True only if this very call removed it: of several callers one has it."""
    return [_removal(cgroup, rmdir) for cgroup in walk(directory)][-1] == 0


def _removal(cgroup: Path, rmdir: Callable[[Path], None]) -> int:
    """Remove one: 0 if it was us, else EBUSY or one of `_GONE`."""
    try:
        rmdir(cgroup)
    except OSError as error:
        if error.errno == errno.EBUSY or error.errno in _GONE:
            return error.errno
        raise CgroupError(error, "removing", str(cgroup)) from error
    return 0


def _parsed_limit(text: bytes, path: Path) -> int | None:
    try:
        return kf.parse_limit(text)
    except ValueError as error:
        raise CgroupError(OSError(errno.EBADMSG, str(error)), "reading", str(path)) from error


def _kill_file(directory: Path) -> bool:
    try:
        write_file(directory, kf.KILL, b"1")
    except ScopeVanished:
        return True
    except CgroupError as error:
        if error.errno in _GONE or error.errno == errno.EOPNOTSUPP:
            return False
        raise
    return True


def _signal_members(directory: Path, members: set[int], signum: int) -> None:
    """Signal every one; what refuses one (another user's, by sudo) must not spare the others."""
    refusals: list[CgroupError] = []
    waiting = sorted(members)
    # A few at a time: a group may hold more processes than we may have descriptors.
    for start in range(0, len(waiting), _AT_ONCE):
        refusals += _signal_some(directory, waiting[start : start + _AT_ONCE], signum)
    if refusals:
        raise refusals[0]


def _signal_some(directory: Path, members: list[int], signum: int) -> Iterator[CgroupError]:
    """Signal through pidfds, each checked to be a member still after it was opened."""
    handles: dict[int, int] = {}
    try:
        for pid in members:
            try:
                handles[pid] = linux_calls.pidfd_open(pid)
            except ProcessLookupError:  # ended meanwhile
                continue
            except OSError as error:
                yield _not_sent(error, signum, pid)
        still = set(pids(directory)) if handles else set()
        for pid in still & handles.keys():
            try:
                linux_calls.pidfd_send_signal(handles[pid], signum)
            except ProcessLookupError:
                continue
            except OSError as error:
                yield _not_sent(error, signum, pid)
    finally:
        for handle in handles.values():
            os.close(handle)


def _not_sent(error: OSError, signum: int, pid: int) -> CgroupError:
    return CgroupError(error, f"sending signal {signum} to", f"pid {pid}", hint=_hint(error))


def _hint(error: OSError) -> str | None:
    return _FEW_DESCRIPTORS if out_of_descriptors(error) else None


def _read_all(descriptor: int) -> bytes:
    chunk = os.read(descriptor, _READ_SIZE)
    # The kernel hands out a page at a time: a shorter answer is all there is.
    if len(chunk) < _PAGE:
        return chunk
    chunks = [chunk]
    while chunk := os.read(descriptor, _READ_SIZE):
        chunks.append(chunk)
    return b"".join(chunks)
