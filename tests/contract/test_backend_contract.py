"""What every backend promises, by the same tests: `cgmem.contract.Backend` and `Scope`.

A backend that can't work on this host is skipped with its reason; a guest, which says so in
CGMEM_IN_GUEST, has all of them (systemd's where systemd runs), so there it fails.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cgmem
import cgmem_backends
from cgmem import selector
from cgmem.contract import MB, Backend, Limits, Sample, Scope, ScopeRecord
from cgmem.errors import ScopeVanished
from tests.helpers.proc import open_descriptors, running
from tests.helpers.waiting import PATIENCE, until

HOG = str(Path(__file__).parents[1] / "helpers" / "hog.py")
ROOTS = [str(Path(module.__file__ or "").parents[1]) for module in (cgmem, cgmem_backends)]

TOLERANCE_BYTES = 24 * MB
"""A Python interpreter, its stack and page tables, and the kernel's per-CPU charge batches."""

STAY = "import sys, time; print('ready', flush=True); time.sleep(600)"

FAMILY = """
import os, sys, time
def child(leave):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        if leave:
            os.setsid()
            if os.fork():
                os._exit(0)
        print(os.getpid(), flush=True)
        time.sleep(600)
        os._exit(0)
    if leave:
        os.waitpid(pid, 0)  # the one in between is gone before the main process says its pid
child(False)
child(True)
print(os.getpid(), flush=True)
time.sleep(600)
"""
"""Three processes, each of which says its pid: the main one, a child, and a grandchild that left
the session and lost its parent."""

OWN_PLACE = """
import os, time
print(open("/proc/self/cgroup").read().strip().splitlines()[-1], flush=True)
print(os.environ.get("CGMEM_SCOPE", ""), flush=True)
"""

LISTING = """
import json, sys
from cgmem import selector
scopes = selector.load(sys.argv[1]).list_scopes()
print(json.dumps([[scope.location, scope.record, scope.pids()] for scope in scopes]))
for scope in scopes:
    scope.detach()
"""


GUEST = os.environ.get("CGMEM_IN_GUEST")
# The guests without systemd hold what it says there in tests/kernel/test_systemd_probe.py.
HERE = [
    pytest.param(name, marks=[pytest.mark.alike] if name == "psutil" else [])
    for name in selector.NAMES
    if GUEST not in ("plain", "container") or name != "systemd"
]


@pytest.fixture(params=HERE)
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Backend:
    """Give each backend that works here."""
    # Where the psutil backend writes scopes down; another process must find the same place.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    loaded = selector.load(request.param)
    usability = loaded.probe()
    if not usability.usable:
        if GUEST is not None:
            pytest.fail(f"a guest must have {request.param}: {usability.reason}")
        pytest.skip(f"{request.param}: {usability.reason}")
    return loaded


OpenScope = Callable[..., Scope]


@pytest.fixture
def open_scope(backend: Backend) -> Iterator[OpenScope]:
    """Open scopes; what is left of them at the end is killed and removed."""
    opened: list[Scope] = []

    def open_one(limits: Limits = Limits(), name: str = "engineer_1") -> Scope:  # noqa: B008
        scope, _ = backend.open_scope(a_record(name), limits)
        opened.append(scope)
        return scope

    yield open_one
    for scope in opened:
        end(scope)
        scope.detach()


def a_record(name: str = "engineer_1") -> ScopeRecord:
    """Return a record whose supervisor is this process."""
    start = selector.process_start(os.getpid()) or 0
    return ScopeRecord(name, os.getpid(), start, 1_700_000_000.5, ("hog", "--mb"), "engineer",
                       1, 2, 3, "/var/log")  # fmt: skip


def end(scope: Scope) -> None:
    """Kill whatever is inside and close."""
    if scope.close():
        return
    scope.signal(signal.SIGKILL)
    assert until(scope.close)


def python(code: str) -> list[str]:
    """Return a command that runs `code`."""
    return [sys.executable, "-I", "-S", "-c", code]


class Child:
    """A process in a scope whose lines can be awaited."""

    def __init__(self, scope: Scope, command: list[str]) -> None:
        self.popen = scope.start(command, {"stdout": subprocess.PIPE, "text": True})

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        with self.popen:
            pass

    def line(self) -> str:
        """Wait for the next line."""
        assert self.popen.stdout is not None
        return str(self.popen.stdout.readline()).strip()


