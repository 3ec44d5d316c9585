"""What the systemd backend says of a host, with systemd and without."""

from __future__ import annotations

import json
import os
import sys

import pytest

from cgmem import selector
from cgmem.contract import BY_RULE, Leave
from tests.kernel import real_cgroups as real
from tests.kernel.real_systemd import RUNS, output


@pytest.fixture(autouse=True)
def _guest() -> None:
    if not real.IN_GUEST:
        pytest.skip("it holds what is true of the guests")


def test_the_probe_says_how_or_why_not() -> None:
    """Under systemd: the manager and what becomes of this process; else what is missing."""
    found = selector.load("systemd", BY_RULE).probe()

    assert found.usable == RUNS
    if RUNS:
        assert "manager (systemd" in found.reason
    else:
        assert "systemd does not manage this host" in found.reason
        assert found.fix is not None


def test_doctor_tries_it() -> None:
    """doctor runs a limited job on it where it is usable, and gives the reason where it is not."""
    said = json.loads(output([sys.executable, "-m", "cgmem", "doctor", "--json"], status=None))
    (found,) = (each for each in said["backends"] if each["backend"] == "systemd")
    guards = [each["trial"]["guard"] for each in said["backends"] if each["trial"]]

    assert found["usable"] == RUNS
    assert said["kernel_enforcement"]
    assert {guard.partition(":")[0] for guard in guards if guard} == {"works"}
    if RUNS:
        assert found["trial"]["passed"]
        assert found["trial"]["enforced"]
        assert found["trial"]["read_back_mb"] == 32.0
    else:
        assert found["trial"] is None
        assert found["fix"]


def test_a_leave_changes_nothing_before_it_is_used() -> None:
    """A probe that would move this process leaves it where it is."""
    before = real.cgroup_of(os.getpid())
    selector.load("systemd", Leave(allow_move=True)).probe()

    assert real.cgroup_of(os.getpid()) == before
