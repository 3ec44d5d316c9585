"""`cgmem show ID`: one live subprocess in detail."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from cgmem.cli import options
from cgmem.cli.output import age, coloured, plain, print_field, print_json
from cgmem.cli.processes import Seen, as_tree, look, with_pss
from cgmem.contract import MB, MemoryEvents, MemoryStat
from cgmem.inspecting.live_scopes import LiveScope, inspected, live_scopes
from cgmem.logs.history import is_alert, time_of
from cgmem.logs.memory_logs import ALERTS_FILE
from cgmem.logs.reading import Line, Reader
from cgmem.supervising.scopes import unknown
from cgmem.text.sizes import format_size, mb

_SHOWN_PROCESSES = 10
_READ_PROCESSES = 50
"""PSS is asked for of so many: it walks every page that a process has."""
_SHOWN_ALERTS = 5

EPILOG = """\b
Example:
  cgmem show engineer_abc123

\b
Exit status:
  0  done   1  no live subprocess has this id   2  wrong usage or trouble
"""


@click.command("show", epilog=EPILOG)
@options.target_argument
@options.json_option
def command(name: str, as_json: bool) -> int:
    """Show one live subprocess: its level, memory, budget, events and processes.

    PSS is a process's share of the pages that it has mapped; RSS counts shared ones in full.
    """
    found = live_scopes()
    wanted = [live for live in found if name in (live.record.subprocess_id, live.location)]
    if not wanted:
        raise unknown(name, [live.record.subprocess_id for live in found])
    if as_json:
        # Two processes may each have a subprocess of this id.
        print_json([_as_json(live) for live in wanted] if len(wanted) > 1 else _as_json(wanted[0]))
        return 0
    for number, live in enumerate(wanted):
        if number:
            print()
        print_field("id", live.record.subprocess_id)
        # Coloured, so not for wrapping.
        print(f"{'level':<12}{coloured(live.level)}{', frozen' if live.sample.frozen else ''}")
        for heading, value in _lines(live):
            print_field(heading, value)
        for advice in _advice(live):
            print(f"{'to change':<12}{plain(advice)}")  # never broken: to be pasted
    return 0


def _as_json(live: LiveScope) -> dict[str, Any]:
    sample = live.sample
    events = sample.events or MemoryEvents()
    snapshot = inspected(live, _READ_PROCESSES)
    stat = snapshot.memory_stat
    return {
        **live.as_json(),
        "sample": {
            "reclaimable_mb": _mb(sample.reclaimable_bytes),
            "swap_mb": _mb(sample.swap_bytes),
            "pressure_some_seconds": sample.some_seconds,
            "pressure_full_seconds": sample.full_seconds,
            "user_seconds": sample.user_seconds,
            "frozen": sample.frozen,
        },
        "events": events._asdict(),
        "memory_stat": None if stat is None else stat._asdict(),
        "held": live.held._asdict(),
        "recent_alerts": recent_alerts(live),
        "processes": [seen._asdict() for seen in with_pss(look(live.pids), snapshot)],
        "advice": _advice(live),
    }


def _mb(size: int | None) -> float | None:
    return None if size is None else mb(size)


def _lines(live: LiveScope) -> Iterator[tuple[str, str]]:
    record = live.record
    if record.agent_type:
        yield "agent type", record.agent_type
    yield "command", shlex.join(record.command)
    yield "memory", _memory(live)
    yield "budget", _budget(live)
    if live.kernel_limits:
        yield "effective", _effective(live)
    if live.held.soft:
        yield "", "soft: this host has swap that no limit counts"
    snapshot = inspected(live, _READ_PROCESSES)
    if snapshot.memory_stat is not None:
        yield "memory.stat", described(snapshot.memory_stat)
    yield from _kernel_lines(live)
    yield "started", f"{age(live.age_seconds)} ago, by pid {_supervisor(live)}"
    yield "backend", f"{live.backend}, {live.location}"
    yield "logs", record.log_dir or "-"
    yield from _process_lines(with_pss(look(live.pids), snapshot))
    for number, alert in enumerate(recent_alerts(live)):
        yield "" if number else "alerts", f"{alert['timestamp'][11:19]}  {alert['message']}"


def _memory(live: LiveScope) -> str:
    used, limit = format_size(live.judged_bytes), live.record.max_bytes
    share = "" if limit is None else f" ({live.percent}% of {format_size(limit)})"
    sample = live.sample
    if sample.metric != "cgroup":
        return f"{used}{share}, {sample.metric}"
    cache, raw = format_size(sample.reclaimable_bytes or 0), format_size(sample.current_bytes)
    peak = (
        "" if live.peak_bytes is None else f"; peak {format_size(live.peak_bytes)} including cache"
    )
    return f"{used}{share}; {raw} with {cache} reclaimable{peak}"


def _budget(live: LiveScope) -> str:
    warning, critical, limit = map(format_size, live.thresholds)
    return f"warning {warning}, critical {critical}, max {limit}; {_holder(live)}"


def _holder(live: LiveScope) -> str:
    if not live.kernel_limits:
        return "its supervisor watches it" if live.supervised else "nobody holds it any more"
    held = live.held
    if held.max_bytes is None and live.record.max_bytes is not None:
        return "observed only"
    released = held.high_bytes is None and live.record.critical_bytes is not None
    return "the kernel holds it" + (", the brake is released" if released else "")


def _effective(live: LiveScope) -> str:
    """Which limit comes first, and who sets it."""
    held = live.held
    if held.effective_max_bytes is None:
        return "no limit, here or above"
    own = held.effective_max_bytes == held.max_bytes
    whose = "its own memory.max" if own else f"set above it by {held.effective_max_source}"
    return f"{format_size(held.effective_max_bytes)}, {whose}"


def described(stat: MemoryStat) -> str:
    """What the memory is, in the words of memory.stat."""
    parts = [
        ("anon", stat.anon, None, None),
        ("file", stat.file, "shmem", stat.shmem),
        ("kernel", stat.kernel, "slab", stat.slab),
        ("sock", stat.sock, None, None),
    ]
    return ", ".join(
        f"{name} {format_size(size)}"
        + ("" if within is None else f" ({part} {format_size(within)})")
        for name, size, part, within in parts
        if size is not None
    )


def _supervisor(live: LiveScope) -> str:
    pid = live.record.supervisor_pid
    return str(pid) if live.supervised else f"{pid}, which is gone"


def _kernel_lines(live: LiveScope) -> Iterator[tuple[str, str]]:
    """Yield what only the kernel's own accounting knows."""
    sample = live.sample
    if sample.swap_bytes:
        yield "swap", format_size(sample.swap_bytes)
    if sample.events is not None:
        counted = sample.events._asdict().items()
        yield "events", ", ".join(f"{key} {value}" for key, value in counted if value is not None)
    if sample.some_seconds is not None:
        full = 0.0 if sample.full_seconds is None else sample.full_seconds
        yield (
            "pressure",
            f"waited for memory {sample.some_seconds:.1f} s, wholly {full:.1f} s"
            f" of {age(live.age_seconds)}",
        )


