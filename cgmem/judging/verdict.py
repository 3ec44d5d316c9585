"""Why a subprocess ended, in one word, in one sentence, and as an exit status. Pure.

Source: wait(2), and the counters that `judging.ended` explains.
"""

from __future__ import annotations

from signal import SIGINT, SIGKILL, SIGQUIT

from cgmem.contract import Cause, Counters, MemoryEvents
from cgmem.judging.ended import Ended, Kills, WhatWeDid, kills_of
from cgmem.judging.last_words import last_words
from cgmem.shapes import NamedTuple

CAUSE_OF: dict[WhatWeDid, Cause] = {
    "hard_limit": "hard_limit",
    "stall": "stalled",
    "abort": "aborted",
    "timeout": "timeout",
}


class Verdict(NamedTuple):
    """How it ended."""

    cause: Cause
    exit_code: int | None
    """The main process's own; None after a signal, or unknown."""
    signal: int | None
    message: str


class ExitStatus(NamedTuple):
    """What `cgmem run` ends with."""

    status: int
    die_of_signal: int | None = None
    """Die of this signal instead, so that the calling shell stops its loop."""


def verdict(ended: Ended) -> Verdict:
    """Return why it ended.

    What cgmem itself ended is called so, whatever the process made of it. Next, a main process
    that SIGKILL ended is asked for whose limit. A main process that ended otherwise has `exited`
    or was `signalled`, and its message tells of killed descendants: a shell that reports its
    child's 137 has exited.
    """
    kills = kills_of(ended.counters, ended.baseline)
    cause = _cause(ended, kills)
    code = ended.returncode
    return Verdict(
        cause,
        exit_code=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        message=last_words(cause, ended, kills),
    )


def killed_at_own_limit(counters: Counters, baseline: MemoryEvents | None = None) -> bool:
    """Say whether an OOM kill happened at this scope's own limit."""
    return kills_of(counters, baseline).at_own_limit


def exit_status(verdict: Verdict, *, sigkill_needed: bool = False) -> ExitStatus:
    """Return what the foreground job ends with (README, "Exit status")."""
    if verdict.cause in ("hard_limit", "parent_limit", "system_oom"):
        return ExitStatus(128 + SIGKILL)
    if verdict.cause == "timeout":
        return ExitStatus(124)
    if verdict.cause in ("stalled", "aborted"):
        return ExitStatus(137 if sigkill_needed else 143)
    if verdict.signal is not None:
        interrupted = verdict.signal in (SIGINT, SIGQUIT)
        return ExitStatus(128 + verdict.signal, verdict.signal if interrupted else None)
    return ExitStatus(125 if verdict.exit_code is None else verdict.exit_code)


def _cause(ended: Ended, kills: Kills) -> Cause:
    if ended.what_we_did is not None and not _kernel_was_first(ended, kills):
        return CAUSE_OF[ended.what_we_did]
    if ended.returncode is None:
        # Nobody could wait for it; a group kill at the own limit leaves no other end.
        return "hard_limit" if kills.at_own_limit and ended.limits.oom_group else "unknown"
    if ended.returncode >= 0:
        return "exited"
    if ended.returncode != -SIGKILL or not kills.killed:
        return "signalled"
    return _cause_of_kill(ended.counters, kills)


def _kernel_was_first(ended: Ended, kills: Kills) -> bool:
    """Say whether an OOM kill was under way when we acted: a large process takes long to die."""
    by_sigkill_not_ours = ended.returncode == -SIGKILL and not ended.sigkill_needed
    if not (ended.oom_came_first and by_sigkill_not_ours and kills.killed):
        return False
    if kills.unclear:  # what we did says more than `unknown`
        return bool(ended.counters.ancestors_with_oom)
    return not kills.below


def _cause_of_kill(counters: Counters, kills: Kills) -> Cause:
    if kills.at_own_limit:
        return "hard_limit"
    if counters.ancestors_with_oom:
        return "parent_limit"
    if kills.below:
        # The nested limit explains the kill; the main process's SIGKILL came from somebody.
        return "signalled"
    return "system_oom" if counters.host_root_visible and not kills.unclear else "unknown"
