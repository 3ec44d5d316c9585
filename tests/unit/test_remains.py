"""Which remains are told and how, and who can be taken over: on fake backends."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from cgmem import selector
from cgmem.config.settings import resolve
from cgmem.contract import MB, Counters, Limits, MemoryEvents, Scope, ScopeRecord, SystemMemory
from cgmem.errors import CgmemError, InvalidIdError, ScopeVanished, UnknownIdError
from cgmem.supervising.remains import Swept, find_orphan, sweep
from tests.unit.fakes import NOBODY, FakeBackend, FakeClock, FakeScope

SETTINGS = resolve({}, environ={}, cwd="/")
MEMORY = SystemMemory(8 << 30, 4 << 30)
KILLED = Counters(MemoryEvents(0, 9, 1, 2, 1), MemoryEvents(0, 9, 1, 2, 1), peak_bytes=64 * MB)


def left(name: str = "engineer_1", **changes: object) -> FakeScope:
    """What a dead supervisor has left of a subprocess."""
    record = ScopeRecord(
        name, NOBODY, 1, time.time() - 60, ("make",), max_bytes=64 * MB, log_dir="/var/log"
    )
    scope = FakeScope(FakeClock(), record._replace(**changes))  # type: ignore[arg-type]  # any
    scope.budget = Limits(None, 64 * MB)
    scope.living = []
    return scope


def with_remains(*scopes: FakeScope) -> FakeBackend:
    """A backend that finds these."""
    backend = FakeBackend(FakeClock())
    backend.left = list(scopes)
    backend.opened = list(scopes)
    return backend


def swept(*scopes: FakeScope, dry_run: bool = False) -> list[Swept | CgmemError]:
    """Sweep these."""
    found = list(sweep(with_remains(*scopes), SETTINGS, MEMORY, dry_run=dry_run))
    assert [scope.detached for scope in scopes] == [1] * len(scopes)
    return found


def test_an_end_that_nobody_saw() -> None:
    """It is told with what the scope still knew, and marked so."""
    scope = left()
    scope.next_counters = KILLED
    (found,) = swept(scope)
    assert isinstance(found, Swept)
    outcome = found.outcome

    assert outcome is not None
    assert outcome.unobserved
    assert outcome.cause == "hard_limit"
    assert (outcome.exit_code, outcome.signal, outcome.pid) == (None, None, None)
    assert outcome.peak_mb == 64.0
    assert 60 <= outcome.duration_seconds < 120
    assert outcome.log_dir == "/var/log"
    assert outcome.limits.max_bytes == 64 * MB
    assert outcome.aborted
    assert found.backend == "fake"


def test_an_end_by_itself_is_unknown() -> None:
    """Without a kill nobody can say how it ended."""
    (found,) = swept(left())

    assert isinstance(found, Swept)
    assert found.outcome is not None
    assert found.outcome.cause == "unknown"
    assert found.outcome.unobserved


def test_a_kill_of_one_process_is_not_its_end() -> None:
    """Without memory.oom.group the rest may have gone on."""
    scope = left()
    scope.next_counters = KILLED
    scope.budget = Limits(None, 64 * MB, oom_group=False)
    (found,) = swept(scope)

    assert isinstance(found, Swept)
    assert found.outcome is not None
    assert found.outcome.cause == "unknown"


@pytest.mark.parametrize("scope", [left(concluded=True), left("")], ids=["concluded", "spare"])
def test_what_has_no_end_to_tell(scope: FakeScope) -> None:
    """It is removed without a word: its end was told, or nothing ran in it."""
    (found,) = swept(scope)

    assert isinstance(found, Swept)
    assert found.outcome is None
    assert len(scope.asked("sweep")) == 1


def test_an_end_that_was_told(tmp_path: Path) -> None:
    """Whose supervisor was killed between the line and the removal is removed without a word."""
    scope = left(log_dir=str(tmp_path))
    told = ("started_at", "supervisor_pid", "supervisor_start")
    ours = {key: getattr(scope.record, key) for key in told}
    line = {"subprocess_id": "engineer_1", "cgmem": ours}
    (tmp_path / "subprocess-stats.jsonl").write_text(json.dumps(line) + "\n")
    (found,) = swept(scope)

    assert isinstance(found, Swept)
    assert found.outcome is None


def test_somebody_else_was_faster() -> None:
    """What another has removed, another tells of."""
    scope = left()
    scope.swept_by_us = False

    assert swept(scope) == []


def test_dry_run() -> None:
    """It is found and nothing is removed."""
    scope = left()

    assert len(swept(scope, dry_run=True)) == 1
    assert scope.asked("sweep") == []


def test_trouble_with_one() -> None:
    """What vanishes is passed over, what can't be removed is its error, and the rest goes on."""
    vanished, refused = left("a"), left("b")
    vanished.errors["counters"] = ScopeVanished("gone")
    refused.errors["sweep"] = trouble = CgmemError("no permission")
    found = swept(vanished, refused, left("c"))

    assert found[0] is trouble
    assert isinstance(found[1], Swept)
    assert len(found) == 2


def living(name: str = "engineer_1", **changes: object) -> FakeScope:
    """An orphan."""
    scope = left(name, **changes)
    scope.living = [1234]
    return scope


def test_find_an_orphan() -> None:
    """The one that lives and has no supervisor, the oldest of that name; the rest is let go of."""
    young, old, other, empty = living(), living(started_at=1.0), living("other"), left()
    backend = with_remains(young, old, other, empty)

    assert find_orphan("engineer_1", [backend]) == (backend, old)
    assert [scope.detached for scope in (young, old, other, empty)] == [1, 0, 1, 1]


def test_one_that_is_supervised(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is its supervisor's, which is named."""
    monkeypatch.setattr(selector, "is_supervised", lambda _record: True)
    scope = living()

    with pytest.raises(InvalidIdError, match=f"supervised by process {NOBODY}"):
        find_orphan("engineer_1", [with_remains(scope)])
    assert scope.detached == 1


def test_no_such_orphan() -> None:
    """Neither one that has ended nor one of another name."""
    with pytest.raises(UnknownIdError, match="'engineer_1'"):
        find_orphan("engineer_1", [with_remains(left(), living("other"))])


def test_a_backend_that_cannot_list() -> None:
    """It has no orphans."""

    class Broken(FakeBackend):
        def list_scopes(self) -> list[Scope]:
            raise CgmemError("no descriptors")

    scope = living()
    backend = with_remains(scope)

    assert find_orphan("engineer_1", [Broken(FakeClock()), backend]) == (backend, scope)
