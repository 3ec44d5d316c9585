"""Reads of /proc files that wait for the target's mmap lock, given up after a while.

smaps_rollup and environ take that lock; a target that faults heavily, or that a debugger or a
dead NFS server holds, can keep it for long. The poller must not wait with it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping

PATIENCE = 0.1
"""Seconds."""

CHUNK = 1 << 16


def read_whole(path: str) -> bytes | None:
    """Read a file; b"" where it or its process is gone, None where it may not be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            chunks = []
            while chunk := os.read(descriptor, CHUNK):
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError):
        return b""
    except OSError:
        return None


class PatientReader:
    """Reads in a thread of its own, and goes on without it when it takes too long."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._stuck: threading.Thread | None = None

    def read(self, paths: Iterable[str]) -> Mapping[str, bytes | None]:
        """What could be read in time, None for what may not be read; the rest is left out."""
        if self._stuck is not None and self._stuck.is_alive():
            return {}
        contents: dict[str, bytes | None] = {}
        thread = threading.Thread(
            target=_read_into, args=(contents, list(paths)), name="cgmem-reader", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no thread possible (EAGAIN), or the interpreter is ending
            return {}
        thread.join(self._patience)
        self._stuck = thread if thread.is_alive() else None
        return contents.copy()


def _read_into(contents: dict[str, bytes | None], paths: list[str]) -> None:
    for path in paths:
        contents[path] = read_whole(path)
