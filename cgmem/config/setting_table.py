"""The one table of settings: YAML, environment, arguments, `cgmem config` and docs follow it."""

from __future__ import annotations

from cgmem.config import values
from cgmem.config.values import Parser
from cgmem.shapes import NamedTuple

BACKENDS = ("auto", "cgroup2", "systemd", "psutil")
ENFORCEMENTS = ("required", "best-effort", "off")
ACCOUNTINGS = ("non-reclaimable", "current")
STALL_POLICIES = ("release", "abort", "freeze", "hold")

CONFIG_VARIABLE = "CGMEM_CONFIG"
CONFIG_FLAG = "--config"
AGENT_TYPES = "agent_types"
GROUPS = "groups"
"""In the file: the budgets of groups by name."""
TEMPLATE_KEYS = ("command", "stdin", "cwd", "env")
"""In the file, beside the settings: what `cgmem.task_tool` starts (`tasks.agent_command`)."""

_DAY = 86400.0
_YEAR = 365 * _DAY


class Setting(NamedTuple):
    """One setting: how it is called everywhere, how it is read and what it does."""

    key: str
    """In YAML and as an argument."""
    field: str
    """In `config.settings.Settings`; the unit is in the name."""
    parse: Parser
    default: object
    variable: str
    flag: str | None
    help: str
    in_file: bool = True


THRESHOLD_KEYS = ("warning", "critical", "max")

TABLE = (
    Setting(
        "warning", "warning_bytes", values.size, None,
        "CLAUDE_PM_MEMORY_WARNING_MB", "--warning",
        "memory at which a warning is logged (default 1024M, or half of critical)",
    ),
    Setting(
        "critical", "critical_bytes", values.size, None,
        "CLAUDE_PM_MEMORY_CRITICAL_MB", "--critical",
        "memory at which the kernel brakes: memory.high (default 2048M, or half of max)",
    ),
    Setting(
        "max", "max_bytes", values.size, None,
        "CLAUDE_PM_MEMORY_MAX_MB", "--max",
        "hard limit: memory.max (default 4096M; max for none)",
    ),
    Setting(
        "swap", "swap_max_bytes", values.size, 0, "CGMEM_SWAP", "--swap",
        "swap beside the budget: memory.swap.max (default 0; max for any)",
    ),
    Setting(
        "group_name", "group_name", values.group_name, None, "CGMEM_GROUP", "--group",
        "share one more budget with all subprocesses of this group",
    ),
    Setting(
        "group_max", "group_max_bytes", values.size, None, "CGMEM_GROUP_MAX", "--group-max",
        "what a group may take together: memory.max (default: what `groups` in the file says, or"
        " what it has already)",
    ),
    Setting(
        "backend", "backend", values.choice(BACKENDS), "auto", "CGMEM_BACKEND", "--backend",
        "mechanism that holds the budget: auto (default), cgroup2, systemd or psutil",
    ),
    Setting(
        "allow_move", "allow_move", values.yes_no, None, "CGMEM_ALLOW_MOVE", None,
        "let systemd move this process to where its subprocesses go (default: if harmless)",
    ),
    Setting(
        "enforcement", "enforcement", values.choice(ENFORCEMENTS), "best-effort",
        "CGMEM_ENFORCEMENT", "--enforcement",
        "best-effort (default), required (the kernel holds the limit or nothing starts), off (only"
        " observe)",
    ),
    Setting(
        "oom_group", "oom_group", values.yes_no, True, "CGMEM_OOM_GROUP", "--no-oom-group",
        "at the hard limit end every process of the subprocess (default true), not only the"
        " largest",
    ),
    Setting(
        "accounting", "accounting", values.choice(ACCOUNTINGS), "non-reclaimable",
        "CGMEM_ACCOUNTING", None,
        "what is judged: non-reclaimable memory (default), or current: memory.current, with page"
        " cache",
    ),
    Setting(
        "tick", "tick_seconds", values.seconds(0.01, 3600), 2.0, "CGMEM_TICK", None,
        "seconds between two samples of a subprocess (default 2)",
    ),
    Setting(
        "grace", "grace_seconds", values.seconds(0, _DAY), 5.0, "CGMEM_GRACE", "--grace",
        "seconds between SIGTERM and SIGKILL (default 5)",
    ),
    Setting(
        "timeout", "timeout_seconds", values.seconds(0.001, _YEAR, or_never=True), None,
        "CGMEM_TIMEOUT", "--timeout",
        "seconds after which a subprocess is ended (default infinity)",
    ),
    Setting(
        "log_dir", "log_dir", values.path, None, "CGMEM_LOG_DIR", "--log-dir",
        "directory of the three log files (default: .claude-pm/logs/memory, nearest upwards)",
    ),
    Setting(
        "preflight", "preflight", values.yes_no, True, "CGMEM_PREFLIGHT", "--no-preflight",
        "check the available memory before a subprocess starts (default true)",
    ),
    Setting(
        "abort_on_memory_limit", "abort_on_memory_limit", values.yes_no, True,
        "CGMEM_ABORT_ON_MEMORY_LIMIT", None,
        "end a subprocess at the hard limit (default true); false: only brake and warn",
    ),
    Setting(
        "on_stall", "on_stall", values.choice(STALL_POLICIES), "release",
        "CGMEM_ON_STALL", "--on-stall",
        "what to do with a subprocess that the brake holds: release (default), abort, freeze or"
        " hold",
    ),
    Setting(
        "stall_after", "stall_after_seconds", values.seconds(0.1, _DAY), 10.0,
        "CGMEM_STALL_AFTER", "--stall-after",
        "seconds under the brake after which a subprocess counts as stalled (default 10)",
    ),
    Setting(
        "keep", "keep", values.yes_no, False, "CGMEM_KEEP", "--keep",
        "let processes that the command leaves behind live on (default false)",
    ),
    Setting(
        "family_max", "family_max_bytes", values.size, None, "CGMEM_FAMILY_MAX", None,
        "sum that the hard limits of one supervisor's live subprocesses may reach (default max)",
    ),
    Setting(
        "disabled", "disabled", values.yes_no, False,
        "CLAUDE_PM_DISABLE_MEMORY_MONITOR", None,
        "no budget, no polling, no logs",
        in_file=False,
    ),
)  # fmt: skip
"""Every setting, in the order that `cgmem config` shows."""

BY_KEY = {setting.key: setting for setting in TABLE}
FILE_KEYS = frozenset(setting.key for setting in TABLE if setting.in_file)


def flag_source(key: str) -> str:
    """Return how the CLI calls an argument: `--max`."""
    return BY_KEY[key].flag or argument_source(key)


def argument_source(key: str) -> str:
    """Return how Python calls an argument: `argument max`."""
    return f"argument {key}"
