"""Causes, messages and exit statuses for every kind of end."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgmem.contract import (
    MB,
    Cause,
    Counters,
    LimitAbove,
    Limits,
    MemoryEvents,
    SystemMemory,
)
from cgmem.judging import messages
from cgmem.judging.ended import Ended, WhatWeDid
from cgmem.judging.figures import Figures
from cgmem.judging.verdict import ExitStatus, Verdict, exit_status, killed_at_own_limit, verdict
from tests.helpers.literals import values_of

LIMITS = Limits(high_bytes=200 * MB, max_bytes=400 * MB)
NOTHING = MemoryEvents(high=0, max=0, oom=0, oom_kill=0, oom_group_kill=0)
OOM = MemoryEvents(high=20, max=30, oom=1, oom_kill=4, oom_group_kill=1)
KILLED = NOTHING._replace(oom_kill=1)
OWN_KILL = Counters(OOM, OOM)
START = 1_700_000_000.0
WHEN: dict[str, Any] = {"duration_seconds": 12.34, "started_at": START}
AT = f"after 12.3 s, at {messages.wall_clock(START + 12.34)}"


def ended(returncode: int | None, counters: Counters | None = None, **more: Any) -> Ended:
    """Build an end of a 200M/400M budget that peaked at 400 MB."""
    fields: dict[str, Any] = {"figures": Figures(peak_bytes=400 * MB), "limits": LIMITS} | more
    return Ended(returncode, counters or Counters(NOTHING), **fields)


def test_exited_keeps_its_own_status() -> None:
    """A process that ends by itself has exited, with its status and its peak."""
    found = verdict(ended(3))

    assert found[:3] == ("exited", 3, None)
    assert found.message == "exited: status 3 (peak 400.0 MB)."


def test_signalled_names_the_signal() -> None:
    """A signal from elsewhere is named."""
    found = verdict(ended(-signal.SIGSEGV))

    assert found[:3] == ("signalled", None, signal.SIGSEGV)
    assert "SIGSEGV" in found.message


def test_a_real_time_signal_has_a_number() -> None:
    """A signal without a name does not break the verdict."""
    assert "signal 41" in verdict(ended(-41)).message


def test_hard_limit_says_limit_peak_processes_and_next_step() -> None:
    """The hard limit's message is all that a person needs."""
    found = verdict(ended(-9, OWN_KILL, top=[(12, "leak.py", 390 * MB)], **WHEN))

    assert found[:3] == ("hard_limit", None, 9)
    assert found.message == (
        f"hard limit: memory.max 400M reached {AT} (peak 400.0 MB); the kernel killed everything"
        " in it."
        " Largest when last seen: leak.py[12] 390.0MB."
        " Raise --max (say 800M) or make it use less memory."
    )


def test_hard_limit_without_group_kill_names_the_largest_process_as_victim() -> None:
    """With oom_group off only one process was killed, and the message says so."""
    found = verdict(ended(-9, OWN_KILL, limits=LIMITS._replace(oom_group=False)))

    assert "the kernel killed the largest process" in found.message


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"swap_free_bytes": 512 * MB}, True),
        ({"swap_free_bytes": 0}, False),
        ({"swap_free_bytes": 512 * MB, "kernel_limits": False}, False),
        ({"swap_free_bytes": 512 * MB, "limits": LIMITS._replace(swap_max_bytes=MB)}, False),
    ],
)
def test_hard_limit_offers_swap_where_it_would_help(more: dict[str, Any], told: bool) -> None:
    """--swap is offered only on a host with free swap, where we forbade its use."""
    memory = SystemMemory(0, 0, swap_free_bytes=more.pop("swap_free_bytes"))
    more = {**more, "system_memory": memory}
    assert ("--swap SIZE would allow it" in verdict(ended(-9, OWN_KILL, **more)).message) is told


def test_our_own_kill_at_the_limit_is_a_hard_limit() -> None:
    """Where the poller killed, the cause is the same and the message says who did it."""
    found = verdict(ended(-9, Counters(), what_we_did="hard_limit", kernel_limits=False))

    assert found.cause == "hard_limit"
    assert found.message.startswith("hard limit: 400M passed (peak 400.0 MB); cgmem killed")


def test_an_unread_local_file_falls_back_to_the_recursive_one() -> None:
    """A kernel without memory.events.local still gives hard_limit."""
    assert verdict(ended(-9, Counters(OOM))).cause == "hard_limit"


