"""What the verbs that read logs share: which directory, since when, and what was skipped."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import click

from cgmem.cli import options
from cgmem.cli.output import say
from cgmem.cli.setting_flags import given, resolver
from cgmem.errors import ConfigurationError
from cgmem.logs.reading import Line, Reader
from cgmem.supervising.supervisor import Supervisor

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")

log_dir_option = options.setting_option("log_dir", "DIR")

since_option = click.option(
    "--since", metavar="WHEN", help="Only what came after: 10m, 2h, 7d ago, or 2026-01-31T12:00."
)


def log_file(name: str, log_dir: str | None, config: str | None) -> Path:
    """Find a log file as `run` here would."""
    supervisor = Supervisor(resolve_settings=resolver(config))
    settings = supervisor.settings(given({"log_dir": log_dir}))
    return supervisor.logs(settings).directory / name


def since_when(text: str | None, *, now: float | None = None) -> float:
    """Seconds since the epoch that `--since` means; 0.0 without it. A bare time is local."""
    if text is None:
        return 0.0
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return (time.time() if now is None else now) - float(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ConfigurationError(
            f"--since: {text!r} is no time", hint="write 10m, 2h or 7d, or a date as 2026-01-31"
        ) from None


def reader(path: Path, accept: Callable[[Line], bool], log_dir: str | None) -> Reader:
    """A reader of one log file.

    Its directory is made at the first line, so one that is not there yet has no line. Raises
    `ConfigurationError` where `--log-dir` gave it: that is more likely a mistake.
    """
    if not path.parent.is_dir():
        if log_dir is not None:
            raise ConfigurationError(
                f"--log-dir: there is no directory {path.parent}",
                hint="cgmem status  # shows where logs go without it",
            )
        say(f"nothing is logged in {path.parent} yet; another directory: --log-dir DIR")
    return Reader(path, accept)


def tell_skipped(count: int) -> None:
    """Say on stderr how many lines were no lines of ours."""
    if count:
        noun = "line was" if count == 1 else "lines were"
        say(f"warning: {count} torn or foreign {noun} skipped")
