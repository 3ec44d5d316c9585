"""The fallback backend with real processes, and with a process table of the test's own."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cgmem.contract import (
    MB,
    Limits,
    Metric,
    ObservingBackend,
    ProcessMemory,
    Sample,
    Scope,
    ScopeRecord,
    Snapshot,
    Usability,
)
from cgmem.errors import CgmemError, CgroupError, ScopeVanished
from cgmem_backends.process_signals import Signaller
from cgmem_backends.process_tree import Identity, Measurement, Process
from cgmem_backends.psutil_backend import PsutilBackend, host_processes
from cgmem_backends.psutil_scope import UNDECIDED_SECONDS, marked_environment
from cgmem_backends.run_directory import RunDirectory
from tests.helpers.waiting import PATIENCE, until
from tests.unit.fakes import NOBODY, FakeClock

HOG = str(Path(__file__).parents[1] / "helpers" / "hog.py")
NO_LIMITS = Limits()


def a_record(subprocess_id: str = "engineer_1") -> ScopeRecord:
    """A record whose supervisor is this process."""
    return ScopeRecord(subprocess_id, os.getpid(), 0, 1_700_000_000.0, ("hog",))


@pytest.fixture
def backend(tmp_path: Path) -> PsutilBackend:
    """A backend on this host whose records go to a directory of the test's."""
    path = tmp_path / "cgmem"
    return PsutilBackend(run_directory=RunDirectory(path), directories=lambda: [path])


@pytest.fixture
def scope(backend: PsutilBackend) -> Iterator[Scope]:
    """An open scope, ended and closed afterwards."""
    opened, _ = backend.open_scope(a_record(), NO_LIMITS)
    yield opened
    if not opened.close():
        opened.signal(signal.SIGKILL)
        until(opened.close)


def hog(scope: Scope, *arguments: str) -> subprocess.Popen[Any]:
    """Start a hog and wait until it holds all of its memory."""
    child = scope.start([sys.executable, HOG, *arguments], {"stdout": subprocess.PIPE})
    assert child.stdout is not None
    assert child.stdout.readline().startswith(b"ready")
    return child


def end(child: subprocess.Popen[Any], scope: Scope) -> int:
    """Kill the tree, reap the child."""
    scope.signal(signal.SIGKILL)
    status = child.wait(PATIENCE)
    if child.stdout is not None:
        child.stdout.close()
    return status


def look(scope: Scope, detail_above: int | None = None) -> Sample:
    """A sample that must be there."""
    sample = scope.sample(detail_above)
    assert sample is not None
    return sample


def test_backend_follows_the_contract(backend: PsutilBackend) -> None:
    """Fits the Protocols, and promises nothing that only the kernel can hold."""
    contract: ObservingBackend = backend

    assert contract.name == "psutil"
    assert not backend.capabilities.kernel_limits
    assert not backend.capabilities.brake
    assert not backend.capabilities.every_descendant
    assert "a burst between two ticks can pass the hard limit" in backend.capabilities.cannot


def test_probe_says_why(backend: PsutilBackend) -> None:
    """This host is usable, with a reason in one sentence."""
    usability = backend.probe()

    assert usability.usable
    assert "polls the process tree" in usability.reason


def test_probe_remarks_an_unusable_run_directory(tmp_path: Path) -> None:
    """A run directory that can't be used is a remark, not a refusal."""
    path = tmp_path / "file"
    path.write_text("")
    usability = PsutilBackend(run_directory=RunDirectory(path)).probe()

    assert usability.usable
    assert "can't list its scopes" in usability.reason


def test_limits_are_kept_and_not_enforced(scope: Scope) -> None:
    """What comes back says that no kernel holds them."""
    effective = scope.set_limits(Limits(high_bytes=100 * MB, max_bytes=200 * MB))

    assert effective[:5] == (100 * MB, 200 * MB, None, 200 * MB, "psutil")
    assert not effective.enforced


