"""A real bash with job control on a real pseudo-terminal, driven as a person would."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.command import COMMAND, PATIENCE, environment

CTRL_C = "\x03"
CTRL_Z = "\x1a"
CTRL_BACKSLASH = "\x1c"

# A terminal becomes the controlling one by TIOCSCTTY of a session leader.
_LAUNCH = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """What a person sees and types. The terminal does not echo."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.seen = ""
        self._master = master
        self._process = process
        self._from = 0

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def line(self, text: str) -> None:
        """Type a line. `cgmem` at its start is this test's command."""
        self.type(re.sub(r"\bcgmem\b", " ".join(COMMAND), text) + "\n")

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait for output that matches, after what was expected before."""
        deadline = time.monotonic() + PATIENCE
        while True:
            match = re.compile(pattern).search(self.seen, self._from)
            if match:
                self._from = match.end()
                return match
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"no {pattern!r} on the terminal:\n{self.seen}")

    def _read(self, seconds: float) -> bool:
        if seconds <= 0 or not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            output = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.seen += output.decode(errors="replace").replace("\r\n", "\n")
        return bool(output)

    def hang_up(self) -> None:
        """Close the terminal: its session gets SIGHUP."""
        os.close(self._master)
        self._master = -1
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()


@contextmanager
def bash(cwd: Path, **env: str) -> Iterator[Terminal]:
    """Run an interactive bash on a new terminal."""
    master, slave = pty.openpty()
    modes = termios.tcgetattr(slave)
    modes[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, modes)
    words = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LAUNCH, *words],
        cwd=cwd,
        env=environment(PS1="", PS2="", TERM="xterm", HISTFILE="", **env),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    terminal = Terminal(master, process)
    try:
        terminal.line("ulimit -c 0; echo bash $((40 + 2))")
        terminal.expect("bash 42")
        yield terminal
    finally:
        terminal.hang_up()
