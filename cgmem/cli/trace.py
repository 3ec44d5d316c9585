"""`cgmem trace`: every process of a subprocess, however short it lived, and which was the hog."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import click

from cgmem.cli import options
from cgmem.cli.events import EventSource
from cgmem.cli.output import plain, print_json, print_table, say
from cgmem.cli.processes import command_of, status_of
from cgmem.errors import CgmemError, ConfigurationError
from cgmem.inspecting import orders
from cgmem.inspecting.traced import Trace, Traced, exit_of, lifetime
from cgmem.text.ids import new_id
from cgmem.text.sizes import format_size

LOOK_SECONDS = 0.1
SETTLED_SECONDS = 3.0
"""How long to wait, after the end, for what the kernel tells of it."""
_SHOWN = 30
_TO_END = (signal.SIGTERM, signal.SIGHUP)

EPILOG = """\b
Root sees every process, also one that lived for 50 ms (fork, exec and exit
from the kernel's process connector, peak memory from taskstats). It needs
pyroute2: pip install 'cgmem[trace]'. Without either, what lives long enough
to be looked at 10 times a second is still shown, and the output says so.

\b
SIGTERM and SIGHUP are passed on to CMD; of an ID they end the trace, and what
was seen is printed.

\b
Examples:
  sudo cgmem trace engineer_abc123 --seconds 60
  sudo cgmem trace --max 2G -- make -j8

\b
Exit status:
  0  done   1  no such subprocess   2  wrong usage or trouble
  129, 143  SIGHUP, SIGTERM         of CMD: as cgmem run
"""


class _Command(click.Command):
    """Tells `trace ID` from `trace -- CMD`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["cgmem.dashes"] = "--" in args
        return super().parse_args(ctx, args)


@click.command(
    "trace", cls=_Command, epilog=EPILOG, options_metavar="[OPTIONS] [--]",
)  # fmt: skip
@click.option("--max", metavar="SIZE", help="The hard limit of CMD.")
@options.seconds_option("--seconds", 0.1, None, "How long (default: its end).")
@click.argument("words", metavar="ID | CMD…", nargs=-1, required=True, type=click.UNPROCESSED)
@options.json_option
@click.pass_context
def command(
    context: click.Context,
    max: str | None,  # noqa: A002  (the option's name)
    seconds: float | None,
    words: tuple[str, ...],
    as_json: bool,
) -> int:
    """Follow every process of a live subprocess, or of CMD, until it ends or Ctrl-C."""
    name = None if context.meta["cgmem.dashes"] else _only_id(words, max)
    source = EventSource()
    try:
        if name is None:
            status, trace = _command_traced(source, words, max, seconds)
        else:
            status, trace = _live_traced(source, name, seconds)
    finally:
        source.close()
    if as_json:
        print_json(_as_json(trace, source))
    else:
        _print(trace, source)
    return status


def _only_id(words: tuple[str, ...], limit: str | None) -> str:
    if limit is not None:
        raise ConfigurationError(
            "--max is for a CMD, which comes after --", hint=f"cgmem trace --max {limit} -- CMD"
        )
    if len(words) > 1:
        raise ConfigurationError("more than one ID", hint="cgmem trace -- CMD runs a command")
    return options.checked_target(words[0])


@contextmanager
def _handled(signals: Iterable[int], handle: Callable[[int], None]) -> Iterator[None]:
    """Call `handle` for these signals. What the caller ignores (nohup) stays ignored."""
    before = {
        signum: signal.signal(signum, lambda number, _frame: handle(number))
        for signum in signals
        if signal.getsignal(signum) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for signum, was in before.items():
            signal.signal(signum, was)


def _live_traced(source: EventSource, name: str, seconds: float | None) -> tuple[int, Trace]:
    trace = Trace()
    arrived: list[int] = []

    def stop(signum: int) -> None:
        arrived.append(signum)
        raise KeyboardInterrupt

    with orders.target(name) as to:
        pids = to.scope.pids
        _look(trace, pids())
        with _handled(_TO_END, stop), suppress(KeyboardInterrupt):
            _follow(trace, source, pids, lambda: not pids(), seconds)
    return (128 + arrived[0] if arrived else 0), trace


def _command_traced(
    source: EventSource, words: tuple[str, ...], limit: str | None, seconds: float | None
) -> tuple[int, Trace]:
    name = new_id(os.path.basename(words[0]))  # noqa: PTH119  (no path)
    ours = [sys.executable, "-m", "cgmem", "run", "--id", name]
    budget = [] if limit is None else ["--max", limit]
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(signum: int) -> None:
        # The terminal's keys are for the command; it is `run` that ends as it does.
        if signum != signal.SIGINT:
            for run in started:
                run.send_signal(signum)
            if not started:
                early.append(signum)

    # At exec the handlers become the defaults.
    with tempfile.TemporaryFile() as report, _handled((*_TO_END, signal.SIGINT), pass_on):
        told = "--report", f"fd:{report.fileno()}"
        run = subprocess.Popen([*ours, *told, *budget, "--", *words], pass_fds=(report.fileno(),))
        started.append(run)
        for signum in early:
            run.send_signal(signum)
        trace = Trace(hidden=[run.pid])
        _follow(trace, source, lambda: _pids(name), lambda: run.poll() is not None, seconds)
        status = run.wait()
        # `run` has a guard, and may have other helpers.
        trace.leave_out_all_but(_main_pid(report))
        return (128 - status if status < 0 else status), trace


def _main_pid(report: IO[bytes]) -> int | None:
    """The command's pid as `run` reported it; None where it started none."""
    report.seek(0)
    text = report.read()
    found = json.loads(text).get("pid") if text else None
    return found if isinstance(found, int) else None


def _pids(name: str) -> list[int]:
    try:
        with orders.target(name) as to:
            return to.scope.pids()
    except CgmemError:
        return []


def _follow(
    trace: Trace,
    source: EventSource,
    pids: Callable[[], list[int]],
    over: Callable[[], bool],
    seconds: float | None,
) -> None:
    until = None if seconds is None else time.monotonic() + seconds
    while not over() and (until is None or time.monotonic() < until):
        _take(trace, source, LOOK_SECONDS)
        living = pids()
        _look(trace, living)
        if not source.sees("life"):
            trace.gone(living, time.monotonic())
    # What the kernel has told by now may still be on its way.
    patience = time.monotonic() + (SETTLED_SECONDS if over() and not source.cannot else 0.0)
    _take(trace, source, LOOK_SECONDS)
    while not trace.settled and time.monotonic() < patience:
        _take(trace, source, LOOK_SECONDS)
    trace.gone(pids(), time.monotonic())


def _take(trace: Trace, source: EventSource, seconds: float) -> None:
    for event in source.events(seconds):
        # When it was read says little: the reader may be late, a process's life is short.
        begun = trace.take(event, event.get("at", time.monotonic()))
        if begun is not None:
            _look(trace, [begun])


def _look(trace: Trace, pids: list[int]) -> None:
    """Read names and peaks while they are there to be read."""
    for pid in pids:
        with suppress(OSError, ValueError):
            fields = status_of(pid, "replace")
            command = command_of(Path(f"/proc/{pid}/cmdline").read_bytes()[:400], "replace")
            peak = fields.get("VmHWM", "0").split()[0]
            trace.seen(pid, int(fields["PPid"]), command, int(peak), f"[{fields['Name']}]")


def _print(trace: Trace, source: EventSource) -> None:
    if not trace.processes:
        return
    found = sorted(trace.processes, key=lambda process: process.peak_kib or 0, reverse=True)
    rows = [_row(process) for process in found[:_SHOWN]]
    print_table(("COMMAND", "PID", "PPID", "PEAK", "LIVED", "END"), rows, right=_NUMBERS)
    more = len(found) + trace.dropped - _SHOWN
    if more > 0:
        print(f"… and {more} more")
    hog = trace.hog
    if hog is not None:
        print(f"\nhog: pid {hog.pid}, {_size(hog)} resident at most, {_lived(hog)}")
        print(f"     {plain(hog.command)}"[:200])
    for what, why in source.cannot.items():
        say(_MISSING[what].format(why=why))
    if source.lost:
        say("so many processes were started on this host that some were not told of")


_NUMBERS = ("PID", "PPID", "PEAK", "LIVED")
_MISSING = {
    "life": "only processes that lived long enough to be looked at are shown: {why};"
    " as root (Linux 6.6 and later: anybody), with pip install 'cgmem[trace]', all are",
    "memory": "the peak of a short process may be too low or missing: {why};"
    " as root, with pip install 'cgmem[trace]', the kernel tells it",
}


def _row(process: Traced) -> tuple[str, ...]:
    name = process.command if len(process.command) <= 60 else f"{process.command[:59]}…"
    pids = str(process.pid), str(process.ppid)
    return (name or "?", *pids, _size(process), _seconds(process), _end(process))


def _size(process: Traced) -> str:
    return "?" if process.peak_kib is None else format_size(process.peak_kib * 1024)


def _seconds(process: Traced) -> str:
    lived = lifetime(process, time.monotonic())
    return "?" if lived is None else f"{lived:.2f} s"


def _lived(process: Traced) -> str:
    if process.ended is None:
        return "lives"
    return f"lived {_seconds(process)}, {_end(process)}"


def _end(process: Traced) -> str:
    if process.ended is None:
        return "lives"
    code, signum = exit_of(process)
    if signum is None:
        return "?" if code is None else f"exit {code}"
    with suppress(ValueError):  # real-time signals have no names of their own
        return signal.Signals(signum).name
    return f"signal {signum}"


def _as_json(trace: Trace, source: EventSource) -> dict[str, Any]:
    now = time.monotonic()

    def one(process: Traced) -> dict[str, Any]:
        exit_code, signum = exit_of(process)
        return {
            "pid": process.pid,
            "ppid": process.ppid,
            "command": process.command,
            "peak_kib": process.peak_kib,
            "seconds": lifetime(process, now),
            "exit_code": exit_code,
            "signal": signum,
            "lives": process.ended is None,
        }

    hog = trace.hog
    return {
        "processes": [one(process) for process in trace.processes],
        "hog": None if hog is None else one(hog),
        "more_processes": trace.dropped,
        "complete": not (source.cannot or source.lost),
        "cannot": source.cannot,
        "lost_events": source.lost,
    }
