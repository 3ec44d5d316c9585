"""Groups on a real kernel: several subprocesses under one more budget."""

from __future__ import annotations

from pathlib import Path

import pytest

import cgmem
from cgmem.contract import MB
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real

HOLD = """
import sys, time
held = bytearray(b"x") * (int(sys.argv[1]) << 20)
print("holds", flush=True)
time.sleep(600)
"""

GROUP = {"group_name": "build", "group_max": "64M", "backend": "cgroup2"}


@pytest.fixture(autouse=True)
def _needs() -> None:
    real.need_cgroup2()


def test_a_groups_limit_ends_one_of_them(tmp_path: Path) -> None:
    """Two fit alone and not together: the kernel ends one, by the group's limit; one lives on.

    Before that, what the group has left is too little for one that must fit.
    """
    with real.supervising(tmp_path, **GROUP, **real.budget(60)) as supervisor:
        first = cgmem.spawn(real.python(HOLD, 24), supervisor=supervisor, stdout=-1)
        assert first.stdout is not None
        assert first.stdout.readline() == b"holds\n"
        with pytest.raises(cgmem.InsufficientMemory) as refused:
            cgmem.spawn(["true"], supervisor=supervisor, preflight=True)
        second = cgmem.spawn(real.python(real.CHOSEN + HOLD, 48), supervisor=supervisor)
        outcome = second.outcome(PATIENCE)
        group = real.cgroup_of(first.pid).parent
        ooms = real.events(group, "memory.events.local")["oom"]

        assert str(refused.value).startswith("Insufficient memory: only ")
        assert str(refused.value).endswith(
            "(need at least 60MB): group build, memory.max 64M, leaves no more"
        )
        assert outcome.cause == "parent_limit"
        assert "the limit of group build, memory.max 64M" in outcome.message
        assert outcome.limits.effective_max_bytes == 60 * MB
        assert group.name == "cgmem-group-build"
        assert real.read(group, "memory.max") == str(64 * MB)
        assert ooms >= 1
        assert first.poll() is None
        first.stdout.close()
    assert until(lambda: not group.exists())


def test_another_supervisor_joins(tmp_path: Path) -> None:
    """A second supervisor that names no budget is in the same cgroup; who comes alone is told."""
    with real.supervising(tmp_path, **GROUP, max="32M") as one:
        first = cgmem.spawn(["sleep", "600"], supervisor=one)
        with real.supervising(tmp_path, group_name="build", backend="cgroup2") as other:
            second = cgmem.spawn(["sleep", "600"], supervisor=other)
            both = [real.cgroup_of(process.pid).parent for process in (first, second)]
            with pytest.raises(cgmem.ConfigurationError, match="has no budget here yet"):
                cgmem.spawn(["true"], supervisor=other, group_name="nobodys")

    assert both[0] == both[1]