def staying(scope: Scope) -> Child:
    """Start a child that is there once this returns, and stays."""
    child = Child(scope, python(STAY))
    assert child.line() == "ready"
    return child


def hog(scope: Scope, *arguments: str) -> Child:
    """Start a hog that holds all of its memory once this returns."""
    child = Child(scope, [sys.executable, "-I", "-S", HOG, *arguments, "--hold", "600"])
    assert child.line().startswith("ready")
    return child


def look(scope: Scope, detail_above: int | None = None) -> Sample:
    """Take a sample that must be there."""
    sample = scope.sample(detail_above)
    assert sample is not None
    return sample


def test_the_backend_says_what_it_is(backend: Backend) -> None:
    """Name and reason are there, and what it can't promise is said in words."""
    capabilities = backend.capabilities

    assert backend.name in selector.NAMES
    assert backend.probe().reason
    assert capabilities.kernel_limits or capabilities.cannot
    assert all(capabilities.cannot)


def test_a_command_begins_inside(backend: Backend, open_scope: OpenScope) -> None:
    """What a child sees of itself first is that it is in its scope."""
    assert backend.capabilities.placed_before_exec
    scope = open_scope()
    with Child(scope, python(OWN_PLACE)) as child:
        cgroup, mark = child.line(), child.line()
        assert child.popen.wait(PATIENCE) == 0

    if scope.location.startswith("psutil:"):
        assert scope.location.removeprefix("psutil:") in mark.split(",")
    else:
        assert cgroup == f"0::{scope.location}"


def test_the_exit_status_is_popens(open_scope: OpenScope) -> None:
    """A started command is a Popen with its status and output."""
    scope = open_scope()
    popen = scope.start(["sh", "-c", "echo out; exit 7"], {"stdout": subprocess.PIPE})
    out, _ = popen.communicate(timeout=PATIENCE)

    assert (out, popen.returncode) == (b"out\n", 7)


def test_current_grows_with_what_is_touched(backend: Backend, open_scope: OpenScope) -> None:
    """64 MB touched is 64 MB in the sample, within the tolerance."""
    scope = open_scope()
    with hog(scope, "--mb", "64"):
        sample = look(scope, 0)

    # A metric that is dear to read may give way to rss where a slow machine takes too long for it.
    assert sample.metric in (backend.capabilities.metric, "rss")
    assert sample.metric == "cgroup" or not backend.capabilities.kernel_limits
    assert 64 * MB <= sample.current_bytes <= 64 * MB + TOLERANCE_BYTES


def test_current_counts_children(open_scope: OpenScope) -> None:
    """A parent and two children of 24 MB each are 72 MB, within a tolerance for each."""
    scope = open_scope()
    with hog(scope, "--mb", "24", "--children", "2"):
        sample = look(scope, 0)

    assert 72 * MB <= sample.current_bytes <= 72 * MB + 3 * TOLERANCE_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only RSS tells of a family")
def test_shared_memory_is_counted_once(open_scope: OpenScope) -> None:
    """Eight processes that share 24 MB, 192 MB of RSS and more, count for less than half of it."""
    scope = open_scope()
    with hog(scope, "--mb", "24", "--shared", "--children", "7"):
        # PSS is dear to read: a look that is late gives way to RSS, and the next one may do.
        assert until(lambda: 24 * MB <= held_bytes(look(scope, 0)) < 96 * MB)


def held_bytes(sample: Sample) -> int:
    """Return what can't be reclaimed; all of it where that is unknown."""
    return sample.current_bytes - (sample.reclaimable_bytes or 0)


def test_inspect_finds_the_largest(backend: Backend, open_scope: OpenScope) -> None:
    """A look inside ends with the largest processes first, their sizes and command lines."""
    scope = open_scope()
    with hog(scope, "--mb", "24", "--children", "1") as child, staying(scope):
        look(scope, 0)
        pids = scope.pids()
        pictures = list(scope.inspect(2))

    assert len(pids) == 3
    assert all(picture.partial for picture in pictures[:-1])
    last = pictures[-1]
    assert not last.partial
    assert len(last.processes) == 2
    assert {process.pid for process in last.processes} < set(pids)
    assert child.popen.pid in {process.pid for process in last.processes}
    assert all(HOG in process.command for process in last.processes)
    # The child shares what its parent had: RSS would count that twice.
    total = sum(process.memory_bytes for process in last.processes)
    assert 48 * MB <= total <= 48 * MB + 2 * TOLERANCE_BYTES
    if backend.capabilities.metric == "cgroup":
        assert last.memory_stat is not None
        assert last.memory_stat.anon is not None
        assert last.memory_stat.anon >= 48 * MB


