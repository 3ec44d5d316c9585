"""Whether a process can get away: from the limit, and from being ended with the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from bench import fugitive
from bench.measure import Contender, Metric, Question, Row, Taken, compared
from bench.peers import PEERS, POLLER, Budget
from bench.processes import naming

LIMIT_MB = 64
_CONTENDERS = (
    "cgmem run",
    "cgmem run --backend psutil",
    POLLER,
    "systemd-run --scope",
    "cgexec",
    "runexec --no-container",
    "runexec",
    "con-duct",
    "psrecord",
)
AT_A_TIME = 3
"""It is no question of time, and most of it is waiting."""


def _rows(rounds: int) -> Iterable[Row]:
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for how in fugitive.WAYS:
            found = [
                pool.submit(
                    compared, how, [Contender(name, partial(_run, name, how))], rounds=rounds
                )
                for name in _CONTENDERS
            ]
            for each in found:
                yield from each.result()


def _run(name: str, how: str) -> Taken:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "fugitives")
        file.write_text("")
        words = [sys.executable, "-I", "-S", fugitive.__file__, how, str(file)]
        budget = Budget(LIMIT_MB << 20, Path(directory))
        with PEERS[name](budget, [*words, str(LIMIT_MB * 3 // 2)]) as command:
            # No pipes: the fugitive would hold their ends, and we wait for that.
            quiet = subprocess.DEVNULL
            subprocess.run(command, check=False, stdout=quiet, stderr=quiet, timeout=120)
            time.sleep(0.5)
            # By its file's name: a pid of a container's is another process's out here.
            left = naming(str(file))
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        noted = file.read_text().split()
    if not noted:
        return {"past the limit": 0.0, "left alive": 0.0, "said": "nothing got going"}
    # A bomb's share of the memory is past the limit when most of them hold theirs.
    past = 3 * noted.count("held") > 2 * noted.count("free")
    return {"past the limit": float(past), "left alive": float(len(left))}


QUESTION = Question(
    "escapes",
    f"Getting away from a limit of {LIMIT_MB} MB",
    (Metric("past the limit", 0), Metric("left alive", 0)),
    _rows,
    rounds=1,
    quick=1,
    about=(
        f"The program starts a fugitive, stays for {fugitive.STAY} s and ends; the fugitive takes"
        f" {LIMIT_MB * 3 // 2} MB after half a second. `past the limit`: 1 where it got them all."
        " `left alive`: processes still there half a second after the tool had come back. The fork"
        f" bomb is {2**fugitive.BOMB} processes, every second one in a session of its own, which"
        " hold that memory together."
    ),
)
