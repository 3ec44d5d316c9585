"""JSON lines on their way to a file: encoded, buffered, and kept while it can't be written.

Does not cover: how a line gets to the file (`append_file`); lines that wait in memory when the
process is killed.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from cgmem.contract import MB
from cgmem.logs.append_file import AppendFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROTATE_BYTES = 10 * MB
BACKUPS = 5
BUFFER_BYTES = MB
"""At most so much waits in memory for a file that can't be written; the oldest lines go first."""
FLUSH_BYTES = MB // 16
"""So much is written without waiting for the next tick."""

# default=str: a value that JSON lacks is better named than lost. NaN would break the whole line.
_encode = json.JSONEncoder(default=str, allow_nan=False).encode


class JsonLinesFile:
    """One log file for all threads. No method raises for the file's sake.

    `warn` gets one message when the file can't be written, and no other until it could be again,
    or is closed; it may be called from any thread that appends. See `AppendFile` for the other
    arguments.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        warn: Callable[[str], None],
        make_directory: Callable[[], None] | None = None,
        rotate_bytes: int = ROTATE_BYTES,
        backups: int = BACKUPS,
    ) -> None:
        self._path = os.fspath(path)
        self._warn = warn
        self._file = AppendFile(
            self._path,
            make_directory=make_directory or self._make_parent,
            note=self._note,
            rotate_bytes=rotate_bytes,
            backups=backups,
        )
        self._broken = False
        self._unwritten = 0
        """As told at the last close."""
        self._begin_empty()
        _files.add(self)

    def append(self, record: Mapping[str, Any] | str, now: bool) -> None:
        """Add a line: a mapping or a JSON text. Written at the next flush, or at once if `now`."""
        try:
            line = _line(record)
        except (TypeError, ValueError, RecursionError) as error:
            self._note(f"{self._path}: a line was lost, it can't be written as JSON: {error}")
        else:
            with self._lock:
                self._keep(line)
                if now or self._buffered >= FLUSH_BYTES:
                    self._write()
        self._tell()

    def flush(self) -> bool:
        """Write what waits, in one write(2). True if something waits still."""
        if self._lines or self._lost:
            with self._lock:
                self._write()
            self._tell()
        return bool(self._lines)

    def close(self) -> None:
        """Write what waits and give up the descriptor. A later append opens it again."""
        self.flush()
        with self._lock:
            self._close_file()
            unwritten = len(self._lines) + self._lost
            if unwritten and unwritten != self._unwritten:
                noun = "line" if unwritten == 1 else "lines"
                self._note(f"{unwritten} {noun} could not be written to {self._path}")
            self._unwritten = unwritten
        self._tell()

    def rest(self) -> bool:
        """Give up the descriptor, unless lines wait. True if nothing is left to be written or told.

        A later append opens the file again.
        """
        with self._lock:
            resting = not (self._lines or self._lost)
            if resting:
                self._close_file()
        self._tell()
        return resting

    def after_fork_in_child(self) -> None:
        """Leave to the parent what it has buffered, and its descriptor with the flock on it."""
        self._begin_empty()
        with suppress(OSError):  # the parent's lines: it is told by its own close
            self._file.close()

    def _begin_empty(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[bytes] = deque()
        self._buffered = 0
        self._lost = 0
        self._notes: deque[str] = deque()

    def _keep(self, line: bytes) -> None:
        if len(line) > BUFFER_BYTES:
            self._lost += 1
            return
        self._lines.append(line)
        self._buffered += len(line)
        while self._buffered > BUFFER_BYTES:
            self._buffered -= len(self._lines.popleft())
            self._lost += 1

    def _write(self) -> None:
        try:
            self._write_lines()
        except OSError as error:
            if not self._broken:
                self._note(
                    f"{self._path}: {error.strerror or error}; up to {BUFFER_BYTES // MB}MB of"
                    " its lines wait in memory until it can be written"
                )
            self._broken = True
            return
        self._broken = False
        if self._lost:
            self._note(f"{self._path}: {self._lost} lines were lost")
            self._lost = 0

    def _write_lines(self) -> None:
        # Twice: why a write was cut short is told by the next one.
        for _ in range(2):
            if self._lines:
                self._drop(self._file.append(b"".join(self._lines)))
        if self._lines:
            raise OSError(errno.ENOSPC, "a write was cut short", self._path)

    def _drop(self, written: int) -> None:
        while self._lines and written >= len(self._lines[0]):
            length = len(self._lines.popleft())
            written -= length
            self._buffered -= length

    def _close_file(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            self._note(
                f"{self._path}: {error.strerror or error}; its last lines may not be on the disk"
            )

    def _make_parent(self) -> None:
        Path(self._path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)

    def _note(self, message: str) -> None:
        self._notes.append(message)

    def _tell(self) -> None:
        """Pass the notes on, outside the lock: `warn` may come back to this file."""
        while self._notes:
            with suppress(Exception):  # the caller's code (or no note left): a log hurts nobody
                self._warn(self._notes.popleft())


def _line(record: Mapping[str, Any] | str) -> bytes:
    text = record.replace("\n", " ") if isinstance(record, str) else _encode(dict(record))
    # backslashreplace: a JSON text may hold surrogates of undecodable bytes in a command line.
    return text.encode("utf-8", "backslashreplace") + b"\n"


_files: WeakSet[JsonLinesFile] = WeakSet()


def _after_fork_in_child() -> None:
    for file in tuple(_files):
        file.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
