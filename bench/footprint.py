"""Memory that the supervisor adds to a bare interpreter, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from bench.measure import Table

_RSS = """
for line in open("/proc/self/status"):
    if line.startswith("VmRSS"):
        print(int(line.split()[1]) / 1024)
"""
_SUPERVISE = """
import sys, cgmem
from cgmem.supervisor import Supervisor
s = Supervisor({{"log_dir": {directory!r}, "tick": 0.5, "preflight": False}})
ps = [cgmem.spawn(["sleep", "60"], supervisor=s) for _ in range({scopes})]
import time
time.sleep(2)
"""
_END = """
for p in ps:
    p.supervision.kill("abort")
for p in ps:
    p.outcome()
s.close()
"""


def table(rounds: int) -> Table:
    """RSS of an interpreter that does nothing, and of one with 1 and 100 live scopes."""
    with tempfile.TemporaryDirectory() as directory:
        environ = _as_installed(directory)
        _measure(_supervised(directory, 1), environ)
        bare = min(_measure(_RSS, environ) for _ in range(rounds))
        rows: list[tuple[object, ...]] = [("python3 -c pass", round(bare, 1), "")]
        for name, code in (
            ("import subprocess, threading, json", "import subprocess, threading, json\n" + _RSS),
            ("cgmem, poller, 1 scope", _supervised(directory, 1)),
            ("cgmem, poller, 100 scopes", _supervised(directory, 100)),
        ):
            used = min(_measure(code, environ) for _ in range(rounds))
            rows.append((name, round(used, 1), round(used - bare, 1)))
    return Table("footprint", "RSS of the supervisor, MB", ("", "RSS", "more than bare"), rows)


def bare_rss() -> float:
    """RSS of an interpreter that does nothing, MB."""
    return _measure(_RSS)


def _supervised(directory: str, scopes: int) -> str:
    return _SUPERVISE.format(directory=directory, scopes=scopes) + _RSS + _END


def _as_installed(directory: str) -> dict[str, str]:
    """An environment with compiled modules, as an installer leaves them: compiling takes memory."""
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": directory}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    return environ


def _measure(code: str, environ: Mapping[str, str] | None = None) -> float:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    return float(done.stdout)
