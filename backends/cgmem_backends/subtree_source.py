"""What a subtree is to whoever makes scopes in it, wherever it comes from.

Sources: subtree.py (the own cgroup), systemd_family.py (a scope that systemd gives).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from cgmem.contract import Usability
from cgmem.shapes import NamedTuple, Protocol
from cgmem_backends.hierarchy import Hierarchy

SLICE = "cgmem.slice"
"""All of systemd's family scopes are in it, so that a person can set one budget on everything."""

_FAMILY_SCOPE = rf"/{re.escape(SLICE)}/cgmem-[^/]+\.scope(/|$)"

Attach = Callable[[str, int], None]
"""Puts a process into the cgroup at this path, for us who may not."""


class Subtree(NamedTuple):
    """A cgroup that is ours to make scopes in, ready for it."""

    base: Path
    hierarchy: Hierarchy
    attach: Attach | None = None
    """None: this process may put others in by itself."""


class SubtreeSource(Protocol):
    """Where a subtree comes from. `claim` may be called again; it then gives the same one."""

    def inspect(self) -> Usability:
        """Say whether `claim` would work, changing nothing."""

    def with_note(self, found: Usability) -> Usability:
        """See `cgmem.contract.Backend`."""

    def claim(self) -> Subtree:
        """Make the subtree ready. Raises `BackendUnavailable` with the reason."""

    def release(self) -> None:
        """Give up what only this source needs; scopes in it may live. Never raises."""


def in_family_scope(directory: Path) -> bool:
    """Whether a cgroup lies in a scope that systemd gave to a supervisor, whoever that is."""
    return re.search(_FAMILY_SCOPE, str(directory)) is not None
