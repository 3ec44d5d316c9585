"""The systemd backend as an ordinary user: wherever the supervisor starts, and what it leaves.

A process started by systemd costs seconds on an emulated machine: each is asked several things.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cgmem_backends.placement import load_library
from tests.helpers.proc import running
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_cgroups as real
from tests.kernel import real_systemd as sd

WHERE = """
before = own()
supervising = supervisor(warning="16M", critical=f"{64 * 2**20 - 4096}B", max="64M")
child = cgmem.spawn(["sleep", "600"], supervisor=supervising)
supervision = child.supervision

def limits():
    here = Path("/sys/fs/cgroup" + own(child.pid))
    return [(here / f"memory.{name}").read_text().strip() for name in ("high", "max")]
supervision.set_limits(supervision.plan.limits._replace(high_bytes=None))
subprocess.run(["systemctl", "--user", "daemon-reload"], check=True,
               env={**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"})
reloaded = limits()

def guarded():
    base = Path("/sys/fs/cgroup" + own(child.pid)).parent
    return any(leaf.read_text() for leaf in base.glob("cgmem-guard-*/cgroup.procs"))
deadline = time.monotonic() + 90
while not guarded() and time.monotonic() < deadline:
    time.sleep(0.05)

another = supervisor(max="512M")
second = cgmem.spawn(["sleep", "600"], supervisor=another)
effective = second.supervision.plan.effective
try:
    cgmem.run(["true"], supervisor=another, preflight=True)
    refused = ""
except cgmem.InsufficientMemory as error:
    refused = str(error)

leak = cgmem.spawn([sys.executable, "-I", "-S", "-c", sys.argv[1], "400"], supervisor=supervising)
outcome = leak.outcome(90)
chosen = supervising.choice(supervising.settings())
say(before=before, after=own(), child=own(child.pid), second=own(second.pid), reloaded=reloaded,
    cause=outcome.cause, cached=outcome.counters_cached, peak=outcome.peak_mb,
    backend=chosen.backend.name, placement=chosen.backend.placement()[0], note=chosen.note,
    guarded=guarded(),
    above=[effective.effective_max_bytes, effective.effective_max_source], trouble=said,
    refused=refused)
for each in (child, second):
    each.kill()
    each.outcome(90)
"""

LIMITED = sd.in_service("MemoryMax=256M", "MemorySwapMax=0")
PLACES = {
    "a login session": (sd.in_session(), True, False, 512),
    "sudo -u": (sd.without_session(), False, True, 512),
    "a limited service": (LIMITED, False, True, 256),
    "a desktop's terminal": (sd.in_terminal(), False, False, 512),
}


@pytest.mark.parametrize("place", PLACES)
def test_wherever_it_starts(place: str) -> None:
    """The kernel holds the limit, the cause is known, one scope serves all, and it goes away.

    Who may not be moved stays; a limit above is not escaped; daemon-reload leaves a released
    brake alone.
    """
    front, moves, attached, above_mb = PLACES[place]
    found = sd.told(front, WHERE, real.LEAK)

    assert found["backend"] == "systemd"
    assert (found["note"], found["trouble"]) == (None, [])
    assert found["guarded"]
    assert found["child"].startswith(f"{sd.USER_MANAGER}/cgmem.slice/cgmem-")
    assert found["reloaded"] == ["max", str(64 << 20)]
    assert (found["cause"], found["peak"], found["cached"]) == ("hard_limit", 64.0, False)
    family = sd.family(found["child"])
    assert sd.family(found["second"]) == family
    assert found["above"][0] == above_mb << 20
    assert f"{family}" in found["above"][1]
    no_more = ".service, memory.max 256M, leaves no more"
    assert found["refused"].endswith(no_more if above_mb == 256 else "")
    assert bool(found["refused"]) == (above_mb == 256)
    assert found["after"] == (f"{family}/cgmem-supervisor" if moves else found["before"])
    assert (found["placement"] == "trampoline") == (attached or isinstance(load_library(), str))
    assert until(lambda: sd.unit_gone(family))


def test_a_cgmem_under_a_cgmem_stays_in_its_budget() -> None:
    """`cgmem run` moves itself; the inner one makes its scopes in the outer's cgroup."""
    run = [*sd.cgmem_command(), "run", "-v", "--no-preflight", "--log-dir", "/tmp/nested-logs"]
    inner = [*run, "--max", "48M", "--", "cat", "/proc/self/cgroup"]
    words = [*sd.in_terminal(), *run, "--max", "96M", "--", *inner]
    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    path = done.stdout.strip().removeprefix("0::")
    assert path.startswith(f"{sd.family(path)}/cgmem-")
    assert len(path.removeprefix(sd.family(path)).split("/")) == 3
    assert "; systemd: " in done.stderr
    assert "this process moves into it" in done.stderr
    assert "; cgroup2: " in done.stderr
    assert until(lambda: sd.unit_gone(sd.family(path)))


@pytest.mark.timeout(600)
def test_the_contract_as_an_ordinary_user() -> None:
    """What every backend promises holds where systemd places each child."""
    chosen = "read_back or after_a_kill or failed_start or vanished or lists_the_scope"
    options = ["-q", "-p", "no:cacheprovider", "--timeout=300", "-k", f"systemd and ({chosen})"]
    words = ["python3", "-m", "pytest", *options, "tests/contract/test_backend_contract.py"]
    here = str(Path(__file__).parents[2])
    more = [f"--working-directory={here}", "--setenv=CGMEM_IN_GUEST=debian"]
    said = sd.output([*sd.in_service(), *more, *words])

    assert " passed" in said, said
    assert "skipped" not in said, said


KEEP = "sleep 600 > /dev/null 2>&1 < /dev/null & echo $!"


def test_a_logout_with_linger() -> None:
    """What a lingering user keeps running outlives the session in which it was started."""
    run = [*sd.cgmem_command(), "run", "--no-preflight", "--keep", "--log-dir", "/tmp/kept-logs"]
    pid = int(sd.output([*sd.in_session(), *run, "--", "sh", "-c", KEEP]))

    assert running(pid)
    real.kill_quietly(pid)


@pytest.fixture
def short_lived() -> str:
    """A user who does not linger."""
    name = "shortlived"
    if not Path("/home", name).exists():
        sd.output(["useradd", "--create-home", "--shell", "/bin/bash", name])
    return name


def test_a_logout_without_linger(short_lived: str) -> None:
    """What to do is said once a login and not with -q; at the last logout all of it ends."""
    run = "python3 -m cgmem run --no-preflight --log-dir logs"
    count = "2>&1 | grep -c 'enable-linger shortlived'"
    script = f"cd; {run} -q -- true {count}; {run} -- true {count}; {run} --keep -- sh -c '{KEEP}'"
    words = [*sd.in_session(short_lived), "sh", "-c", f"{script}; read wait"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        quiet, once, pid = (int(process.stdout.readline()) for _ in range(3))
        alive = running(pid)
        sd.output(["loginctl", "terminate-user", short_lived])
        process.communicate(timeout=PATIENCE)

    assert (quiet, once, alive) == (0, 1, True)
    assert until(lambda: not running(pid))
