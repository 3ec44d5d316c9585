"""The supervisor that the chaos test kills: starts jobs from a seed, says what began and ended.

`python -m tests.chaos.supervisor SEED COUNT LOG_DIR [NOFILE]`; JSON lines on stdout.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cgmem
from cgmem.errors import CgmemError
from cgmem.supervising.supervisor import Supervisor
from tests.chaos import plan

AT_ONCE = 6
FILLER = "filler"
"""A file that fills the log directory's disk. What waits to be logged at the end needs room."""
PATIENCE = 120.0


def say(**what: Any) -> None:
    """One line in one write: it is there whole or not at all when SIGKILL comes."""
    os.write(1, json.dumps(what).encode() + b"\n")


def run_one(supervisor: Supervisor, subprocess_id: str, seed: str) -> None:
    """Start one job and wait for its outcome."""
    job = plan.job(random.Random(seed))
    say(starting=subprocess_id, kind=job.kind)
    try:
        process = cgmem.spawn(
            job.command,
            subprocess_id=subprocess_id,
            supervisor=supervisor,
            env={**os.environ, plan.MARK: subprocess_id},
            stdout=subprocess.DEVNULL,  # ours would stay open with whoever outlives us
            **job.settings,
        )
    except (CgmemError, OSError) as error:
        say(refused=subprocess_id, error=f"{type(error).__name__}: {error}")
        return
    say(started=subprocess_id)
    outcome = process.outcome(PATIENCE)
    say(ended=subprocess_id, kind=job.kind, cause=outcome.cause, message=outcome.message)


def main(seed: str, count: int, log_dir: str, nofile: int | None) -> None:
    """Run the jobs, a few at once; ends once every outcome is there."""
    if nofile is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
    settings = {"log_dir": log_dir, "preflight": False, "tick": plan.TICK, "backend": "cgroup2"}
    supervisor = Supervisor(
        {**settings, "enforcement": "required"}, warn=lambda text: say(warning=text)
    )
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ids = [f"chaos_{seed}_{number}" for number in range(count)]
        running = [pool.submit(run_one, supervisor, one, f"{seed}/{one}") for one in ids]
        for one in running:
            one.result()
    while os.path.exists(f"{log_dir}/{FILLER}"):  # noqa: PTH110  (what waits needs room)
        time.sleep(0.05)
    supervisor.close()
    say(done=True, threads=threading.active_count())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]) if sys.argv[4:] else None)
