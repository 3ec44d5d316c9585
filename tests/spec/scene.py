"""A project at work: one agent warns and ends, one is aborted, one stays until `stop` is there.

Run in a project's directory by `python -m cgmem.claude_pm`; writes to the file or pipe `ready`.
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


def started(helper: TaskToolHelper, agent_type: str) -> str:
    """Start an agent; return its id."""
    result = helper.create_agent_subprocess(agent_type, "Work")
    if not result["success"]:
        raise SystemExit(f"{agent_type}: {result['error']}")
    return str(result["subprocess_id"])


def main() -> None:
    """Start them, wait for their warnings and ends, then for `stop`."""
    logs = Path(".claude-pm/logs/memory")
    with TaskToolHelper() as helper:
        stays = started(helper, "engineer")
        for agent_type in ("researcher", "leaker"):
            helper.complete_subprocess(started(helper, agent_type), timeout=PATIENCE)
        until(lambda: helper.check_subprocess_memory(stays)[1] == "WARNING")
        until(lambda: [path.stat().st_size > 0 for path in logs.glob("*")] == [True] * 3)
        until(lambda: stays in (logs / "memory-alerts.log").read_text())
        Path("ready").write_text("ready\n")
        until(Path("stop").exists)


if __name__ == "__main__":
    main()
