"""The poller of the memory-monitoring spec, as one would write it with psutil.

Usage: python3 -m bench.poller [--tick S] [--max BYTES] [--peak FILE] -- COMMAND…
Sums the RSS of the process and its descendants every tick; past the limit it kills them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil


def main() -> int:
    """Run the command to its end and return its exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tick", type=float, default=2.0)
    parser.add_argument("--max", type=int)
    parser.add_argument("--peak", type=Path)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    process = subprocess.Popen(given.command)
    watched = psutil.Process(process.pid)
    peak = 0
    while True:
        held, tree = summed_rss(watched)
        peak = max(peak, held)
        if given.max and held >= given.max:
            for one in tree:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(given.tick)
            break
    if given.peak:
        given.peak.write_text(str(peak))
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def summed_rss(root: psutil.Process) -> tuple[int, list[psutil.Process]]:
    """Bytes that a process and its descendants hold together, and who they are."""
    held, tree = 0, []
    with suppress(psutil.NoSuchProcess):
        tree = [root, *root.children(recursive=True)]
    for one in tree:
        with suppress(psutil.NoSuchProcess):
            held += one.memory_info().rss
    return held, tree


if __name__ == "__main__":
    sys.exit(main())
