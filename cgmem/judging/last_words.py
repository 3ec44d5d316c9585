"""The last words on a subprocess: what happened, when, the numbers, and what to try. Pure.

One line for whoever has to act on it, a program or a tired person. The cause itself is
`judging.verdict`'s.
"""

from __future__ import annotations

from signal import SIGKILL, SIGTERM, Signals

from cgmem.contract import Cause
from cgmem.judging import messages
from cgmem.judging.ended import Ended, Kills


def last_words(cause: Cause, ended: Ended, kills: Kills) -> str:
    """Return the message of the outcome."""
    return " ".join(part for part in _parts(cause, ended, kills) if part)


def _parts(cause: Cause, ended: Ended, kills: Kills) -> tuple[str, ...]:
    largest = messages.largest(ended.top)
    if cause == "hard_limit":
        return (_hard_limit(ended), largest, _more_memory(ended))
    if cause in ("parent_limit", "system_oom"):
        return (_outer_limit(cause, ended), largest, _OUTER_ADVICE[cause])
    note = _descendant_note(cause, ended, kills)
    if cause in ("exited", "signalled", "unknown"):
        return (_own_end(cause, ended, kills), note, largest if note else "")
    return (_ended_by_us(cause, ended, kills), largest, _ADVICE[cause], note)


def _peak(ended: Ended) -> str:
    return f"peak {ended.figures.peak_mb} MB"


def _own_limit(ended: Ended) -> str:
    return f"{_peak(ended)}, own limit {messages.size(ended.limits.max_bytes)}"


def _when(ended: Ended) -> str:
    """Say how long after its start, and by the clock; nothing where that is unknown."""
    if ended.duration_seconds is None:
        return ""
    after = f" after {messages.duration(ended.duration_seconds)}"
    if not ended.started_at:
        return after
    return f"{after}, at {messages.wall_clock(ended.started_at + ended.duration_seconds)}"


def _hard_limit(ended: Ended) -> str:
    limit = messages.size(ended.limits.max_bytes)
    if ended.what_we_did == "hard_limit":
        what, who = f"{limit} passed", "cgmem killed the process tree"
    else:
        victim = "everything in it" if ended.limits.oom_group else "the largest process"
        what, who = f"memory.max {limit} reached", f"the kernel killed {victim}"
    return f"hard limit: {what}{_when(ended)} ({_peak(ended)}); {who}."


def _more_memory(ended: Ended) -> str:
    limits = ended.limits
    text = "Raise --max"
    if limits.max_bytes is not None:
        text += f" (say {messages.size(2 * limits.max_bytes)})"
    text += " or make it use less memory."
    swap_free = ended.system_memory.swap_free_bytes
    if ended.kernel_limits and limits.swap_max_bytes == 0 and swap_free > 0:
        text += f" {messages.mb(swap_free)} of swap is free: --swap SIZE would allow it."
    return text


_OUTER_ADVICE: dict[Cause, str] = {
    "parent_limit": (
        "All that runs under that limit shares it: raise it, run less at a time,"
        " or set --max below what it leaves."
    ),
    "system_oom": (
        "`journalctl -k` shows who used the memory: free some, add swap, run less at a time,"
        " or set --max to what the machine can spare."
    ),
}

_ADVICE: dict[Cause, str] = {
    "stalled": "Raise --critical or --max, or make it use less memory.",
    "aborted": "",
    "timeout": "Raise --timeout if it needs longer.",
}


def _outer_limit(cause: Cause, ended: Ended) -> str:
    if cause == "system_oom":
        total = ended.system_memory.total_bytes
        machine = f", the machine has {messages.mb(total)}" if total else ""
        return (
            f"system out of memory: the kernel killed it to save the machine{_when(ended)}"
            f" ({_own_limit(ended)}{machine})."
        )
    return (
        f"parent limit: the limit of {_limits_above(ended)} was reached and the kernel killed it"
        f"{_when(ended)} ({_own_limit(ended)})."
    )


def _limits_above(ended: Ended) -> str:
    return " and ".join(messages.limit_above(above) for above in ended.counters.ancestors_with_oom)


