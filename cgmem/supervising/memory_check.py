"""Is there memory for one more subprocess? Looked at before there is one, told but once."""

from __future__ import annotations

from collections.abc import Callable

from cgmem.config.settings import Settings
from cgmem.contract import EffectiveLimits, SystemMemory
from cgmem.errors import InsufficientMemory
from cgmem.judging import preflight


class MemoryCheck:
    """The pre-flight check of one start.

    Too little refuses it where enforcement is required, or where `must_fit`; else `warn` is told.
    """

    def __init__(
        self,
        settings: Settings,
        memory: Callable[[], SystemMemory],
        warn: Callable[[str], None],
        *,
        must_fit: bool,
    ) -> None:
        self._need_bytes = preflight.needed_bytes(settings.max_bytes)
        self._refuses = must_fit or settings.enforcement == "required"
        self._memory = memory
        self._warn = warn
        self._done = not settings.preflight

    def outside(self) -> None:
        """Look at the machine and at this process's own cgroup. Raises `InsufficientMemory`."""
        if not self._done:
            self._judge(self._memory())

    def inside(self, effective: EffectiveLimits) -> None:
        """Look at the cgroups above its scope, a group among them. Raises `InsufficientMemory`."""
        if not self._done and effective.headroom is not None:
            self._judge(self._memory()._replace(headroom=effective.headroom))

    def _judge(self, memory: SystemMemory) -> None:
        allowed, message = preflight.can_create(memory, self._need_bytes)
        if allowed:
            return
        if self._refuses:
            raise InsufficientMemory(
                message,
                hint="free memory, wait for others to end, lower --max, or --no-preflight",
            )
        self._done = True
        self._warn(message)
