"""The systemd backend as an ordinary user: wherever the supervisor starts, and what it leaves."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from pathlib import Path

import pytest

from cgmem_backends.placement import load_library
from tests.kernel import real_cgroups as real
from tests.kernel import real_systemd as sd

WHERE = """
before = own()
supervising = supervisor(warning="16M", critical=f"{64 * 2**20 - 4096}B", max="64M")
child = cgmem.spawn(["sleep", "600"], supervisor=supervising)
there = own(child.pid)
effective = child.supervision.plan.effective
child.kill()
leak = cgmem.spawn([sys.executable, "-I", "-S", "-c", sys.argv[1], "400"], supervisor=supervising)
outcome = leak.outcome(90)
backend = supervising.choice(supervising.settings()).backend
say(before=before, after=own(), child=there, limit=effective.max_bytes, cause=outcome.cause,
    cached=outcome.counters_cached, peak=outcome.peak_mb, backend=backend.name,
    placement=backend.placement()[0], trouble=said)
supervising.close()
"""

PLACES = {
    "a login session": (sd.in_session(), True, False),
    "sudo -u": (sd.without_session(), False, True),
    "a service": (sd.in_service(), False, True),
    "a desktop's terminal": (sd.in_terminal(), False, False),
}


@pytest.mark.parametrize("place", PLACES)
def test_wherever_it_starts(place: str) -> None:
    """From anywhere the limit is held by the kernel and the cause is known; who may stay stays."""
    front, moves, attached = PLACES[place]
    found = sd.told(front, WHERE, real.LEAK)

    assert found["backend"] == "systemd"
    assert found["child"].startswith(f"{sd.USER_MANAGER}/cgmem.slice/cgmem-")
    assert found["limit"] == 64 << 20
    assert (found["cause"], found["peak"], found["cached"]) == ("hard_limit", 64.0, False)
    assert found["trouble"] == []
    family = sd.family(found["child"])
    assert found["after"] == (f"{family}/cgmem-supervisor" if moves else found["before"])
    assert (found["placement"] == "trampoline") == (attached or isinstance(load_library(), str))
    assert real.until(lambda: sd.unit_gone(family))


TWICE = """
first = supervisor(backend="systemd")
a = cgmem.spawn(["sleep", "600"], supervisor=first)
second = supervisor(backend="systemd")
b = cgmem.spawn(["sleep", "600"], supervisor=second)
third = supervisor()
c = cgmem.spawn(["sleep", "600"], supervisor=third)
say(a=own(a.pid), b=own(b.pid), c=own(c.pid), backend=third.choice(third.settings()).backend.name)
for each in (a, b, c):
    each.kill()
    each.wait()
"""


@pytest.mark.parametrize("front", [sd.in_session(), sd.in_service()], ids=["moved", "stayed"])
def test_a_second_supervisor_uses_the_same_scope(front: list[str]) -> None:
    """One process has one family scope, however many supervisors it makes."""
    found = sd.told(front, TWICE)

    assert len({sd.family(found[name]) for name in "abc"}) == 1
    assert len({found[name] for name in "abc"}) == 3


NESTED = """
inner = [sys.executable, "-m", "cgmem", "run", "-v", "--no-preflight", "--max", "48M", "--",
         "cat", "/proc/self/cgroup"]
outer = [*inner[:5], "--no-preflight", "--max", "96M", "--", *inner]
done = subprocess.run(outer, capture_output=True, text=True, cwd=tempfile.mkdtemp())
say(out=done.stdout, err=done.stderr, status=done.returncode)
"""


def test_a_cgmem_under_a_cgmem_stays_in_its_budget() -> None:
    """The inner one makes its scopes in the outer's cgroup and asks systemd for nothing."""
    found = sd.told(sd.in_session(), NESTED)

    assert found["status"] == 0, found["err"]
    path = found["out"].strip().removeprefix("0::")
    assert path.startswith(f"{sd.USER_MANAGER}/cgmem.slice/")
    outer, inner = path.split("/")[-2:]
    assert outer.startswith("cgmem-")
    assert inner.startswith("cgmem-")
    assert "; systemd: " in found["err"]
    assert "; cgroup2: " in found["err"]


def test_cgmem_run_moves_itself(tmp_path: Path) -> None:
    """The command is its own process: it leaves a session's or a terminal's scope."""
    code = 'print(open(f"/proc/{__import__("os").getppid()}/cgroup").read())'
    words = [*sd.cgmem_command(), "run", "--log-dir", f"/tmp/{tmp_path.name}-logs", "--",
             *real.python(code)]  # fmt: skip
    for front in (sd.in_session(), sd.in_terminal()):
        path = sd.output([*front, *words]).strip()

        assert path.endswith("/cgmem-supervisor")
        family = sd.family(path.removeprefix("0::"))
        assert real.until(partial(sd.unit_gone, family))


