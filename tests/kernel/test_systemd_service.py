"""The systemd backend for root, and a supervisor that is a service with an OOM policy."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import cgmem
from cgmem.contract import BY_RULE, MB, Limits
from cgmem.selector import load
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real
from tests.kernel import real_systemd as sd


def test_root_stays_and_places_by_itself(tmp_path: Path) -> None:
    """The job of a service is not moved; its children go into a scope of the system manager's."""
    before = real.cgroup_of(os.getpid())
    with real.supervising(tmp_path, backend="systemd", **real.budget(48)) as supervisor:
        process = cgmem.spawn(real.python(real.LEAK, 400), supervisor=supervisor)
        outcome = process.outcome(PATIENCE)
        chosen = supervisor.choice(supervisor.settings())

    assert "system manager" in chosen.reason
    assert outcome.cause == "hard_limit"
    assert not outcome.counters_cached
    assert "/cgmem.slice/" in process.supervision.scope.location  # type: ignore[union-attr]
    assert real.cgroup_of(os.getpid()) == before


def test_daemon_reload_of_the_system() -> None:
    """What was set inside the scope stays as it is."""
    scope, _ = load("systemd", BY_RULE).open_scope(real.a_record(), Limits(24 * MB, 48 * MB))
    scope.set_limits(Limits(None, 48 * MB))
    directory = Path("/sys/fs/cgroup") / scope.location.lstrip("/")
    sd.output(["systemctl", "daemon-reload"])
    found = real.read(directory, "memory.high"), real.read(directory, "memory.max")
    scope.close()
    scope.detach()

    assert found == ("max", str(48 * MB))


def test_a_budget_for_all_of_it() -> None:
    """MemoryMax= of cgmem.slice bounds every subprocess, and is shown as the effective limit."""
    sd.output(["systemctl", "set-property", "--runtime", "cgmem.slice", "MemoryMax=48M"])
    try:
        scope, found = load("systemd", BY_RULE).open_scope(real.a_record(), Limits(None, 64 * MB))
        scope.close()
        scope.detach()
    finally:
        sd.output(["systemctl", "revert", "cgmem.slice"])

    assert found.effective_max_bytes == 48 * MB
    assert found.effective_max_source == "/sys/fs/cgroup/cgmem.slice"


def test_a_scope_that_somebody_stopped_is_asked_for_again() -> None:
    """After `systemctl stop` of the family scope the next subprocess starts in a new one."""
    backend = load("systemd", BY_RULE)
    first, _ = backend.open_scope(real.a_record("first"), Limits())
    unit = sd.family(first.location)
    first.detach()
    sd.output(["systemctl", "stop", Path(unit).name])
    assert until(lambda: sd.unit_gone(unit))
    second, _ = backend.open_scope(real.a_record("second"), Limits())
    again = sd.family(second.location)
    second.close()
    second.detach()

    assert again != unit


HIT = """
unit = own()
larger = supervisor(max="256M", preflight=True)
try:
    cgmem.run(["true"], supervisor=larger)
    refusal = None
except cgmem.InsufficientMemory as error:
    refusal = str(error)
limits = cgmem.run(["true"], supervisor=larger, preflight=False).limits
said.clear()
supervising = supervisor(warning="16M", critical=f"{48 * 2**20 - 4096}B", max="48M")
chosen = supervising.choice(supervising.settings())
leak = cgmem.spawn([sys.executable, "-I", "-S", "-c", sys.argv[1], "400"], supervisor=supervising)
say(backend=chosen.backend.name, trouble=said, unit=unit, refusal=refusal,
    above=[limits.effective_max_bytes, limits.effective_max_source])
leak.wait()
time.sleep(float(sys.argv[2]))
say(backend=chosen.backend.name, trouble=said, cause=leak.outcome(60).cause)
"""


def test_an_undelegated_service_survives() -> None:
    """Its subprocesses are in another unit: whatever its OOMPolicy, the supervisor lives."""
    found = sd.told(sd.started_by_systemd("OOMPolicy=stop", user=None), HIT, real.LEAK, 3)

    assert found == {"backend": "systemd", "trouble": [], "cause": "hard_limit"}


def test_a_delegated_service_with_a_limit_and_a_fatal_policy() -> None:
    """In its own cgroup the first OOM kill ends it: start-up says so, and what to set.

    Its MemoryMax= is the effective limit, is named, and decides on starts.
    """
    properties = ("Delegate=yes", "OOMPolicy=stop", "MemoryMax=128M")
    front = sd.started_by_systemd(*properties, user=None)
    script = [*front, "python3", "-c", real.PREAMBLE + sd.HELPERS + HIT, real.LEAK, "60"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    said = done.stdout.splitlines()

    assert done.returncode != 0
    assert len(said) == 1, "the supervisor should have been stopped"
    found = json.loads(said[0])
    service = f"/sys/fs/cgroup{found['unit']}"
    assert found["backend"] == "cgroup2"
    assert "OOMPolicy=stop" in found["trouble"][0]
    assert "set OOMPolicy=continue" in found["trouble"][0]
    assert found["above"] == [128 * MB, service]
    assert found["refusal"].endswith(
        f"(need at least 256MB): {service}, memory.max 128M, leaves no more"
    )