def test_a_sample_if_changed(open_scope: OpenScope) -> None:
    """Where nothing moved there is no sample; asked for plainly there always is one."""
    scope = open_scope()
    with staying(scope):
        assert scope.sample() is not None
        assert until(lambda: scope.sample(if_changed=True) is None)
        assert scope.sample() is not None


def test_unchanged(backend: Backend, open_scope: OpenScope) -> None:
    """The kernel's own count tells of an idle scope; nowhere is a change, or an end, overlooked."""
    scope = open_scope()
    with staying(scope):
        if backend.capabilities.kernel_limits:
            assert until(lambda: scope.sample() and scope.unchanged())
        with hog(scope, "--mb", "24"):
            assert not scope.unchanged()
            assert until(lambda: scope.sample(if_changed=True) is not None)
    assert until(scope.close)

    assert not scope.unchanged()


def test_pids_hold_every_descendant(open_scope: OpenScope) -> None:
    """Children, and grandchildren after setsid and double fork, are listed."""
    scope = open_scope()
    with Child(scope, python(FAMILY)) as child:
        said = {int(child.line()) for _ in range(3)}
        found = set(scope.pids())

    assert said == found
    assert child.popen.pid in found


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_all(open_scope: OpenScope, signum: int) -> None:
    """Every process of the scope gets the signal, those that left the session too."""
    scope = open_scope()
    with Child(scope, python(FAMILY)) as child:
        said = [int(child.line()) for _ in range(3)]
        scope.signal(signum)
        status = child.popen.wait(PATIENCE)
        ended = until(lambda: not any(map(running, said)))

    assert status == -signum
    assert ended
    assert until(scope.close)


def test_a_signal_to_an_empty_scope(open_scope: OpenScope) -> None:
    """With nobody inside a signal does nothing."""
    scope = open_scope()
    scope.signal(signal.SIGTERM)
    scope.signal(signal.SIGKILL)

    assert scope.pids() == []


COUNT = """
import sys, time
while True:
    print("x", flush=True)
    time.sleep(0.01)
"""


def test_freeze_and_thaw(open_scope: OpenScope) -> None:
    """A frozen scope stands still and says so; a thawed one goes on; SIGKILL works while frozen."""
    scope = open_scope()
    with Child(scope, python(COUNT)) as child:
        assert child.line() == "x"
        scope.freeze(True)
        assert until(lambda: look(scope, 0).frozen)
        before = switches(child.popen.pid)
        for _ in range(20):
            time.sleep(0.01)
        assert switches(child.popen.pid) == before
        scope.freeze(False)
        assert until(lambda: not look(scope, 0).frozen)
        assert until(lambda: switches(child.popen.pid) > before)
        scope.freeze(True)
        scope.signal(signal.SIGKILL)
        assert child.popen.wait(PATIENCE) == -signal.SIGKILL


def switches(pid: int) -> int:
    """Return how often a process gave up the CPU by itself: it rises with every sleep."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("voluntary_ctxt")))


def test_limits_read_back(backend: Backend, open_scope: OpenScope) -> None:
    """What was set is what is reported; `enforced` only where the kernel holds it."""
    limits = Limits(high_bytes=48 * MB, max_bytes=64 * MB)
    scope = open_scope(limits)
    effective = scope.set_limits(limits)
    wider = scope.set_limits(Limits(high_bytes=96 * MB, max_bytes=128 * MB))
    none = scope.set_limits(Limits(swap_max_bytes=None))

    assert (effective.high_bytes, effective.max_bytes) == (48 * MB, 64 * MB)
    assert effective.effective_max_bytes == 64 * MB
    assert effective.effective_max_source
    assert effective.enforced == backend.capabilities.kernel_limits
    assert (wider.high_bytes, wider.max_bytes) == (96 * MB, 128 * MB)
    assert (none.high_bytes, none.max_bytes) == (None, None)
    assert not none.enforced


def test_close_waits_for_the_last_process(open_scope: OpenScope) -> None:
    """close is False while a process lives, and True, again and again, after."""
    scope = open_scope()
    with staying(scope):
        assert not scope.close()
        assert scope.pids() != []
    assert until(scope.close)
    assert scope.pids() == []
    assert scope.close()


def test_close_tells_once_that_nobody_is_left(open_scope: OpenScope) -> None:
    """`before` is called once, when there is no process left, by the close that removes."""
    scope = open_scope()
    told: list[list[int]] = []
    with staying(scope):
        assert not scope.close(lambda: told.append(scope.pids()))
        assert told == []
    assert until(lambda: scope.close(lambda: told.append(scope.pids())))
    assert told == [[]]


def test_the_end_of_the_last_process_wakes(backend: Backend, open_scope: OpenScope) -> None:
    """A kernel's scope has a descriptor for it, silent while a process lives and ready after."""
    scope = open_scope()
    with staying(scope) as child:
        found = scope.emptied_descriptor
        assert (found is not None) == backend.capabilities.kernel_limits
        if found is None:
            return
        waiter = select.poll()
        waiter.register(*found)
        assert waiter.poll(0) == []
        child.popen.kill()
        assert waiter.poll(PATIENCE * 1000) != []
        assert until(scope.close)


