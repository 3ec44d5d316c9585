"""A file that several processes append whole lines to, and that any of them may rotate.

Covers: one O_APPEND write per call, which a local file system keeps in one piece; a peer's
rotation, removal or torn last line; a path that is no regular file of its own.
Does not cover: NFS, whose appends are not atomic.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# Read: the last byte tells whether a peer left a torn line.
_WRITING = os.O_RDWR | os.O_APPEND | os.O_CREAT
# Opening a FIFO or a device must not block; no effect on a regular file.
_ALWAYS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# Command lines may stand in the logs, and those may hold secrets.
_MODE = 0o600


class AppendFile:
    """One log file, without a lock: a process calls it from one thread at a time.

    `make_directory` is called before the file is opened and may raise `OSError`. The file is
    renamed to PATH.1 (and that to .2, up to `backups` >= 1) before it would pass `rotate_bytes`;
    `note` is told once when that fails, and the file grows on.
    """

    def __init__(
        self,
        path: str,
        *,
        make_directory: Callable[[], None],
        note: Callable[[str], None],
        rotate_bytes: int,
        backups: int,
    ) -> None:
        self._path = path
        self._make_directory = make_directory
        self._note = note
        self._rotate_bytes = rotate_bytes
        self._rotate_at = rotate_bytes
        self._backups = backups
        self._fd: int | None = None
        self._identity: tuple[int, int] | None = None
        self._end: int | None = None
        self._torn = False
        self._grows_on = False

    def append(self, data: bytes) -> int:
        """Append whole lines in one write(2). Return how many bytes of `data` were written.

        Fewer than given: the last line is torn (a full disk), and the next write, whoever
        makes it, begins with a newline. Raises `OSError`.
        """
        descriptor, size = self._ready(len(data))
        newline = b"\n" if self._ends_torn(descriptor, size) else b""
        whole = newline + data
        written = os.write(descriptor, whole)
        self._end = size + written
        if written:
            self._torn = whole[written - 1] != ord("\n")
        return max(0, written - len(newline))

    def close(self) -> None:
        """Give up the descriptor. A later append opens the file again.

        Raises `OSError` where what was written did not get to its disk (NFS).
        """
        # Also close(2) that fails gives the number back, and another file may get it.
        descriptor, self._fd = self._fd, None
        if descriptor is not None:
            os.close(descriptor)

    def _ends_torn(self, descriptor: int, size: int) -> bool:
        """Whether the last line lacks its newline (a full disk, a crash, an editor)."""
        if size == self._end:
            return self._torn
        while size > 0 and os.pread(descriptor, 1, size - 1) != b"\n":
            # A file grows page by page under a peer's write; a look for holes waits for its end.
            with suppress(OSError):
                os.lseek(descriptor, 0, os.SEEK_HOLE)
            before, size = size, os.fstat(descriptor).st_size
            if size == before:
                return True
        return False

    def _ready(self, more: int) -> tuple[int, int]:
        """A descriptor of the file that is at the path now, and its size."""
        descriptor, found = self._fd, self._at_path()
        if descriptor is None or found is None or _identity(found) != self._identity:
            descriptor, found = self._open()
        full = found.st_size > 0 and found.st_size + more > self._rotate_at
        if full and self._rotated(descriptor, found.st_size):
            descriptor, found = self._open()
        return descriptor, found.st_size

    def _at_path(self) -> os.stat_result | None:
        try:
            return os.lstat(self._path)
        except FileNotFoundError:
            return None

    def _open(self) -> tuple[int, os.stat_result]:
        self.close()
        self._make_directory()
        descriptor, found = open_regular(self._path, _WRITING)
        self._fd, self._identity = descriptor, _identity(found)
        self._end, self._rotate_at = None, self._rotate_bytes
        return descriptor, found

    def _rotated(self, descriptor: int, size: int) -> bool:
        """Rename the file away; False if it stays the one to write to."""
        try:
            # Locked is the file itself, so that no file is rotated twice. Not waited for: a line
            # that goes to a file which a peer is renaming is kept all the same.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                found = self._at_path()
                if found is not None and _identity(found) == self._identity:
                    self._shift()
            finally:
                # A fork may have copied the descriptor: closing it would not unlock.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        except BlockingIOError:
            return False
        except OSError as error:
            self._rotate_at = size + self._rotate_bytes
            if not self._grows_on:
                self._note(f"{self._path}: can't be rotated and grows on: {error.strerror}")
            self._grows_on = True
            return False
        self._grows_on = False
        return True

    def _shift(self) -> None:
        for number in range(self._backups - 1, 0, -1):
            with suppress(FileNotFoundError):
                Path(f"{self._path}.{number}").rename(f"{self._path}.{number + 1}")
        Path(self._path).rename(f"{self._path}.1")


def open_regular(path: str, flags: int) -> tuple[int, os.stat_result]:
    """Open a log file, and say what was found there. Raises `OSError` for what is no such file."""
    try:
        descriptor = os.open(path, flags | _ALWAYS, _MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "symbolic links are refused", path) from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor, found


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