def test_the_contract_as_an_ordinary_user() -> None:
    """What every backend promises holds for who moves, and for who has systemd place each child."""
    chosen = (
        "read_back or after_a_kill or family or lists_the_scope or failed_start or vanished"
        " or freeze or twenty"
    )
    options = ["-q", "-p", "no:cacheprovider", "--timeout=300", "-k", f"systemd and ({chosen})"]
    words = ["python3", "-m", "pytest", *options, "tests/contract/test_backend_contract.py"]
    here = str(Path(__file__).parents[2])
    more = [f"--working-directory={here}", "--setenv=CGMEM_IN_GUEST=debian"]
    for front in (sd.in_session(), sd.in_service()):
        said = sd.output([*front, *more, *words])
        assert " passed" in said, said


def user_units(*words: str) -> str:
    """Talk to the ordinary user's manager."""
    runtime = f"--setenv=XDG_RUNTIME_DIR=/run/user/{sd.UID}"
    return sd.output([*sd.in_service(), runtime, "systemctl", "--user", *words])


BRAKED = """
supervising = supervisor(critical="24M", max="48M")
child = cgmem.spawn(["sleep", "600"], supervisor=supervising)
supervision = child.supervision
def limits():
    here = Path("/sys/fs/cgroup" + own(child.pid))
    return [(here / f"memory.{name}").read_text().strip() for name in ("high", "max")]
supervision.set_limits(supervision.plan.limits._replace(high_bytes=None))
released = limits()
subprocess.run(["systemctl", "--user", "daemon-reload"], check=True,
               env={**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"})
reloaded = limits()
say(released=released, reloaded=reloaded)
child.kill()
child.outcome(90)
"""


@pytest.mark.parametrize("front", [sd.in_session(), sd.in_service()], ids=["moved", "stayed"])
def test_daemon_reload_leaves_a_released_brake_alone(front: list[str]) -> None:
    """systemd rewrites what it manages, and our files are below a delegated unit."""
    found = sd.told(front, BRAKED)

    assert found["released"] == ["max", str(48 << 20)]
    assert found["reloaded"] == found["released"]


SLICE = """
supervising = supervisor(max="64M")
child = cgmem.spawn(["sleep", "600"], supervisor=supervising)
effective = child.supervision.plan.effective
say(bytes=effective.effective_max_bytes, source=effective.effective_max_source)
child.kill()
child.outcome(90)
"""


def test_a_budget_for_all_of_it() -> None:
    """MemoryMax= of cgmem.slice bounds every subprocess, and is shown as the effective limit."""
    user_units("set-property", "--runtime", "cgmem.slice", "MemoryMax=48M")
    try:
        found = sd.told(sd.in_session(), SLICE)
    finally:
        user_units("revert", "cgmem.slice")

    assert found["bytes"] == 48 << 20
    assert found["source"].endswith("/cgmem.slice")


def test_a_limit_above_is_not_escaped() -> None:
    """What limits the supervisor's service limits its subprocesses, wherever they are put."""
    found = sd.told(sd.in_service("MemoryMax=56M", "MemorySwapMax=0"), SLICE)

    assert found["bytes"] == 56 << 20
    assert "/cgmem.slice/cgmem-" in found["source"]


KEPT = """
supervising = supervisor(keep=True)
child = cgmem.spawn(["sleep", "600"], supervisor=supervising)
note = supervising.choice(supervising.settings()).note
say(child=child.pid, note=note, trouble=said, session=os.environ.get("XDG_SESSION_ID"))
sys.stdin.readline()
"""


def test_a_logout_with_linger() -> None:
    """The end of the session ends nothing of what a lingering user runs."""
    script = [*sd.in_session(), "python3", "-c", real.PREAMBLE + sd.HELPERS + KEPT]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        sd.output(["loginctl", "terminate-session", found["session"]])
        process.communicate(timeout=real.PATIENCE)

    assert found["note"] is None
    assert real.running(found["child"])
    real.kill_quietly(found["child"])


@pytest.fixture
def short_lived() -> str:
    """A user who does not linger."""
    name = "shortlived"
    if Path("/home", name).exists():
        return name
    sd.output(["useradd", "--create-home", "--shell", "/bin/bash", name])
    return name


def test_a_logout_without_linger(short_lived: str) -> None:
    """Start-up says that everything ends with the last logout and what to do; and so it is."""
    script = [*sd.in_session(short_lived), "python3", "-c", real.PREAMBLE + sd.HELPERS + KEPT]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        sd.output(["loginctl", "terminate-user", short_lived])
        process.communicate(timeout=real.PATIENCE)
    ended = real.until(lambda: not real.running(found["child"]))

    assert found["note"].endswith(f"loginctl enable-linger {short_lived}")
    assert found["trouble"] == [found["note"]]
    assert ended


def test_cgmem_run_says_it_once_a_login(short_lived: str) -> None:
    """Without linger the command warns in one line, once in a session, and not with -q."""
    run = "python3 -m cgmem run {} --no-preflight --log-dir logs -- true 2>&1 | grep -c linger"
    words = [run.format("-q"), run.format(""), run.format("")]
    said = sd.output([*sd.in_session(short_lived), "sh", "-c", f"cd; {'; '.join(words)}; true"])

    assert said.split() == ["0", "1", "0"]
