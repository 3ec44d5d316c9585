"""Why a subprocess ended, in one word, in one sentence, and as an exit status. Pure.

Source: memory.events and memory.events.local (Documentation/admin-guide/cgroup-v2.rst), wait(2).
memory.events counts the whole subtree; only the local file tells whose limit was hit.
"""

from __future__ import annotations

from collections.abc import Sequence
from signal import SIGINT, SIGKILL, SIGQUIT, Signals
from typing import Literal, NamedTuple

from cgmem import messages
from cgmem.contract import Cause, Counters, Limits, MemoryEvents
from cgmem.figures import Figures

WhatWeDid = Literal["hard_limit", "stall", "abort", "timeout"]

CAUSE_OF: dict[WhatWeDid, Cause] = {
    "hard_limit": "hard_limit",
    "stall": "stalled",
    "abort": "aborted",
    "timeout": "timeout",
}


class Ended(NamedTuple):
    """What is known of a subprocess that has ended."""

    returncode: int | None
    """Popen's: negative for a signal. None: unknown."""
    counters: Counters
    figures: Figures
    limits: Limits
    baseline: MemoryEvents | None = None
    """memory.events when we took over a scope that had already lived; None for our own."""
    what_we_did: WhatWeDid | None = None
    """What cgmem ended it for, if it did."""
    sigkill_needed: bool = False
    top: Sequence[tuple[int, str, int]] = ()
    """The largest processes last seen: (pid, command, bytes)."""
    swap_free_bytes: int = 0
    kernel_limits: bool = True
    """The kernel held the hard limit."""


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


class _Kills(NamedTuple):
    """What rose while the subprocess lived."""

    killed: int
    """`oom_kill`, the whole subtree. Not a number of processes: a group kill counts one twice."""
    at_own_limit: bool
    below: bool
    """The OOM was at a nested scope's limit."""


def verdict(ended: Ended) -> Verdict:
    """Return why it ended.

    What cgmem itself ended is called so, whatever the process made of it. Next, a main process
    that SIGKILL ended is asked for whose limit. A main process that ended otherwise has `exited`
    or was `signalled`, and its message tells of killed descendants: a shell that reports its
    child's 137 has exited.
    """
    kills = _kills(ended.counters, ended.baseline)
    cause = _cause(ended, kills)
    code = ended.returncode
    return Verdict(
        cause,
        exit_code=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        message=" ".join(part for part in _message(cause, ended, kills) if part),
    )


def killed_at_own_limit(counters: Counters, baseline: MemoryEvents | None = None) -> bool:
    """Say whether an OOM kill happened at this scope's own limit."""
    return _kills(counters, baseline).at_own_limit


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


def _kills(counters: Counters, baseline: MemoryEvents | None) -> _Kills:
    events = counters.events or MemoryEvents()
    before = baseline or MemoryEvents()
    # memory.events.local is younger (5.2) than memory.events and read only after a kill.
    local = counters.local_events or events
    killed = _rise(before.oom_kill, events.oom_kill)
    own = killed > 0 and _rise(before.oom, local.oom) > 0
    return _Kills(killed, own, not own and _rise(before.oom, events.oom) > 0)


def _rise(before: int | None, after: int | None) -> int:
    return max(0, (after or 0) - (before or 0))


def _cause(ended: Ended, kills: _Kills) -> Cause:
    if ended.what_we_did is not None:
        return CAUSE_OF[ended.what_we_did]
    if ended.returncode is None:
        # Nobody could wait for it; a group kill at the own limit leaves no other end.
        return "hard_limit" if kills.at_own_limit and ended.limits.oom_group else "unknown"
    if ended.returncode >= 0:
        return "exited"
    if ended.returncode != -SIGKILL or not kills.killed:
        return "signalled"
    return _cause_of_kill(ended.counters, kills)


def _cause_of_kill(counters: Counters, kills: _Kills) -> Cause:
    if kills.at_own_limit:
        return "hard_limit"
    if counters.ancestors_with_oom:
        return "parent_limit"
    if kills.below:
        # The nested limit explains the kill; the main process's SIGKILL came from somebody.
        return "signalled"
    return "system_oom" if counters.host_root_visible else "unknown"


