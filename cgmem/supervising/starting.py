"""Starting a command in a scope: by which backend, with what the kernel then holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from signal import SIGKILL
from subprocess import Popen

from cgmem import selector
from cgmem.config.settings import Settings
from cgmem.contract import Backend, EffectiveLimits, Group, Leave, Limits, Scope, ScopeRecord
from cgmem.errors import (
    BackendUnavailable,
    CgmemError,
    EnforcementError,
    ScopeVanished,
    not_loaded,
)
from cgmem.shapes import NamedTuple
from cgmem.supervising.plan import Plan, limits_of, plan_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Started(NamedTuple):
    """A command that runs in its scope."""

    scope: Scope
    popen: Popen[Any]
    plan: Plan


_SOFT = "this kernel can't limit swap (no memory.swap.max), and the host has some"


class _ChoiceKey(NamedTuple):
    backend: str
    required: bool
    allow_move: bool | None
    group: Group | None


class Starter:
    """Keeps the backends that were chosen. Thread-safe.

    `own_process`: this process is cgmem's own command, which may be moved to another cgroup and
    says itself what a choice notes.
    """

    def __init__(self, warn: Callable[[str], None], *, own_process: bool) -> None:
        self._warn = warn
        self._own_process = own_process
        self._lock = threading.Lock()
        self._choices: dict[_ChoiceKey, selector.Choice] = {}
        self._soft_told = False

    def backends(self) -> list[Backend]:
        """Those chosen so far."""
        return [choice.backend for choice in tuple(self._choices.values())]

    def choice(self, settings: Settings) -> selector.Choice:
        """The backend that these settings lead to, and why. Raises what `selector.choose` does."""
        key = _choice_key(settings)
        with self._lock:
            chosen = self._choices.get(key)
            if chosen is not None:
                return chosen
            leave = Leave(settings.allow_move, self._own_process)
            chosen = self._choices[key] = selector.choose(
                settings.backend,
                kernel_limits_required=key.required,
                leave=leave,
                group=key.group,
            )
            chosen.backend.warn = self._warn
        if not self._own_process and (note := chosen.note) is not None:
            self._warn(note)
        return chosen

    def start(
        self,
        chosen: selector.Choice,
        record: ScopeRecord,
        settings: Settings,
        args: Any,
        popen_options: Mapping[str, Any],
        check: Callable[[EffectiveLimits], None],
    ) -> Started:
        """Open a scope of the chosen backend and start the command in it.

        `check` may refuse it for what is held. Raises what `check` and subprocess.Popen raise,
        `EnforcementError`, `BackendUnavailable`, `CgroupError`, `ScopeVanished` where somebody
        removes the empty scope again and again, `CgmemError` where a part of cgmem can't be loaded.
        """
        limits = limits_of(settings)
        for attempt in (1, 2):
            chosen, scope, effective = self._open(chosen, record, settings, limits)
            try:
                self._check_enforced(settings, limits, effective)
                check(effective)
                popen = scope.start(args, popen_options)
                kernel = self._kernel_holds(chosen, record, limits, effective)
                plan = plan_of(settings, effective, chosen.backend.name, kernel_limits=kernel)
            except ScopeVanished:
                # Somebody removed the empty cgroup: once is an accident, twice is not ours.
                scope.detach()
                if attempt == 2:
                    raise
                continue
            except ImportError as error:
                discard(scope)
                raise not_loaded(error) from error
            except BaseException:
                discard(scope)
                raise
            break
        return Started(scope, popen, plan)

    def _check_enforced(
        self, settings: Settings, limits: Limits, effective: EffectiveLimits
    ) -> None:
        if limits.max_bytes is None:
            return
        required = settings.enforcement == "required"
        if required and not effective.enforced:
            raise EnforcementError(
                f"the kernel did not take the hard limit {limits.max_bytes} bytes "
                f"(it has {effective.max_bytes})",
                hint="cgmem doctor",
            )
        if not (effective.enforced and effective.soft) or limits.swap_max_bytes is None:
            return
        if required:
            raise EnforcementError(
                f"the hard limit would be soft: {_SOFT}", hint="swapoff -a, or --swap max"
            )
        if not self._soft_told:
            self._soft_told = True
            self._warn(f"the hard limit is soft: {_SOFT}")

    def _kernel_holds(
        self,
        chosen: selector.Choice,
        record: ScopeRecord,
        limits: Limits,
        effective: EffectiveLimits,
    ) -> bool:
        kernel = chosen.backend.capabilities.kernel_limits
        if kernel and limits.max_bytes is not None and not effective.enforced:
            self._warn(
                f"subprocess {record.subprocess_id}: the kernel did not take the hard limit"
                f" {limits.max_bytes} bytes (it has {effective.max_bytes}): polled instead"
            )
            return False
        return kernel

    def prepare(self, settings: Settings, limits: Limits) -> None:
        """Have the next scope made ready."""
        chosen = self._choices.get(_choice_key(settings))
        if chosen is not None:
            chosen.backend.prepare(limits)

    def close(self) -> None:
        """Close the backends."""
        for backend in self.backends():
            backend.close()

    def _open(
        self, chosen: selector.Choice, record: ScopeRecord, settings: Settings, limits: Limits
    ) -> tuple[selector.Choice, Scope, EffectiveLimits]:
        """Open a scope; where the backend fails after all, the fallback may do (best effort)."""
        try:
            return chosen, *chosen.backend.open_scope(record, limits)
        except BackendUnavailable as error:
            fixed = settings.backend != "auto" or settings.enforcement == "required"
            if fixed or settings.group_name or chosen.backend.name == selector.FALLBACK:
                raise
            fallback = selector.choose(selector.FALLBACK)
            fallback.backend.warn = self._warn
            reason = f"{fallback.reason} (not {chosen.backend.name}: {error})"
            chosen = fallback._replace(reason=reason)
            self._warn(reason)
        with self._lock:
            self._choices[_choice_key(settings)] = chosen
        return chosen, *chosen.backend.open_scope(record, limits)


def _choice_key(settings: Settings) -> _ChoiceKey:
    required = settings.enforcement == "required"
    group = None
    if settings.group_name is not None:
        group = Group(settings.group_name, settings.group_max_bytes)
    return _ChoiceKey(settings.backend, required, settings.allow_move, group)


def discard(scope: Scope) -> None:
    """Give up a scope that came to nothing, with what may run in it. Raises nothing."""
    with suppress(CgmemError, OSError):  # the start's own error is the one to show
        if not scope.close():  # interrupted with a child inside
            scope.signal(SIGKILL)
            scope.close()
    with suppress(CgmemError, OSError):
        scope.detach()
