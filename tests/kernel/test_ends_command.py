"""Every end as the installed command tells it: its exit status and its last words on stderr."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from cgmem.contract import MB
from tests.cli.command import COMMAND
from tests.helpers.waiting import PATIENCE
from tests.kernel import real_cgroups as real

PLENTY = ("--critical", "200M", "--max", "400M")
TIGHT = ("--critical", real.just_below(32), "--max", "32M")
LEAK = real.python(real.LEAK, 300)
FIRST = real.python(real.CHOSEN + real.LEAK, 300)

ENTER = 'echo $$ > "$0/cgroup.procs"; exec "$@"'
# Where the command shares a limit with a leak that is slow to die, the next choice would be itself.
SHARE = f"echo -1000 > /proc/self/oom_score_adj 2> /dev/null; {ENTER}"

WHEN = r" after [0-9.]+ s, at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()


def run(
    tmp_path: Path,
    options: Sequence[str],
    command: Sequence[str],
    *,
    around: Sequence[str] = (),
    **files: str,
) -> tuple[int, str, str]:
    """Run `cgmem run` alone in a cgroup; return exit status, stdout and the last words."""
    with real.stage(**files) as directory:
        inside = directory
        if around:  # the limits are above the cgroup that it is in
            (directory / "cgroup.subtree_control").write_text("+memory")
            inside = directory / "inside"
            inside.mkdir()
        done = subprocess.run(
            [
                *("/bin/sh", "-c", SHARE if files else ENTER, str(inside)),
                *(*around, *COMMAND, "run", "--no-preflight", "--log-dir", str(tmp_path / "logs")),
                *("--id", "job", "--enforcement", "required", *options, "--", *command),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            env=real.environment(),
        )
    real.note(done.stderr)
    words = done.stderr.splitlines()
    return done.returncode, done.stdout, words[-1].removeprefix("cgmem: job: ") if words else ""


def test_the_own_limit(tmp_path: Path) -> None:
    """137, and the message has limit, time, peak, what the kernel did and what to try."""
    status, _, said = run(tmp_path, TIGHT, LEAK)

    assert status == 137
    assert re.match(rf"hard limit: memory.max 32M reached{WHEN}\(peak 32.0 MB\); the kernel", said)
    assert "killed everything in it" in said
    assert "Raise --max (say 64M)" in said


def test_an_ancestors_limit(tmp_path: Path) -> None:
    """137, and the message names the ancestor and its limit."""
    status, _, said = run(tmp_path, PLENTY, FIRST, memory_max=str(128 * MB))

    assert status == 137
    assert re.match(r"parent limit: the limit of /\S+/stage-\S+, memory.max 128M, was", said)
    assert re.search(rf"killed it{WHEN}\(peak [0-9.]+ MB, own limit 400M\)", said)
    assert "run less at a time" in said


NAMESPACES = """
umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"
"""


def test_a_limit_above_a_cgroup_namespace(tmp_path: Path) -> None:
    """137, and what can't be seen from inside a container is not made up."""
    real.need_root()
    around = ("unshare", "--cgroup", "--mount", "/bin/sh", "-c", NAMESPACES, "sh")
    status, _, said = run(tmp_path, PLENTY, FIRST, around=around, memory_max=str(128 * MB))

    assert status == 137
    assert re.match("unknown: killed by a limit above this container, or by the host after", said)
    assert "Raise the container's memory limit" in said


def test_a_sigkill(tmp_path: Path) -> None:
    """137, and the message says that it was no limit and who may have sent it."""
    status, _, said = run(tmp_path, PLENTY, ["/bin/sh", "-c", "kill -KILL $$"])

    assert status == 137
    assert re.match(rf"signalled: ended by SIGKILL{WHEN}\(peak", said)
    assert "earlyoom" in said


@pytest.mark.parametrize(
    ("ignoring", "how"), [("", "SIGTERM was enough"), ("trap '' TERM;", "SIGKILL was needed")]
)
def test_a_timeout(tmp_path: Path, ignoring: str, how: str) -> None:
    """124, and the message has the time that was given and what it took to end it."""
    options = ("--timeout", "1", "--grace", "1", *PLENTY)
    command = ["/bin/sh", "-c", f"{ignoring} while :; do sleep 0.1; done"]
    status, _, said = run(tmp_path, options, command)

    assert status == 124
    assert said.startswith("timeout: its time of 1 s was up (peak ")
    assert how in said
    assert "Raise --timeout" in said


FAMILY = '"$@"; echo survived $?; exit 7'


def test_a_descendant_that_is_killed_alone(tmp_path: Path) -> None:
    """With --no-oom-group the status is the main process's own, and a warning tells of the kill."""
    command = ["/bin/sh", "-c", FAMILY, "sh", *LEAK]
    status, output, said = run(tmp_path, ("--no-oom-group", *TIGHT), command)

    assert status == 7
    assert output == "survived 137\n"
    assert said.startswith("exited: status 7 (peak 32.0 MB). WARNING: the kernel's OOM killer")
    assert "at the hard limit, memory.max 32M; the main process went on" in said


def test_a_group_that_is_killed(tmp_path: Path) -> None:
    """137 by default: the main process goes down with its child, and nothing is said to go on."""
    status, output, said = run(tmp_path, TIGHT, ["/bin/sh", "-c", FAMILY, "sh", *LEAK])

    assert status == 137
    assert output == ""
    assert said.startswith("hard limit: memory.max 32M reached")
    assert "WARNING" not in said


def test_a_nested_budget(tmp_path: Path) -> None:
    """The outer command claims no limit of its own when one inside was hit, and says so."""
    inner = [*COMMAND, "run", "--no-preflight", "--id", "inner", *TIGHT, "--", *LEAK]
    status, _, said = run(tmp_path, PLENTY, inner)

    assert status == 137
    assert said.startswith("exited: status 137 (peak ")
    assert "at the limit of a nested budget; the main process went on" in said
