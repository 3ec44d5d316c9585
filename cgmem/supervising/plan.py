"""What is fixed when a supervision begins, made from the settings. Pure."""

from __future__ import annotations

from cgmem.config.settings import Settings
from cgmem.contract import EffectiveLimits, Limits, ScopeRecord, Thresholds
from cgmem.judging.judge import Policy
from cgmem.shapes import NamedTuple


class Plan(NamedTuple):
    """The budget of one subprocess, what the kernel made of it, and how it is judged."""

    settings: Settings
    thresholds: Thresholds
    limits: Limits
    effective: EffectiveLimits
    policy: Policy
    """Its `high_bytes` is memory.high as it is now: None without a brake or after a release."""
    backend: str

    @property
    def planned_high_bytes(self) -> int | None:
        """memory.high as it is to be while nothing was released."""
        return self.limits.high_bytes if self.policy.kernel_limits else None

    @property
    def keep(self) -> bool:
        """What the command leaves behind lives on: asked for, or nothing is to be ended at all."""
        return self.settings.keep or self.settings.enforcement == "off"

    def with_brake_at(self, high_bytes: int | None) -> Plan:
        """The same, once memory.high was set to this."""
        return self._replace(policy=self.policy._replace(high_bytes=high_bytes))

    def with_thresholds(self, warning: int, critical: int, maximum: int | None) -> Plan:
        """The same under another budget, still to be set (`Supervision.set_limits`)."""
        settings = self.settings._replace(
            warning_bytes=warning, critical_bytes=critical, max_bytes=maximum
        )
        limits = limits_of(settings)
        if self.limits.high_bytes is None:  # observed, or adopted without a brake
            limits = limits._replace(high_bytes=None)
        thresholds = Thresholds(warning, critical, maximum)
        return self._replace(settings=settings, thresholds=thresholds, limits=limits)


def limits_of(settings: Settings) -> Limits:
    """What the kernel is asked to hold."""
    if settings.enforcement == "off":
        return Limits(swap_max_bytes=None, oom_group=False)
    return Limits(
        high_bytes=settings.critical_bytes,
        max_bytes=settings.max_bytes if settings.abort_on_memory_limit else None,
        swap_max_bytes=settings.swap_max_bytes,
        oom_group=settings.oom_group,
    )


def plan_of(
    settings: Settings, effective: EffectiveLimits, backend: str, *, kernel_limits: bool
) -> Plan:
    """The plan for a subprocess that is started under its budget."""
    limits = limits_of(settings)
    return Plan(
        settings=settings,
        thresholds=Thresholds(settings.warning_bytes, settings.critical_bytes, settings.max_bytes),
        limits=limits,
        effective=effective,
        policy=Policy(
            accounting=settings.accounting,
            on_stall=settings.on_stall,
            stall_after_seconds=settings.stall_after_seconds,
            kernel_limits=kernel_limits,
            high_bytes=limits.high_bytes if kernel_limits else None,
            enforcement=settings.enforcement,
            abort_on_memory_limit=settings.abort_on_memory_limit,
            tick_seconds=settings.tick_seconds,
        ),
        backend=backend,
    )


def recorded_plan_of(
    settings: Settings,
    record: ScopeRecord,
    limits: Limits,
    effective: EffectiveLimits,
    backend: str,
    *,
    kernel_limits: bool,
) -> Plan:
    """The plan for what another process has started: its budget, and `settings` for the rest."""
    settings = settings._replace(
        swap_max_bytes=limits.swap_max_bytes,
        oom_group=limits.oom_group,
        # What is not held was not to be held.
        abort_on_memory_limit=limits.max_bytes is not None,
        log_dir=record.log_dir,
    )
    plan = plan_of(settings, effective, backend, kernel_limits=kernel_limits)
    policy = plan.policy._replace(high_bytes=limits.high_bytes if kernel_limits else None)
    return plan._replace(thresholds=record.thresholds, limits=limits, policy=policy)


def observing_plan_of(settings: Settings, backend: str) -> Plan:
    """The plan for a process that already runs: no kernel budget, polled at the hard limit."""
    # What it leaves behind was not started under a budget of ours: it stays.
    settings = settings._replace(keep=True)
    nothing_held = EffectiveLimits(None, None, None, settings.max_bytes, "observed", enforced=False)
    plan = plan_of(settings, nothing_held, backend, kernel_limits=False)
    limits = Limits(max_bytes=plan.limits.max_bytes, swap_max_bytes=None)
    return plan._replace(limits=limits)
