"""Looking at one scope: sample, judge, remember. Says what is to be done, does nothing."""

from __future__ import annotations

from collections.abc import Callable

from cgmem.contract import Alert, Level, MemoryEvents, Metric, Sample, Scope
from cgmem.errors import CgmemError
from cgmem.judging import judge
from cgmem.judging.figures import Figures, add
from cgmem.judging.pace import Look, next_look
from cgmem.shapes import NamedTuple
from cgmem.supervising.plan import Plan


class Found(NamedTuple):
    """The outcome of one look."""

    alerts: tuple[Alert, ...] = ()
    actions: tuple[judge.Action, ...] = ()
    again_in: float | None = None
    """Seconds until the next look; None: at the next tick, or when the kernel wakes us."""


class Watch:
    """What was seen of one scope so far. Not thread-safe."""

    def __init__(
        self, scope: Scope, clock: Callable[[], float], baseline: MemoryEvents | None = None
    ) -> None:
        self.level: Level = "OK"
        self.figures = Figures()
        self.last_sample: Sample | None = None
        self.quiet = True
        """An unchanged scope needs no judging."""
        self.history = judge.History.start(baseline)
        """What the judge carries from one sample to the next."""
        self._scope = scope
        self._clock = clock
        self._began = clock()
        self._last_look: Look | None = None
        self._bound_of: Plan | None = None
        self._bound: int | None = None

    @property
    def metric(self) -> Metric:
        """What the figures measure."""
        return self.last_sample.metric if self.last_sample else "cgroup"

    def look(self, plan: Plan, *, if_changed: bool, alive: bool) -> Found:
        """Take one sample and judge it. `alive`: the main process has not ended.

        With `if_changed`, a scope that has not changed since is not judged again.
        Raises `ScopeVanished` or `CgroupError`.
        """
        began = self._clock()
        bound = self._detail_above(plan)
        sample = self._scope.sample(bound, if_changed=if_changed)
        if sample is None:
            last = self._last_look
            if last is None:
                return Found()
            now = self._clock()
            return Found(again_in=self._pace(plan, Look(now, last.judged_bytes, now - began)))
        self.last_sample = sample
        if self._unremarkable(plan, sample, bound):
            self.figures = add(self.figures, sample.current_bytes, alive=alive)
            return Found()
        return self._judge(plan, sample, began, alive=alive)

    def not_done(self, action: judge.Action) -> None:
        """An action failed: the judge shall not wait for what it was to bring about."""
        if action == "freeze":
            stall = self.history.stall._replace(freezing=False)
            self.history = self.history._replace(stall=stall)

    def new_budget(self) -> None:
        """The hard limit is another one: whether it was passed is to be seen."""
        self.history = self.history._replace(limit_passed=False)

    def _detail_above(self, plan: Plan) -> int | None:
        if plan is not self._bound_of:  # plans hardly change, looks are many
            self._bound_of = plan
            self._bound = judge.detail_above(plan.thresholds, plan.policy)
        return self._bound

    def _judge(self, plan: Plan, sample: Sample, began: float, *, alive: bool) -> Found:
        policy = plan.policy
        judgement = judge.judge(
            plan.thresholds, policy, self.history, sample, own_oom=self._own_oom(sample)
        )
        self.history, self.level = judgement.history, judgement.level
        # While a brake is released, time below the thresholds must be seen to pass.
        self.quiet = self.level == "OK" and policy.high_bytes == plan.planned_high_bytes
        judged = judge.judged_bytes(sample, policy.accounting)
        self.figures = add(self.figures, judged, alive=alive)
        again_in = None
        if not policy.kernel_limits:
            again_in = self._pace(plan, Look(sample.at, judged, self._clock() - began))
        return Found(judgement.alerts, judgement.actions, again_in)

    def _unremarkable(self, plan: Plan, sample: Sample, bound: int | None) -> bool:
        """Nothing for the judge: quiet so far, below every threshold, nobody killed."""
        return (
            self.quiet
            and bound is not None
            and sample.current_bytes <= bound
            and (sample.events is None or not sample.events.oom_kill)
            and plan.policy.kernel_limits
        )

    def _own_oom(self, sample: Sample) -> bool | None:
        """Whether a kill just seen was at this scope's own limit, not at that of a nested one."""
        killed = sample.events.oom_kill if sample.events else None
        if not killed or killed == self.history.events.oom_kill:
            return None
        try:
            local = self._scope.counters().local_events
        except (CgmemError, OSError):  # unknown; memory.events will have to do
            return None
        return None if local is None else bool(local.oom)

    def _pace(self, plan: Plan, look: Look) -> float:
        tick = plan.settings.tick_seconds
        wait = next_look(plan.thresholds, self._began, self._last_look, look, tick)
        self._last_look = look
        return wait