def test_an_adopted_scopes_earlier_kill_is_not_this_end() -> None:
    """What had happened before we took over explains nothing."""
    found = verdict(ended(-9, OWN_KILL, baseline=OOM))

    assert found.cause == "signalled"
    assert not killed_at_own_limit(OWN_KILL, OOM)
    assert killed_at_own_limit(OWN_KILL)


def test_parent_limit_names_the_ancestor() -> None:
    """A kill for an ancestor's limit says whose, and how large it is, whatever the own one."""
    above = LimitAbove("/user.slice", None), LimitAbove("group build", 128 * MB)
    found = verdict(ended(-9, Counters(KILLED, NOTHING, above), **WHEN))

    assert found.cause == "parent_limit"
    assert found.message == (
        "parent limit: the limit of /user.slice and group build, memory.max 128M, was reached and"
        f" the kernel killed it {AT} (peak 400.0 MB, own limit 400M). All that runs under that"
        " limit shares it: raise it, run less at a time, or set --max below what it leaves."
    )


def test_a_kill_for_nobodys_limit_is_the_systems() -> None:
    """No limit was hit and the whole host is visible: the machine ran out."""
    memory = SystemMemory(3000 * MB, 500 * MB)
    found = verdict(ended(-9, Counters(KILLED, NOTHING), system_memory=memory, **WHEN))

    assert found.cause == "system_oom"
    assert found.message == (
        f"system out of memory: the kernel killed it to save the machine {AT} (peak 400.0 MB, own"
        " limit 400M, the machine has 3000.0MB). `journalctl -k` shows who used the memory: free"
        " some, add swap, run less at a time, or set --max to what the machine can spare."
    )


def test_a_kill_from_above_a_container_is_unknown() -> None:
    """In a cgroup namespace nobody can tell a higher limit from the host."""
    found = verdict(ended(-9, Counters(KILLED, NOTHING, host_root_visible=False)))

    assert found.cause == "unknown"
    assert "killed by a limit above this container, or by the host" in found.message


def test_a_nested_budgets_kill_is_not_ours() -> None:
    """A nested OOM raises our memory.events, and a later SIGKILL of the main process is not it."""
    found = verdict(ended(-9, Counters(OOM, NOTHING)))

    assert found.cause == "signalled"
    assert "nested budget" in found.message


def test_an_ancestors_kill_wins_over_a_nested_one() -> None:
    """With a nested OOM and an ancestor's, the main process's SIGKILL is the ancestor's."""
    above = (LimitAbove("/a", MB),)
    assert verdict(ended(-9, Counters(OOM, NOTHING, above))).cause == "parent_limit"


@pytest.mark.parametrize("events", [OOM, KILLED])
@pytest.mark.parametrize("visible", [True, False])
def test_a_kill_in_a_scope_that_vanished(events: MemoryEvents, visible: bool) -> None:
    """Whose limit it was can't be read any more: not the own one's, not the system's for sure."""
    counters = Counters(events, host_root_visible=visible, cached=True)
    above = (LimitAbove("/a", MB),)

    assert verdict(ended(-9, counters)).cause == "unknown"
    assert verdict(ended(None, counters)).cause == "unknown"
    assert verdict(ended(0, counters)).cause == "exited"
    assert verdict(ended(-9, counters._replace(ancestors_with_oom=above))).cause == "parent_limit"
    assert verdict(ended(-9, counters._replace(local_events=OOM))).cause == "hard_limit"
    assert not killed_at_own_limit(counters)
    assert "most likely by the kernel's OOM killer" in verdict(ended(-9, counters)).message
    assert "could not be read any more" in verdict(ended(0, counters)).message


def test_what_we_did_to_a_scope_that_vanished() -> None:
    """It is the cause, unless an ancestor's OOM that came first is known."""
    counters = Counters(OOM, cached=True)
    outer = counters._replace(ancestors_with_oom=(LimitAbove("/a", MB),))
    first: dict[str, Any] = {"what_we_did": "timeout", "oom_came_first": True}

    assert verdict(ended(-9, counters, **first)).cause == "timeout"
    assert verdict(ended(-9, outer, **first)).cause == "parent_limit"
    assert verdict(ended(-9, counters, what_we_did="hard_limit")).cause == "hard_limit"


