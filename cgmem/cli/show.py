"""`cgmem show ID`: one live subprocess in detail."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import click

from cgmem.cli import options
from cgmem.cli.errors import NO, Failure, complain
from cgmem.cli.output import age, coloured, plain, print_field, print_json
from cgmem.cli.processes import Seen, look
from cgmem.contract import MemoryEvents
from cgmem.ids import check_id
from cgmem.live_scopes import LiveScope, live_scopes
from cgmem.sizes import format_size, mb

_SHOWN_PROCESSES = 10

EPILOG = """\b
Example:
  cgmem show engineer_abc123

\b
Exit status:
  0  done   1  no live subprocess has this id   2  wrong usage or trouble
"""


@click.command("show", epilog=EPILOG)
@click.argument("subprocess_id", metavar="ID")
@options.json_option
def command(subprocess_id: str, as_json: bool) -> int:
    """Show one live subprocess: its level, memory, budget, events and processes."""
    check_id(subprocess_id, source="ID")
    found = live_scopes()
    wanted = [live for live in found if live.record.subprocess_id == subprocess_id]
    if not wanted:
        complain(_unknown(subprocess_id, [live.record.subprocess_id for live in found]))
        return NO
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
        for name, value in _lines(live):
            print_field(name, value)
    return 0


def _unknown(subprocess_id: str, live: list[str]) -> Failure:
    hint = f"one of: {', '.join(live)}" if live else "cgmem ps  # none lives now"
    return Failure(f"no live subprocess has the id {subprocess_id!r}", hint)


def _as_json(live: LiveScope) -> dict[str, Any]:
    sample = live.sample
    events = sample.events or MemoryEvents()
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
        "processes": [process._asdict() for process in look(live.pids)],
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
    yield from _kernel_lines(live)
    yield "started", f"{age(live.age_seconds)} ago, by pid {_supervisor(live)}"
    yield "backend", f"{live.backend}, {live.location}"
    yield "logs", record.log_dir or "-"
    yield from _process_lines(look(live.pids))
    for advice in _advice(live):
        yield "to change", advice


def _memory(live: LiveScope) -> str:
    used, limit = format_size(live.judged_bytes), live.record.max_bytes
    share = "" if limit is None else f" ({live.percent}% of {format_size(limit)})"
    sample = live.sample
    if sample.metric != "cgroup":
        return f"{used}{share}, {sample.metric}"
    cache = format_size(sample.reclaimable_bytes or 0)
    return f"{used}{share}; {format_size(sample.current_bytes)} with {cache} reclaimable"


def _budget(live: LiveScope) -> str:
    warning, critical, limit = map(format_size, live.thresholds)
    if live.kernel_limits:
        holder = "the kernel holds it"
    else:
        holder = "its supervisor watches it" if live.supervised else "nobody holds it any more"
    return f"warning {warning}, critical {critical}, max {limit}; {holder}"


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
        yield "pressure", f"waited for memory {sample.some_seconds:.1f} s, wholly {full:.1f} s"


def _process_lines(processes: list[Seen]) -> Iterator[tuple[str, str]]:
    largest = sorted(processes, key=lambda seen: seen.rss_mb or 0.0, reverse=True)
    yield "processes", f"{len(processes)}, by resident memory:"
    for seen in largest[:_SHOWN_PROCESSES]:
        rss = "?" if seen.rss_mb is None else f"{seen.rss_mb}MB"
        yield "", f"{seen.pid:>7}  {rss:>9}  {_shortened(plain(seen.command))}"
    if len(largest) > _SHOWN_PROCESSES:
        yield "", f"{'…':>7}  and {len(largest) - _SHOWN_PROCESSES} more"


def _shortened(command: str, room: int = 48) -> str:
    return command if len(command) <= room else f"{command[: room - 1]}…"


def _advice(live: LiveScope) -> list[str]:
    """Say what would change things for this subprocess."""
    record, advice = live.record, []
    if not live.kernel_limits:
        advice.append("limits that the kernel holds: cgmem doctor says what that needs")
    if not live.supervised and not live.kernel_limits:
        advice.append(f"nobody watches it any more: kill {live.pids[0]} ends its first process")
    if not live.supervised and live.kernel_limits:
        advice.append(f"nobody watches it any more: cgmem adopt {record.subprocess_id}")
    if live.level != "OK" and record.max_bytes is not None:
        twice = format_size(2 * record.max_bytes)
        advice.append(f"more room: start it with --max {twice}")
    return advice
