"""What a shell waits for: the command itself, against a bare interpreter and systemd-run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.measure import Table, interleaved

BASE = "python3 -c pass"


def table(rounds: int) -> Table:
    """Time `cgmem --help`, `cgmem run -- true` and `cgmem ps` from start to end."""
    with tempfile.TemporaryDirectory() as directory:
        measured = interleaved(_contenders(directory), rounds=rounds)
    base = measured[BASE]
    rows = [
        (found.name, round(found.median * 1e3, 1), round(found.ratio(base), 2))
        for found in measured.values()
    ]
    return Table(
        "startup",
        f"Start-up of the command, {rounds} rounds",
        ("", "median ms", f"times {BASE}"),
        rows,
    )


def _contenders(directory: str) -> dict[str, Callable[[], object]]:
    ours = [sys.executable, "-m", "cgmem"]
    commands = {
        BASE: [sys.executable, "-c", "pass"],
        "cgmem --help": [*ours, "--help"],
        "cgmem run -- true": [*ours, "run", "-q", "--log-dir", directory, "--", "true"],
        "cgmem ps": [*ours, "ps"],
    }
    if shutil.which("systemd-run") and Path("/run/systemd/system").is_dir():
        commands["systemd-run --scope true"] = ["systemd-run", "--quiet", "--scope", "true"]
    # As it is where it was installed: compiled.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL, env=env)
    return {name: partial(run, words) for name, words in commands.items()}
