"""Processes of a scope as a tree."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cgmem.cli.processes import Seen, as_tree, with_pss
from cgmem.cli.show import described
from cgmem.contract import MB, MemoryStat, ProcessMemory, Snapshot


def test_a_tree_with_its_heaviest_branch_first() -> None:
    """Depth is that of the parent plus one; what lost its parent stands at the top."""
    processes = [
        Seen(1, 1.0, "main", 100),
        Seen(2, 5.0, "light", 1),
        Seen(3, 1.0, "heavy", 1),
        Seen(4, 50.0, "its child", 3),
        Seen(5, None, "lost", 77),
    ]

    assert [(depth, seen.pid) for depth, seen in as_tree(processes)] == [
        (0, 1), (1, 3), (2, 4), (1, 2), (0, 5),
    ]  # fmt: skip


@given(st.lists(st.integers(0, 8), max_size=8))
def test_nobody_is_shown_twice(parents: list[int]) -> None:
    """Also where pids were used again while they were read, so that parents go in a circle."""
    processes = [Seen(pid, 1.0, "x", ppid) for pid, ppid in enumerate(parents, start=1)]
    shown = [seen.pid for _, seen in as_tree(processes)]

    assert len(shown) == len(set(shown))
    assert set(shown) <= set(range(1, len(parents) + 1))


def test_pss_is_that_of_the_process_or_none() -> None:
    """What a snapshot knows only as RSS, or does not know, is not given out as PSS."""
    snapshot = Snapshot(
        processes=(
            ProcessMemory(1, ("a",), 3 * MB, "pss"),
            ProcessMemory(2, ("b",), 4 * MB, "rss"),
            ProcessMemory(9, ("gone",), 5 * MB, "pss"),
        )
    )
    seen = with_pss([Seen(1, 5.0, "a"), Seen(2, 4.0, "b"), Seen(3, 1.0, "c")], snapshot)

    assert [(one.pid, one.pss_mb) for one in seen] == [(1, 3.0), (2, None), (3, None)]


def test_a_key_that_the_kernel_lacks_is_left_out() -> None:
    """memory.stat in its own words; a kernel before 5.18 has no `kernel`."""
    stat = MemoryStat(anon=2 * MB, file=3 * MB, shmem=MB, slab=MB, sock=0)

    assert described(stat) == "anon 2M, file 3M (shmem 1M), sock 0"
