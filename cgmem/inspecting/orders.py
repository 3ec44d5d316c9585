"""Orders to a live scope from outside its supervisor: another budget, frozen, taken back, killed.

Each works on any scope of `supervising.scopes`, whoever started it, and reads back what the
kernel then has. Nothing here prints.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple

from cgmem.config.thresholds import Given, derive
from cgmem.contract import Backend, EffectiveLimits, Scope, ScopeRecord, Thresholds
from cgmem.errors import ConfigurationError, ScopeVanished
from cgmem.judging import judge
from cgmem.selector import is_supervised, pid_namespace, process_start
from cgmem.supervising.main_process import MainProcess
from cgmem.supervising.scopes import each_scope, unknown
from cgmem.supervising.termination import ask_to_end, attempt
from cgmem.text.sizes import format_size

SETTLED_SECONDS = 5.0
"""How long freezing, thawing or dying may take until it counts as not done (a process in D)."""

_LOOK_SECONDS = 0.02

Pause = Callable[[float], None]


class Target(NamedTuple):
    """One live scope to act on."""

    backend: Backend
    scope: Scope

    @property
    def supervised(self) -> bool:
        """The process that started it still lives."""
        return is_supervised(self.scope.record)


class Budget(NamedTuple):
    """A budget that was set on a running subprocess."""

    before: Thresholds
    after: Thresholds
    held: EffectiveLimits
    """What was read back."""
    observed: bool
    """Nothing was asked of the kernel: it holds no budget here (`enforcement: off`)."""


@contextmanager
def target(name: str) -> Iterator[Target]:
    """Give the one live scope with this id or location (`cgmem show` names both).

    Raises `UnknownIdError` where there is none, `ConfigurationError` where there are several.
    """
    location = _location(name)
    with closing(each_scope()) as scopes:
        for backend, scope in scopes:
            if scope.location == location:
                yield Target(backend, scope)
                return
    raise unknown(name, [])  # it ended meanwhile


def set_budget(to: Target, given: Mapping[str, Given], *, force: bool = False) -> Budget:
    """Set some of the thresholds (keys: warning, critical, max); the others stay as they are.

    The kernel's limits come first, then the record, which the supervisor takes over: whatever it
    does in between, it ends on the new budget (docs/decisions/027).
    Raises `ConfigurationError` where they contradict each other, or where the hard limit is below
    what is in use and not `force`; `CgroupError`, `ScopeVanished`.
    """
    record, now = to.scope.record, to.scope.limits()
    before = record.thresholds
    after = _derived(before, given)
    if not force:
        _refuse_to_end(to, after, given)
    warning, critical, limit = after
    brake = None if record.high_bytes is None else critical
    # A hard limit that the kernel was not asked for is not asked for now.
    hard = limit if now.max_bytes is not None or before.max_bytes is None else None
    observed = to.backend.capabilities.kernel_limits and brake is None and hard is None
    if not observed:
        # A brake needs a supervisor that lifts it.
        high = brake if to.supervised else None
        to.scope.set_limits(now._replace(high_bytes=high, max_bytes=hard, oom_group=False))
    to.scope.rewrite(
        record._replace(
            warning_bytes=warning, critical_bytes=critical, max_bytes=limit, high_bytes=brake
        )
    )
    return Budget(before, after, to.scope.held(), observed)


def freeze(to: Target, frozen: bool, *, pause: Pause = time.sleep) -> bool:
    """Stop every process of the scope, or let them run; True once it is so, as read back.

    Thawed, a supervisor that was stopped with its subprocess is continued too.
    """
    to.scope.freeze(frozen)
    if not frozen:
        # Processes that SIGSTOP stopped are not the freezer's.
        to.scope.signal(signal.SIGCONT)
        record = to.scope.record
        if to.supervised and record.supervisor_namespace == pid_namespace():
            _let_run(record)
    return _comes(lambda: _frozen(to.scope) == frozen, SETTLED_SECONDS, pause)


def _let_run(record: ScopeRecord) -> None:
    """SIGCONT to the supervisor in a record, which is its writer's word, and to nobody else."""
    supervisor = MainProcess(record.supervisor_pid, None)
    try:
        # Whoever the descriptor names by now is the one that started then, or it is left alone.
        if process_start(record.supervisor_pid) == record.supervisor_start:
            with suppress(OSError):  # another user's
                supervisor.send_signal(signal.SIGCONT)
    finally:
        supervisor.close()


def reclaim(to: Target, size: int) -> tuple[int, int]:
    """Have the kernel take back up to `size` bytes; (memory.current before, after)."""
    before = _sampled(to.scope)
    to.scope.reclaim(size)
    return before, _sampled(to.scope)


def kill(
    to: Target,
    grace_seconds: float,
    warn: Callable[[str], None],
    *,
    pause: Pause = time.sleep,
) -> tuple[int, bool, bool]:
    """SIGTERM to every process, `grace_seconds`, then SIGKILL.

    Returns how many there were, whether SIGKILL was needed, and whether all are gone. What fails
    on the way to SIGTERM is a warning, since SIGKILL follows; raises `CgroupError` where that
    can't be sent.
    """
    scope = to.scope
    count = len(scope.pids())
    try:
        if grace_seconds > 0:
            # A clean-up that memory.high held could take for ever.
            attempt(lambda: scope.set_limits(scope.limits()._replace(high_bytes=None)), warn)
            ask_to_end(scope, None, warn)
            if _comes(lambda: not scope.pids(), grace_seconds, pause):
                return count, False, True
        scope.signal(signal.SIGKILL)
        return count, True, _comes(lambda: not scope.pids(), SETTLED_SECONDS, pause)
    except ScopeVanished:
        return count, False, True


def _location(name: str) -> str:
    found: list[str] = []
    ids: list[str] = []
    for _, scope in each_scope():
        if scope.location == name:
            return name
        if scope.pids():
            ids.append(scope.record.subprocess_id)
            if ids[-1] == name:
                found.append(scope.location)
    if not found:
        raise unknown(name, ids)
    if len(found) > 1:
        raise ConfigurationError(
            f"{len(found)} live subprocesses have the id {name!r}",
            hint=f"name one by its location: {', '.join(found)}",
        )
    return found[0]


def _derived(before: Thresholds, given: Mapping[str, Given]) -> Thresholds:
    now = {
        key: Given(size, "as it is")
        for key, size in zip(("warning", "critical", "max"), before, strict=True)
        if size is not None or key == "max"
    }
    wanted = {**now, **given}
    return derive(wanted.get("warning"), wanted.get("critical"), wanted.get("max")).thresholds


def _refuse_to_end(to: Target, after: Thresholds, given: Mapping[str, Given]) -> None:
    sample = to.scope.sample(-1)
    if after.max_bytes is None or "max" not in given or sample is None:
        return
    used = judge.judged_bytes(sample)
    if used >= after.max_bytes:
        raise ConfigurationError(
            f"{given['max'].source}: {format_size(after.max_bytes)} is not above the"
            f" {format_size(used)} in use that can't be reclaimed: it would end at once",
            hint="--force does it all the same",
        )


def _frozen(scope: Scope) -> bool:
    sample = scope.sample(-1)
    return sample is not None and sample.frozen


def _sampled(scope: Scope) -> int:
    sample = scope.sample()
    return 0 if sample is None else sample.current_bytes


def _comes(what: Callable[[], bool], seconds: float, pause: Pause) -> bool:
    waited = 0.0
    while not what():
        if waited >= seconds:
            return False
        pause(_LOOK_SECONDS)
        waited += _LOOK_SECONDS
    return True
