"""`cgmem status`: the machine's memory, and what cgmem would do here."""

from __future__ import annotations

from typing import Any

import click

from cgmem import selector
from cgmem.cli import options
from cgmem.cli.output import coloured, print_field, print_json
from cgmem.cli.setting_flags import resolver
from cgmem.config.settings import Settings
from cgmem.errors import BackendUnavailable, EnforcementError
from cgmem.inspecting.live_scopes import live_scopes
from cgmem.supervising.supervisor import Supervisor
from cgmem.system_monitor import MemoryMonitor

EPILOG = """\b
Example:
  cgmem status --json | jq .system_memory.available_mb

\b
Exit status:
  0  done   2  wrong usage or trouble
"""


@click.command("status", epilog=EPILOG)
@options.config_option
@options.json_option
def command(config: str | None, as_json: bool) -> int:
    """Show the machine's memory, the live subprocesses, the backend and the log directory."""
    supervisor = Supervisor(resolve_settings=resolver(config), own_process=True)
    settings = supervisor.settings()
    status = MemoryMonitor(selector.system_memory).get_memory_status()
    backend, reason = _backend(supervisor, settings)
    status["cgmem"] |= {
        "live_subprocesses": len(live_scopes()),
        "backend": backend,
        "backend_reason": reason,
        "log_dir": str(supervisor.logs(settings).directory),
    }
    if as_json:
        print_json(status)
    else:
        _print(status)
    return 0


def _backend(supervisor: Supervisor, settings: Settings) -> tuple[str | None, str]:
    if settings.disabled:
        return None, f"memory monitoring is disabled ({settings.origins['disabled']})"
    try:
        choice = supervisor.choice(settings)
    except (BackendUnavailable, EnforcementError) as error:
        return None, str(error)
    return choice.backend.name, choice.reason


def _print(status: dict[str, Any]) -> None:
    memory, ours = status["system_memory"], status["cgmem"]
    available = f"{memory['available_mb']}MB available of {memory['total_mb']}MB"
    print_field("memory", f"{available} ({memory['percent']}% used)")
    if "headroom_mb" in ours:
        left = f"{ours['headroom_mb']}MB left, limited by {ours['headroom_source']}"
        print_field("own cgroup", left)
    # Coloured, so not for wrapping.
    print(f"{'level':<12}{coloured(status['level'])}")
    for alert in status["alerts"]:
        print_field("", alert["message"])
    count = ours["live_subprocesses"]
    print_field("live", f"{count} subprocess{'' if count == 1 else 'es'}")
    print_field("backend", ours["backend_reason"])
    print_field("logs", ours["log_dir"])
