"""Which processes belong to a scope: parent links, sessions, marks, identities, shared scans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.contract import Metric, Snapshot, Usability
from cgmem_backends.process_tree import (
    Identity,
    Measurement,
    Process,
    ProcessTable,
    ProcessTree,
    Scan,
    find_members,
)


def a_process(pid: int, ppid: int = 1, session: int = 1, start: int = 0, **more: Any) -> Process:
    """A running process; its start time is its pid unless told."""
    return Process(pid, ppid, session, "R", start or pid, rss_bytes=1000, **more)


class FakeHost:
    """A process table in memory, which counts how often it is scanned."""

    metric: Metric = "rss"

    def __init__(self, *processes: Process) -> None:
        self.now = 100.0
        self.table = {process.pid: process for process in processes}
        self.environment: dict[int, tuple[str, ...]] = {}
        self.scans = 0
        self.environments_read: list[int] = []

    def clock(self) -> float:
        """The time that the test sets."""
        return self.now

    def become(self, *processes: Process) -> None:
        """The table after a tick."""
        self.now += 2.0
        self.table = {process.pid: process for process in processes}

    def usability(self) -> Usability:
        """Usable."""
        return Usability(usable=True, reason="a fake")

    def table_id(self) -> str:
        """One table."""
        return "fake"

    def processes(self) -> Iterable[Process]:
        """One scan."""
        self.scans += 1
        return list(self.table.values())

    def process(self, pid: int) -> Process | None:
        """One process."""
        return self.table.get(pid)

    def marks(self, candidates: Sequence[Process]) -> Mapping[Identity, tuple[str, ...]]:
        """A process without an entry in `environment` can't be told yet."""
        self.environments_read += [process.pid for process in candidates]
        return {
            process.identity: self.environment[process.pid]
            for process in candidates
            if process.pid in self.environment
        }

    def measure(self, members: Sequence[Process], detail_above: int | None) -> Measurement:
        """RSS."""
        return Measurement(sum(process.rss_bytes or 0 for process in members), "rss")

    def largest(self, members: Sequence[Process], most: int) -> Iterator[Snapshot]:
        """Nothing to tell."""
        return iter(())

    def owner(self, pid: int) -> int | None:
        """Root's."""
        return 0 if pid in self.table else None

    def swap_unbounded(self) -> bool:
        """No swap."""
        return False


def tree_of(host: FakeHost, root: Process, token: str | None = "t") -> ProcessTree:
    """A tree with one root on this host."""
    tree = ProcessTree(ProcessTable(host, host.clock), token)
    tree.add_root(root.identity)
    return tree


def pids(tree: ProcessTree) -> list[int]:
    """Sorted, as of now."""
    return sorted(process.pid for process in tree.processes())


SHELL = a_process(50, session=50)
ROOT = a_process(100, ppid=50, session=50)


def test_descendants_are_found_by_parent_links() -> None:
    """Children of children belong; the shell that the root's session is led by does not."""
    host = FakeHost(
        SHELL, ROOT, a_process(101, 100, 50), a_process(102, 101, 50), a_process(103, 50, 50)
    )

    assert pids(tree_of(host, ROOT)) == [100, 101, 102]


def test_an_orphan_that_was_seen_stays() -> None:
    """A known process stays in its tree when its parent has ended and init has taken it."""
    host = FakeHost(SHELL, ROOT, a_process(101, 100, 50), a_process(102, 101, 50))
    tree = tree_of(host, ROOT)
    pids(tree)
    host.become(SHELL, ROOT, a_process(102, 1, 50))

    assert pids(tree) == [100, 102]


def test_an_unseen_orphan_is_found_in_a_session_that_a_member_led() -> None:
    """A session led by a member is part of the tree, also once its leader has ended."""
    host = FakeHost(SHELL, ROOT, a_process(101, 100, 101))
    tree = tree_of(host, ROOT)
    pids(tree)
    host.become(SHELL, ROOT, a_process(102, 1, 101))

    assert pids(tree) == [100, 102]


def test_a_stranger_that_leads_a_reused_session_id_does_not_belong() -> None:
    """A new process under a dead leader's pid brings neither itself nor its session in."""
    host = FakeHost(SHELL, ROOT, a_process(101, 100, 101))
    tree = tree_of(host, ROOT)
    pids(tree)
    host.become(
        SHELL, ROOT, a_process(101, 1, 101, start=999), a_process(102, 101, 101, start=1000)
    )

    assert pids(tree) == [100]