def _message(cause: Cause, ended: Ended, kills: _Kills) -> tuple[str, ...]:
    largest = messages.largest(ended.top)
    if cause == "hard_limit":
        return (_hard_limit(ended), largest, _more_memory(ended))
    if cause in ("parent_limit", "system_oom"):
        return (_outer_limit(cause, ended), largest, _OUTER_ADVICE[cause])
    if cause in ("exited", "signalled", "unknown"):
        return (_own_end(cause, ended, kills), _descendant_note(cause, ended, kills))
    note = _descendant_note(cause, ended, kills)
    return (_ended_by_us(cause, ended), largest, _ADVICE[cause], note)


def _peak(ended: Ended) -> str:
    return f"peak {ended.figures.peak_mb} MB"


def _hard_limit(ended: Ended) -> str:
    limit = messages.size(ended.limits.max_bytes)
    if ended.what_we_did == "hard_limit":
        return f"hard limit: {limit} passed ({_peak(ended)}); cgmem killed the process tree."
    victim = "everything in it" if ended.limits.oom_group else "the largest process"
    return f"hard limit: memory.max {limit} reached ({_peak(ended)}); the kernel killed {victim}."


def _more_memory(ended: Ended) -> str:
    limits = ended.limits
    text = "Raise --max"
    if limits.max_bytes is not None:
        text += f" (say {messages.size(2 * limits.max_bytes)})"
    text += " or make it use less memory."
    if ended.kernel_limits and limits.swap_max_bytes == 0 and ended.swap_free_bytes > 0:
        free = messages.mb(ended.swap_free_bytes)
        text += f" {free} of swap is free: --swap SIZE would allow it."
    return text


_OUTER_ADVICE: dict[Cause, str] = {
    "parent_limit": "Raise that limit, or set --max below what it leaves.",
    "system_oom": "Free memory (see `journalctl -k`), or set --max below what the machine has.",
}

_ADVICE: dict[Cause, str] = {
    "stalled": "Raise --critical or --max, or make it use less memory.",
    "aborted": "",
    "timeout": "Raise --timeout if it needs longer.",
}


def _outer_limit(cause: Cause, ended: Ended) -> str:
    own = f"{_peak(ended)}, own limit {messages.size(ended.limits.max_bytes)}"
    if cause == "system_oom":
        return f"system out of memory: the kernel killed it to save the machine ({own})."
    above = ", ".join(ended.counters.ancestors_with_oom)
    return f"parent limit: the limit of {above} was reached and the kernel killed it ({own})."


def _ended_by_us(cause: Cause, ended: Ended) -> str:
    how = "SIGKILL was needed" if ended.sigkill_needed else "SIGTERM was enough"
    limits, size = ended.limits, messages.size
    if cause == "stalled":
        held = f"stalled: held at memory.high {size(limits.high_bytes)}"
        return f"{held} ({_peak(ended)}, hard limit {size(limits.max_bytes)}); ended, {how}."
    if cause == "timeout":
        return f"timeout: its time was up ({_peak(ended)}); ended, {how}."
    return f"aborted: ended on request ({_peak(ended)}), {how}."


def _own_end(cause: Cause, ended: Ended, kills: _Kills) -> str:
    code = ended.returncode
    if cause == "exited":
        return f"exited: status {code} ({_peak(ended)})."
    if cause == "unknown":
        if kills.killed and code is not None:
            return (
                f"unknown: killed by a limit above this container, or by the host ({_peak(ended)},"
                f" own limit {messages.size(ended.limits.max_bytes)})."
                " Look at the container's memory limit."
            )
        return f"unknown: nobody saw how it ended ({_peak(ended)})."
    text = f"signalled: ended by {_signal_name(-(code or 0))} ({_peak(ended)})."
    if code != -SIGKILL:
        return text
    if ended.counters.events is None:
        return f"{text} Not by cgmem; OOM kills can't be seen here, `journalctl -k` names them."
    return f"{text} Sent by neither cgmem nor the kernel's OOM killer; systemd-oomd or a person?"


def _descendant_note(cause: Cause, ended: Ended, kills: _Kills) -> str:
    """Warn of OOM kills that were not the end of the main process."""
    if not kills.killed or (cause == "unknown" and ended.returncode is not None):
        return ""
    if kills.at_own_limit:
        where = f"at the hard limit, memory.max {messages.size(ended.limits.max_bytes)}"
    elif kills.below:
        where = "at the limit of a nested budget"
    else:
        where = "for a limit above it, or for the host"
    return f"WARNING: the kernel's OOM killer killed a process in it, {where}."


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:  # real-time signals have no names of their own
        return f"signal {number}"