def _process_lines(processes: list[Seen]) -> Iterator[tuple[str, str]]:
    tree = as_tree(processes)
    yield "processes", f"{len(processes)}: PID, PSS and RSS in MB, command"
    for depth, seen in tree[:_SHOWN_PROCESSES]:
        pss, rss = ("?" if size is None else f"{size}" for size in (seen.pss_mb, seen.rss_mb))
        line = f"{'  ' * min(depth, 8)}{plain(seen.command)}"
        yield "", f"{seen.pid:>7}  {pss:>7}  {rss:>7}  {_shortened(line)}"
    if len(tree) > _SHOWN_PROCESSES:
        yield "", f"{'…':>7}  and {len(tree) - _SHOWN_PROCESSES} more"


def _shortened(command: str, room: int = 41) -> str:
    return command if len(command) <= room else f"{command[: room - 1]}…"


def recent_alerts(live: LiveScope) -> list[Line]:
    """The last alerts of this subprocess, from its log."""
    record = live.record
    if record.log_dir is None:
        return []
    found = deque[Line](maxlen=_SHOWN_ALERTS)
    with suppress(OSError):  # another user's, or not there yet
        found.extend(
            line
            for line in Reader(Path(record.log_dir, ALERTS_FILE), is_alert).read()
            if line["subprocess_id"] == record.subprocess_id
            # The log's clock and ours are the same one.
            and (time_of(line) or 0.0) >= record.started_at
        )
    return list(found)


def _advice(live: LiveScope) -> list[str]:
    """Say what would change things for this subprocess."""
    record, advice = live.record, []
    name = record.subprocess_id
    if live.sample.frozen:
        advice.append(f"cgmem thaw {name}  # it is frozen")
    if not live.supervised and not live.kernel_limits:
        advice.append(f"cgmem kill {name}  # nobody watches it any more")
    if not live.supervised and live.kernel_limits:
        advice.append(f"cgmem adopt {name}  # nobody watches it any more")
    if live.level != "OK" and record.max_bytes is not None:
        warning, critical, limit = (
            format_size(2 * size) if size else "" for size in live.thresholds
        )
        sizes = f"--warning {warning} --critical {critical} --max {limit}"
        advice.append(f"cgmem set {name} {sizes}  # more room")
    if (live.sample.reclaimable_bytes or 0) > max(live.judged_bytes, 16 * MB):
        cache = format_size(live.sample.reclaimable_bytes)
        advice.append(f"cgmem reclaim {name} {cache}  # its page cache")
    if not live.kernel_limits:
        advice.append("cgmem doctor  # what limits that the kernel holds would need")
    return advice