def test_an_empty_scope_holds_nothing(scope: Scope) -> None:
    """Before the first start there are no bytes, no processes, and nobody to stop."""
    sample = look(scope)

    assert (sample.current_bytes, sample.frozen, scope.pids()) == (0, False, [])


def test_a_leaker_is_measured_while_it_grows(scope: Scope) -> None:
    """Samples follow a child that takes memory step by step, and the peak stays."""
    child = hog(scope, "--mb", "40", "--hold", "60")
    held = look(scope)
    end(child, scope)
    assert until(lambda: look(scope).current_bytes == 0)

    assert held.metric in ("rss", "phys_footprint")
    assert 40 * MB <= held.current_bytes <= 80 * MB
    assert scope.counters().peak_bytes == held.current_bytes
    assert not scope.counters().cached


def test_an_unchanged_scope_is_said_to_be_unchanged(scope: Scope) -> None:
    """With `if_changed` there is a sample of a child at first, and none once it sleeps."""
    child = hog(scope, "--mb", "8", "--hold", "600")
    first = scope.sample(if_changed=True)
    # To say that it is ready may cost it one page more.
    rests = until(lambda: scope.sample(if_changed=True) is None)
    end(child, scope)

    assert first is not None
    assert rests


@pytest.mark.skipif(sys.platform != "linux", reason="PSS is Linux's")
def test_memory_shared_across_fork_counts_once(scope: Scope) -> None:
    """Three children that share 40 MB are 160 MB of RSS and about 40 MB of PSS."""
    child = hog(scope, "--mb", "40", "--shared", "--children", "3", "--hold", "600")
    plain = look(scope)

    def counted_once() -> bool:
        found = look(scope, detail_above=50 * MB)
        known = found.metric == "pss" and found.swap_bytes is not None
        return known and 40 * MB <= found.current_bytes < 90 * MB

    # PSS is dear to read: a look that is late gives way to RSS, and the next one may do.
    seen = until(counted_once)
    end(child, scope)

    assert plain.metric == "rss"
    assert plain.current_bytes > 160 * MB
    assert seen


def test_children_that_take_their_own_memory_add_up(scope: Scope) -> None:
    """Private memory of every process of the tree counts."""
    child = hog(scope, "--mb", "20", "--children", "2", "--hold", "60")
    held, pids = look(scope, detail_above=0), scope.pids()
    end(child, scope)

    assert held.current_bytes >= 60 * MB
    assert len(pids) == 3


ORPHAN = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sys.stdout.write(f"{os.getpid()}\\n")
        sys.stdout.flush()
        time.sleep(60)
    os._exit(0)
os.wait()
"""


def test_setsid_and_double_fork_are_found_and_killed(scope: Scope) -> None:
    """A daemon whose parents ended before the first look is found by its mark."""
    child = scope.start([sys.executable, "-c", ORPHAN], {"stdout": subprocess.PIPE})
    assert child.stdout is not None
    orphan = int(child.stdout.readline())
    child.wait(PATIENCE)
    found = scope.pids()
    end(child, scope)

    assert found == [orphan]
    assert until(scope.close)
    left = host_processes(Path("/proc")).process(orphan)
    assert left is None or left.ended


BOMB = """
import os, sys, time
children = int(sys.argv[1])
print("ready", flush=True)
while children:
    children -= 1
    if os.fork() == 0:
        if children % 3 == 0:
            os.setsid()
        children = min(children, 3)
time.sleep(60)
"""


def test_a_forking_tree_is_killed_entirely(scope: Scope) -> None:
    """Whatever forks while the kill is under way is killed too (bounded: 15 forks wide, 8 each)."""
    child = scope.start([sys.executable, "-c", BOMB, "15"], {"stdout": subprocess.PIPE})
    assert child.stdout is not None
    child.stdout.readline()
    status = end(child, scope)

    assert status == -signal.SIGKILL
    assert until(lambda: scope.pids() == [])


def test_freeze_and_thaw(scope: Scope) -> None:
    """A frozen tree is stopped to the last process, and runs again."""
    child = hog(scope, "--mb", "4", "--children", "2", "--hold", "60")
    scope.freeze(True)
    frozen = look(scope).frozen
    scope.freeze(False)
    thawed = until(lambda: not look(scope).frozen)
    end(child, scope)

    assert (frozen, thawed) == (True, True)


def test_a_signal_reaches_every_process(scope: Scope) -> None:
    """SIGTERM goes to each, and the parent's end shows it."""
    child = hog(scope, "--mb", "4", "--children", "2", "--hold", "60")
    scope.signal(signal.SIGTERM)

    assert child.wait(PATIENCE) == -signal.SIGTERM
    assert until(lambda: scope.pids() == [])
    end(child, scope)


