"""Processes where systemd puts them: login sessions, services, a terminal's scope."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.kernel import real_cgroups as real

RUNS = Path("/run/systemd/system").is_dir()
USER, UID = os.environ.get("CGMEM_GUEST_USER", "tester"), 1000
"""The guests' ordinary user, who lingers; Vagrant's has a name of its own."""

USER_MANAGER = f"/user.slice/user-{UID}.slice/user@{UID}.service"

_PASSED_ON = (
    "PATH", "PYTHONPATH", "LANG", "PYTHONDONTWRITEBYTECODE",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_PLUGINS",
)  # fmt: skip


def variables() -> dict[str, str]:
    """Return what a process needs to find Python's modules and ours; none of systemd's."""
    found = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**found, "PYTHONPATH": real.environment()["PYTHONPATH"]}


def started_by_systemd(*properties: str, user: str | None = USER) -> list[str]:
    """Return what in front of a command makes it a service's main process."""
    words = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--working-directory=/tmp"]
    words += [f"--uid={user}"] if user else []
    words += [f"--property={each}" for each in properties]
    return [*words, *(f"--setenv={name}={value}" for name, value in variables().items())]


def in_session(user: str = USER) -> list[str]:
    """Return what in front of a command gives it a login session, as sshd does."""
    kind = [f"--setenv=XDG_SESSION_{what}" for what in ("TYPE=tty", "CLASS=user")]
    return [*started_by_systemd("PAMName=login", user=user), *kind]


def in_service(*properties: str) -> list[str]:
    """Return what in front of a command makes it a service of the ordinary user."""
    return started_by_systemd(*properties)


def without_session() -> list[str]:
    """Return what in front of a command changes the user as sudo -u does: no session, no bus."""
    ids = [f"--reuid={UID}", f"--regid={UID}", "--init-groups"]
    given = [f"{name}={value}" for name, value in variables().items()]
    return ["setpriv", *ids, "env", "-i", "-C", "/tmp", *given]


def in_terminal() -> list[str]:
    """Return what in front of a command starts it as a desktop starts a terminal's shell."""
    runtime = f"--setenv=XDG_RUNTIME_DIR=/run/user/{UID}"
    scope = ["systemd-run", "--user", "--quiet", "--scope", "--slice=app.slice", "--"]
    return [*in_service(), runtime, *scope]


def cgmem_command() -> list[str]:
    """Return the command line's own words."""
    return [sys.executable, "-m", "cgmem"]


def output(command: list[str], status: int | None = 0) -> str:
    """Run to the end and return stdout; fail with stderr on another exit status."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert status is None or done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def told(front: list[str], code: str, *arguments: object) -> dict[str, Any]:
    """Run a script that says one JSON line, and return that."""
    script = [sys.executable, "-c", real.PREAMBLE + HELPERS + code, *map(str, arguments)]
    lines = output([*front, *script]).splitlines()
    said: dict[str, Any] = json.loads(lines[-1])
    return said


HELPERS = """
import subprocess, tempfile
def own(pid="self"):
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")
def supervisor(**settings):
    logs = tempfile.mkdtemp()
    fixed = dict(log_dir=logs, preflight=False, enforcement="required", tick=0.5)
    return Supervisor({**fixed, **settings}, warn=said.append)
said = []
"""


def unit_gone(path: str) -> bool:
    """Whether systemd has removed a cgroup."""
    return not (Path("/sys/fs/cgroup") / path.lstrip("/")).exists()


def family(path: str) -> str:
    """Return the path of the family scope that a cgroup path lies in."""
    before, found, after = path.partition("/cgmem.slice/")
    assert found, path
    return before + found + after.split("/")[0]
