"""Reading the log files: rotated ones too, torn and foreign lines counted, and following.

Does not cover: what a line means (`cgmem.logs.history`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from cgmem.logs.append_file import open_regular

Line = dict[str, Any]

LONGEST_LINE_BYTES = 1 << 20
"""As long as the writer's longest; anything longer is foreign."""
FOLLOW_SECONDS = 0.5


class Reader:
    """Reads the lines of one log file; counts those that are torn or foreign.

    `accept` says whether a JSON object is a line of this file.
    """

    def __init__(self, path: Path, accept: Callable[[Line], bool]) -> None:
        self.skipped = 0
        self._path = path
        self._accept = accept

    def read(self) -> Iterator[Line]:
        """Every line there is, the oldest first. Nothing where there is no file.

        Raises OSError for a file that can't be read.
        """
        with ExitStack() as stack:
            # All are open before the first is read: a rotation meanwhile loses none.
            files = [stack.enter_context(open_log(path)) for path in with_rotated(self._path)]
            seen = set[tuple[int, int]]()
            for file in files:
                found = os.fstat(file.fileno())
                if (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    yield from self._lines(file)

    def follow(self, pause: Callable[[float], None]) -> Generator[Line, None, None]:
        """Every line written from this call on, also after a rotation. Never ends by itself."""
        return self._follow(self._open_at_end(), pause)

    def _follow(
        self, file: IO[bytes] | None, pause: Callable[[float], None]
    ) -> Generator[Line, None, None]:
        while True:
            if file is not None:
                with file:
                    yield from self._follow_one(file, pause)
            file = _opened(self._path)
            if file is None:
                pause(FOLLOW_SECONDS)

    def _follow_one(self, file: IO[bytes], pause: Callable[[float], None]) -> Iterator[Line]:
        """Until another file is at the path."""
        splitter, current = _Splitter(), True
        while True:
            chunk = file.read(1 << 16)
            for text in splitter.lines(chunk):
                yield from self._line(text)
            if chunk:
                continue
            if os.fstat(file.fileno()).st_size < file.tell():  # emptied: copytruncate, `: > FILE`
                splitter = _Splitter()
                file.seek(0)
                continue
            if not current:
                return
            # What a peer wrote before it rotated is read once more.
            current = _is_at(file, self._path)
            if current:
                pause(FOLLOW_SECONDS)

    def _open_at_end(self) -> IO[bytes] | None:
        file = _opened(self._path)
        if file is not None:
            file.seek(0, os.SEEK_END)
        return file

    def _lines(self, file: IO[bytes]) -> Iterator[Line]:
        while text := file.readline(LONGEST_LINE_BYTES):
            yield from self._line(text)

    def _line(self, text: bytes) -> Iterator[Line]:
        if not text.strip():
            return
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if isinstance(line, dict) and self._accept(line):
            yield line
        else:
            self.skipped += 1


class _Splitter:
    """Cuts what is read bit by bit into lines, and keeps little of one that has no end."""

    def __init__(self) -> None:
        self._rest = b""
        self._too_long = False

    def lines(self, chunk: bytes) -> list[bytes]:
        """The lines that end here. Of one that is too long the beginning, once: it is foreign."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        if self._too_long and whole:
            del whole[0]  # the end of the one that was given already
            self._too_long = False
        if self._too_long:
            self._rest = b""
        elif len(self._rest) > LONGEST_LINE_BYTES:
            whole.append(self._rest)
            self._rest, self._too_long = b"", True
        return whole


def with_rotated(path: Path) -> list[Path]:
    """The file and what it was rotated to (PATH.1 is the youngest), the oldest first."""
    name = re.compile(re.escape(path.name) + r"\.([1-9][0-9]*)")
    try:
        names = [name.fullmatch(entry.name) for entry in os.scandir(path.parent)]
    except FileNotFoundError:
        return []
    numbers = sorted((int(match[1]) for match in names if match), reverse=True)
    rotated = [path.with_name(f"{path.name}.{number}") for number in numbers]
    return [*rotated, *([path] if path.exists() else [])]


def _opened(path: Path) -> IO[bytes] | None:
    try:
        # Unbuffered: after an emptied file's seek, no byte of before may come again.
        return open_log(path, buffering=0)
    except FileNotFoundError:
        return None


def open_log(path: Path, buffering: int = -1) -> IO[bytes]:
    """Open a log file to read it. Raises `OSError`, also for what is no such file."""
    return os.fdopen(open_regular(str(path), os.O_RDONLY)[0], "rb", buffering)


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(file.fileno())
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