def test_a_command_that_does_not_start_leaves_the_scope_empty(
    scope: Scope, backend: PsutilBackend
) -> None:
    """The error is Popen's own, and nothing is written down."""
    with pytest.raises(FileNotFoundError):
        scope.start(["/nonexistent/command"], {})
    assert scope.pids() == []
    assert backend.list_scopes() == []
    assert scope.close()


def test_a_closed_scope_is_gone(backend: PsutilBackend) -> None:
    """After close nothing is sampled, signalled or started any more."""
    scope, _ = backend.open_scope(a_record(), NO_LIMITS)
    assert scope.close()
    assert scope.close()

    for use in (scope.sample, lambda: scope.signal(9), lambda: scope.start(["true"], {})):
        with pytest.raises(ScopeVanished):
            use()
    assert scope.pids() == []


def test_close_waits_for_the_last_process(scope: Scope, backend: PsutilBackend) -> None:
    """A scope with a living process is not closed, and its record stays; then both go."""
    child = hog(scope, "--mb", "4", "--hold", "60")
    assert not scope.close()
    assert len(backend.list_scopes()) == 1
    end(child, scope)

    assert until(scope.close)
    assert backend.list_scopes() == []


def test_the_child_gets_its_environment_and_the_mark(scope: Scope) -> None:
    """`env` is passed on as Popen does, and the mark comes behind those of the scopes around."""
    program = "import os; print(sorted(os.environ.items()))"
    child = scope.start(
        [sys.executable, "-I", "-c", program],
        {"stdout": subprocess.PIPE, "env": {"CGMEM_SCOPE": "outer", "LC_ALL": "C"}, "text": True},
    )
    output, _ = child.communicate(timeout=PATIENCE)
    token = scope.location.removeprefix("psutil:")

    assert output.strip() == str([("CGMEM_SCOPE", f"outer,{token}"), ("LC_ALL", "C")])


@pytest.mark.parametrize(
    ("env", "marked"),
    [
        ({}, {"CGMEM_SCOPE": "t"}),
        ({b"CGMEM_SCOPE": b"o", b"A": b"1"}, {"CGMEM_SCOPE": "o,t", b"A": b"1"}),
        ({"CGMEM_SCOPE": ""}, {"CGMEM_SCOPE": "t"}),
    ],
)
def test_mark_in_any_kind_of_environment(env: Mapping[Any, Any], marked: dict[Any, Any]) -> None:
    """An empty environment is not the caller's own, and bytes are environments too."""
    assert marked_environment(env, "t") == marked


def test_another_process_lists_and_ends_a_scope(
    scope: Scope, backend: PsutilBackend, tmp_path: Path
) -> None:
    """A second backend sees the scope with its record, measures it, and can kill it."""
    child = hog(scope, "--mb", "30", "--children", "1", "--hold", "60")
    path = tmp_path / "cgmem"
    listed = PsutilBackend(directories=lambda: [path]).list_scopes()

    assert [found.record for found in listed] == [a_record()]
    assert listed[0].pids() == scope.pids()
    assert look(listed[0]).current_bytes >= 60 * MB
    end(child, listed[0])
    assert until(lambda: backend.list_scopes() == [])


