"""Live scopes written down on disk, where there is no cgroup to list.

One small JSON file per scope, named by its token: one id may name several scopes. Every path
component of ours is opened without following links and its owner is checked: /tmp is everybody's,
and root reads what others have written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cgmem.contract import ScopeRecord
from cgmem.errors import CgmemError
from cgmem.shapes import NamedTuple
from cgmem_backends import scope_record
from cgmem_backends.process_tree import Identity

MAX_FILE_BYTES = 16_384
"""More than any record is; a bound on what a stranger's file can cost."""

TOKEN = r"[0-9a-f]{32}"  # noqa: S105  (a pattern)

TORN_SECONDS = 60.0
"""Writing takes milliseconds: what is older and has no writer any more is never finished."""

_TEMPORARY = rf"\.{TOKEN}\.([1-9][0-9]{{0,9}})"
_USERS = Path("/run/user")
"""Where systemd makes each user's $XDG_RUNTIME_DIR (pam_systemd(8))."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a stranger's FIFO must not hold the reader.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(NamedTuple):
    """One live scope as written down. Its content is its owner's word, not to be trusted."""

    token: str
    record: ScopeRecord
    root: Identity
    marked: bool
    """The processes carry the token in their environment (an observed one does not)."""
    table_id: str
    """The process table that `root` belongs to."""
    uid: int
    """Who wrote it."""
    directory: Path


def own_directory() -> Path:
    """Where this user's scopes are written down.

    $XDG_RUNTIME_DIR/cgmem where that is ours (after `su` or `sudo -E` it is another user's), else
    a directory under the temporary one.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and _is_ours(Path(runtime)):
        return Path(runtime) / "cgmem"
    return _temporary_directory()


def lock_directory() -> Path:
    """Where what this user may have but once is locked, the same for a login and for cron.

    As `own_directory`, but where the variable doesn't say, the directory of the logins comes
    before the temporary one. It is nothing for records: it goes with the last login.
    """
    own = own_directory()
    runtime = _USERS / str(os.geteuid())
    if own == _temporary_directory() and _is_ours(runtime):
        return runtime / "cgmem"
    return own


def _is_ours(directory: Path) -> bool:
    try:
        return directory.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _temporary_directory() -> Path:
    return temporary_root() / f"cgmem-{os.geteuid()}"


def temporary_root() -> Path:
    """The directory for temporary files: everybody's, on macOS the user's own."""
    root = "/tmp"  # noqa: S108  (owner and links are checked at every use)
    if sys.platform == "darwin":
        import tempfile

        root = tempfile.gettempdir()
    return Path(root)


def visible_directories() -> list[Path]:
    """Where live scopes may be written down: this user's places; for root everybody's."""
    uid = os.geteuid()
    places = [own_directory(), _USERS / str(uid) / "cgmem", _temporary_directory()]
    if uid == 0:
        places += sorted(_USERS.glob("*/cgmem"))
        places += sorted(temporary_root().glob("cgmem-*"))
    return [path for path in dict.fromkeys(places) if os.path.lexists(path)]


class RunDirectory:
    """Writes the records of `uid` (this user). Nothing is made before the first `save`."""

    def __init__(self, path: Path | None = None, uid: int | None = None) -> None:
        self._path = path
        self._uid = os.geteuid() if uid is None else uid

    @property
    def path(self) -> Path:
        """Where the records go."""
        if self._path is None:
            self._path = own_directory()
        return self._path

    def problem(self) -> str | None:
        """Why records can't be kept here, as far as that shows without writing."""
        place = self.path if os.path.lexists(self.path) else self.path.parent
        try:
            if place == self.path:
                os.close(_open_checked(place, self._uid))
        except CgmemError as error:
            return str(error)
        except OSError as error:
            return f"{place}: {error.strerror}"
        return None if os.access(place, os.W_OK | os.X_OK) else f"{place} is not writable"

    def save(self, token: str, record: ScopeRecord, root: Identity, **facts: str | bool) -> None:
        """Write one record, whole or not at all. `facts`: `marked`, `table_id` of `Entry`.

        Raises OSError (full, read-only) and `CgmemError` (a directory that is not safe to use).
        """
        facts_of_scope = {"record": json.loads(scope_record.encode(record)), "root": list(root)}
        content = json.dumps({**facts_of_scope, **facts}).encode()
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
        with self._opened() as directory:
            _write_whole(directory, token, content, self._uid)

    def load(self, token: str) -> Entry | None:
        """Read one record as it is now; None where it is gone, torn or not ours."""
        with contextlib.suppress(OSError, CgmemError), self._opened() as directory:
            return _read(directory, token, self.path, self._uid)
        return None

    def changed_at(self) -> int | None:
        """When a record last came, went or was replaced (st_mtime_ns); None without directory."""
        try:
            return self.path.stat().st_mtime_ns
        except OSError:
            return None

    def remove(self, token: str) -> bool:
        """Remove one record; False if it is gone already. Raises OSError, `CgmemError`."""
        try:
            with self._opened() as directory:
                os.unlink(token, dir_fd=directory)
        except FileNotFoundError:
            return False
        return True

    def remove_torn(self, proc: Path = Path("/proc")) -> None:
        """Remove what writers left who were killed while they wrote. Never raises."""
        with contextlib.suppress(OSError, CgmemError), self._opened() as directory:
            with os.scandir(directory) as found:
                names = [file.name for file in found]
            for name in names:
                writer = re.fullmatch(_TEMPORARY, name)
                if writer is None or scope_record.lives(int(writer[1]), proc=proc):
                    continue
                with contextlib.suppress(OSError):  # another was faster
                    if time.time() - os.lstat(name, dir_fd=directory).st_mtime > TORN_SECONDS:
                        os.unlink(name, dir_fd=directory)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = _open_checked(self.path, self._uid)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _open_checked(path: Path, uid: int) -> int:
    """Open a directory of `uid` that nobody else may enter."""
    refusal = f"{path} is not safe to keep records of live scopes in"
    try:
        descriptor = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        raise
    except OSError as error:
        # A link gives ELOOP on macOS and, with O_DIRECTORY, ENOTDIR on Linux.
        if path.is_symlink() or not path.is_dir():
            raise CgmemError(f"{refusal}: it is no directory", hint=f"rm {path}") from error
        raise
    found = os.fstat(descriptor)
    why = None
    if found.st_uid != uid:
        why = CgmemError(f"{refusal}: it belongs to uid {found.st_uid}, not {uid}")
    elif stat.S_IMODE(found.st_mode) & 0o077:
        why = CgmemError(f"{refusal}: others may enter it", hint=f"chmod 700 {path}")
    if why is not None:
        os.close(descriptor)
        raise why
    return descriptor


