"""Who is moved into a family scope and who stays."""

from __future__ import annotations

import pytest

from cgmem.contract import BY_RULE, Leave, Usability
from cgmem_backends.oom_policy import with_oom_policy
from cgmem_backends.placement_rule import innermost_unit, placement_rule

SESSION = "/user.slice/user-1000.slice/session-3.scope"
SERVICE = "/system.slice/worker.service"
TERMINAL = "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope"
USER_SERVICE = "/user.slice/user-1000.slice/user@1000.service/app.slice/worker.service"
OWN = Leave(own_process=True)


@pytest.mark.parametrize(
    ("cgroup", "leave", "moves"),
    [
        (SESSION, BY_RULE, True),
        ("/user.slice/user-0.slice/session-c1.scope", BY_RULE, True),
        (SERVICE, BY_RULE, False),
        (SERVICE + "/worker-3", BY_RULE, False),
        (USER_SERVICE, BY_RULE, False),
        (TERMINAL, BY_RULE, False),
        ("/init.scope", BY_RULE, False),
        ("/", BY_RULE, False),
        ("", BY_RULE, False),
        (SESSION, OWN, True),
        (TERMINAL, OWN, True),
        (SERVICE, OWN, False),
        (USER_SERVICE, OWN, False),
        ("/", OWN, False),
        (SERVICE, Leave(True), True),
        (SESSION, Leave(False), False),
        (SESSION, Leave(False, own_process=True), False),
        ("/", Leave(True), True),
    ],
)
def test_the_rule(cgroup: str, leave: Leave, moves: bool) -> None:
    """What was said counts; else cgmem's own process and a login's move, a service's never."""
    found = placement_rule(cgroup, leave)

    assert found.allowed == moves
    assert found.why


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        (SESSION, "session-3.scope"),
        (USER_SERVICE, "worker.service"),
        (SERVICE + "/a/b", "worker.service"),
        ("/user.slice/user-1000.slice/user@1000.service/x", "user@1000.service"),
        ("/machine.slice", None),
        ("/.service", None),
    ],
)
def test_the_innermost_unit(cgroup: str, unit: str | None) -> None:
    """Units contain units, and delegated ones cgroups of others."""
    assert innermost_unit(cgroup) == unit


@pytest.mark.parametrize(
    ("policy", "told"), [("stop", True), ("kill", True), ("continue", False), ("", False)]
)
def test_an_oom_policy_that_ends_the_supervisor(policy: str, told: bool) -> None:
    """Where the own unit would not survive a subprocess's OOM kill, it is said with what to set."""
    found = with_oom_policy(Usability(True, "ours"), SERVICE, lambda *_: policy)

    assert found.usable
    assert (found.note is not None) == told
    if told:
        assert "worker.service has OOMPolicy=" in str(found.note)
        assert str(found.fix).endswith("systemctl edit worker.service")


def test_no_unit_has_no_policy() -> None:
    """Outside of units nobody is asked."""
    found = Usability(True, "ours")

    assert with_oom_policy(found, "/", lambda *_: "stop") == found
