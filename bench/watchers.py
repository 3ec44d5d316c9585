"""Processes that watch N subprocesses at a tick of 2 s, and measure themselves.

Usage: python3 -c "from bench.watchers import main; main()" cgmem|pread|psutil|agents
The first line of stdin is a JSON list of arguments. Each answers with a line when it is ready;
then every line with a number of seconds is answered with what it used in that time; it ends when
stdin does. Each imports only what it needs: its memory is a part of the answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

TICK = 2.0
AGENT = """
import time
while True:
    held = bytearray(40 << 20)
    time.sleep(0.2)
    del held
    time.sleep(0.2)
"""
"""Takes and gives back memory several times within a tick, so that no look finds it at rest."""
BUSY = """
while (1) { my $held = "x" x (2 << 20); $held = undef; select(undef, undef, undef, 0.2); }
"""
"""For perl, which is in every Debian and small: a hundred of them fit into a guest."""


def main() -> None:
    """Become the watcher in argv[1]."""
    arguments = json.loads(sys.stdin.readline())
    {"cgmem": _cgmem, "pread": _pread, "psutil": _psutil, "agents": _agents}[sys.argv[1]](arguments)


def _measured(work: Callable[[float], None]) -> None:
    for line in sys.stdin:
        seconds = float(line)
        writes, written = _written()
        began, used = time.monotonic(), time.process_time()
        work(began + seconds)
        cpu = 100 * (time.process_time() - used) / (time.monotonic() - began)
        writes_after, written_after = _written()
        found = {
            "cpu": cpu,
            "rss_mb": _rss_mb(),
            "writes": writes_after - writes,
            "written": written_after - written,
        }
        print(json.dumps(found), flush=True)


def _written() -> tuple[int, int]:
    with open("/proc/self/io") as file:
        found = dict(line.split(": ") for line in file)
    return int(found["syscw"]), int(found["wchar"])


def _rss_mb() -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def _ticking(look: Callable[[float], object]) -> Callable[[float], None]:
    def work(until: float) -> None:
        due = time.monotonic()
        while due < until:
            look(until)
            due = max(due + TICK, time.monotonic())
            time.sleep(max(0.0, min(due, until) - time.monotonic()))

    return work


def _cgmem(arguments: list[str]) -> None:
    import cgmem
    from cgmem.supervising.supervisor import Supervisor

    _more_files()
    count, kind, directory = int(arguments[0]), arguments[1], arguments[2]
    command = ["perl", "-e", BUSY] if kind == "busy" else ["sleep", "3600"]
    supervisor = Supervisor({"log_dir": directory, "tick": TICK, "preflight": False})
    started = [cgmem.spawn(command, supervisor=supervisor) for _ in range(count)]
    time.sleep(2 * TICK)  # what is new about a scope is looked at once
    scopes = [getattr(process.supervision, "scope", None) for process in started]
    found = [getattr(scope, "directory", None) for scope in scopes]
    ready = {
        "backend": supervisor.choice(supervisor.settings()).backend.name,
        "directories": [str(one) for one in found if one is not None],
        "pids": [process.pid for process in started],
    }
    print(json.dumps(ready), flush=True)
    _measured(_sleeping)
    for process in started:
        process.supervision.kill("abort")
    for process in started:
        process.outcome()
    supervisor.close()


def _pread(directories: list[str]) -> None:
    _more_files()
    names = ("memory.current", "memory.events")
    files = [os.open(f"{one}/{name}", os.O_RDONLY) for one in directories for name in names]

    def look(_until: float) -> None:
        for file in files:
            os.pread(file, 512, 0)

    print("ready", flush=True)
    _measured(_ticking(look))


def _psutil(pids: list[str]) -> None:
    import psutil

    from bench.poller import summed_rss

    roots = [psutil.Process(int(pid)) for pid in pids]

    def look(until: float) -> None:
        for root in roots:
            if time.monotonic() > until:  # it does not get around in a tick
                break
            summed_rss(root)

    print("ready", flush=True)
    _measured(_ticking(look))


def _agents(arguments: list[str]) -> None:
    from cgmem.task_tool import TaskToolConfiguration, TaskToolHelper

    count, directory = int(arguments[0]), arguments[1]
    config = TaskToolConfiguration(command=[sys.executable, "-c", AGENT])
    with TaskToolHelper(directory, config) as helper:
        started = [helper.create_agent_subprocess("engineer", "work") for _ in range(count)]
        time.sleep(5)  # what is new about them has been looked at
        print(started[0]["memory_monitoring"]["backend"], flush=True)
        _measured(_sleeping)


def _sleeping(until: float) -> None:
    time.sleep(until - time.monotonic())


def _more_files() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
