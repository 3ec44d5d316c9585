"""The one module that loads `cgmem_backends`: by name, and only when asked.

"Which backends are there" (`NAMES`) and "which works here" (`choose`) are two questions.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

from cgmem.contract import (
    BY_RULE,
    Backend,
    Group,
    Leave,
    ObservingBackend,
    ScopeRecord,
    SystemMemory,
    Usability,
)
from cgmem.errors import BackendUnavailable, ConfigurationError, EnforcementError, not_loaded
from cgmem.shapes import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CLASSES = {
    "cgroup2": ("cgmem_backends.cgroup2", "Cgroup2Backend"),
    "systemd": ("cgmem_backends.systemd_backend", "SystemdBackend"),
    "psutil": ("cgmem_backends.psutil_backend", "PsutilBackend"),
}

NAMES = tuple(_CLASSES)
"""Every backend, the preferred one first."""

MOVING = frozenset({"systemd"})
"""Backends that may move the calling process, as far as it gives leave."""

FALLBACK = "psutil"
"""The backend that works everywhere and can watch processes that already run."""


class Choice(NamedTuple):
    """The chosen backend, and what was found on the way to it."""

    backend: Backend
    reason: str
    """Why this one, in one sentence."""
    passed_over: tuple[tuple[str, Usability], ...] = ()
    """Backends that were preferred and can't work here."""
    usability: Usability = Usability(True, "")
    """What it said of itself."""

    @property
    def note(self) -> str | None:
        """What can surprise about it, and what to do. It may take another program to find out."""
        found = self.backend.with_note(self.usability)
        if found.note is None or found.fix is None:
            return found.note
        return f"{found.note}: {found.fix}"


def load(name: str, leave: Leave = BY_RULE, group: Group | None = None) -> Backend:
    """Load one backend by name, with `group` for subprocesses that share a budget.

    Raises `ConfigurationError` for a name that there isn't.
    """
    try:
        module, class_name = _CLASSES[name]
    except KeyError:
        raise ConfigurationError(
            f"backend {name!r} does not exist", hint=f"choose one of: auto, {', '.join(NAMES)}"
        ) from None
    made = getattr(_loaded(module), class_name)
    arguments = [leave] if name in MOVING else []
    options = {} if group is None else {"group": group}
    backend: Backend = made(*arguments, **options)
    return backend


def _loaded(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise not_loaded(error) from error


def load_observer() -> ObservingBackend:
    """Load the backend that can watch a process that already runs."""
    module, class_name = _CLASSES[FALLBACK]
    observer: ObservingBackend = getattr(_loaded(module), class_name)()
    return observer


def choose(
    wanted: str = "auto",
    *,
    kernel_limits_required: bool = False,
    leave: Leave = BY_RULE,
    group: Group | None = None,
) -> Choice:
    """Choose the first usable backend, or check the one asked for by name.

    A group's budget takes kernel limits: looking now and then could not say whom to end for it.
    Raises `EnforcementError` where kernel limits are required and none can give them,
    `BackendUnavailable` where nothing works, `ConfigurationError` for an unknown name.
    """
    passed_over: list[tuple[str, Usability]] = []
    for name in NAMES if wanted == "auto" else (wanted,):
        if group is not None and name == FALLBACK:
            continue
        backend = load(name, leave, group)
        if kernel_limits_required and not backend.capabilities.kernel_limits:
            continue
        usability = backend.probe()
        if usability.usable:
            why = _why(wanted, name, usability, passed_over)
            return Choice(backend, why, tuple(passed_over), usability)
        passed_over.append((name, usability))
    if group is not None:
        raise _nothing_works(wanted, f"group {group.name} is the kernel's to hold", passed_over)
    required = "enforcement required" if kernel_limits_required else None
    raise _nothing_works(wanted, required, passed_over)


def system_memory() -> SystemMemory:
    """Read the machine's memory and the headroom of this process's own cgroup."""
    host_memory = _loaded("cgmem_backends.host_memory")
    ancestry = _loaded("cgmem_backends.ancestry")
    memory: SystemMemory = host_memory.read_system_memory(ancestry.own_headroom)
    return memory


def is_supervised(record: ScopeRecord) -> bool:
    """Whether somebody lives who will tell this scope's end. True when in doubt."""
    supervised: bool = _loaded("cgmem_backends.scope_record").is_supervised(record)
    return supervised


def pid_namespace() -> int:
    """Inode of this process's pid namespace; 0 where there is none to see."""
    inode: int = _loaded("cgmem_backends.scope_record").pid_namespace()
    return inode


def lock_directory() -> str:
    """This user's directory for locks, one for all its sessions; it may not be there."""
    return str(_loaded("cgmem_backends.run_directory").lock_directory())


def own_line() -> set[int]:
    """This process and those that it descends from, as far as they can be seen."""
    pids: set[int] = _loaded("cgmem_backends.subtree").family(Path("/proc"))
    return pids | {os.getppid()}  # macOS has no /proc


def process_events_command() -> list[str]:
    """The command that writes every fork, exec and exit of this host (a program of its own)."""
    return [sys.executable, "-m", "cgmem_backends.process_events"]


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None where it is gone or unknown."""
    try:
        ticks: int | None = _loaded("cgmem_backends.scope_record").process_start(pid)
    except OSError:  # out of descriptors, say
        return None
    return ticks


def _why(
    wanted: str, name: str, usability: Usability, passed_over: list[tuple[str, Usability]]
) -> str:
    if wanted != "auto":
        return f"{name}: asked for; {usability.reason}"
    if not passed_over:
        return f"{name}: {usability.reason}"
    others = "; ".join(f"{other}: {why.reason}" for other, why in passed_over)
    return f"{name}: {usability.reason} (not {others})"


def _nothing_works(
    wanted: str, required: str | None, passed_over: list[tuple[str, Usability]]
) -> EnforcementError | BackendUnavailable:
    whys = "; ".join(f"{name}: {why.reason}" for name, why in passed_over)
    fix = next((why.fix for _, why in passed_over if why.fix), "cgmem doctor")
    if required is not None:
        why = whys or f"the {wanted} backend polls, the kernel holds no limit"
        return EnforcementError(f"{required}, but no kernel limits here: {why}", hint=fix)
    return BackendUnavailable(f"no backend works here: {whys}", hint=fix)
