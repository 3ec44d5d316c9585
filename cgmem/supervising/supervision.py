"""One supervised subprocess from its start to its outcome: the only place that holds its state.

Covers: looking (sample, judge, act), ending it (SIGTERM, grace, SIGKILL), settling (last read,
verdict, clean-up), in their order. Does not cover: the mechanism (the scope's), the rules (judge,
verdict), what is told and when (telling), what is due (deadlines), where lines go (the sinks').
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from subprocess import Popen

from cgmem.contract import (
    Alert,
    Cause,
    Counters,
    EffectiveLimits,
    Level,
    Limits,
    MemoryEvents,
    Scope,
    SystemMemory,
)
from cgmem.errors import CgmemError, ScopeVanished
from cgmem.judging import judge
from cgmem.judging.ended import WhatWeDid
from cgmem.judging.verdict import CAUSE_OF
from cgmem.shapes import Protocol
from cgmem.supervising.conclusion import Seen, conclude
from cgmem.supervising.deadlines import Deadlines
from cgmem.supervising.emptying import LONGEST_RETRY_SECONDS, Emptying
from cgmem.supervising.main_process import READABLE, AdoptedProcesses, MainProcess
from cgmem.supervising.outbox import worth_a_snapshot
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.plan import Plan
from cgmem.supervising.poller import Poller
from cgmem.supervising.snapshot import Inspection, Snapshots
from cgmem.supervising.telling import Listeners, Telling
from cgmem.supervising.termination import ask_to_end, attempt, send
from cgmem.supervising.uninterrupted import uninterrupted
from cgmem.supervising.watch import Found, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SETTLE_SECONDS = 0.02
"""How long after a caller's `wait` its subprocess is settled, if nobody asks for the outcome."""


class Sinks(Protocol):
    """Where alerts and outcomes go. None of these may raise or block."""

    def alert(self, supervision: Supervision, alert: Alert) -> None:
        """Take one alert."""

    def aborted(self, supervision: Supervision, cause: Cause) -> None:
        """Take the word, once, that it is being ended for its budget or its time."""

    def concluded(self, supervision: Supervision, outcome: Outcome) -> None:
        """Take the outcome and write it down: the scope goes next."""

    def ended(self, supervision: Supervision, outcome: Outcome) -> None:
        """The supervision is over."""

    def idle(self, supervision: Supervision) -> None:
        """The caller is about to wait for this one: time for what can be done ahead."""

    def warn(self, text: str) -> None:
        """Take a word about trouble of our own."""

    def system_memory(self) -> SystemMemory:
        """Read the machine's memory."""


