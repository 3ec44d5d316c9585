"""Where the time of one spawn goes: the supervisor's CPU, by what it is spent on."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import cgmem
from bench.cgroups import bare_budget
from bench.measure import Absent, Metric, Question, Row, Spread, spread
from cgmem.errors import CgmemError
from cgmem.supervising.journal import Journal
from cgmem.supervising.poller import Poller
from cgmem.supervising.supervision import Supervision
from cgmem.supervising.supervisor import Supervisor
from cgmem_backends.cgroup2 import Cgroup2Backend
from cgmem_backends.cgroup_scope import CgroupScope
from cgmem_backends.spawn_attr import SpawnLibrary

COMMAND = ["/bin/true"]
SETTLED_SECONDS = 0.15
"""After it, what one spawn left to do is done, and no tick has come in between."""
_PARTS: dict[str, Sequence[tuple[type, str]]] = {
    "start: posix_spawn into the cgroup": [(SpawnLibrary, "spawn")],
    "start: what Popen does around it": [(CgroupScope, "start")],
    "cgroup: taken, its record and limits written": [(Cgroup2Backend, "open_scope")],
    "cgroup: the next one made": [(Cgroup2Backend, "prepare")],
    "cgroup: last read": [(CgroupScope, "counters")],
    "cgroup: removed": [(CgroupScope, "close"), (CgroupScope, "detach")],
    "poller": [
        *((Poller, "add"), (Poller, "schedule"), (Poller, "remove")),
        *((Poller, "wake_by"), (Poller, "mute"), (Poller, "_handle")),
    ],
    "log": [(Journal, "ended")],
    "settings, pre-flight, plan": [(Supervisor, "settings"), (Supervisor, "spawn")],
    "wait, verdict, outcome": [
        *((Supervision, "begin"), (Supervision, "woken"), (Supervision, "settle")),
        *((Supervision, "left"), (Supervision, "idle"), (Supervision, "_conclude")),
    ],
}
_POPEN, _WHOLE, _REST = "subprocess.Popen(…).wait()", "cgmem.spawn(…).outcome()", "the rest"
_FLOOR = "a cgroup with two limits made, read, removed, nothing else"


def _rows(rounds: int) -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        fixed = {"backend": "cgroup2", "log_dir": directory, "max": "256M"}
        supervisor = Supervisor(fixed)
        stack.callback(supervisor.close)
        try:
            bare_budget()
            supervisor.choice(supervisor.settings())
        except (Absent, CgmemError) as error:
            yield Row("", _WHOLE, {}, {}, str(error))
            return
        watch = stack.enter_context(_stopwatches())
        taken = [_one_round(supervisor, watch) for _ in range(3 + rounds)][3:]
    base = spread([one[_POPEN] for one in taken])
    for name in taken[0]:
        found = spread([one[name] for one in taken])
        yield Row("", name, {"ms": found}, {"ms": _in_terms_of(base, found)})


def _in_terms_of(base: Spread, found: Spread) -> Spread:
    return Spread(*(value / base.median for value in found))


def _one_round(supervisor: Supervisor, watch: _Stopwatch) -> dict[str, float]:
    popen = _cpu_of(lambda: subprocess.Popen(COMMAND).wait())
    floor = _cpu_of(bare_budget)
    watch.spent.clear()
    whole = _cpu_of(lambda: cgmem.spawn(COMMAND, supervisor=supervisor).outcome())
    parts = {name: watch.spent[name] * 1e3 for name in _PARTS}
    rest = whole - sum(parts.values())
    return {_POPEN: popen, _FLOOR: floor, _WHOLE: whole, **parts, _REST: rest}


def _cpu_of(do: Callable[[], object]) -> float:
    """Milliseconds of all of this process's threads, until they have nothing left to do."""
    began = time.process_time()
    do()
    time.sleep(SETTLED_SECONDS)
    return (time.process_time() - began) * 1e3


class _Stopwatch:
    """CPU seconds by part, of all threads, each without the parts that it calls."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._thread = threading.local()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            began, outside = time.thread_time(), getattr(self._thread, "inside", 0.0)
            self._thread.inside = 0.0
            try:
                return function(*arguments, **named)
            finally:
                took = time.thread_time() - began
                with self._lock:
                    self.spent[name] += took - self._thread.inside
                self._thread.inside = outside + took

        return watched


@contextmanager
def _stopwatches() -> Iterator[_Stopwatch]:
    watch = _Stopwatch()
    with ExitStack() as stack:
        for name, methods in _PARTS.items():
            for owner, method in methods:
                watched = watch.around(name, getattr(owner, method))
                stack.enter_context(patch.object(owner, method, watched))
        yield watch


QUESTION = Question(
    "parts",
    "Where the time of a spawn goes",
    (Metric("ms", 2, ratio=True),),
    _rows,
    rounds=40,
    quick=4,
    about=(
        "CPU of the supervisor's own threads, the kernel's work for them included, for one"
        " `/bin/true` until all is done; each part without the parts that it calls. Part of it runs"
        " while the child does. The ratio is to Popen's own CPU."
    ),
)
