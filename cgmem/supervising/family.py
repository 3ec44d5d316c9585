"""The family budget: how much the subprocesses of one supervisor may take together.

Each has its hard limit, and their sum may not pass the family's: a subprocess for which there is
no room is not started. So none is ended for what its neighbours took, on every backend, and what
runs stays within the budget when the supervisor has died.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from cgmem.errors import ConfigurationError, InsufficientMemory
from cgmem.judging.preflight import floor_mb
from cgmem.text.sizes import format_size


class Family:
    """Hard limits by subprocess id, in bytes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reserved: dict[str, int] = {}

    def reserve(
        self,
        subprocess_id: str,
        max_bytes: int | None,
        family_max_bytes: int,
        origins: Mapping[str, str],
    ) -> None:
        """Take a hard limit out of the family's budget, until `release`.

        `origins` says by key (`max`, `family_max`) where the two were set.
        Raises `InsufficientMemory` where less is left, `ConfigurationError` for a subprocess that
        never fits.
        """
        if max_bytes is None or max_bytes > family_max_bytes:
            raise ConfigurationError(
                f"the hard limit {format_size(max_bytes)} ({origins['max']}) is larger than the"
                f" family budget {format_size(family_max_bytes)} ({origins['family_max']})",
                hint="set a smaller max, in general or for the agent type, or a larger family_max",
            )
        with self._lock:
            left = family_max_bytes - sum(self._reserved.values())
            if max_bytes <= left:
                self._reserved[subprocess_id] = max_bytes
                return
            others = ", ".join(sorted(self._reserved))
        raise InsufficientMemory(
            f"Insufficient memory: only {floor_mb(max(0, left))}MB available in the family budget"
            f" of {format_size(family_max_bytes)} (need {format_size(max_bytes)}, the hard limit)",
            hint=f"wait for one of {others} to end, or raise family_max",
        )

    def release(self, subprocess_id: str) -> None:
        """Give back what a subprocess had reserved, if anything."""
        if self._reserved:
            with self._lock:
                self._reserved.pop(subprocess_id, None)
