"""`run --record FILE`: what was seen of a subprocess, tick by tick, as JSON lines.

The first line is the subprocess and its budget; then a line a tick (`t` seconds after the start),
with the alerts among them; the last line says how it ended.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from cgmem.contract import Alert
from cgmem.errors import ConfigurationError
from cgmem.judging import judge
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.supervision import Supervision
from cgmem.text.sizes import mb
from cgmem.text.words import shown


class Recording:
    """One file. Trouble with writing costs one warning and the rest of the recording."""

    def __init__(self, path: str, warn: Callable[[str], None]) -> None:
        """Raises `ConfigurationError` for a file that can't be written."""
        if path in ("", "-") or path.startswith("fd:"):
            raise ConfigurationError(
                f"--record takes the name of a file, not {shown(path)}",
                hint="cgmem run --record memory.jsonl -- CMD",
            )
        try:
            self._file = open(path, "w", encoding="utf-8")  # noqa: PTH123, SIM115  (until `close`)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigurationError(
                f"--record: {shown(path)} can't be written: {reason}",
                hint="name a file in a directory that you may write to",
            ) from error
        # The command has no use for it, nor has whatever it leaves behind.
        os.set_inheritable(self._file.fileno(), False)
        self._warn = warn
        self._broken = False
        self._began = time.monotonic()

    def begin(self, supervision: Supervision) -> None:
        """Write down whose it is."""
        self._began = time.monotonic()
        plan, record = supervision.plan, supervision.scope.record
        self._write(
            {
                "subprocess_id": record.subprocess_id,
                "command": list(record.command),
                "started_at": record.started_at,
                "backend": plan.backend,
                "tick_seconds": plan.settings.tick_seconds,
            }
        )

    def note(self, supervision: Supervision) -> None:
        """Write down the last look. `critical_mb` and so on are the budget as it is now."""
        sample, plan = supervision.watch.last_sample, supervision.plan
        if sample is None:
            return
        warning, critical, limit = (None if size is None else mb(size) for size in plan.thresholds)
        self._timed(
            level=supervision.level,
            judged_mb=mb(judge.judged_bytes(sample, plan.policy.accounting)),
            current_mb=mb(sample.current_bytes),
            warning_mb=warning,
            critical_mb=critical,
            max_mb=limit,
            frozen=sample.frozen,
        )

    def alert(self, alert: Alert) -> None:
        """Write down an alert."""
        self._timed(alert=alert.level, message=alert.message)

    def end(self, outcome: Outcome) -> None:
        """Write down how it ended, and close."""
        self._timed(cause=outcome.cause, message=outcome.message, peak_mb=outcome.peak_mb)
        self.close()

    def close(self) -> None:
        """Close the file."""
        if not self._file.closed:
            self._try(self._file.close)

    def _timed(self, **values: Any) -> None:
        self._write({"t": round(time.monotonic() - self._began, 3), **values})

    def _write(self, line: dict[str, Any]) -> None:
        def write() -> None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

        if not self._broken and not self._file.closed:
            self._try(write)

    def _try(self, do: Callable[[], object]) -> None:
        try:
            do()
        except OSError as error:
            if not self._broken:
                name = shown(self._file.name)
                self._warn(f"--record: {name}: {error.strerror}; not recorded further")
            self._broken = True
