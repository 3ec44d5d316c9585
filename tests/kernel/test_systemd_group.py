"""A group under systemd: supervisors in different sessions share one scope unit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cgmem.contract import MB
from tests.helpers.waiting import PATIENCE, until
from tests.kernel import real_systemd as sd

pytestmark = pytest.mark.long

HERE = """
path=$(sed -n s/^0:://p /proc/self/cgroup)
echo "$path"
cat "/sys/fs/cgroup$path/../memory.max"
"""


def run(*words: str) -> list[str]:
    """Return `cgmem run` of the ordinary user, who has no session and lingers."""
    common = ["run", "--no-preflight", "--max", "32M", "--log-dir", "/tmp/cgmem-group"]
    return [*sd.without_session(), *sd.cgmem_command(), *common, "--group", "shared", *words]


def test_two_commands_of_a_user_share_a_scope() -> None:
    """The first gives the budget, the second joins; the unit is gone when both have ended."""
    first = [*run("--group-max", "64M", "--"), "sh", "-c", "echo started; exec sleep 600"]
    with subprocess.Popen(first, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "started\n"
        path, limit = sd.output([*run("--"), "sh", "-c", HERE]).split()
        raised = sd.output([*run("--group-max", "96M", "--"), "sh", "-c", HERE]).split()[1]
        alone = subprocess.run(
            [word if word != "shared" else "nobodys" for word in run("--", "true")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        holder.terminate()
        holder.wait(PATIENCE)

    assert "/cgmem.slice/cgmem-group-shared.scope/cgmem-" in path
    assert (limit, raised) == (str(64 * MB), str(96 * MB))
    assert alone.returncode == 125
    assert "group nobodys has no budget here yet" in alone.stderr
    assert until(lambda: sd.unit_gone(sd.family(path)))


def test_a_library_s_host_stays_where_it_is(tmp_path: Path) -> None:
    """systemd puts its children into the group's scope, where it may not do so itself."""
    code = """
import cgmem
with_group = supervisor(group_name="library", group_max="64M", allow_move=False)
before = own()
process = cgmem.spawn(["sleep", "600"], supervisor=with_group)
child = own(process.pid)
process.terminate()
process.wait()
limits = process.outcome().limits
with_group.close()
say(before=before, after=own(), child=child, limit=limits.max_bytes, said=said)
"""
    found = sd.told(sd.in_session(), code)

    assert found["before"] == found["after"]
    assert "/cgmem.slice/cgmem-group-library.scope/cgmem-" in found["child"]
    assert found["said"] == []
    assert until(lambda: sd.unit_gone(sd.family(found["child"])))
