"""When a supervision has something to do that nothing wakes it for (monotonic seconds)."""

from __future__ import annotations


class Deadlines:
    """Each is None while nothing is due."""

    __slots__ = ("kill", "look", "settle", "timeout")

    def __init__(self) -> None:
        self.timeout: float | None = None
        """The time limit."""
        self.kill: float | None = None
        """SIGKILL: grace is over, or an earlier try failed."""
        self.look: float | None = None
        """The next look, before the next tick."""
        self.settle: float | None = None
        """It has ended: last read, or another try to clean up."""

    def next(self, other: float | None = None) -> float | None:
        """The first of these and of `other`."""
        times = (self.timeout, self.kill, self.look, self.settle, other)
        return min((at for at in times if at is not None), default=None)

    def pause(self, seconds: float) -> None:
        """Move what a stopped subprocess has not used up: stopped time counts for no timer."""
        if self.timeout is not None:
            self.timeout += seconds
        if self.kill is not None:
            self.kill += seconds