def test_a_scope_whose_root_ended_is_still_listed(
    scope: Scope, backend: PsutilBackend, tmp_path: Path
) -> None:
    """An orphan keeps its scope in the list, through its mark alone."""
    child = scope.start([sys.executable, "-c", ORPHAN], {"stdout": subprocess.PIPE})
    assert child.stdout is not None
    orphan = int(child.stdout.readline())
    child.wait(PATIENCE)
    path = tmp_path / "cgmem"
    listed = PsutilBackend(directories=lambda: [path]).list_scopes()

    assert [found.pids() for found in listed] == [[orphan]]
    end(child, scope)


def test_an_unusable_run_directory_does_not_stop_a_start(tmp_path: Path) -> None:
    """The children run, and it is said once why others can't see them, and what to do."""
    path = tmp_path / "file"
    path.write_text("")
    told: list[str] = []
    backend = PsutilBackend(run_directory=RunDirectory(path), directories=lambda: [path])
    backend.warn = told.append  # later than it was made, as its owner does
    for _ in range(2):
        scope, _ = backend.open_scope(a_record(), NO_LIMITS)
        child = scope.start([sys.executable, "-c", ""], {})
        assert child.wait(PATIENCE) == 0
        assert backend.list_scopes() == []
        assert until(scope.close)

    (text,) = told
    assert text.startswith("other processes can't list subprocess engineer_1: ")
    assert text.endswith(f"it is no directory: rm {path}")


