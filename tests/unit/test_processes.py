"""Processes of a scope as a tree."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cgmem.cli.processes import Seen, as_tree


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