def _write_whole(directory: int, name: str, content: bytes, uid: int) -> None:
    temporary = f".{name}.{os.getpid()}"
    descriptor = os.open(temporary, _CREATE, 0o600, dir_fd=directory)
    try:
        try:
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
            if uid != os.geteuid():  # root rewrites a user's: it must stay the user's
                os.fchown(descriptor, uid, -1)
        finally:
            os.close(descriptor)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise


def read_all(directories: Sequence[Path]) -> list[Entry]:
    """Read every record; what is torn, foreign, unsafe or not ours to read is passed over."""
    entries: list[Entry] = []
    for path in directories:
        try:
            owner = path.lstat().st_uid
            if os.geteuid() not in (0, owner):
                raise PermissionError
            directory = _open_checked(path, owner)
        except (OSError, CgmemError):
            continue
        try:
            with os.scandir(directory) as found:
                names = sorted(file.name for file in found)
            for name in names:
                # A name with a dot in front is a record that is being written.
                if not name.startswith("."):
                    entry = _read(directory, name, path, owner)
                    entries += [entry] if entry is not None else []
        finally:
            os.close(directory)
    return entries


def _read(directory: int, name: str, path: Path, owner: int) -> Entry | None:
    if not re.fullmatch(TOKEN, name):
        return None
    try:
        descriptor = os.open(name, _READ, dir_fd=directory)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != owner:
            return None
        return parse(os.read(descriptor, MAX_FILE_BYTES), name, owner, path)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def parse(content: bytes, token: str, uid: int, directory: Path) -> Entry | None:
    """Parse one file; None for anything that is not a record."""
    try:
        found = json.loads(content)
        record = scope_record.decode(json.dumps(found["record"]).encode())
        pid, start = found["root"]
        marked, table_id = found["marked"], found["table_id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    known = scope_record.is_in(scope_record.PIDS, pid) and pid > 0
    if record is None or not known or not scope_record.is_in(scope_record.NUMBERS, start):
        return None
    if type(marked) is not bool or type(table_id) is not str:
        return None
    return Entry(token, record, Identity(pid, start), marked, table_id, uid, directory)