@pytest.mark.parametrize("returncode", [0, 1, 137])
def test_a_main_process_that_survives_a_kill_has_exited_with_a_warning(returncode: int) -> None:
    """A shell whose child was OOM-killed exits, 137 included, and the message tells of the kill."""
    found = verdict(ended(returncode, OWN_KILL, limits=LIMITS._replace(oom_group=False)))

    assert found[:3] == ("exited", returncode, None)
    assert found.message == (
        f"exited: status {returncode} (peak 400.0 MB). WARNING: the kernel's OOM killer killed a"
        " process in it, at the hard limit, memory.max 400M; the main process went on, what it did"
        " may be incomplete. Raise --max (say 800M) or make it use less memory."
    )
    assert exit_status(found) == (returncode, None)


def test_a_survivor_of_an_outer_kill_is_warned_of_it() -> None:
    """The warning tells an outer limit from the own one."""
    assert "for a limit above it, or for the host" in verdict(ended(0, Counters(KILLED))).message


def test_a_sigkill_from_somebody_is_signalled() -> None:
    """SIGKILL without an OOM kill was sent by somebody, and the message says where to look."""
    found = verdict(ended(-9, system_memory=SystemMemory(3000 * MB, 2000 * MB), **WHEN))

    assert found.cause == "signalled"
    assert found.message == (
        f"signalled: ended by SIGKILL {AT} (peak 400.0 MB). Sent by neither cgmem nor the kernel's"
        " OOM killer, but by a person, a program that ends others (its starter, a CI runner), or"
        " earlyoom or systemd-oomd (`journalctl -u earlyoom -u systemd-oomd`)."
    )


@pytest.mark.parametrize(
    ("signum", "who"), [(9, "most likely by earlyoom"), (15, "earlyoom sends")]
)
@pytest.mark.parametrize(("available", "held", "low"), [(500, 300, True), (500, 0, False)])
def test_a_signal_on_a_machine_that_was_low_points_to_earlyoom(
    signum: int, who: str, available: int, held: int, low: bool
) -> None:
    """How low the machine was is judged without what the end itself gave back."""
    memory = SystemMemory(3000 * MB, available * MB)
    figures = Figures(peak_bytes=400 * MB, end_bytes=held * MB)
    message = verdict(ended(-signum, figures=figures, system_memory=memory)).message

    assert (who in message) is low
    assert ("low on memory (200.0MB of 3000.0MB available)" in message) is low


def test_a_backend_without_events_does_not_deny_an_oom_kill() -> None:
    """Who can't see OOM kills says so."""
    assert "can't be seen here" in verdict(ended(-9, Counters())).message


def test_an_unseen_end_of_a_group_killed_at_its_limit_is_a_hard_limit() -> None:
    """Nobody waited, yet the counters of a group kill leave no other end."""
    assert verdict(ended(None, OWN_KILL)).cause == "hard_limit"
    assert (
        verdict(ended(None, OWN_KILL, limits=LIMITS._replace(oom_group=False))).cause == "unknown"
    )


def test_an_unseen_end_without_a_kill_is_unknown() -> None:
    """Nothing is made up."""
    found = verdict(ended(None))

    assert found[:3] == ("unknown", None, None)
    assert "nobody saw" in found.message


@pytest.mark.parametrize(
    ("did", "cause"), [("stall", "stalled"), ("abort", "aborted"), ("timeout", "timeout")]
)
@pytest.mark.parametrize("returncode", [0, -15, -9])
def test_what_we_did_is_the_cause_whatever_the_child_made_of_it(
    did: WhatWeDid, cause: Cause, returncode: int
) -> None:
    """A child that turns SIGTERM into 0 was still ended by us."""
    found = verdict(ended(returncode, what_we_did=did, sigkill_needed=returncode == -9))

    assert found.cause == cause
    assert ("SIGKILL was needed" in found.message) is (returncode == -9)


@pytest.mark.parametrize("did", ["stall", "abort", "timeout"])
def test_an_oom_kill_that_came_before_us_is_the_cause(did: WhatWeDid) -> None:
    """A large process takes long to die: who acts meanwhile has not ended it."""
    facts: dict[str, Any] = {"what_we_did": did, "oom_came_first": True}

    assert verdict(ended(-9, OWN_KILL, **facts)).cause == "hard_limit"
    assert verdict(ended(-9, Counters(KILLED, NOTHING), **facts)).cause == "system_oom"
    # Not of a nested budget's, not where SIGTERM or our SIGKILL did it, not of one that came later.
    for returncode, counters, more in (
        (-9, Counters(OOM, NOTHING), {}),
        (-15, OWN_KILL, {}),
        (-9, OWN_KILL, {"sigkill_needed": True}),
        (-9, OWN_KILL, {"oom_came_first": False}),
    ):
        found = verdict(ended(returncode, counters, **{**facts, **more}))
        assert found.cause in ("stalled", "aborted", "timeout")