def _ended_by_us(cause: Cause, ended: Ended, kills: Kills) -> str:
    if ended.sigkill_needed:
        how = "SIGKILL was needed"
    elif ended.returncode == -SIGKILL and kills.killed:
        how = "by SIGTERM, and the kernel's OOM killer was faster"
    else:
        how = "SIGTERM was enough"
    limits, size = ended.limits, messages.size
    if cause == "stalled":
        held = f"stalled: held at memory.high {size(limits.high_bytes)}"
        numbers = f"{_peak(ended)}, hard limit {size(limits.max_bytes)}"
        return f"{held} ({numbers}); ended{_when(ended)}, {how}."
    if cause == "timeout":
        span = ended.timeout_seconds
        given = "its time" if span is None else f"its time of {messages.duration(span)}"
        return f"timeout: {given} was up ({_peak(ended)}); ended{_when(ended)}, {how}."
    return f"aborted: ended on request{_when(ended)} ({_peak(ended)}), {how}."


def _own_end(cause: Cause, ended: Ended, kills: Kills) -> str:
    code = ended.returncode
    if cause == "exited":
        return f"exited: status {code} ({_peak(ended)})."
    if cause == "unknown":
        if kills.unclear and code is not None:
            return (
                f"unknown: killed, most likely by the kernel's OOM killer{_when(ended)}"
                f" ({_own_limit(ended)}); whose limit was reached could not be read any more."
                " `journalctl -k` names it."
            )
        if kills.killed and code is not None:
            return (
                "unknown: killed by a limit above this container, or by the host"
                f"{_when(ended)} ({_own_limit(ended)})."
                " Raise the container's memory limit, or set --max well below it."
            )
        return f"unknown: nobody saw how it ended ({_peak(ended)})."
    by = _signal_name(-(code or 0))
    text = f"signalled: ended by {by}{_when(ended)} ({_peak(ended)})."
    if code == -SIGKILL:
        return f"{text} {_who_sent_sigkill(ended)}"
    if code == -SIGTERM and _low(ended):
        return f"{text} {_low(ended)}: earlyoom sends SIGTERM then; see `journalctl -u earlyoom`."
    return text


def _who_sent_sigkill(ended: Ended) -> str:
    if ended.counters.events is None:
        return "Not by cgmem; OOM kills can't be seen here, `journalctl -k` names them."
    if ended.counters.cached:
        return "Not by cgmem; its last counters could not be read: see `journalctl -k`."
    text = "Sent by neither cgmem nor the kernel's OOM killer"
    watchers = "earlyoom or systemd-oomd"
    see = "`journalctl -u earlyoom -u systemd-oomd`"
    if low := _low(ended):
        return f"{text}. {low}: most likely by {watchers}; see {see}."
    return (
        f"{text}, but by a person, a program that ends others (its starter, a CI runner),"
        f" or {watchers} ({see})."
    )


def _low(ended: Ended) -> str:
    """Say how little memory was available while it lived; nothing if there was enough."""
    memory = ended.system_memory
    # What it held has come back by now.
    available = max(0, memory.available_bytes - ended.figures.end_bytes)
    if 100 * available >= _LOW_PERCENT * memory.total_bytes:
        return ""
    of = f"{messages.mb(available)} of {messages.mb(memory.total_bytes)}"
    return f"The machine was low on memory ({of} available)"


_LOW_PERCENT = 15
"""Of available memory. earlyoom kills below 10 by default, and our number is a moment old."""


def _descendant_note(cause: Cause, ended: Ended, kills: Kills) -> str:
    """Warn of OOM kills that were not the end of the main process."""
    if not kills.killed or (cause == "unknown" and ended.returncode is not None):
        return ""
    text = "WARNING: the kernel's OOM killer killed a process in it"
    if kills.at_own_limit:
        limit = messages.size(ended.limits.max_bytes)
        text += f", at the hard limit, memory.max {limit}"
        advice = _more_memory(ended)
    elif kills.below:
        text, advice = text + ", at the limit of a nested budget", "Raise that one's."
    elif kills.unclear:
        text, advice = text + ", for a limit that could not be read any more", ""
    else:
        text, advice = text + ", for a limit above it, or for the host", ""
    if cause == "exited":
        text += "; the main process went on, what it did may be incomplete"
    return f"{text}. {advice}".rstrip()


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:  # real-time signals have no names of their own
        return f"signal {number}"
