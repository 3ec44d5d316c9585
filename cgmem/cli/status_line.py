"""One line at the bottom of the terminal that the command shares.

The last row is taken out of the scrolling region (DECSTBM, console_codes(4)), so what the command
prints scrolls above it and nothing of it is overwritten. Nothing is drawn while the command reads
single keys (an editor owns the whole screen) or another job is in the foreground.
"""

from __future__ import annotations

import os
import sys
import termios
import threading
from contextlib import suppress

_SAVE, _RESTORE = "\0337", "\0338"


class StatusLine:
    """Draws on a terminal by its descriptor. Thread-safe; trouble with the terminal is ignored."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._size: os.terminal_size | None = None
        self._closed = False
        self._lock = threading.Lock()

    @classmethod
    def where_possible(cls) -> StatusLine | None:
        """One on stderr, if that is a terminal that can do it."""
        if os.environ.get("TERM", "dumb") == "dumb" or not sys.stderr or not os.isatty(2):
            return None
        return cls()

    def draw(self, text: str) -> None:
        """Show this text, cut to the width."""
        with self._lock, suppress(OSError, termios.error):
            if self._closed or not self._ours():
                return
            size = os.get_terminal_size(self._descriptor)
            if size.lines < 3:
                return
            begin = "" if size == self._size else self._take_row(size)
            self._size = size
            shown = text[: size.columns - 1]
            self._write(f"{begin}{_SAVE}\033[{size.lines};1H\033[2K{shown}{_RESTORE}")

    def clear(self) -> None:
        """Give the row back; the next `draw` takes it again."""
        with self._lock, suppress(OSError):
            if self._size is not None:
                row, self._size = self._size.lines, None
                self._write(f"{_SAVE}\033[r\033[{row};1H\033[2K{_RESTORE}")

    def close(self) -> None:
        """Give the row back for good."""
        self.clear()
        self._closed = True

    def _ours(self) -> bool:
        if os.tcgetpgrp(self._descriptor) != os.getpgrp():
            return False
        return bool(termios.tcgetattr(self._descriptor)[3] & termios.ICANON)

    def _take_row(self, size: os.terminal_size) -> str:
        # Setting the region moves the cursor home. The newline scrolls a cursor in the last row up.
        return f"\n{_SAVE}\033[1;{size.lines - 1}r{_RESTORE}\033[1A"

    def _write(self, text: str) -> None:
        os.write(self._descriptor, text.encode(errors="replace"))
