"""Every code block of the spec, in order, and how it is run. The one list.

Runners:
    python  `before` + block + `after` as a script of `python -m cgmem.claude_pm`
    shell   the same for sh; `python` is a function for `python -m cgmem.claude_pm`, `tail` has a
            time limit, `jq` a stand-in where it is not installed, `less` is `cat`
    json    compared with real lines of the log file, key by key and type by type
    tree    compared with a real log directory
    prose   not code; `checked_by` names the tests of what it says

Every run begins in a fresh directory that holds PROJECT as cgmem.yaml.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Runner = Literal["python", "shell", "json", "tree", "prose"]

PROJECT = """\
warning: 16M
critical: 256M
max: 512M
tick: 0.1
command: [PYTHON, HOG, --mb, 40, --hold, 600]
agent_types:
  researcher:
    command: [PYTHON, HOG, --mb, 40, --hold, 2]
  leaker:
    command: [PYTHON, HOG, --mb, 400, --hold, 600]
    critical: 63M
    max: 64M
"""
"""Small budgets, so that they are reached; PYTHON and HOG stand for paths.

The leaker's brake is so near to its limit that it does not hold it for long.
"""


class Run(NamedTuple):
    """One way in which a block is run."""

    before: str = ""
    after: str = ""
    prints: str = ""
    """What its standard output must hold."""


class Block(NamedTuple):
    """One block of the spec."""

    begins: str
    """Its first line."""
    runner: Runner
    runs: tuple[Run, ...] = ()
    checked_by: tuple[str, ...] = ()
    """For prose: test file::function."""
    log_file: str = ""
    """For json: whose lines it shows."""


UNTIL = """
import time
from claude_pm.monitoring import get_subprocess_memory_monitor
from claude_pm.utils.task_tool_helper import TaskToolHelper

def until(look):
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)

def started(agent_type):
    helper = TaskToolHelper()
    result = helper.create_agent_subprocess(agent_type, "Implement feature X")
    return helper, result["subprocess_id"]
"""

BLOCKS = (
    Block(
        "# Monitoring happens every 2 seconds",
        "prose",
        checked_by=(
            "tests/unit/test_settings.py::test_the_defaults_are_the_specs",
            "tests/spec/test_spec_formats.py::test_the_monitoring_loop",
        ),
    ),
    Block(
        "# Override default memory thresholds",
        "shell",
        (
            Run(
                after="""
                python -c "
                from claude_pm.utils.task_tool_helper import TaskToolConfiguration
                config = TaskToolConfiguration()
                print(config.memory_warning_mb, config.memory_critical_mb, config.memory_max_mb)
                print(config.enable_memory_monitoring, config.settings().origins['max'])"
                """,
                prints="1024 2048 4096\nTrue CLAUDE_PM_MEMORY_MAX_MB\n",
            ),
        ),
    ),
    Block(
        "from claude_pm.utils.task_tool_helper import TaskToolConfiguration",
        "python",
        (
            Run(
                after="""
assert config.enable_memory_monitoring is True
assert config.memory_warning_mb == 1024
assert config.memory_critical_mb == 2048
assert config.memory_max_mb == 4096
assert config.abort_on_memory_limit is True
from claude_pm.utils.task_tool_helper import TaskToolHelper
assert TaskToolHelper(config=config).memory_monitor.thresholds.max_mb == 4096
"""
            ),
        ),
    ),
    Block(
        "from claude_pm.monitoring import MemoryThresholds",
        "python",
        (
            Run(
                after="""
assert (thresholds.warning_mb, thresholds.critical_mb, thresholds.max_mb) == (512, 1024, 2048)
from claude_pm.utils.task_tool_helper import TaskToolHelper
with TaskToolHelper() as helper:
    result = helper.create_agent_subprocess("engineer", "Be light", thresholds=thresholds)
    assert result["memory_monitoring"]["thresholds"] == {
        "warning_mb": 512, "critical_mb": 1024, "max_mb": 2048,
    }
"""
            ),
        ),
    ),
    Block(".claude-pm/logs/memory/", "tree"),
    Block("{", "json", log_file="memory-alerts.log"),
    Block("{", "json", log_file="subprocess-stats.jsonl"),
    Block(
        "# Memory monitoring starts automatically",
        "python",
        (
            Run(
                # `subprocess_id`: of an agent that was started before and has taken its memory.
                before=UNTIL
                + """
earlier, subprocess_id = started("engineer")
until(lambda: earlier.check_subprocess_memory(subprocess_id)[1] == "WARNING")
""",
                after="""
import os
assert result["success"] is True
os.kill(result["pid"], 0)
assert result["subprocess_id"] in get_subprocess_memory_monitor().get_all_subprocess_stats()
assert (type(memory_mb), status) == (float, "WARNING")
assert memory_mb == round(memory_mb, 1) > 16
helper.cleanup()
earlier.cleanup()
""",
            ),
        ),
    ),
    Block(
        "# System checks before creating subprocess",
        "python",
        (
            Run(
                before="""
from claude_pm.monitoring import get_subprocess_memory_monitor
monitor = get_subprocess_memory_monitor()
""",
                after="""
assert can_create is True
assert message == "OK" or message.startswith("WARNING: Low memory - only ")
""",
            ),
            Run(
                before="""
import cgmem.selector
from cgmem.contract import MB, SystemMemory
scarce = SystemMemory(total_bytes=16384 * MB, available_bytes=512 * MB + 3 * MB // 10 + 1)
cgmem.selector.system_memory = lambda: scarce
from claude_pm.monitoring import get_subprocess_memory_monitor
monitor = get_subprocess_memory_monitor()
""",
                prints="Cannot create subprocess: "
                "Insufficient memory: only 512.3MB available (need at least 1GB)\n",
            ),
        ),
    ),
    Block(
        "# Check if subprocess should be aborted",
        "python",
        (
            Run(
                before=UNTIL
                + """
helper, subprocess_id = started("engineer")
monitor = get_subprocess_memory_monitor()
""",
                after="""
assert monitor.should_abort(subprocess_id) is False
helper.cleanup()
""",
            ),
            Run(
                before=UNTIL
                + """
helper, subprocess_id = started("leaker")
monitor = get_subprocess_memory_monitor()
until(lambda: monitor.should_abort(subprocess_id))
""",
                after="""
assert monitor.check_memory(subprocess_id)[1] == "ABORTED"
done = helper.complete_subprocess(subprocess_id)
assert (done["status"], done["cause"]) == ("aborted", "hard_limit")
assert monitor.should_abort(subprocess_id) is True
""",
            ),
        ),
    ),
    Block(
        "# View current memory status",
        "shell",
        (
            Run(
                # A pipe is waited for without another process: one beside the scene, in the
                # same cgroup, would be in the way of dividing it.
                before="""
                mkfifo ready
                { python "$SCENE" > scene.out 2> scene.err || echo failed > ready; } &
                read -r word < ready
                """,
                after="""
                touch stop
                wait
                """,
            ),
        ),
    ),
)
