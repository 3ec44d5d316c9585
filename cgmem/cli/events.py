"""The program that tells of every fork, exec and exit, and how far it can."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from typing import IO, Any

from cgmem import selector

READY_SECONDS = 30.0
"""pyroute2 takes a while to import on a slow machine."""

_LONGEST_READ_BYTES = 1 << 20
"""What is read at once: a storm of forks must not keep a reader from its work."""

_SOURCES = ("life", "memory")


class EventSource:
    """Starts the program and reads what it writes.

    `cannot` says what it can't see, and why; `lost` that the kernel had more to tell than was read.
    """

    def __init__(self) -> None:
        """Returns once it listens, or has said why it can't."""
        self.cannot: dict[str, str] = {}
        self.lost = False
        self._ready = set[str]()
        self._rest = b""
        self._program = subprocess.Popen(
            selector.process_events_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is not for it: it ends with its stdin, once all is told.
            start_new_session=True,
        )
        deadline = time.monotonic() + READY_SECONDS
        while self._undecided() and time.monotonic() < deadline:
            for _ in self.events(0.2):
                """Nobody is followed yet."""
        for what in self._undecided():
            self.cannot[what] = f"not ready after {READY_SECONDS:.0f} s"

    def sees(self, what: str) -> bool:
        """Whether this source ("life" or "memory") works."""
        return what not in self.cannot

    def events(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Wait at most so long for the next events, and give those that there are."""
        for line in self._lines(seconds):
            event = json.loads(line)
            if event["event"] == "ready":
                self._ready.add(event["what"])
            elif event["event"] == "cannot":
                self.cannot[event["what"]] = event["why"]
            elif event["event"] == "lost":
                self.lost = True
            else:
                yield event

    def close(self) -> None:
        """End the program."""
        if self._program.stdin is not None:
            self._program.stdin.close()
        if self._program.stdout is not None:
            self._program.stdout.close()
        self._program.wait()

    def _undecided(self) -> list[str]:
        return [what for what in _SOURCES if what not in self._ready and what not in self.cannot]

    def _lines(self, seconds: float) -> list[bytes]:
        stdout = self._program.stdout
        # Asked before the look: then all that it told is in the pipe.
        ended = stdout is None or self._program.poll() is not None
        lines = [] if stdout is None else self._read(stdout, 0.0 if ended else seconds)
        if ended and not lines:
            for what in _SOURCES:
                self.cannot.setdefault(what, "the program that listens has ended")
            time.sleep(seconds)
        return lines

    def _read(self, stdout: IO[bytes], seconds: float) -> list[bytes]:
        lines: list[bytes] = []
        until, size = time.monotonic() + seconds, 0
        while ((left := until - time.monotonic()) > 0 and size < _LONGEST_READ_BYTES) or not lines:
            if not select.select([stdout], [], [], max(0.0, left))[0]:
                break
            chunk = os.read(stdout.fileno(), 1 << 16)
            if not chunk:
                break
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            lines += whole
            size += len(chunk)
        return lines
