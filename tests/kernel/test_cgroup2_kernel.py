"""Limits that the real kernel holds, and what it reports of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import cgmem
from cgmem.contract import MB, Limits
from cgmem_backends.cgroup2 import Cgroup2Backend
from cgmem_backends.linux_calls import set_xattr
from tests.helpers.waiting import PATIENCE
from tests.kernel import real_cgroups as real


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()


def test_limits_are_in_the_kernels_files(tmp_path: Path) -> None:
    """The four files of a running subprocess's cgroup hold the budget, and so does the outcome."""
    with real.supervising(tmp_path, warning="32M", critical="48M", max="64M") as supervisor:
        process = cgmem.spawn(["sleep", "600"], supervisor=supervisor)
        directory = real.cgroup_of(process.pid)
        held = {
            name: real.read(directory, name)
            for name in (
                "memory.high",
                "memory.max",
                "memory.swap.max",
                "memory.oom.group",
                "cgroup.procs",
            )
        }
        process.kill()
        outcome = process.outcome(PATIENCE)

    assert held == {
        "memory.high": str(48 * MB),
        "memory.max": str(64 * MB),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cgroup.procs": str(process.pid),
    }
    assert outcome.backend == "cgroup2"
    assert outcome.enforced
    assert outcome.limits.high_bytes == 48 * MB
    assert outcome.limits.effective_max_bytes == 64 * MB
    assert not outcome.limits.soft
    assert not directory.exists()


def test_an_odd_limit_is_reported_as_the_kernel_rounds_it() -> None:
    """What was read back counts: the kernel rounds down to whole pages."""
    scope, effective = Cgroup2Backend().open_scope(real.a_record(), Limits(max_bytes=64 * MB + 1))
    scope.close()
    scope.detach()

    assert effective.max_bytes == 64 * MB
    assert effective.enforced


def test_no_limits_are_max() -> None:
    """Limits of None read back as None."""
    scope, effective = Cgroup2Backend().open_scope(
        real.a_record(), Limits(swap_max_bytes=None, oom_group=False)
    )
    directory = Path("/sys/fs/cgroup") / scope.location.lstrip("/")
    group = real.read(directory, "memory.oom.group")
    scope.close()
    scope.detach()

    assert effective[:3] == (None, None, None)
    assert group == "0"


EFFECTIVE = """
from cgmem.contract import Limits, ScopeRecord
from cgmem_backends.cgroup2 import Cgroup2Backend
record = ScopeRecord("x", 1, 0, 0.0)
scope, effective = Cgroup2Backend().open_scope(record, Limits(max_bytes=256 << 20))
say(max=effective.max_bytes, effective=effective.effective_max_bytes,
    source=effective.effective_max_source, closed=scope.close())
"""


def test_the_effective_limit_is_the_smallest_on_the_path() -> None:
    """A budget above its parent's limit is reported with the parent's limit and path."""
    with real.stage(memory_max=str(128 * MB)) as directory:
        with real.Script(EFFECTIVE, inside=directory) as script:
            said = script.heard()

    assert said == {
        "max": 256 * MB,
        "effective": 128 * MB,
        "source": str(directory),
        "closed": True,
    }


LEAF = """
from cgmem.contract import Limits, ScopeRecord
from cgmem_backends.cgroup2 import Cgroup2Backend
say(before=Path("/proc/self/cgroup").read_text())
sys.stdin.readline()
found = Cgroup2Backend().probe()
try:
    scope, _ = Cgroup2Backend().open_scope(ScopeRecord("x", 1, 0, 0.0), Limits())
    error, location = "", scope.location
    scope.close()
except cgmem.BackendUnavailable as refusal:
    error, location = str(refusal), ""
say(usable=found.usable, reason=found.reason, fix=found.fix, error=error, location=location,
    after=Path("/proc/self/cgroup").read_text())
"""


def test_the_supervisor_moves_to_a_leaf() -> None:
    """A supervisor alone in its cgroup moves to cgmem-supervisor below; scopes sit beside it."""
    with real.stage() as directory, real.Script(LEAF, inside=directory) as script:
        before = script.heard()["before"].strip()
        script.tell()
        said = script.heard()

    assert before.endswith(f"/{directory.name}")
    assert said["usable"]
    assert said["error"] == ""
    assert said["after"].strip() == f"{before}/cgmem-supervisor"
    assert said["location"].startswith(f"{before.removeprefix('0::')}/cgmem-")


def test_ancestors_move_along() -> None:
    """The shell above the supervisor, in the same cgroup, moves to the leaf too."""
    code = "import subprocess; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    inner = real.PREAMBLE + LEAF
    with real.stage() as directory, real.Script(code, inner, inside=directory) as script:
        before = script.heard()["before"].strip()
        script.tell()
        said = script.heard()
        outer = real.cgroup_of(script.process.pid)

    assert said["after"].strip() == f"{before}/cgmem-supervisor"
    assert outer == directory / "cgmem-supervisor"


def test_strangers_in_the_cgroup_are_named() -> None:
    """With a process inside that is no ancestor, nothing is moved and it is named."""
    with real.stage() as directory:
        with subprocess.Popen(["sleep", "600"]) as stranger:
            (directory / "cgroup.procs").write_text(str(stranger.pid))
            with real.Script(LEAF, inside=directory) as script:
                before = script.heard()["before"]
                script.tell()
                said = script.heard()
            stranger.kill()

    assert not said["usable"]
    assert f"{stranger.pid} (sleep)" in said["reason"]
    assert said["fix"]
    assert said["error"] == said["reason"]
    assert said["after"] == before


def test_no_permission_on_the_own_cgroup() -> None:
    """An ordinary user in root's cgroup is told what is missing and what to run."""
    real.need_root()
    with real.stage() as directory:
        code = "os.setgid(1000); os.setuid(1000)\n" + LEAF
        with real.Script(code, inside=directory) as script:
            before = script.heard()["before"]
            script.tell()
            said = script.heard()

    assert not said["usable"]
    assert said["reason"].startswith("no permission to write /sys/fs/cgroup/")
    managed = Path("/run/systemd/system").is_dir()
    assert ("--backend systemd" if managed else "chown -R 1000") in said["fix"]
    assert said["error"] == said["reason"]
    assert said["after"] == before


def test_a_managed_cgroup_that_is_not_delegated_is_left_alone() -> None:
    """Under systemd, a cgroup without its delegation mark is refused; elsewhere it may be used."""
    with real.stage() as directory:
        set_xattr(directory, "user.delegate", b"0")
        with real.Script(LEAF, inside=directory) as script:
            script.heard()
            script.tell()
            said = script.heard()

    if Path("/run/systemd/system").is_dir():
        assert not said["usable"]
        assert "no mark that it has delegated it" in said["reason"]
        assert "Delegate=yes" in said["fix"]
    else:
        assert said["usable"]