def test_wake_descriptors_are_silent_while_nothing_happens(
    backend: Backend, open_scope: OpenScope
) -> None:
    """A kernel's scope has some; once looked at, a quiet scope wakes nobody."""
    scope = open_scope()
    with staying(scope):
        scope.sample()
        waiter = select.poll()
        assert bool(scope.wake_descriptors) == backend.capabilities.kernel_limits
        for descriptor, mask in scope.wake_descriptors:
            waiter.register(descriptor, mask)
        assert waiter.poll(100) == []


@pytest.mark.parametrize(
    ("command", "options", "error"),
    [
        (["/nonesuch/command"], {}, FileNotFoundError),
        (["/etc/passwd"], {}, PermissionError),
        (["true"], {"cwd": "/nonesuch"}, FileNotFoundError),
        (["true"], {"no_such_option": 1}, TypeError),
    ],
    ids=["missing", "not executable", "no such cwd", "no such option"],
)
def test_a_failed_start_leaves_an_empty_scope(
    backend: Backend,
    open_scope: OpenScope,
    command: list[str],
    options: dict[str, Any],
    error: type[Exception],
) -> None:
    """A start that fails raises what Popen raises, and nothing keeps the scope from going."""
    before = {scope.location for scope in listed(backend)}
    scope = open_scope()
    with pytest.raises(error):
        scope.start(command, options)

    assert scope.pids() == []
    assert scope.close()
    assert {found.location for found in listed(backend)} == before


def listed(backend: Backend) -> list[Scope]:
    """List scopes without holding on to them."""
    found = backend.list_scopes()
    for scope in found:
        scope.detach()
    return found


def test_another_process_lists_the_scope(backend: Backend, open_scope: OpenScope) -> None:
    """A process that knows nothing of this one finds the scope, its record and its processes."""
    scope = open_scope()
    with staying(scope) as child:
        done = subprocess.run(
            [sys.executable, "-c", LISTING, backend.name],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*ROOTS, *sys.path[1:]])},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = {location: (record, pids) for location, record, pids in json.loads(done.stdout)}
        record, pids = found[scope.location]

    assert ScopeRecord(*record)._replace(command=tuple(record[4])) == a_record()
    assert pids == [child.popen.pid]


def test_a_closed_scope_is_not_listed(backend: Backend, open_scope: OpenScope) -> None:
    """Once closed, nobody finds it."""
    scope = open_scope()
    with staying(scope):
        assert scope.location in [found.location for found in listed(backend)]
    assert until(scope.close)

    assert scope.location not in [found.location for found in listed(backend)]


def test_a_vanished_scope(open_scope: OpenScope) -> None:
    """After the scope is gone its methods say ScopeVanished, or do nothing, and none else."""
    scope = open_scope()
    scope.sample()
    assert scope.close()

    with pytest.raises(ScopeVanished):
        scope.sample()
    with pytest.raises(ScopeVanished):
        scope.sample(0)
    with pytest.raises(ScopeVanished):
        scope.start(["true"], {})
    with pytest.raises(ScopeVanished):
        scope.set_limits(Limits())
    with pytest.raises(ScopeVanished):
        scope.freeze(True)
    assert scope.pids() == []
    assert list(scope.inspect(5))[-1].processes == ()
    assert scope.close()


