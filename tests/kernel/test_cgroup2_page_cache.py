"""Page cache is the kernel's to take back: it raises no alarm and ends nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import cgmem
from tests.kernel import real_cgroups as real

FILE_MB = 300

WRITE_AND_READ = """
import os, sys
block = b"x" * (1 << 20)
with open(sys.argv[1], "wb") as file:
    for _ in range(int(sys.argv[2])):
        file.write(block)
with open(sys.argv[1], "rb") as file:
    while file.read(1 << 20):
        pass
"""


@pytest.fixture
def file() -> Iterator[Path]:
    """Name a file on a disk: on tmpfs it would be memory that can't be taken back."""
    real.need_cgroup2()
    path = Path("/var/tmp/cgmem-test-page-cache")
    yield path
    path.unlink(missing_ok=True)


def test_a_file_larger_than_the_budget_raises_no_alarm(tmp_path: Path, file: Path) -> None:
    """Writing and reading 300 MB within a 64 MB brake ends well, without an alert."""
    with real.supervising(
        tmp_path, tick=0.25, warning="48M", critical="64M", max="96M"
    ) as supervisor:
        outcome = cgmem.run(
            real.python(WRITE_AND_READ, file, FILE_MB), supervisor=supervisor, cwd="/"
        )

    assert outcome.cause == "exited"
    assert outcome.exit_code == 0
    assert outcome.warnings == ()
    assert outcome.events.oom_kill == 0
    assert outcome.events.high is not None
    assert outcome.events.high > 0, "the test proves nothing unless the brake was touched"
    assert outcome.peak_charged_mb is None or outcome.peak_charged_mb > 60
    assert outcome.peak_mb < 48
