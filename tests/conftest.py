"""For every test: what lies around on this machine does not decide how it comes out."""

from __future__ import annotations

import pytest

from cgmem.config.config_file import FILE_NAMES
from cgmem.logs.directory import PROJECT_DIRECTORY


@pytest.fixture(scope="session", autouse=True)
def _nothing_above(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Settings and logs are looked for upwards, in the tests' temporary directories too."""
    for above in tmp_path_factory.getbasetemp().parents:
        for name in (*FILE_NAMES, PROJECT_DIRECTORY):
            path = above / name
            assert not path.exists(), f"{path} is in the tests' way: remove it, or set TMPDIR"