def test_counters_after_a_kill(backend: Backend, open_scope: OpenScope) -> None:
    """The last read gives a peak, and where the kernel holds limits its events."""
    limits = Limits(max_bytes=64 * MB) if backend.capabilities.kernel_limits else Limits()
    scope = open_scope(limits)
    with Child(scope, [sys.executable, "-I", "-S", HOG, "--mb", "96", "--hold", "600"]) as child:
        if backend.capabilities.kernel_limits:
            assert child.popen.wait(PATIENCE) == -signal.SIGKILL
        else:
            assert child.line().startswith("ready")
            look(scope)
            scope.signal(signal.SIGKILL)
            assert child.popen.wait(PATIENCE) == -signal.SIGKILL
    counters = scope.counters()

    assert counters.peak_bytes is None or counters.peak_bytes > 60 * MB
    if backend.capabilities.kernel_limits:
        assert counters.events is not None
        assert counters.events.oom_kill
        assert counters.local_events is not None
        assert counters.local_events.oom
        assert counters.ancestors_with_oom == ()
    else:
        assert counters.events is None


def test_two_scopes_do_not_mix(open_scope: OpenScope) -> None:
    """Memory, pids and signals of one scope are not the other's."""
    small, large = open_scope(name="small"), open_scope(name="large")
    with staying(small) as first, hog(large, "--mb", "64") as second:
        assert small.location != large.location
        assert look(small).current_bytes < 32 * MB
        assert look(large).current_bytes >= 64 * MB
        assert small.pids() == [first.popen.pid]
        assert large.pids() == [second.popen.pid]
        large.signal(signal.SIGKILL)
        assert second.popen.wait(PATIENCE) == -signal.SIGKILL
        assert first.popen.poll() is None
        assert small.pids() == [first.popen.pid]


def test_twenty_scopes_leave_nothing(backend: Backend) -> None:
    """Opened, used and closed, scopes leave no descriptor, no process and nothing to list."""

    def one(number: int) -> None:
        scope, _ = backend.open_scope(a_record(f"n_{number}"), Limits(max_bytes=64 * MB))
        assert (scope.emptied_descriptor is not None) == backend.capabilities.kernel_limits
        look(scope, 0)
        with scope.start(["true"], {}) as popen:
            assert popen.wait(PATIENCE) == 0
        scope.counters()
        assert until(scope.close)
        scope.detach()

    one(0)  # what is opened once for all stays open
    before = open_descriptors()
    listed_before = [scope.location for scope in listed(backend)]
    for number in range(20):
        one(number)

    assert open_descriptors() == before
    assert [scope.location for scope in listed(backend)] == listed_before


def test_several_threads_at_once(backend: Backend) -> None:
    """open_scope, start, sample and close may be called from several threads at the same time."""
    problems: list[BaseException] = []
    locations: set[str] = set()

    def work(number: int) -> None:
        try:
            for turn in range(3):
                scope, _ = backend.open_scope(a_record(f"t_{number}_{turn}"), Limits())
                locations.add(scope.location)
                with scope.start(["sh", "-c", "exit 3"], {}) as popen:
                    look(scope)
                    assert popen.wait(PATIENCE) == 3
                assert until(scope.close)
                scope.detach()
        except BaseException as problem:  # noqa: BLE001  (handed to the test's own thread)
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    assert len(locations) == 18


def test_a_rewritten_record_is_seen_by_its_supervisor(
    backend: Backend, open_scope: OpenScope
) -> None:
    """Whoever lists a scope can rewrite its record; the opener hears the bell and reads it."""
    scope = open_scope(name="rewritten")
    with staying(scope):
        backend.rung()
        assert backend.rung() is False
        listed = selector.load(backend.name).list_scopes()
        (found,) = [one for one in listed if one.record.subprocess_id == "rewritten"]
        found.rewrite(found.record._replace(max_bytes=77))
        for one in listed:
            one.detach()
        rung = backend.rung(), backend.rung()
        written = scope.written()

    assert rung == (True, False)
    assert written is not None
    assert written.max_bytes == 77
    assert written.command == scope.record.command


def test_what_is_held_can_be_read_back(open_scope: OpenScope, backend: Backend) -> None:
    """The kernel's own limits, as set; where it holds none, nothing is claimed."""
    scope = open_scope(Limits(48 * MB, 64 * MB))
    with staying(scope):
        held = scope.held()

    assert held.enforced is backend.capabilities.kernel_limits
    if backend.capabilities.kernel_limits:
        assert (held.high_bytes, held.max_bytes) == (48 * MB, 64 * MB)
