"""For every unit test: a loaded machine is no failure, and a supervisor that works anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cgmem.supervising.supervisor import Supervisor
from tests.helpers import patient_hypothesis  # noqa: F401  (changes its defaults)
from tests.helpers.ending import end
from tests.unit.fake_cgroupfs import FakeCgroupfs
from tests.unit.fake_systemd import FakeSystemd, a_session, manager_of


@pytest.fixture
def how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Options for a supervisor of the test's own, on the backend that works anywhere."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    supervisor = Supervisor(
        {"backend": "psutil", "log_dir": str(tmp_path / "logs"), "preflight": False}
    )
    yield {"supervisor": supervisor}
    end(supervisor)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCgroupfs:
    """A host where this process is in a login session."""
    return a_session(tmp_path, monkeypatch)


@pytest.fixture
def systemd(session: FakeCgroupfs, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSystemd]:
    """A manager that gives scopes there."""
    with manager_of(session, monkeypatch) as made:
        yield made