class Supervision:
    """One subprocess under supervision. Thread-safe; the poller and its owner both call it."""

    def __init__(
        self,
        scope: Scope,
        plan: Plan,
        sinks: Sinks,
        poller: Poller,
        *,
        snapshots: Snapshots | None = None,
        clock: Callable[[], float] = time.monotonic,
        baseline: MemoryEvents | None = None,
    ) -> None:
        self.scope = scope
        self.plan = plan
        self.subprocess_id = scope.record.subprocess_id
        self.level: Level = "OK"
        self.watch = Watch(scope, clock, baseline)
        self.outcome: Outcome | None = None
        """Set once no process is left. Logged next; the scope may be there until `ended`."""
        self.ended = threading.Event()
        self._concluding = False
        """The last read was the last: its descriptors are given up."""
        self._told = False
        self._sinks = sinks
        self._poller = poller
        self._clock = clock
        self._snapshots = snapshots
        self._telling = Telling(
            str(self),
            Listeners(partial(sinks.alert, self), partial(sinks.aborted, self), sinks.warn),
            clock,
        )
        self._due = Deadlines()
        self._emptying = Emptying(scope, self._telling.warn, keep=plan.keep)
        self._lock = threading.RLock()
        self._awaits_empty = False
        self._baseline = baseline
        """memory.events when it was taken over; None for one of our own."""
        self._started = clock()
        self._main: MainProcess | None = None
        self._wakes: tuple[int, ...] = ()
        self._what_we_did: WhatWeDid | None = None
        self._sigkill_needed = False
        self._oom_came_first = False
        self._counters: Counters | None = None
        self._forked_away = False

    def __str__(self) -> str:
        return f"subprocess {self.subprocess_id}"

    # --- the beginning

    def begin(self, pid: int, popen: Popen[Any] | None) -> None:
        """Take over the started process (ours, or with `popen` None one that already runs)."""
        timeout = self.plan.settings.timeout_seconds
        with self._lock:
            if self.outcome is not None:  # let go of before it had begun
                return
            self._started = self._clock()
            main = self._main = MainProcess(pid, popen, self.scope.pids, self._clock)
            if timeout is not None:
                self._due.timeout = self._started + timeout
            self._look(if_changed=False)
            self._enlist(main)
            self._rest()
            self._reschedule()

    def begin_adopted(self, age_seconds: float) -> None:
        """Take over what another process started so long ago: whatever is in the scope."""
        with self._lock:
            main = self._main = AdoptedProcesses(self.scope.pids)
            self._started = self._clock() - age_seconds
            self._look(if_changed=False)
            self._enlist(main)
            self._wake_when_empty()
            self._rest()
            self._reschedule()

    def _enlist(self, main: MainProcess) -> None:
        """Have the poller look, and be woken by what the kernel tells."""
        try:
            wakes = list(self.scope.wake_descriptors)
        except (CgmemError, OSError):  # gone already, or no descriptor left: ticks will do
            wakes = []
        self._wakes = tuple(descriptor for descriptor, _ in wakes)
        if main.exit_fd is not None:
            wakes.append((main.exit_fd, READABLE))
        try:
            self._poller.add(self, wakes)
        except OSError as error:  # fs.epoll.max_user_watches, ENOMEM
            self._only_ticks(main, error)

    def _only_ticks(self, main: MainProcess, error: OSError) -> None:
        self._telling.warn(f"no wake-ups, only ticks: {error}")
        self._poller.remove(self)
        main.close()
        self._poller.add(self, ())

    @property
    def warnings(self) -> list[str]:
        """The messages of its alerts so far."""
        return self._telling.warnings

    @property
    def pid(self) -> int | None:
        """Process id of the main process, once it was started."""
        return None if self._main is None else self._main.pid

    @property
    def ending(self) -> bool:
        """We are ending it: for its budget, its time, or on request."""
        return self._what_we_did is not None

    @property
    def limit_passed(self) -> bool:
        """It was seen above its hard limit, whether or not anything was done about it."""
        return self.watch.history.limit_passed

    # --- what the poller calls

    def tick(self, now: float) -> None:
        """Look. Not called while the scope rests."""
        with self._lock:
            if self.outcome is None:
                if self._only_ticks_tell():
                    self._has_ended()  # before the look: what is left is no size of its own
                self._look(if_changed=self.watch.quiet)
        if self._only_ticks_tell():
            self.settle()

    def woken(self, now: float) -> None:
        """Something happened: look, carry out what is due, settle if the end has come."""
        with self._lock:
            if self.outcome is None:
                self._has_ended()  # before the look, as in tick
                self._look(if_changed=True)
        if self.settle():  # first: who obeyed in time needs no SIGKILL, however late we are
            return
        with self._lock:
            self._carry_out_due(now)

    # --- what the owner calls

    def check(self) -> tuple[float, Level]:
        """Look now. Returns (judged MB, level)."""
        with self._lock:
            if self.outcome is None:
                self._look(if_changed=False)
            return self.watch.figures.end_mb, self.level

    def abort(self, why: WhatWeDid, grace_seconds: float | None = None) -> None:
        """End it: SIGTERM to every process, `grace_seconds`, then SIGKILL to those left."""
        grace = self.plan.settings.grace_seconds if grace_seconds is None else grace_seconds
        with self._lock:
            if self.outcome is not None or self._what_we_did is not None or self._forked_away:
                return
            if self._is_over():  # by itself: what is left in its scope goes as it settles
                return
            self._oom_came_first = bool((self._last_read().events or MemoryEvents()).oom_kill)
            self._what_we_did = why
            self.level = "ABORTED"
            self._tell_abort()
            try:
                # A clean-up that memory.high held could take for ever.
                self._lift_brake()
                ask_to_end(self.scope, self._main, self._telling.warn)
            finally:  # also where a KeyboardInterrupt came in between
                self._due.kill = self._clock() + grace
                self._reschedule()

    def kill(self, why: WhatWeDid) -> None:
        """End it by SIGKILL at once."""
        with self._lock:
            if self.outcome is None and not self._forked_away:
                if not self._is_over():
                    self._what_we_did = self._what_we_did or why
                    self._sigkill_needed = True
                    self.level = "ABORTED"
                    self._tell_abort()
                self._kill_now()

    def pause(self, seconds: float) -> None:
        """Stopped time counts for no timer: move every deadline."""
        with self._lock:
            self._due.pause(seconds)
            self._reschedule()

    def set_limits(self, limits: Limits) -> EffectiveLimits:
        """Set another budget on the running subprocess; returns what the kernel then holds."""
        with self._lock:
            return self._set_limits(limits)

    def _set_limits(self, limits: Limits) -> EffectiveLimits:
        effective = self.scope.set_limits(limits)
        self.plan = self.plan._replace(limits=limits, effective=effective)
        if self.plan.policy.kernel_limits:
            self.plan = self.plan.with_brake_at(limits.high_bytes)
        return effective

    def take_rewritten(self) -> bool:
        """Take over the budget that somebody else wrote down (`cgmem set`); True if it is new."""
        with self._lock:
            written = None if self.outcome is not None else self.scope.written()
            if written is None or written.warning_bytes is None or written.critical_bytes is None:
                return False
            plan = self.plan.with_thresholds(
                written.warning_bytes, written.critical_bytes, written.max_bytes
            )
            if plan.thresholds == self.plan.thresholds:
                return False
            self.plan = plan
            self.watch.new_budget()
            attempt(lambda: self._set_limits(self.plan.limits), self._telling.warn)
            return True

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """While the caller waits for the exit and will settle, the poller need not be woken by it.

        A second thread that wakes for the same exit only gets in the way of the first.
        """
        try:
            self._exit_muted(True)
            self.idle()
            yield
        except BaseException:
            self._exit_muted(False)
            raise

    def _exit_muted(self, muted: bool) -> None:
        with self._lock:
            main = self._main
            if main is None or main.exit_fd is None:
                return
            try:
                self._poller.mute(self, main.exit_fd, muted)
            except OSError as error:  # no room to be told of the exit: it would never be seen
                self._only_ticks(main, error)
                self._rest()
                self._reschedule()

    def idle(self) -> None:
        """The caller is about to wait: there is time to make the next scope ready."""
        self._telling.safely(partial(self._sinks.idle, self))

    def left(self) -> None:
        """The main process has been waited for: let the poller settle, a moment later.

        Not at once: it would take the interpreter's lock from a caller who has more to start.
        """
        with self._lock:
            if self.ended.is_set():
                return
            if not self._only_ticks_tell():
                if self._due.settle is None:  # whoever asks again and again puts nothing off
                    self._due.settle = self._clock() + _SETTLE_SECONDS
                    self._reschedule()
                return
        self.settle()

    def settle(self) -> bool:
        """If the main process has ended: last read, verdict, clean-up. True once all is done."""
        if self._forked_away:
            return False
        with self._lock:
            self._due.settle = None
            if not self.ended.is_set() and self._has_ended():
                with uninterrupted():
                    self._settle()
            return self.ended.is_set()

    def _settle(self) -> None:
        if not self._concluding:
            self._counters = self._last_read()
            self._tell_late_kill()
        if self._emptied():
            self._finish()
        else:
            self._wait_until_emptied()

    def let_go(self) -> None:
        """Stop supervising a live subprocess: its hard limit stays, the brake is lifted.

        memory.high without a supervisor to judge stalls could hold it for ever. One that is being
        ended is not let go of half-way: it is killed.
        """
        if self._forked_away:
            return
        with self._lock, uninterrupted():
            if self.ended.is_set():
                return
            if self.outcome is None and self._in_grace():
                self._sigkill_needed = True
                self._kill_now()
            self._lift_brake()
            if self.outcome is None and isinstance(self._main, AdoptedProcesses):
                self._hand_back()
                return
            if self.outcome is None:
                self._counters = self._last_read()
            self._emptying.leave()
            self._finish()

    def _hand_back(self) -> None:
        """Its end is for whoever comes next to tell."""
        self._telling.hand_out_all()
        self._forked_away = True  # nobody's here any more
        self._poller.remove(self)
        self.scope.detach()
        self.ended.set()

    def after_fork_in_child(self) -> None:
        """Leave the subprocess to the parent process: it is no child of this one.

        Popen would take ECHILD for its end, and what lives in the scope would be killed as
        left over.
        """
        self._lock = threading.RLock()  # a thread that is not here may have held it
        if self.ended.is_set():
            return
        self._forked_away = True
        self.scope.detach()
        self._close_main()
        self.ended.set()

    # --- looking

    def _look(self, *, if_changed: bool) -> None:
        self._due.look = None
        try:
            found = self._found(if_changed)
        except ScopeVanished:
            return  # a normal end: settling finds it
        except (CgmemError, OSError) as error:
            self._telling.unmeasured(error)
            return
        self._telling.measured()
        self._rest()
        if self._what_we_did is None:
            self.level = self.watch.level
        if found.again_in is not None:
            self._due.look = self._clock() + found.again_in
            self._reschedule()
        for alert in found.alerts:
            self._tell(alert, found.actions)
        for action in found.actions:
            self._act(action)
        # With `oom_group` off the kernel may have killed a descendant alone: then it goes on.
        if self.level == "ABORTED" and (self.ending or self.plan.limits.oom_group):
            self._tell_abort()

    def _found(self, if_changed: bool) -> Found:
        """Look and judge. Nothing is told or done on a budget that is no longer the one."""
        history = self.watch.history
        found = self.watch.look(self.plan, if_changed=if_changed, alive=self._alive())
        if (found.alerts or found.actions) and self.take_rewritten():
            self.watch.history = history
            found = self.watch.look(self.plan, if_changed=False, alive=self._alive())
        return found

    def _rest(self) -> None:
        """Quiet, alive, and its end will wake the poller: an unchanged scope needs no look."""
        resting = self.watch.quiet and not self._only_ticks_tell()
        self._poller.at_rest(self, self.scope.unchanged if resting else None)

    def _alive(self) -> bool:
        return self._main is None or not self._main.known_to_have_ended()

    def _tell(self, alert: Alert, actions: tuple[judge.Action, ...]) -> None:
        policy = self.plan.policy
        if alert.kind == "stall":
            action = actions[0] if actions else "hold"
            self._telling.stall(alert.at - self._started, policy.stall_after_seconds, action)
        worth = worth_a_snapshot(alert, policy.kernel_limits)
        self._telling.alert(alert, self._begin_snapshot if worth else None)
        self._reschedule()

    def _begin_snapshot(self) -> Inspection | None:
        if self._snapshots is None:
            return None
        return self._snapshots.take(self.scope, self._snapshot_arrived)

    def _snapshot_arrived(self) -> None:
        with self._lock:
            if not self._forked_away:
                self._telling.hand_out(self._clock())

    def _tell_abort(self) -> None:
        self._telling.aborted(CAUSE_OF[self._what_we_did or "hard_limit"])

    def _tell_late_kill(self) -> None:
        """Look once more if an OOM kill is news: the end can be seen before its wake-up."""
        events = self._counters.events if self._counters else None
        last = self.watch.last_sample
        seen = last.events.oom_kill if last and last.events else 0
        if events is not None and events.oom_kill and events.oom_kill != seen:
            self._look(if_changed=False)

    def _act(self, action: judge.Action) -> None:
        if self._in_grace() and action != "kill":  # frozen, say, it could not obey
            return
        try:
            if action == "kill":
                self.kill("hard_limit")
            elif action == "abort":
                self.abort("stall")
            elif action == "freeze":
                self.scope.freeze(True)
            elif action == "release":
                self._set_high(None)
            elif action == "brake":
                self._set_high(self.plan.limits.high_bytes)
        except ScopeVanished:
            return
        except (CgmemError, OSError) as error:
            self.watch.not_done(action)
            self._telling.warn(f"{action}: {error}")

    def _set_high(self, high_bytes: int | None) -> None:
        self.scope.set_limits(self.plan.limits._replace(high_bytes=high_bytes))
        self.plan = self.plan.with_brake_at(high_bytes)

    def _lift_brake(self) -> None:
        if self.plan.policy.high_bytes is not None:
            self._act("release")

    # --- ending it

    def _in_grace(self) -> bool:
        """SIGTERM was sent, and SIGKILL is still to come."""
        return self._what_we_did is not None and self._due.kill is not None

    def _carry_out_due(self, now: float) -> None:
        due = self._due
        if self._is_over():  # in time, however late the poller is
            due.timeout = None
            if not self._in_grace():
                due.kill = None
        if due.timeout is not None and now >= due.timeout:
            due.timeout = None
            self.abort("timeout")
        if due.kill is not None and now >= due.kill:
            self._sigkill_needed = True
            self._kill_now()
        self._telling.hand_out(now)
        self._reschedule()

    def _kill_now(self) -> None:
        self._due.kill = None
        try:
            send(self.scope, self._main, signal.SIGKILL)
        except (CgmemError, OSError) as error:  # no descriptor left, say: it must not get away
            self._telling.warn(f"can't be killed: {error}; tried again until it is")
            self._due.kill = self._clock() + LONGEST_RETRY_SECONDS
            self._reschedule()

    def _reschedule(self) -> None:
        at = self._due.next(self._telling.due_at)
        if at is not None:
            self._poller.schedule(self, at)

    # --- settling

    def _has_ended(self) -> bool:
        return self._main is not None and self._main.has_ended()

    def _is_over(self) -> bool:
        return self._main is not None and self._main.is_over()

    def _only_ticks_tell(self) -> bool:
        return self._main is None or self._main.exit_fd is None

    def _last_read(self) -> Counters:
        try:
            return self.scope.counters()
        except (CgmemError, OSError) as error:
            self._telling.warn(f"last read: {error}")
            last = self.watch.last_sample
            events = last.events if last else None
            # The judge asked whose limit it was, while that could be asked.
            own = self.watch.history.aborted and not self.ending
            return Counters(events, events if own else None, cached=True)

    def _emptied(self) -> bool:
        # Removing a cgroup wakes whoever waits on its files: nobody needs that.
        self._wakes_muted(True)
        emptied = self._emptying.step(
            self._conclude, dying=self._group_was_killed(), in_grace=self._in_grace()
        )
        if not emptied:
            self._wakes_muted(False)
        if self._emptying.stays:
            self._lift_brake()
        return emptied

    def _wakes_muted(self, muted: bool) -> None:
        for descriptor in self._wakes:
            with suppress(OSError):  # a wake-up less: it is looked at again in any case
                self._poller.mute(self, descriptor, muted)

    def _group_was_killed(self) -> bool:
        events = self._counters.events if self._counters else None
        return self._what_we_did is not None or bool(events and events.oom_group_kill)

    def _wait_until_emptied(self) -> None:
        if self._told:  # somebody was put into it at the last moment
            self._poller.add(self, ())
        self._due.settle = self._clock() + self._emptying.retry_seconds()
        self._reschedule()
        if not self._told:
            self._wake_when_empty()

    def _wake_when_empty(self) -> None:
        try:
            descriptor = None if self._awaits_empty else self.scope.emptied_descriptor
        except (CgmemError, OSError):  # gone by now, or no descriptor left: the retry will see
            return
        if descriptor is not None:
            self._awaits_empty = True
            self._poller.wake_by(self, *descriptor)

    def _finish(self) -> None:
        self._conclude()
        if self._emptying.stays:
            attempt(self._note_that_it_stays, self._telling.warn)
        self._poller.remove(self)
        if self.outcome is not None:
            self._telling.safely(partial(self._sinks.ended, self, self.outcome))
        self.ended.set()

    def _conclude(self) -> None:
        """Say, once, how it ended. Before the scope goes: what is left tells of an untold end."""
        if self._told:
            return
        self._concluding = True
        # First the poller: a closed descriptor's number may belong to somebody else at once.
        self._poller.remove(self)
        try:
            self.scope.detach()
        except (CgmemError, OSError) as error:
            self._telling.warn(f"clean-up: {error}")
        finally:
            self._close_main()
        outcome = self._make_outcome()
        if outcome.cause == "hard_limit":
            self.level = "ABORTED"
            self._tell_abort()
        self._telling.hand_out_all()
        self.outcome = outcome
        self._telling.safely(partial(self._sinks.concluded, self, outcome))
        self._told = True

    def _note_that_it_stays(self) -> None:
        """The scope lives on, its end being told: later processes shall not tell it again."""
        self.scope.rewrite(self.scope.record._replace(concluded=True))

    def _close_main(self) -> None:
        if self._main is not None:
            self._main.close()

    def _system_memory(self) -> SystemMemory:
        try:
            return self._sinks.system_memory()
        except Exception as error:  # noqa: BLE001  (nobody tries again: there must be an outcome)
            self._telling.warn(f"the machine's memory can't be read: {error}")
            return SystemMemory(0, 0)

    def _make_outcome(self) -> Outcome:
        main = self._main
        return conclude(
            self.scope.record,
            self.plan,
            Seen(
                pid=None if main is None else main.pid,
                returncode=None if main is None else main.returncode(),
                duration_seconds=self._clock() - self._started,
                counters=self._counters or Counters(),
                figures=self.watch.figures,
                metric=self.watch.metric,
                warnings=tuple(self._telling.warnings),
                stalls=tuple(self._telling.stalls),
                leftovers=self._emptying.leftovers,
                what_we_did=self._what_we_did,
                sigkill_needed=self._sigkill_needed,
                baseline=self._baseline,
                snapshot=self._telling.last_snapshot,
                started=self._started,
                oom_came_first=self._oom_came_first,
                system_memory=self._system_memory(),
            ),
        )
