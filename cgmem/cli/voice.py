"""What `cgmem run` says on stderr: alerts as they come, and at the end how it went."""

from __future__ import annotations

import signal

from cgmem.cli.output import say
from cgmem.contract import Alert
from cgmem.supervising.outcome import Outcome

_SAID_BY_THE_SHELL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE})
"""Ends that a shell shows itself, or that nobody wants to hear of (`… | head`)."""


class Voice:
    """One `run`'s words. The methods may be called from any thread."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self._quiet = quiet
        self._verbose = verbose

    def warn(self, text: str) -> None:
        """Say that something of ours went wrong."""
        if not self._quiet:
            say(f"warning: {text}")

    def detail(self, text: str) -> None:
        """Say what only -v wants to know."""
        if self._verbose:
            say(text)

    def alert(self, subprocess_id: str, alert: Alert) -> None:
        """Say an alert: CRITICAL ones always, WARNING ones with -v."""
        if self._verbose or (alert.level == "CRITICAL" and not self._quiet):
            say(f"{subprocess_id}: {alert.message}")

    def end(self, outcome: Outcome) -> None:
        """Say how it ended, if that was not by itself, and what became of its leftovers."""
        if _abnormal(outcome):
            say(f"{outcome.subprocess_id}: {outcome.message}")
        if outcome.leftovers and not self._quiet:
            say(leftovers(outcome))


def leftovers(outcome: Outcome) -> str:
    """Name the processes that outlived the main one."""
    count = len(outcome.leftovers)
    noun = "process" if count == 1 else "processes"
    pids = ", ".join(map(str, outcome.leftovers))
    if outcome.kept:
        held = "the hard limit stays" if outcome.enforced else "nothing limits them any more"
        name = outcome.subprocess_id
        return f"kept {count} leftover {noun}: {pids}; {held}, see: cgmem show {name}"
    return f"killed {count} leftover {noun}: {pids} (--keep would let them live)"


def _abnormal(outcome: Outcome) -> bool:
    if outcome.backend == "none":
        return False
    if outcome.cause == "exited":
        # The main process went on although the kernel killed another one in its group.
        return bool(outcome.events.oom_kill)
    return outcome.cause != "signalled" or outcome.signal not in _SAID_BY_THE_SHELL