def test_observing_a_running_process(backend: PsutilBackend) -> None:
    """A process that nobody of ours started is measured with its children, and listed."""
    child = subprocess.Popen(
        [sys.executable, HOG, "--mb", "20", "--children", "1", "--hold", "60"],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    scope = backend.observe(a_record("seen"), child.pid)
    sample, pids, listed = look(scope), scope.pids(), backend.list_scopes()
    end(child, scope)

    assert sample.current_bytes >= 40 * MB
    assert len(pids) == 2
    assert [found.record.subprocess_id for found in listed] == ["seen"]
    assert until(scope.close)


def test_observing_nobody_is_an_error(backend: PsutilBackend) -> None:
    """A process that is not there, or only a zombie, can't be observed."""
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    child.stdout.close()

    def is_gone() -> bool:
        try:
            backend.observe(a_record(), child.pid)
        except ProcessLookupError:
            return True
        return False

    assert until(is_gone)
    child.wait(PATIENCE)
    assert is_gone()


class FakeTable:
    """A process table in memory."""

    metric: Metric = "rss"

    def __init__(self, *processes: Process, table: str = "here") -> None:
        self.by_pid = {process.pid: process for process in processes}
        self.tokens: dict[int, tuple[str, ...]] = {}
        self.in_exec: set[int] = set()
        self.owners: dict[int, int] = {}
        self.table = table

    def usability(self) -> Usability:
        """Usable."""
        return Usability(usable=True, reason="a fake")

    def table_id(self) -> str:
        """The test's."""
        return self.table

    def processes(self) -> Iterable[Process]:
        """All."""
        return list(self.by_pid.values())

    def process(self, pid: int) -> Process | None:
        """One."""
        return self.by_pid.get(pid)

    def marks(self, candidates: Sequence[Process]) -> Mapping[Identity, tuple[str, ...]]:
        """What the test says."""
        return {
            process.identity: self.tokens.get(process.pid, ())
            for process in candidates
            if process.pid not in self.in_exec
        }

    def measure(self, members: Sequence[Process], detail_above: int | None) -> Measurement:
        """RSS."""
        return Measurement(sum(process.rss_bytes or 0 for process in members), "rss")

    def largest(self, members: Sequence[Process], most: int) -> Iterator[Snapshot]:
        """In the order of the table."""
        yield Snapshot(
            processes=tuple(
                ProcessMemory(process.pid, (process.name,), process.rss_bytes or 0, "rss")
                for process in members[:most]
            )
        )

    def owner(self, pid: int) -> int | None:
        """This user's unless told."""
        return self.owners.get(pid, os.geteuid())

    def swap_unbounded(self) -> bool:
        """There is swap."""
        return True


TOKEN = "ab" * 16
ROOT = Process(100, 1, 1, "R", 7)


def proc_of(source: FakeTable, directory: Path) -> Path:
    """Write the table down as /proc, as far as supervisors are looked for in it."""
    directory.mkdir(exist_ok=True)
    for process in source.processes():
        (directory / str(process.pid)).mkdir(exist_ok=True)
        fields = f"{process.state} {process.ppid} {'0 ' * 17}{process.start} 0"
        (directory / f"{process.pid}/stat").write_text(f"{process.pid} (x) {fields}\n")
    return directory


def with_record(
    path: Path, source: FakeTable, *, signaller: Signaller | None = None, token: str = TOKEN
) -> PsutilBackend:
    """A backend on a fake table that finds one record, of root (100, 7), supervisor (50, 3)."""
    record = a_record()._replace(supervisor_pid=50, supervisor_start=3)
    RunDirectory(path).save(token, record, Identity(100, 7), marked=True, table_id="here")
    proc = proc_of(source, path.with_name("proc"))
    return PsutilBackend(proc, source=source, signaller=signaller, directories=lambda: [path])


def with_record_left(path: Path, source: FakeTable) -> PsutilBackend:
    """A backend on a fake table that finds what is there."""
    proc = proc_of(source, path.with_name("proc"))
    return PsutilBackend(proc, source=source, directories=lambda: [path])


def orphaned(tmp_path: Path) -> tuple[FakeTable, FakeClock, Scope]:
    """A scope whose root has just ended, while a child that it left was in its exec."""
    source, clock = FakeTable(ROOT), FakeClock()
    with_record(tmp_path / "r", source)
    backend = PsutilBackend(source=source, clock=clock, directories=lambda: [tmp_path / "r"])
    (scope,) = backend.list_scopes()
    source.by_pid = {101: Process(101, 1, 1, "R", 8)}
    source.in_exec = {101}
    clock.now += 1.0
    return source, clock, scope


def test_an_exec_under_way_keeps_a_scope_open(tmp_path: Path) -> None:
    """A process that has no environment yet may be a member: close waits, and then it is found."""
    source, clock, scope = orphaned(tmp_path)

    assert not scope.close()
    source.in_exec, source.tokens = set(), {101: (TOKEN,)}
    clock.now += 0.02
    assert scope.pids() == [101]
    assert not scope.close()


def test_an_exec_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    """An environment that can't be read for a second keeps no scope from being closed."""
    _, clock, scope = orphaned(tmp_path)

    assert not scope.close()
    clock.now += UNDECIDED_SECONDS
    assert scope.close()


def test_a_record_of_a_reused_pid_is_no_scope(tmp_path: Path) -> None:
    """The root's pid now belongs to a stranger: not listed, so never signalled."""
    stranger = ROOT._replace(start=9999)

    assert with_record(tmp_path / "r", FakeTable(stranger)).list_scopes() == []


@pytest.mark.parametrize(
    ("supervisor", "files"),
    [
        (Process(50, 1, 1, "S", 3), 1),
        (Process(50, 1, 1, "S", 4), 0),
        (Process(50, 1, 1, "Z", 3, ended=True), 0),
        (Process(51, 1, 1, "S", 3), 0),
    ],
)
def test_a_stale_record_remains_of_a_dead_supervisor(
    tmp_path: Path, supervisor: Process, files: int
) -> None:
    """A record without living processes is swept, unless its supervisor may still need it."""
    path = tmp_path / "r"
    backend = with_record(path, FakeTable(supervisor))

    assert backend.list_scopes() == []
    assert len(list(path.iterdir())) == 1
    assert [scope.sweep() for scope in backend.remains()] == [True] * (1 - files)
    assert len(list(path.iterdir())) == files


def test_a_record_whose_supervisor_can_not_be_looked_at_stays(tmp_path: Path) -> None:
    """Out of descriptors, say: nobody knows that it is dead."""
    path = tmp_path / "r"
    backend = with_record(path, FakeTable())
    (tmp_path / "proc/50/stat").mkdir(parents=True)

    assert list(backend.remains()) == []


def test_torn_files_go_with_a_clean_up(tmp_path: Path) -> None:
    """Who only lists removes nothing; a supervisor's own clean-up does."""
    path = tmp_path / "r"
    backend = with_record(path, FakeTable(Process(50, 1, 1, "S", 3)))
    torn = path / f".{'1' * 32}.{NOBODY}"
    torn.write_bytes(b"{")
    os.utime(torn, (1.0, 1.0))

    assert list(backend.remains()) == []
    assert torn.exists()
    assert list(backend.remains(nearby=True)) == []
    assert [file.name for file in path.iterdir()] == [TOKEN]


def test_only_one_sweeps_a_record(tmp_path: Path) -> None:
    """Of two that found the same record, one has removed it."""
    path = tmp_path / "r"
    backend = with_record(path, FakeTable())
    (one,), (two,) = backend.remains(), backend.remains(nearby=True)

    assert [one.sweep(), two.sweep()] == [True, False]


def test_a_concluded_record(tmp_path: Path) -> None:
    """What its supervisor has told of is swept although that lives; its note is in the file."""
    path = tmp_path / "r"
    backend = with_record(path, FakeTable(ROOT, Process(50, 1, 1, "S", 3)))
    (scope,) = backend.list_scopes()
    scope.rewrite(scope.record._replace(concluded=True))
    (again,) = backend.list_scopes()
    empty = with_record_left(path, FakeTable(Process(50, 1, 1, "S", 3)))

    assert again.record.concluded
    assert [found.record.concluded for found in empty.remains()] == [True]


def test_nothing_is_taken_over(tmp_path: Path) -> None:
    """Without a kernel that holds the limits there is nothing to take over, and that is said."""
    backend = with_record(tmp_path / "r", FakeTable(ROOT))
    (scope,) = backend.list_scopes()

    with pytest.raises(CgmemError, match="can't be taken over"):
        backend.take_over(scope, scope.record)


def test_a_record_of_another_process_table_is_left_alone(tmp_path: Path) -> None:
    """Of another container or boot, the same pid is another process: passed over, kept."""
    path = tmp_path / "r"
    backend = with_record(path, FakeTable(ROOT, table="another boot"))

    assert backend.list_scopes() == []
    assert len(list(path.iterdir())) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to write a record as another user")
def test_a_users_record_gives_root_no_foreign_process(tmp_path: Path) -> None:
    """A user who writes down somebody else's pid does not get it listed, or killed, by root."""
    path = tmp_path / "r"
    source = FakeTable(ROOT, Process(101, 1, 1, "R", 8))
    source.owners = {100: 0, 101: 4242}
    source.tokens = {101: (TOKEN,)}
    backend = with_record(path, source)
    for file in (path, path / TOKEN):
        os.chown(file, 4242, 4242)

    assert [scope.pids() for scope in backend.list_scopes()] == [[101]]


def test_a_refused_signal_is_an_error_with_pid_and_hint(tmp_path: Path) -> None:
    """A process of another user is named once all the others have got the signal."""
    sent: list[int] = []

    class Refusing:
        def open(self, pid: int) -> int:
            return pid

        def send(self, handle: int, _signum: int) -> None:
            if handle == 100:
                raise PermissionError
            sent.append(handle)

        def close(self, _handle: int) -> None:
            pass

    source = FakeTable(ROOT, Process(101, 100, 1, "R", 8))
    signaller = Signaller(source.process, Refusing())
    (scope,) = with_record(tmp_path / "r", source, signaller=signaller).list_scopes()

    with pytest.raises(CgroupError, match="pid 100") as caught:
        scope.signal(signal.SIGTERM)
    assert caught.value.errno == errno.EPERM
    assert caught.value.hint is not None
    assert sent == [101]


def test_swap_makes_the_limit_soft(tmp_path: Path) -> None:
    """Where memory can be swapped out from under the count, the limit says so."""
    backend = PsutilBackend(source=FakeTable(), run_directory=RunDirectory(tmp_path / "r"))
    _, effective = backend.open_scope(a_record(), Limits(max_bytes=MB))

    assert effective.soft
