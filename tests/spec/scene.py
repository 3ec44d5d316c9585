"""A project at work: one agent warns and ends, one is aborted, one stays until `stop` is there.

Run in a project's directory by `python -m cgmem.claude_pm`; makes the file `ready`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from cgmem.task_tool import TaskToolHelper

PATIENCE = 90.0


def until(look: Callable[[], bool]) -> None:
    """Wait for what the agents do."""
    deadline = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit("waited in vain")
        time.sleep(0.05)


def main() -> None:
    """Start them, wait for their warnings and ends, then for `stop`."""
    logs = Path(".claude-pm/logs/memory")
    with TaskToolHelper() as helper:
        stays = helper.create_agent_subprocess("engineer", "Stay")["subprocess_id"]
        for agent_type in ("researcher", "leaker"):
            name = helper.create_agent_subprocess(agent_type, "End")["subprocess_id"]
            helper.complete_subprocess(name, timeout=PATIENCE)
        until(lambda: helper.check_subprocess_memory(stays)[1] == "WARNING")
        until(lambda: len(list(logs.glob("*"))) == 3)
        until(lambda: stays in (logs / "memory-alerts.log").read_text())
        Path("ready").touch()
        until(Path("stop").exists)


if __name__ == "__main__":
    main()