def test_an_oom_kill_during_the_grace_is_told() -> None:
    """The message does not call SIGTERM enough where the OOM killer struck after it."""
    message = verdict(ended(-9, OWN_KILL, what_we_did="timeout", timeout_seconds=600.0)).message

    assert message.startswith("timeout: its time of 10 min 0 s was up (peak 400.0 MB); ended, by")
    assert "the kernel's OOM killer was faster" in message


def test_stalled_names_the_brake() -> None:
    """The stalled message carries memory.high, the hard limit and a next step."""
    message = verdict(ended(-15, what_we_did="stall")).message

    assert "memory.high 200M" in message
    assert "hard limit 400M" in message
    assert "Raise --critical" in message


@pytest.mark.parametrize(
    ("cause", "code", "number", "sigkill", "expected"),
    [
        ("exited", 7, None, False, (7, None)),
        ("signalled", None, 2, False, (130, 2)),
        ("signalled", None, 3, False, (131, 3)),
        ("signalled", None, 15, False, (143, None)),
        ("hard_limit", None, 9, False, (137, None)),
        ("hard_limit", 0, None, False, (137, None)),
        ("parent_limit", None, 9, False, (137, None)),
        ("system_oom", None, 9, False, (137, None)),
        ("timeout", 0, None, True, (124, None)),
        ("stalled", 0, None, False, (143, None)),
        ("stalled", None, 9, True, (137, None)),
        ("aborted", None, 15, False, (143, None)),
        ("aborted", None, 9, True, (137, None)),
        ("unknown", None, 9, False, (137, None)),
        ("unknown", None, None, False, (125, None)),
    ],
)
def test_exit_status_follows_the_cause(
    cause: Cause, code: int | None, number: int | None, sigkill: bool, expected: ExitStatus
) -> None:
    """Every cause has the exit status that the documentation promises."""
    assert exit_status(Verdict(cause, code, number, "x"), sigkill_needed=sigkill) == expected


counts = st.none() | st.integers(0, 3)
events = st.none() | st.builds(MemoryEvents, counts, counts, counts, counts, counts)
counters_of_any_kind = st.builds(
    Counters,
    events,
    events,
    st.sampled_from([(), (LimitAbove("/a", None),), (LimitAbove("group b", MB),)]),
    st.booleans(),
    counts,
    counts,
    st.booleans(),
)
sizes = st.none() | st.integers(0, 1 << 50)
ends = st.builds(
    Ended,
    st.none() | st.sampled_from([-9, -9, -15, -2, 0, 137]) | st.integers(-64, 255),
    counters_of_any_kind,
    st.builds(Figures, peak_bytes=st.integers(0, 1 << 50)),
    st.builds(Limits, sizes, sizes, sizes, st.booleans()),
    events,
    st.none() | st.sampled_from(values_of(WhatWeDid)),
    st.booleans(),
    st.lists(st.tuples(st.integers(1, 99), st.text(), st.integers(0, 99)), max_size=3),
    st.booleans(),
    st.booleans(),
    st.none() | st.floats(0, 1e8),
    st.sampled_from([0.0, START]),
    st.none() | st.floats(0, 1e8),
    st.builds(SystemMemory, st.integers(0, 1 << 50), st.integers(0, 1 << 50)),
)


@settings(deadline=None)
@given(ends)
def test_every_end_has_a_cause_a_message_and_a_status(end: Ended) -> None:
    """The verdict is total, its message printable on one line, and its exit status one byte."""
    found = verdict(end)
    status = exit_status(found, sigkill_needed=end.sigkill_needed)

    assert found.cause in values_of(Cause)
    assert found.message
    assert found.message.isprintable()
    assert 0 <= status.status <= 255
    assert found.exit_code is None or found.signal is None


@settings(deadline=None)
@given(ends)
def test_a_memory_cause_is_never_given_without_a_kill(end: Ended) -> None:
    """No limit is blamed where no OOM kill rose and we killed nothing."""
    kills = end.counters.events.oom_kill if end.counters.events else 0
    if end.what_we_did is None and not kills:
        assert verdict(end).cause in ("exited", "signalled", "unknown")
