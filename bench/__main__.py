"""Measure, print the tables, and write them as JSON and Markdown.

Usage: python3 -m bench [--rounds N] [QUESTION ...]   (--help lists them)
Results go to $CGMEM_GUEST_RESULTS (set in a guest), else to bench/results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from bench import agents, footprint, overshoot, spawn, stall, startup, systemd, tick
from bench.measure import Table

QUESTIONS = {
    "spawn": (spawn.table, 60),
    "systemd": (systemd.table, 60),
    "tick": (tick.table, 40),
    "footprint": (footprint.table, 3),
    "startup": (startup.table, 20),
    "overshoot": (overshoot.table, 3),
    "stall": (stall.table, 1),
    "agents": (agents.table, 30),
}


def main() -> None:
    """Answer the questions asked for, all of them by default."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="rounds for each question")
    parser.add_argument("questions", nargs="*", metavar="|".join(QUESTIONS))
    given = parser.parse_args()
    unknown = set(given.questions) - set(QUESTIONS)
    if unknown:
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    print(_machine(), flush=True)
    tables = []
    for name, (measure, rounds) in QUESTIONS.items():
        if not given.questions or name in given.questions:
            table = measure(given.rounds or rounds)
            print("\n" + table.as_markdown(), flush=True)
            tables.append(table)
    _write(tables)


def _machine() -> str:
    libc = " ".join(platform.libc_ver())
    return (
        f"Linux {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs"
        f" ({_cpu_model()}), Python {platform.python_version()}, {libc}"
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown model"


def _write(tables: list[Table]) -> None:
    directory = Path(os.environ.get("CGMEM_GUEST_RESULTS") or "bench/results")
    directory.mkdir(parents=True, exist_ok=True)
    text = "\n".join([_machine(), "", *(table.as_markdown() for table in tables)])
    (directory / "bench.md").write_text(text)
    record = {"machine": _machine(), "tables": [table._asdict() for table in tables]}
    (directory / "bench.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
