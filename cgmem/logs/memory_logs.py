"""The three log files of one directory, and which of their lines can wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cgmem.logs.directory import LogDirectory
from cgmem.logs.jsonlines import JsonLinesFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALERTS_FILE = "memory-alerts.log"
STATS_FILE = "subprocess-stats.jsonl"
MONITOR_FILE = "memory-monitor.log"


class MemoryLogs:
    """Takes lines as `cgmem.logs.lines` builds them. Touches nothing before the first line.

    Where that makes the directory, it makes all three files: who follows one can begin at once;
    `made` says that it has been made before. No method raises for a file's sake; `warn` gets one
    message per file that can't be written.
    """

    def __init__(self, directory: Path, warn: Callable[[str], None], *, made: bool = False) -> None:
        self.directory = directory
        names = ALERTS_FILE, STATS_FILE, MONITOR_FILE
        place = LogDirectory(directory, names, made=made)

        def file(name: str) -> JsonLinesFile:
            return JsonLinesFile(directory / name, warn=warn, make_directory=place.make)

        self._alerts, self._stats, self._monitor = map(file, names)

    def alert(self, line: Mapping[str, Any]) -> None:
        """Add an `alert_line`: written at once if its level is CRITICAL."""
        self._alerts.append(line, line["level"] == "CRITICAL")

    def stats(self, line: Mapping[str, Any]) -> None:
        """Add a `stats_line`: written at once."""
        self._stats.append(line, now=True)

    def monitor(self, line: Mapping[str, Any]) -> None:
        """Add a `monitor_line`: written at once if its level is CRITICAL."""
        self._monitor.append(line, line["level"] == "CRITICAL")

    def flush(self) -> bool:
        """Write what waits. True if something waits still."""
        return sum(file.flush() for file in self._files()) > 0

    def rest(self) -> bool:
        """Give up the descriptors of files in which no line waits. True if none waits in any.

        A later line opens its file again.
        """
        return sum(not file.rest() for file in self._files()) == 0

    def close(self) -> None:
        """Write what waits and give up the descriptors. A later line opens its file again."""
        for file in self._files():
            file.close()

    def _files(self) -> tuple[JsonLinesFile, ...]:
        return self._alerts, self._stats, self._monitor