def test_a_reused_pid_is_another_process() -> None:
    """The root's pid with another start time is a stranger."""
    host = FakeHost(SHELL, ROOT)
    tree = tree_of(host, ROOT)
    pids(tree)
    host.become(SHELL, a_process(100, ppid=50, session=50, start=5000), a_process(101, 100, 50))

    assert pids(tree) == []


def test_a_double_fork_between_two_looks_is_found_by_its_mark() -> None:
    """A daemon of a session of its own whose parents were never seen is found by the mark."""
    host = FakeHost(SHELL, ROOT, a_process(107, 1, 106), a_process(108, 107, 108))
    host.environment = {100: ("t",), 107: ("outer", "t"), 108: ()}

    assert pids(tree_of(host, ROOT)) == [100, 107, 108]


def test_each_environment_is_read_once() -> None:
    """Only processes newer than the scope are looked at, and once each, whatever the ticks."""
    host = FakeHost(SHELL, ROOT, a_process(107, 1, 106))
    host.environment = {100: ("t",), 107: ()}
    tree = tree_of(host, ROOT)
    for _ in range(3):
        pids(tree)
        host.now += 2.0

    assert sorted(host.environments_read) == [100, 107]


def test_an_environment_that_could_not_be_read_yet_is_asked_for_again() -> None:
    """A process in the middle of exec has no environment yet; the next tick reads it."""
    host = FakeHost(SHELL, ROOT, a_process(107, 1, 106))
    host.environment = {100: ("t",)}
    tree = tree_of(host, ROOT)
    before = pids(tree)
    host.environment[107] = ("t",)
    host.now += 2.0

    assert (before, pids(tree)) == ([100], [100, 107])


def test_a_process_of_another_scope_does_not_belong() -> None:
    """Another token is another scope."""
    host = FakeHost(SHELL, ROOT, a_process(107, 1, 106))
    host.environment = {100: ("t",), 107: ("other",)}

    assert pids(tree_of(host, ROOT)) == [100]


def test_zombies_have_ended() -> None:
    """A zombie is no living process, and what it started before still belongs."""
    host = FakeHost(SHELL, a_process(100, 50, 50, ended=True), a_process(101, 100, 50))

    assert pids(tree_of(host, ROOT)) == [101]


def test_many_scopes_cost_one_scan() -> None:
    """Trees that are asked in one tick share the scan; the next tick makes a new one."""
    host = FakeHost(SHELL, *(a_process(pid, 50, 50) for pid in range(100, 200)))
    table = ProcessTable(host, host.clock)
    trees = [ProcessTree(table, f"t{pid}") for pid in range(100, 200)]
    for tree, pid in zip(trees, range(100, 200), strict=True):
        tree.add_root(Identity(pid, pid))
    for _ in range(2):
        assert [pids(tree) for tree in trees] == [[pid] for pid in range(100, 200)]
        host.now += 2.0

    assert host.scans == 2


def test_a_scan_from_before_the_start_does_not_serve() -> None:
    """A tree whose root has just been added is not answered from an older picture."""
    host = FakeHost(SHELL)
    table = ProcessTable(host, host.clock)
    table.scan()
    host.now += 0.001
    host.table[100] = ROOT
    tree = ProcessTree(table, "t")
    tree.add_root(ROOT.identity)

    assert pids(tree) == [100]


def test_a_fresh_look_scans_again() -> None:
    """`fresh` is answered as of now, however young the shared picture is."""
    host = FakeHost(SHELL, ROOT)
    tree = tree_of(host, ROOT)
    pids(tree)
    host.table[101] = a_process(101, 100, 50)
    host.now += 0.001

    assert [process.pid for process in tree.processes()] == [100]
    assert sorted(process.pid for process in tree.processes(fresh=True)) == [100, 101]


links = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=12).map(
    lambda pairs: [a_process(pid, *pair) for pid, pair in enumerate(pairs, start=1)]
)


@given(links, st.integers(1, 12), st.sets(st.integers(1, 12)))
def test_membership_is_closed(processes: list[Process], root: int, led: set[int]) -> None:
    """Whatever the links, loops included: the root is in, and every child of a member."""
    scan = Scan(0.0, processes, {})
    found = find_members(scan, [Identity(root, root)], led, None)

    if root <= len(processes):
        assert root in found
    for process in processes:
        if process.ppid in found:
            assert process.pid in found
        if process.session in found and found[process.session].session == process.session:
            assert process.pid in found


@pytest.mark.parametrize("known", [[], [Identity(9, 9)]])
def test_nothing_known_means_nobody(known: list[Identity]) -> None:
    """A tree whose processes are all gone does not fall back on anybody."""
    assert find_members(Scan(0.0, [SHELL, ROOT], {}), known, (), None) == {}
