"""What began, what ended, what was logged, and whether it adds up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.chaos.stage import Stage

UNEXPLAINED = "unknown"

Marked = tuple[int, str, Path]
"""(pid, subprocess id, cgroup) of a living process of the test."""


class Ledger:
    """The books of one run. Called from the listeners' threads and from the driver."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.broken: list[str] = []
        self._round = ""
        self._kinds: Counter[str] = Counter()
        self._causes: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._started: set[str] = set()
        self._ended: dict[str, str] = {}
        self._vandalised: set[str] = set()
        self._starved: set[str] = set()
        self._warnings: Counter[str] = Counter()
        self._seen_inside = 0
        self._unobserved = 0

    def begin_round(self, number: int, fault: str) -> None:
        """Name the round in what is found broken."""
        self._round = f"round {number}, {fault}"
        self._faults[fault] += 1

    def heard(self, said: dict[str, Any]) -> None:
        """Take one line of a supervisor."""
        if "starting" in said:
            self._kinds[said["kind"]] += 1
        elif "started" in said:
            self._started.add(said["started"])
        elif "refused" in said:
            self._refused[said["error"].split(":")[0]] += 1
            if _seed_of(said["refused"]) not in self._vandalised | self._starved:
                self._break(f"{said['refused']}: not started: {said['error']}")
        elif "ended" in said:
            self._ended[said["ended"]] = said["cause"]
            self._causes[said["cause"]] += 1
            if said["cause"] == UNEXPLAINED and _seed_of(said["ended"]) not in self._vandalised:
                self._break(f"{said['ended']} ({said['kind']}): no cause: {said['message']}")
        elif "warning" in said:
            self._warnings[said["warning"].split(":")[0].split(" ")[0]] += 1

    def vandalised(self, seed: str) -> None:
        """Somebody removes this supervisor's cgroups, also those in which nothing runs yet."""
        self._vandalised.add(seed)

    def starved(self, seed: str) -> None:
        """This supervisor has not the descriptors that it takes to start something."""
        self._starved.add(seed)

    def left(self, status: int) -> None:
        """A supervisor ended by itself."""
        if status != 0:
            self._break(f"a supervisor ended with status {status}")

    def collected(self, status: int, stdout: str, stderr: str) -> None:
        """`cgmem gc` was run."""
        if status != 0:
            self._break(f"cgmem gc: exit {status}: {stderr.strip()[-500:]}")

    def check_inside(self, found: Iterable[Marked]) -> None:
        """See whether every process that lives is under a budget."""
        for pid, subprocess_id, cgroup in found:
            limit = (cgroup / "memory.max").read_text().strip() if cgroup.is_dir() else ""
            if limit == "max":
                self._break(f"process {pid} of {subprocess_id} has no budget, in {cgroup}")
            self._seen_inside += 1

    def check(self, stage: Stage, found: Iterable[Marked]) -> None:
        """See whether the invariants hold, now that the round is over and cleaned up."""
        for pid, subprocess_id, cgroup in found:
            self._break(f"process {pid} of {subprocess_id} outlives its scope, in {cgroup}")
        for scope in stage.scopes():
            self._break(f"scope {scope.name} remains")
        self._check_stats(stage)

    def counts(self) -> dict[str, Any]:
        """What was run and seen."""
        return {
            "seed": self.seed,
            "rounds": dict(self._faults),
            "subprocesses": dict(sorted(self._kinds.items())),
            "started": len(self._started),
            "ended under their supervisor": len(self._ended),
            "ended unobserved, told by gc": self._unobserved,
            "not started": dict(self._refused),
            "orphans seen inside a budget": self._seen_inside,
            "causes": dict(sorted(self._causes.items())),
            "warnings": dict(self._warnings),
            "broken": len(self.broken),
        }

    def _check_stats(self, stage: Stage) -> None:
        """Every subprocess that was started has one whole stats line."""
        lines: Counter[str] = Counter()
        self._unobserved = 0
        for directory in (stage.logs, stage.disk):
            for line in _lines(directory / "subprocess-stats.jsonl"):
                try:
                    found = json.loads(line)
                except ValueError:
                    if directory != stage.disk:  # a full disk may tear one, as docs say
                        self._break(f"torn line in {directory.name}: {line[:80]!r}")
                    continue
                lines[found["subprocess_id"]] += 1
                self._unobserved += bool(found["cgmem"].get("unobserved"))
        for subprocess_id, count in lines.items():
            if count > 1:
                self._break(f"{subprocess_id}: {count} stats lines")
        for subprocess_id in sorted(self._started - set(lines)):
            self._started.discard(subprocess_id)  # told once
            self._break(f"{subprocess_id}: no stats line")

    def _break(self, what: str) -> None:
        self.broken.append(f"{self._round}: {what}")


def _seed_of(subprocess_id: str) -> str:
    """The seed of the supervisor that has given this id."""
    return subprocess_id.removeprefix("chaos_").rpartition("_")[0]


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []
