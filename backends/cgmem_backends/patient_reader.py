"""Reads of /proc files that wait for the target's mmap lock, given up after a while.

smaps_rollup and environ take that lock; a target that faults heavily, or that a debugger or a
dead NFS server holds, can keep it for long. The poller must not wait with it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping

PATIENCE = 0.1
"""Seconds."""

STEP = 0.02
"""Seconds between two looks at what a read that is watched has got so far."""

CHUNK = 1 << 16


def read_whole(path: str, longest: int | None = None) -> bytes | None:
    """Read a file; b"" where it or its process is gone, None where it may not be read.

    With `longest` no more is asked for once there are so many bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = b""
            while longest is None or len(content) < longest:
                chunk = os.read(descriptor, CHUNK if longest is None else longest - len(content))
                if not chunk:
                    break
                content += chunk
            return content
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError):
        return b""
    except OSError:
        return None


class PatientReader:
    """Reads in a thread of its own, and goes on without it when it takes too long.

    One at a time: while a read is stuck no other is begun, so that they don't pile up.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._stuck: threading.Thread | None = None

    def read(self, paths: Iterable[str]) -> Mapping[str, bytes | None]:
        """What could be read in time, None for what may not be read; the rest is left out."""
        contents: dict[str, bytes | None] = {}
        thread = self._begin(contents, paths)
        if thread is not None:
            thread.join(self._patience)
        return contents.copy()

    def progress(
        self, paths: Iterable[str], longest: int | None = None
    ) -> Iterator[tuple[Mapping[str, bytes | None], bool]]:
        """Yield what was read so far and whether that is all, every `STEP` until it is.

        For how long, also to wait for an earlier read, the caller decides. At most `longest`
        bytes of each file.
        """
        contents: dict[str, bytes | None] = {}
        while (thread := self._begin(contents, paths, longest)) is None:
            before = self._stuck
            if before is None:  # no thread to be had
                return
            before.join(STEP)
            yield {}, False
        done = False
        while not done:
            thread.join(STEP)
            done = not thread.is_alive()  # asked first, so that the copy is all there is
            yield contents.copy(), done

    def _begin(
        self, contents: dict[str, bytes | None], paths: Iterable[str], longest: int | None = None
    ) -> threading.Thread | None:
        if self._stuck is not None and self._stuck.is_alive():
            return None
        thread = threading.Thread(
            target=_read_into,
            args=(contents, list(paths), longest),
            name="cgmem-reader",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # no thread possible (EAGAIN), or the interpreter is ending
            self._stuck = None
            return None
        self._stuck = thread
        return thread


def _read_into(contents: dict[str, bytes | None], paths: list[str], longest: int | None) -> None:
    for path in paths:
        contents[path] = read_whole(path, longest)
