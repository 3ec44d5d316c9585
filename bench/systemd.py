"""Spawn + wait of /bin/true as an ordinary user under systemd, against Popen and systemd-run.

Root has it measured by an ordinary user in a login session of its own.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cgmem
from bench.measure import Table, interleaved
from cgmem.supervisor import Supervisor

COMMAND = ["/bin/true"]
BASE = "subprocess.Popen(…).wait()"
PEER = "systemd-run --user --scope"
MOVED = "cgmem.spawn(…).wait(), in the family scope"
PLACED = "cgmem.spawn(…).wait(), each placed by systemd (allow_move=False)"
_TITLE = f"Spawn + wait of {COMMAND[0]} as an ordinary user (backend systemd)"
_COLUMNS = ("", "median ms", "quartiles ms", f"times {BASE}", f"times {PEER}")


def table(rounds: int) -> Table:
    """Time every way, a round each in turn."""
    if not Path("/run/systemd/system").is_dir():
        return Table("systemd", f"{_TITLE}: not run, systemd does not manage this host", (), ())
    if os.geteuid() == 0:
        return _by_an_ordinary_user(rounds)
    # Who moves can't stay any more: the two are measured by a process each.
    rows = _rows({PLACED: {"allow_move": False}}, max(5, rounds // 4))[1:2]
    rows = [*_rows({MOVED: {"allow_move": True}}, rounds), *rows]
    return Table("systemd", f"{_TITLE}, {rounds} rounds", _COLUMNS, rows)


def _rows(ways: dict[str, dict[str, object]], rounds: int) -> list[tuple[object, ...]]:
    words = [sys.executable, "-m", "bench.systemd", json.dumps(ways), str(rounds)]
    found = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout
    return [tuple(row) for row in json.loads(found)]


def _by_an_ordinary_user(rounds: int) -> Table:
    """Ask a process in a login session of the first ordinary user who lingers."""
    name = next(
        user.pw_name
        for user in pwd.getpwall()
        if user.pw_uid >= 1000 and Path("/var/lib/systemd/linger", user.pw_name).exists()
    )
    kept = [
        f"--setenv={key}={os.environ[key]}" for key in ("PATH", "PYTHONPATH") if key in os.environ
    ]
    session = ["systemd-run", "-q", "--pipe", "--wait", f"--uid={name}", "-p", "PAMName=login"]
    words = [*session, *kept, f"--working-directory={Path.cwd()}", sys.executable, "-c"]
    code = f"import json; from bench import systemd; print(json.dumps(systemd.table({rounds})))"
    done = subprocess.run([*words, code], stdout=subprocess.PIPE, check=True, text=True)
    return Table(*json.loads(done.stdout))


def _measured(ways: dict[str, dict[str, object]], rounds: int) -> list[tuple[object, ...]]:
    with tempfile.TemporaryDirectory() as directory:
        fixed = {"log_dir": directory, "backend": "systemd"}
        supervisors = {name: Supervisor({**fixed, **more}) for name, more in ways.items()}
        try:
            spawns = {name: _spawn(supervisor) for name, supervisor in supervisors.items()}
            # systemd-run starts units: whoever follows finds a busy manager and cold caches.
            found = interleaved({BASE: _popen, **spawns}, rounds=rounds)
            found[PEER] = interleaved({PEER: _systemd_run}, rounds=max(5, rounds // 4))[PEER]
        finally:
            for supervisor in supervisors.values():
                supervisor.close()
    return [
        (
            name,
            round(each.median * 1e3, 3),
            f"{each.low * 1e3:.3f} to {each.high * 1e3:.3f}",
            round(each.ratio(found[BASE]), 2),
            round(each.ratio(found[PEER]), 2),
        )
        for name, each in found.items()
    ]


def _spawn(supervisor: Supervisor) -> Callable[[], object]:
    return lambda: cgmem.spawn(COMMAND, supervisor=supervisor).wait()


def _popen() -> None:
    subprocess.Popen(COMMAND).wait()


def _systemd_run() -> None:
    environment = {**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"}
    words = ["systemd-run", "--user", "--quiet", "--scope", "-p", "MemoryMax=4G", *COMMAND]
    subprocess.run(words, check=True, env=environment)


if __name__ == "__main__":
    print(json.dumps(_measured(json.loads(sys.argv[1]), int(sys.argv[2]))))
