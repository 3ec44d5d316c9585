"""What `run` shows and records while its command runs, in a thread of its own."""

from __future__ import annotations

import threading
import time

from cgmem.cli.output import plain
from cgmem.cli.recording import Recording
from cgmem.cli.status_line import StatusLine
from cgmem.inspecting.trend import bar
from cgmem.judging import judge
from cgmem.supervising.supervision import Supervision
from cgmem.text.sizes import format_size

DRAW_SECONDS = 1.0
_BAR_WIDTH = 12


class Progress:
    """Draws and records what the supervision has seen anyway: it takes no looks of its own."""

    def __init__(
        self, supervision: Supervision, line: StatusLine | None, recording: Recording | None
    ) -> None:
        self._supervision = supervision
        self._line = line
        self._recording = recording
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cgmem-progress", daemon=True)

    def start(self) -> None:
        """Begin, where there is something to do."""
        if self._recording is not None:
            self._recording.begin(self._supervision)
        if self._line is not None or self._recording is not None:
            self._thread.start()

    def stop(self) -> None:
        """End, and give the terminal's row back."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._line is not None:
            self._line.close()

    def hide(self) -> None:
        """Give the terminal's row back for now: the job is about to stop."""
        if self._line is not None:
            self._line.clear()

    def _run(self) -> None:
        tick = self._supervision.plan.settings.tick_seconds
        record_at = time.monotonic()
        while not self._ended.is_set():
            now = time.monotonic()
            if self._recording is not None and now >= record_at:
                # In its grid, and after a Ctrl-Z not once for each tick that was missed.
                record_at += tick * (1 + (now - record_at) // tick)
                self._recording.note(self._supervision)
            if self._line is not None and now >= self._began + DRAW_SECONDS:
                self._line.draw(described(self._supervision, now - self._began))
            wait = DRAW_SECONDS if self._recording is None else min(DRAW_SECONDS, tick)
            self._ended.wait(wait)


def described(supervision: Supervision, seconds: float) -> str:
    """The status line's text: id, level, a bar to the hard limit, numbers, time."""
    sample = supervision.watch.last_sample
    plan, limit = supervision.plan, supervision.plan.thresholds.max_bytes
    judged = 0 if sample is None else judge.judged_bytes(sample, plan.policy.accounting)
    parts = [plain(supervision.subprocess_id), supervision.level]
    if limit:
        parts.append(f"{bar(judged / limit, _BAR_WIDTH)} {100 * judged / limit:.0f}%")
        parts.append(f"{format_size(judged)} of {format_size(limit)}")
    else:
        parts.append(format_size(judged))
    minutes, rest = divmod(int(seconds), 60)
    peak = f"peak {supervision.watch.figures.peak_mb:.0f}M"
    return "  ".join([*parts, peak, f"{minutes}:{rest:02d}"])
