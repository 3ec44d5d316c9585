"""`cgmem gc`: remove what supervisors that were killed have left, and tell its end."""

from __future__ import annotations

from typing import Any

import click

from cgmem import selector
from cgmem.cli import options
from cgmem.cli.errors import TROUBLE, complain, described
from cgmem.cli.output import print_json, print_table, say
from cgmem.cli.setting_flags import resolver
from cgmem.config.settings import Settings
from cgmem.errors import CgmemError
from cgmem.inspecting.live_scopes import LiveScope, live_scopes
from cgmem.supervising.journal import Journal
from cgmem.supervising.remains import Swept, sweep

EPILOG = """\b
Only what no process is in, of this user alone. A subprocess that ended while
nobody watched gets its line in subprocess-stats.jsonl, marked `unobserved`.
What still lives is named: `cgmem adopt ID` takes it over; where no kernel
holds its limits, only `cgmem kill ID` is left.

\b
Example:
  cgmem gc --dry-run

\b
Exit status:
  0  done, also when there is nothing   2  wrong usage, or something could not
  be removed
"""


@click.command("gc", epilog=EPILOG)
@click.option("--dry-run", is_flag=True, help="Remove nothing; show what would be.")
@options.config_option
@options.json_option
def command(dry_run: bool, config: str | None, as_json: bool) -> int:
    """Remove empty scopes whose supervisor is gone, and write down how they ended."""
    settings = resolver(config)({})
    swept, troubles = _sweep(settings, dry_run=dry_run)
    orphans = [live for live in live_scopes() if not live.supervised]
    for trouble in troubles:
        complain(described(trouble))
    if as_json:
        living = [live.record.subprocess_id for live in orphans]
        found = [_as_json(one) for one in swept]
        print_json({"dry_run": dry_run, "removed": found, "orphans": living})
    else:
        _print(swept, orphans, dry_run=dry_run)
    return TROUBLE if troubles else 0


def _sweep(settings: Settings, *, dry_run: bool) -> tuple[list[Swept], list[CgmemError]]:
    swept: list[Swept] = []
    troubles: list[CgmemError] = []
    memory = selector.system_memory()
    journal = Journal(lambda: memory, say)
    for name in selector.NAMES:
        try:
            for found in sweep(selector.load(name), settings, memory, dry_run=dry_run):
                if isinstance(found, CgmemError):
                    troubles.append(found)
                    continue
                swept.append(found)
                if found.outcome is not None and not dry_run:
                    journal.found(found.outcome)
        except CgmemError as error:
            troubles.append(error)
    journal.close()
    return swept, troubles


def _as_json(swept: Swept) -> dict[str, Any]:
    outcome = swept.outcome
    return {
        "subprocess_id": swept.record.subprocess_id or None,
        "backend": swept.backend,
        "location": swept.location,
        "outcome": None if outcome is None else outcome.as_json(),
    }


def _print(swept: list[Swept], orphans: list[LiveScope], *, dry_run: bool) -> None:
    if swept:
        print_table(("ID", "END", "BACKEND", "LOCATION"), map(_row, swept))
    done = "would be removed" if dry_run else "removed"
    print(f"{len(swept)} {done}")
    for live in orphans:
        name = live.record.subprocess_id
        verb = "adopt" if live.kernel_limits else "kill"
        say(f"{name} lives without a supervisor: cgmem {verb} {name}")


def _row(swept: Swept) -> tuple[str, ...]:
    end = "-" if swept.outcome is None else swept.outcome.cause
    return swept.record.subprocess_id or "-", end, swept.backend, swept.location
